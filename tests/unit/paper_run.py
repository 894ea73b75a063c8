"""A run on paper: a plan with a residual edge, values, salts, leaves and a manifest that agree.

Nothing was proved, so it says nothing about circuits: it is for the verifier's steps around them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from zkml_ray import names
from zkml_ray.canonical import sha256_hex
from zkml_ray.circuits import backend
from zkml_ray.commitments.field import encode
from zkml_ray.commitments.leaves import draw_salts, hash_leaves, pack_leaves
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.manifest import (
    BoundaryCommitment,
    ChunkRecord,
    InputSource,
    Manifest,
    RevealedBoundary,
    Span,
    Statement,
)
from zkml_ray.schema.plan import (
    BoundaryPlan,
    ChunkPlan,
    CircuitArguments,
    CommitmentArguments,
    LayoutSpec,
    Plan,
    SealedPlan,
    SrsPin,
    VerifyingKeyPin,
)
from zkml_ray.verifying.link import commitments

SHAPES = {"x": (1, 40), "h": (1, 60), "y": (1, 3)}
PRODUCERS = {"x": None, "h": "chunk-000", "y": "chunk-001"}
CONSUMERS = {"x": ("chunk-000", "chunk-001"), "h": ("chunk-001",), "y": ()}
SCALE = 7
LOGROWS = 10


def digest_of(what: str) -> str:
    return sha256_hex(what.encode())


HINTED_COMMITMENT = CommitmentArguments(
    decomp_base=128, decomp_legs=2, max_slots=64, salts_apart=True
)
"""Wide enough for values of 13 bits and a half."""


def paper_plan(commitment: CommitmentArguments | None = None, *, hinted: bool = False) -> Plan:
    """x -> chunk-000 -> h; x and h -> chunk-001 -> y."""
    commitment = commitment or (HINTED_COMMITMENT if hinted else None)
    commitment = commitment or CommitmentArguments(max_slots=32)
    packing = PackingSpec.for_decomposition(commitment.decomp_base, commitment.decomp_legs)
    boundaries = tuple(
        BoundaryPlan(
            name=name,
            shape=shape,
            scale=SCALE,
            producer=PRODUCERS[name],
            consumers=CONSUMERS[name],
            layout=LayoutSpec.of(commitment.leaf_layout(math.prod(shape), packing)),
        )
        for name, shape in SHAPES.items()
    )
    arguments = CircuitArguments(
        input_scale=SCALE,
        param_scale=SCALE,
        decomp_base=commitment.decomp_base,
        decomp_legs=commitment.decomp_legs,
        num_inner_cols=2,
        logrows=LOGROWS,
        **({"kind": "hinted", "range_bits": 5, "lookup_range": (0, 991)} if hinted else {}),
    )
    chunks = tuple(
        ChunkPlan(
            id=f"chunk-{index:03d}",
            nodes=(f"n{index}",),
            operators=("Gemm",),
            inputs=inputs,
            outputs=outputs,
            arguments=arguments,
            onnx_sha256=digest_of(f"model {index}"),
            settings_sha256=digest_of(f"settings {index}"),
            num_rows=1,
            poseidon_rows=1,
        )
        for index, (inputs, outputs) in enumerate([(("x",), ("h",)), (("x", "h"), ("y",))])
    )
    return Plan(
        ezkl_version=backend.EZKL_VERSION,
        model_sha256=digest_of("model"),
        normalised_sha256=digest_of("normalised"),
        dimensions=(),
        input_scale=SCALE,
        commitment=commitment,
        chunks=chunks,
        boundaries=boundaries,
        model_inputs=("x",),
        model_outputs=("y",),
    )


@dataclass(frozen=True)
class PaperRun:
    """What agrees.

    Attributes:
        sealed: The plan and its pins.
        values: Per boundary.
        salts: Per boundary.
        leaves: Per boundary, the hashes.
        instances: Per chunk, in the order of what it touches.
        manifest: Reveals x and y.
    """

    sealed: SealedPlan
    values: dict[str, list[int]]
    salts: dict[str, list[int]]
    leaves: dict[str, list[int]]
    instances: dict[str, list[int]]
    manifest: Manifest

    @property
    def plan(self) -> Plan:
        return self.sealed.plan


def paper_run(seed: int = 0) -> PaperRun:
    """A run; another seed gives other values and salts."""
    draw = np.random.default_rng(seed)
    plan = paper_plan()
    values, salts, leaves = {}, {}, {}
    for boundary in plan.boundaries:
        layout = boundary.layout.layout()
        name = boundary.name
        values[name] = [int(v) for v in draw.integers(-500, 500, size=layout.element_count)]
        salts[name] = list(draw_salts(layout, seed=b"paper %d" % seed, label=name))
        leaves[name] = hash_leaves(pack_leaves(values[name], salts[name], layout))
    instances = {
        chunk.id: [leaf for name in chunk.touched() for leaf in leaves[name]]
        for chunk in plan.chunks
    }
    sealed = SealedPlan(
        plan=plan,
        srs=(
            SrsPin(
                logrows=LOGROWS,
                sha256=digest_of("srs"),
                verifier_sha256=digest_of("part"),
                trust="insecure",
            ),
        ),
        verifying_keys=tuple(
            VerifyingKeyPin(chunk=chunk.id, sha256=digest_of(f"key {chunk.id}"))
            for chunk in plan.chunks
        ),
    )
    stated = tuple(
        BoundaryCommitment(boundary=name, commitment=encode(value))
        for name, value in commitments(plan, leaves).items()
    )
    span = Span(started_s=0.0, ended_s=1.0)
    manifest = Manifest(
        project="paper",
        run_id="run",
        created_at="2026-01-01T00:00:00Z",
        model_file="model.onnx",
        model_sha256=plan.model_sha256,
        plan_sha256=sealed.digest(),
        srs_trust="insecure",
        statement=Statement(
            plan_sha256=sealed.digest(),
            commitments=tuple(s for s in stated if s.boundary in ("x", "y")),
            revealed=tuple(
                RevealedBoundary(
                    boundary=name, values=tuple(values[name]), salts=tuple(salts[name])
                )
                for name in ("x", "y")
            ),
        ),
        boundaries=stated,
        artifacts={
            names.proof(chunk.id): ArtifactRef(
                key=f"proofs/{chunk.id}", sha256=digest_of(chunk.id), size_bytes=1
            )
            for chunk in plan.chunks
        },
        chunks=tuple(
            ChunkRecord(
                chunk=chunk.id,
                worker="w",
                pid=1,
                node="n",
                threads=1,
                attempts=1,
                keys_made=True,
                setup=span,
                witness=span,
                prove=span,
                verify_s=0.0,
                peak_rss_bytes=1,
                proof_bytes=1,
            )
            for chunk in plan.chunks
        ),
        stages=(),
        input_source=InputSource(kind="given"),
        accuracy=None,
        comparison=None,
        versions={},
        command=(),
        warnings=(),
    )
    return PaperRun(sealed, values, salts, leaves, instances, manifest)
