"""An attacker with full power over a store.

He holds a run's objects in memory, edits any of them, and re-hashes every reference, so that what
he shows is consistent with itself. Only proofs, pinned digests, links and the verifier's trust root
can tell it from an honest run.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from zkml_ray import names
from zkml_ray.api import Run
from zkml_ray.canonical import canonical_json, sha256_hex
from zkml_ray.circuits import backend
from zkml_ray.circuits.keycache import KeyCache
from zkml_ray.commitments.field import encode
from zkml_ray.errors import ArtifactNotFoundError, ObjectTooLargeError
from zkml_ray.schema.plan import SealedPlan
from zkml_ray.stages.witness import BoundaryValues, forward
from zkml_ray.stores.base import ArtifactStore, ObjectInfo, UnfinishedUpload
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.local import LocalStore
from zkml_ray.verifying.link import boundary_leaves, commitments
from zkml_ray.verifying.trust import TrustRoot
from zkml_ray.verifying.verifier import Verdict, verify_run

Json = dict[str, Any]


class MemoryStore(ArtifactStore):
    """Objects in a dict."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = dict(objects)

    @property
    def url(self) -> str:
        return "memory:"

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def put_file(self, key: str, path: Path, *, sha256: str | None = None) -> str:
        self.objects[key] = path.read_bytes()
        return sha256_hex(self.objects[key])

    def get(self, key: str, *, max_bytes: int) -> bytes:
        if key not in self.objects:
            raise ArtifactNotFoundError(f"no object {key}")
        if len(self.objects[key]) > max_bytes:
            raise ObjectTooLargeError(f"{key} has more than {max_bytes} bytes")
        return self.objects[key]

    def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> None:
        path.write_bytes(self.get(key, max_bytes=1 << 40 if max_bytes is None else max_bytes))

    def head(self, key: str) -> ObjectInfo | None:
        data = self.objects.get(key)
        return None if data is None else ObjectInfo(size_bytes=len(data))

    def keys(self, prefix: str) -> Iterator[str]:
        return iter(sorted(key for key in self.objects if key.startswith(prefix)))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        return iter(())

    def discard(self, upload: UnfinishedUpload) -> NoReturn:
        raise AssertionError("nothing is unfinished")


class Attacker:
    """One run's objects in memory."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.layout = RunLayout(run.project, run.run_id)
        disk = LocalStore(run.store.removeprefix("file://"))
        keys = {ref.key for ref in run.manifest.artifacts.values()} | {self.layout.manifest}
        self._honest = {key: disk.get(key, max_bytes=1 << 30) for key in keys}
        self.store = MemoryStore(self._honest)
        self.manifest: Json = {}
        self.reset()

    def reset(self) -> None:
        """Take every edit back."""
        self.store.objects = dict(self._honest)
        self.manifest = json.loads(self._honest[self.layout.manifest])

    def read(self, name: str) -> bytes:
        """An artifact's bytes, by logical name."""
        return self.store.objects[self.key(name)]

    def document(self, name: str) -> Json:
        """An artifact, parsed."""
        found: Json = json.loads(self.read(name))
        return found

    def key(self, name: str) -> str:
        """An artifact's key in the store."""
        key: str = self.manifest["artifacts"][name]["key"]
        return key

    def change_bytes(self, name: str, data: bytes) -> None:
        """Change an object in the store and nothing else."""
        self.store.objects[self.key(name)] = data

    def replace(self, name: str, data: bytes) -> None:
        """Put other bytes under a logical name, with a reference that fits them."""
        key = self.layout.run_key(f"forged/{sha256_hex(data)}")
        self.manifest["artifacts"][name] = self.store.store(key, data).model_dump(mode="json")

    def replace_document(self, name: str, document: Json) -> None:
        """`replace` with canonical JSON."""
        self.replace(name, canonical_json(document))

    def replace_plan(self, sealed: Json) -> str:
        """Put another sealed plan in place, and make the manifest agree with it everywhere."""
        data = canonical_json(sealed)
        digest = sha256_hex(data)
        self.replace(names.SEALED_PLAN, data)
        self.manifest["plan_sha256"] = digest
        self.manifest["statement"]["plan_sha256"] = digest
        self._agree_with(sealed)
        return digest

    def publish(self) -> None:
        """Write the edited manifest."""
        self.store.put(self.layout.manifest, canonical_json(self.manifest))

    def verify(self, trust: TrustRoot | None = None, *, allow_insecure_srs: bool = True) -> Verdict:
        """Publish, and verify as an outsider whose trust root is the honest plan's digest."""
        self.publish()
        return self.verify_stored(trust, allow_insecure_srs=allow_insecure_srs)

    def verify_stored(
        self, trust: TrustRoot | None = None, *, allow_insecure_srs: bool = True
    ) -> Verdict:
        """Verify what the store holds."""
        return verify_run(
            self.store,
            self.layout,
            trust or TrustRoot(plan_digest=self.run.plan_digest),
            allow_insecure_srs=allow_insecure_srs,
        )

    def take_over(self, other: Attacker) -> None:
        """Present another run's objects, statement and all, under this run's name."""
        self.store.objects |= other.store.objects
        manifest = json.loads(json.dumps(other.manifest))
        manifest["project"], manifest["run_id"] = self.layout.project, self.layout.run_id
        self.manifest = manifest

    def prove_again(self, salts: Mapping[str, list[int]]) -> None:
        """Prove the run's own input again, with chosen salts per boundary (prover and all)."""
        sealed = SealedPlan.parse(self.read(names.SEALED_PLAN), what="sealed plan")
        plan = sealed.plan
        boundaries = {boundary.name: boundary for boundary in plan.boundaries}
        shown = {r["boundary"]: r["values"] for r in self.manifest["statement"]["revealed"]}
        values = {
            name: BoundaryValues(values=shown[name], salts=salts[name])
            for name in plan.model_inputs
        }
        cache, instances = KeyCache(), {}
        with tempfile.TemporaryDirectory() as folder:
            for chunk in plan.chunks:
                circuit = cache.circuit(
                    self.read(names.chunk_model(chunk.id)), self.read(names.settings(chunk.id))
                )
                srs = Path(folder) / "srs"
                srs.write_bytes(self.read(names.srs(chunk.arguments.logrows)))
                keys = cache.keys(circuit, srs, hashlib.sha256(srs.read_bytes()).hexdigest())
                witness = Path(folder) / "witness.json"
                made = forward(
                    chunk,
                    boundaries,
                    circuit,
                    {name: values[name] for name in chunk.inputs},
                    {name: salts[name] for name in chunk.outputs},
                    witness,
                )
                values |= made.outgoing
                proof = backend.prove(chunk.id, witness, circuit.compiled, keys.pk, srs)
                instances[chunk.id] = proof.elements()
                self.replace(names.proof(chunk.id), proof.to_bytes())
        computed = commitments(plan, boundary_leaves(plan, instances))
        stated = [{"boundary": n, "commitment": encode(c)} for n, c in computed.items()]
        ends = {*plan.model_inputs, *plan.model_outputs}
        self.manifest["boundaries"] = stated
        self.manifest["statement"]["commitments"] = [s for s in stated if s["boundary"] in ends]
        self.manifest["statement"]["revealed"] = [
            {
                "boundary": entry["boundary"],
                "values": [int(v) for v in values[entry["boundary"]].values],
                "salts": list(salts[entry["boundary"]]),
            }
            for entry in self.manifest["statement"]["revealed"]
        ]

    def _agree_with(self, sealed: Json) -> None:
        plan = sealed.get("plan")
        if not isinstance(plan, dict):
            return
        try:
            pins = {names.MODEL: plan["model_sha256"], names.NORMALISED: plan["normalised_sha256"]}
            pins |= {names.srs(pin["logrows"]): pin["sha256"] for pin in sealed["srs"]}
            pins |= {
                names.verifier_srs(pin["logrows"]): pin["verifier_sha256"] for pin in sealed["srs"]
            }
            pins |= {
                names.verifying_key(pin["chunk"]): pin["sha256"] for pin in sealed["verifying_keys"]
            }
            for chunk in plan["chunks"]:
                pins[names.chunk_model(chunk["id"])] = chunk["onnx_sha256"]
                pins[names.settings(chunk["id"])] = chunk["settings_sha256"]
            insecure = any(pin["trust"] == "insecure" for pin in sealed["srs"])
            self.manifest["srs_trust"] = "insecure" if insecure else "ceremony"
            if isinstance(plan["model_sha256"], str):
                self.manifest["model_sha256"] = plan["model_sha256"]
            records = {record["chunk"]: record for record in self.manifest["chunks"]}
            some = next(iter(records.values()))
            if all(isinstance(chunk["id"], str) for chunk in plan["chunks"]):
                self.manifest["chunks"] = [
                    {**records.get(chunk["id"], some), "chunk": chunk["id"]}
                    for chunk in plan["chunks"]
                ]
        except (KeyError, TypeError):
            return
        for name, sha256 in pins.items():
            if name in self.manifest["artifacts"] and isinstance(sha256, str):
                self.manifest["artifacts"][name]["sha256"] = sha256
