"""Sealing a plan: its circuits' verifying keys, made here.

The digest of a sealed plan is what someone who has the model publishes, so that others can verify
without it. Keys are deterministic in (chunk model, settings, SRS, ezkl version), so everyone who
seals a plan under one SRS gets one digest. Nothing here comes from a store: what this machine's key
cache holds was made on this machine.
"""

from __future__ import annotations

from pathlib import Path

from zkml_ray.circuits.derive import CircuitFiles, DerivedCircuits
from zkml_ray.circuits.keycache import CachedKeys, KeyCache
from zkml_ray.circuits.srs import ensure_srs
from zkml_ray.schema.plan import SealedPlan, VerifyingKeyPin


def make_keys(files: CircuitFiles, srs_path: Path, srs_sha256: str) -> CachedKeys:
    """The keys of a chunk's circuit.

    Args:
        files: Its chunk model and settings.
        srs_path: SRS file of its logrows.
        srs_sha256: Its digest, checked by the caller.

    Raises:
        BackendError: ezkl cannot compile the circuit or make its keys.
    """
    cache = KeyCache()
    return cache.keys(cache.circuit(files.onnx, files.settings), srs_path, srs_sha256)


def seal(derived: DerivedCircuits) -> SealedPlan:
    """Seal a plan under this machine's SRS files.

    Args:
        derived: The plan and its circuits, derived here from the model.

    Raises:
        ConfigError: ZKML_RAY_SRS_DIR lacks a size.
        BackendError: ezkl cannot make the keys.
    """
    plan = derived.plan
    srs = {n: ensure_srs(n) for n in sorted({c.arguments.logrows for c in plan.chunks})}
    keys = {}
    for chunk in plan.chunks:
        file = srs[chunk.arguments.logrows]
        keys[chunk.id] = make_keys(derived.files[chunk.id], file.path, file.sha256).vk_sha256
    return SealedPlan(
        plan=plan,
        srs=tuple(file.pin() for file in srs.values()),
        verifying_keys=tuple(
            VerifyingKeyPin(chunk=chunk_id, sha256=sha256) for chunk_id, sha256 in keys.items()
        ),
    )
