"""What atheris runs: `verify` and every parser behind it, guided by coverage. No test by itself.

    python tests/soundness/fuzz_target.py BUNDLE PLAN_DIGEST CORPUS [libFuzzer options]

An input's first byte chooses what the rest takes the place of: the manifest, the sealed plan, a
proof, a settings file (with a reference that fits it, and for the plan with itself as trust root),
the whole bundle, or an opening. Anything but a refusal ends the process with an error.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["zkml_ray", "zipfile"]):
    from zkml_ray import names
    from zkml_ray.canonical import canonical_json, sha256_hex
    from zkml_ray.commitments.opening import parse_opening
    from zkml_ray.errors import VerificationError
    from zkml_ray.schema.manifest import Manifest
    from zkml_ray.stores.layout import RunLayout
    from zkml_ray.stores.local import LocalStore
    from zkml_ray.verifying.bundle import BundleStore
    from zkml_ray.verifying.trust import TrustRoot
    from zkml_ray.verifying.verifier import verify_run

KINDS = ("manifest", "plan", "proof", "settings", "bundle", "opening")
PATHS = {
    "plan": names.SEALED_PLAN,
    "proof": names.proof("chunk-000"),
    "settings": names.settings("chunk-000"),
}


class Target:
    """One honest run, and what an input makes of it."""

    def __init__(self, bundle: Path, digest: str, folder: Path) -> None:
        honest = BundleStore(bundle)
        self._layout = honest.layout
        self._digest = digest
        self._bundle = folder / "fuzzed.zip"
        self._store = LocalStore(str(folder / "store"))
        for key in honest.keys(""):
            self._store.put(key, honest.get(key, max_bytes=1 << 30))
        self._data = self._store.get(self._layout.manifest, max_bytes=1 << 30)
        self._manifest = Manifest.parse(self._data, what="manifest")

    def seeds(self) -> list[bytes]:
        """An honest input of each kind that has one."""
        found = {"manifest": self._data, "opening": b"{}"}
        for kind, name in PATHS.items():
            found[kind] = self._store.read_verified(self._manifest.artifacts[name])
        return [bytes([KINDS.index(kind)]) + data for kind, data in found.items()]

    def __call__(self, data: bytes) -> None:
        """Refuse, or hold."""
        kind, rest = KINDS[data[0] % len(KINDS)] if data else "manifest", data[1:]
        try:
            if kind == "opening":
                parse_opening(rest)
            elif kind == "bundle":
                self._bundle.write_bytes(rest)
                store = BundleStore(self._bundle)
                self._verify(store, store.layout, self._digest)
            else:
                self._verify_with(kind, rest)
        except VerificationError as refused:
            if refused.code == "malformed":
                raise RuntimeError("refused by the net below every check") from refused

    def _verify_with(self, kind: str, rest: bytes) -> None:
        manifest, digest = rest, self._digest
        if kind != "manifest":
            document = self._manifest.model_dump(mode="json")
            ref = self._store.store(self._layout.run_key("fuzzed"), rest)
            document["artifacts"][PATHS[kind]] = ref.model_dump(mode="json")
            if kind == "plan":
                digest = sha256_hex(rest)
                document["plan_sha256"] = document["statement"]["plan_sha256"] = digest
            manifest = canonical_json(document)
        self._store.put(self._layout.manifest, manifest)
        self._verify(self._store, self._layout, digest)

    @staticmethod
    def _verify(store: LocalStore | BundleStore, layout: RunLayout, digest: str) -> None:
        verify_run(store, layout, TrustRoot(plan_digest=digest), allow_insecure_srs=True)


def main() -> None:
    """Fuzz; libFuzzer ends the process."""
    program, bundle, digest, corpus, *options = sys.argv
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(bundle), digest, Path(folder))
        for index, seed in enumerate(target.seeds()):
            (Path(corpus) / f"seed-{index}").write_bytes(seed)
        (Path(corpus) / "seed-bundle").write_bytes(
            bytes([KINDS.index("bundle")]) + Path(bundle).read_bytes()
        )
        atheris.Setup([program, corpus, *options], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
