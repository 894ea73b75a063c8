"""An attacker with full power over a store: reads a run, edits it, and re-hashes every reference.

What it writes is consistent with itself; only proofs, pinned digests, links and the trust root can
tell it from an honest run.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from zkml_ray import names
from zkml_ray.api import Run
from zkml_ray.canonical import canonical_json, sha256_hex
from zkml_ray.schema.manifest import Manifest
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.local import LocalStore
from zkml_ray.trust import TrustRoot
from zkml_ray.verifier import Verdict, verify_run


class Attacker:
    """A copy of a store, one run of which is edited in memory and written back."""

    def __init__(self, run: Run, folder: Path) -> None:
        shutil.copytree(run.store.removeprefix("file://"), folder, dirs_exist_ok=True)
        self.run = run
        self.store = LocalStore(folder)
        self.layout = RunLayout(run.project, run.run_id)
        self.manifest: dict[str, Any] = run.manifest.model_dump(mode="json")

    def read(self, name: str) -> bytes:
        """An artifact's bytes, by logical name."""
        return self.store.get(self.manifest["artifacts"][name]["key"], max_bytes=1 << 30)

    def replace(self, name: str, data: bytes) -> None:
        """Put other bytes under a logical name, with a reference that fits them."""
        key = self.layout.run_key(f"forged/{sha256_hex(data)}")
        self.manifest["artifacts"][name] = self.store.store(key, data).model_dump(mode="json")

    def replace_plan(self, sealed: dict[str, Any]) -> str:
        """Put another sealed plan in place, and name it everywhere. Returns its digest."""
        data = canonical_json(sealed)
        self.replace(names.SEALED_PLAN, data)
        self.manifest["plan_sha256"] = sha256_hex(data)
        self.manifest["statement"]["plan_sha256"] = sha256_hex(data)
        return sha256_hex(data)

    def publish(self) -> None:
        """Write the edited manifest."""
        self.store.put(self.layout.manifest, canonical_json(self.manifest))

    def verify(self, trust: TrustRoot | None = None, *, allow_insecure_srs: bool = True) -> Verdict:
        """Publish, and verify as an outsider whose trust root is the honest plan's digest."""
        self.publish()
        return verify_run(
            self.store,
            self.layout,
            trust or TrustRoot(plan_digest=self.run.plan_digest),
            allow_insecure_srs=allow_insecure_srs,
        )

    def parsed(self) -> Manifest:
        """The manifest as it would be parsed."""
        return Manifest.parse(canonical_json(self.manifest), what="manifest")
