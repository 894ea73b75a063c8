"""Assembling a linked run: the sealed plan, the statement and the manifest.

Takes only what has been checked: instances of proofs that verified, keys they verified under.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata

import numpy as np
import numpy.typing as npt

from zkml_ray.circuits.srs import SrsFile
from zkml_ray.commitments.field import encode
from zkml_ray.errors import ConfigError
from zkml_ray.run.journal import Journal
from zkml_ray.schema.manifest import (
    Accuracy,
    BoundaryCommitment,
    ChunkRecord,
    Comparison,
    Manifest,
    RevealedBoundary,
    StageRecord,
    StatedPlaces,
    Statement,
)
from zkml_ray.schema.plan import Plan, SealedPlan, VerifyingKeyPin
from zkml_ray.schema.request import RunRequest
from zkml_ray.stages.witness import BoundaryValues
from zkml_ray.verifying.link import boundary_leaves, commitments
from zkml_ray.verifying.verdict import LEAKY_NATIVE


def revealed_names(plan: Plan, request: RunRequest) -> tuple[str, ...]:
    """The boundaries that a run's statement opens, in plan order.

    Raises:
        ConfigError: The request names a boundary that the plan lacks.
    """
    known = [boundary.name for boundary in plan.boundaries]
    wanted = {*plan.model_inputs, *plan.model_outputs}
    if request.reveal is not None:
        wanted = set(request.reveal)
        if unknown := sorted(wanted - set(known)):
            raise ConfigError(
                f"cannot reveal {', '.join(unknown)}: the plan's boundaries are {', '.join(known)}"
            )
    if request.private_input:
        wanted -= set(plan.model_inputs)
    for lookup in plan.lookups:
        if lookup.boundary not in wanted:
            raise ConfigError(
                f"input {lookup.input} is to stay hidden, but this plan looks rows up at its "
                "numbers outside of circuits, which only shown ones allow: use --tokens hidden "
                '(tokens="hidden"), or reveal it'
            )
    return tuple(name for name in known if name in wanted)


def check_leaks(plan: Plan, request: RunRequest) -> str | None:
    """Hidden inputs are proved by circuits that hide them, unless the request says otherwise.

    Returns:
        What a reader of the manifest should know; None where nothing leaks.

    Raises:
        ConfigError: An input is hidden, a circuit is native, and that was not allowed.
    """
    hidden = sorted(set(plan.model_inputs) - set(revealed_names(plan, request)))
    native = [chunk.id for chunk in plan.chunks if chunk.arguments.kind == "native"]
    if not hidden or not native:
        return None
    if not request.allow_leaky_native:
        raise ConfigError(
            f"input {', '.join(hidden)} is to stay hidden, but {native[0]} "
            f"({len(native)} of {len(plan.chunks)}) has a native circuit, whose proof shows how "
            "many values are negative, zero and positive, so that a guess can be tested: use "
            "--circuits hinted, or accept that with --allow-leaky-native (allow_leaky_native=True)"
        )
    return f"input {', '.join(hidden)} is hidden, and {LEAKY_NATIVE}"


def assemble(
    *,
    request: RunRequest,
    plan: Plan,
    srs: Mapping[int, SrsFile],
    vk_sha256: Mapping[str, str],
    instances: Mapping[str, Sequence[int]],
    values: Mapping[str, BoundaryValues],
    records: Mapping[str, ChunkRecord],
    journal: Journal,
    stages: Sequence[StageRecord],
    accuracy: Accuracy | None,
    comparison: Comparison,
    warnings: Sequence[str],
    arrays: Mapping[str, npt.NDArray[np.float32]],
) -> Manifest:
    """Link a run's proofs and describe the result. Stores the sealed plan, not the manifest.

    Args:
        request: What was asked.
        plan: Its plan.
        srs: Per logrows, the SRS.
        vk_sha256: Per chunk, digest of the key that its proof verified under.
        instances: Per chunk, the public instances of its verified proof.
        values: Per boundary, its values and salts.
        records: Per chunk, how it was proved.
        journal: The run's objects.
        stages: Times of the stages so far.
        accuracy: Difference from the float model.
        comparison: The same, output by output.
        warnings: What a reader should know.
        arrays: The model's input, by name.

    Raises:
        BoundaryMismatchError: Two chunks show different leaves for one boundary.
    """
    computed = commitments(plan, boundary_leaves(plan, instances))
    sealed = SealedPlan(
        plan=plan,
        srs=tuple(file.pin() for file in srs.values()),
        verifying_keys=tuple(
            VerifyingKeyPin(chunk=chunk.id, sha256=vk_sha256[chunk.id]) for chunk in plan.chunks
        ),
    )
    plan_sha256 = journal.seal(sealed)
    ends = {*plan.model_inputs, *plan.model_outputs}
    stated = tuple(
        BoundaryCommitment(boundary=name, commitment=encode(value))
        for name, value in computed.items()
    )
    revealed = tuple(
        RevealedBoundary(
            boundary=name, values=tuple(values[name].values), salts=tuple(values[name].salts)
        )
        for name in revealed_names(plan, request)
    )
    return Manifest(
        project=request.project,
        run_id=request.run_id,
        created_at=request.created_at,
        model_file=request.model_file,
        model_sha256=plan.model_sha256,
        plan_sha256=plan_sha256,
        srs_trust=sealed.srs_trust(),
        statement=Statement(
            plan_sha256=plan_sha256,
            commitments=tuple(entry for entry in stated if entry.boundary in ends),
            revealed=revealed,
            **_places(plan, arrays),
        ),
        boundaries=stated,
        artifacts=dict(journal.artifacts),
        chunks=tuple(records[chunk.id] for chunk in plan.chunks),
        stages=tuple(stages),
        input_source=request.input_source,
        accuracy=accuracy,
        comparison=comparison,
        versions=_versions(),
        command=request.command,
        warnings=tuple(warnings),
    )


def _places(
    plan: Plan, arrays: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, tuple[StatedPlaces, ...]]:
    """The statement's places, where the plan looks something up."""
    inputs = dict.fromkeys(lookup.input for lookup in plan.lookups)
    stated = tuple(
        StatedPlaces(input=name, places=tuple(int(v) for v in arrays[name].ravel()))
        for name in inputs
    )
    return {"places": stated} if stated else {}


def _versions() -> dict[str, str]:
    packages = ("zkml-ray", "ezkl", "onnx", "onnx-ir", "onnxruntime", "ray", "numpy")
    found = {name: metadata.version(name) for name in packages}
    found["python"] = platform.python_version()
    found["platform"] = f"{sys.platform}-{platform.machine()}"
    return found
