"""This machine's cache of plans: the same model, choices, prices and code give the same plan.

A plan's search takes seconds, a warm proof not many more. What is kept is what the search found,
named by everything that it depends on, this package's source included. It is used to prove, never
to verify: a verifier derives circuits anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

from zkml_ray.canonical import canonical_json, document_digest, sha256_hex
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import CircuitFiles, DerivedCircuits
from zkml_ray.circuits.keycache import KeyCache
from zkml_ray.schema.plan import Plan
from zkml_ray.schema.profile import Profile
from zkml_ray.schema.request import PlanChoices

_PACKAGES = ("numpy", "onnx", "onnx-ir")


def kept_plan(
    model: bytes,
    choices: PlanChoices,
    profile: Profile,
    make: Callable[[], DerivedCircuits],
) -> DerivedCircuits:
    """The plan of a model, made if it is not kept.

    Args:
        model: The model's bytes.
        choices: Choices about the plan.
        profile: Prices.
        make: Makes the plan.

    Raises:
        ZkmlRayError: The model cannot be planned; nothing is kept then.
    """
    name = document_digest(
        {
            "model": sha256_hex(model),
            "choices": choices.model_dump(mode="json"),
            "profile": profile.digest(),
            "ezkl": backend.EZKL_VERSION,
            "code": _code_digest(),
            "packages": {package: metadata.version(package) for package in _PACKAGES},
        }
    )
    made: list[DerivedCircuits] = []

    def write(folder: Path) -> None:
        circuits = make()
        made.append(circuits)
        (folder / "plan.json").write_bytes(canonical_json(circuits.plan.model_dump(mode="json")))
        (folder / "notices.json").write_text(json.dumps(circuits.notices))
        (folder / "normalised.onnx").write_bytes(circuits.normalised)
        for index, table in enumerate(circuits.tables):
            (folder / f"table-{index}.bin").write_bytes(table)
        for chunk_id, files in circuits.files.items():
            (folder / f"{chunk_id}.onnx").write_bytes(files.onnx)
            (folder / f"{chunk_id}.settings.json").write_bytes(files.settings)
            if files.weights is not None:
                (folder / f"{chunk_id}.weights.bin").write_bytes(files.weights)

    folder, _ = KeyCache().entry("plans", name, write)
    return made[0] if made else _read(folder)


def _read(folder: Path) -> DerivedCircuits:
    plan = Plan.parse((folder / "plan.json").read_bytes(), what="kept plan")
    files = {
        chunk.id: CircuitFiles(
            onnx=(folder / f"{chunk.id}.onnx").read_bytes(),
            settings=(folder / f"{chunk.id}.settings.json").read_bytes(),
            weights=None
            if chunk.weights_sha256 is None
            else (folder / f"{chunk.id}.weights.bin").read_bytes(),
        )
        for chunk in plan.chunks
    }
    return DerivedCircuits(
        plan=plan,
        files=files,
        normalised=(folder / "normalised.onnx").read_bytes(),
        tables=tuple(
            (folder / f"table-{index}.bin").read_bytes() for index in range(len(plan.lookups))
        ),
        notices=tuple(json.loads((folder / "notices.json").read_text())),
    )


@cache
def _code_digest() -> str:
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in (root, root / "chunking", root / "commitments"):
        for path in sorted(folder.resolve().rglob("*.py")):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
