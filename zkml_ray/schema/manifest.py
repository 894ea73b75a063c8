"""The manifest: what a run is, where its artifacts lie, and how it was made.

Only the parts that a verifier can check carry weight: the sealed plan's digest, the artifact
references (by digest), the boundary commitments and the statement. Timings, workers, versions and
the command are the prover's account and prove nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.document import ChunkId, Document, Felt, Integer, Name, Sha256, Text

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Seconds since the Unix epoch, or a duration."""
Error = Annotated[float, Field(allow_inf_nan=False)]
RunName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Elements = Annotated[tuple[Integer, ...], Field(max_length=1 << 22)]
Boundaries = Field(max_length=100_000)
Place = Annotated[int, Field(ge=0, lt=1 << 24)]
Chunks = Field(max_length=10_000)


class BoundaryCommitment(Document):
    """A boundary and its Poseidon-Merkle commitment."""

    boundary: Name
    commitment: Felt


class RevealedBoundary(Document):
    """A boundary that the statement opens: anyone can re-compute its commitment.

    Attributes:
        boundary: Its name.
        values: Quantised elements, flat, row-major; real value = element / 2^scale.
        salts: The salts of its leaves.
    """

    boundary: Name
    values: Elements
    salts: Elements


class StatedPlaces(Document):
    """Where rows were looked up outside of circuits (`LookupPlan`): tokens, for people.

    Attributes:
        input: The model's input.
        places: Its elements, flat, row-major.
    """

    input: Name
    places: Annotated[tuple[Place, ...], Field(max_length=1 << 22)]


class Statement(Document):
    """What the run claims to prove.

    "The model of this plan maps the committed input to the committed output; the revealed
    boundaries have these values."

    Attributes:
        plan_sha256: Digest of the sealed plan.
        commitments: Commitments of the model's inputs and outputs, in plan order.
        revealed: The boundaries whose values are shown, in plan order.
        places: Inputs at which the plan looks rows up; a statement without any does not name them.
    """

    plan_sha256: Sha256
    commitments: Annotated[tuple[BoundaryCommitment, ...], Boundaries]
    revealed: Annotated[tuple[RevealedBoundary, ...], Boundaries]
    places: Annotated[tuple[StatedPlaces, ...], Field(max_length=1_000)] = ()

    @model_validator(mode="after")
    def _one_spelling(self) -> Statement:
        if not self.places and "places" in self.model_fields_set:
            raise ValueError("a statement of no look-ups does not name places")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = dumped(self)
        if not self.places:
            del document["places"]
        return document


class Span(Document):
    """A time span, in seconds since the Unix epoch."""

    started_s: Seconds
    ended_s: Seconds

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.ended_s - self.started_s


class ChunkRecord(Document):
    """How one chunk was proved.

    Attributes:
        chunk: Its id.
        worker: Name of the worker.
        pid: Process id of the worker on its node.
        node: The node's name.
        threads: Threads given to the prover.
        attempts: Attempts until it was proved, 1 or more.
        keys_made: Whether the keys were made for this run (False: they were cached).
        setup: Time of compiling and key generation or cache look-up.
        witness: Time of regenerating the witness on the worker.
        prove: Time of proving.
        verify_s: Seconds the coordinator took to verify the proof.
        peak_rss_bytes: Largest resident set of the worker while it had this chunk.
        proof_bytes: Length of the proof itself.
    """

    chunk: ChunkId
    worker: Text
    pid: Integer
    node: Text
    threads: Integer
    attempts: Annotated[Integer, Field(ge=1)]
    keys_made: bool
    setup: Span
    witness: Span
    prove: Span
    verify_s: Seconds
    peak_rss_bytes: Integer
    proof_bytes: Integer


class StageRecord(Document):
    """When a stage of the whole run began and ended."""

    stage: Text
    span: Span


class InputSource(Document):
    """Where the input came from.

    Attributes:
        kind: "given", or "random" when the user gave none.
        seed: The seed of a random input.
    """

    kind: Literal["given", "random"]
    seed: Integer | None = None


class Accuracy(Document):
    """How far the proved output is from the float model's, for people: not proved.

    Attributes:
        max_abs_error: Largest absolute difference over all outputs.
        mean_abs_error: Mean absolute difference.
    """

    max_abs_error: Error
    mean_abs_error: Error


class OutputComparison(Document):
    """How far one proved output is from the float model's.

    Attributes:
        output: Its name.
        max_abs_error: Largest absolute difference of an element; None where it is no number.
        tolerance: The largest difference that was accepted; None: any.
        note: Why there is no number: not finite, another shape, or nothing to compare with.
    """

    output: Name
    max_abs_error: Error | None
    tolerance: Error | None
    note: Text


class Comparison(Document):
    """What the prover compared the proved outputs with before proving. The prover's word alone.

    Attributes:
        reference: What gave the float values; empty where nothing did.
        note: What a reader should know about that.
        outputs: Every output of the model, in plan order.
    """

    reference: Text
    note: Text
    outputs: Annotated[tuple[OutputComparison, ...], Field(max_length=1_000)]


class Manifest(Document):
    """A run.

    Attributes:
        format: Version of this schema.
        project: Project it belongs to.
        run_id: Its id, unique in the project.
        created_at: UTC time, ISO 8601.
        model_file: The model file's name, for people.
        model_sha256: Its digest.
        plan_sha256: Digest of the sealed plan.
        srs_trust: "insecure" or "ceremony".
        statement: What is claimed.
        boundaries: Commitment of every boundary, in plan order.
        artifacts: Logical name -> reference.
        chunks: How every chunk was proved, in plan order.
        stages: When every stage began and ended.
        input_source: Where the input came from.
        accuracy: Difference from the float model; None where one output has none in numbers.
        comparison: The same, output by output, and what was accepted; from version 2 on.
        versions: Package versions of the prover.
        command: The command that made the run.
        warnings: What a reader should know before relying on it.
    """

    format: Literal["zkml_ray/manifest/1", "zkml_ray/manifest/2"] = "zkml_ray/manifest/2"
    project: RunName
    run_id: RunName
    created_at: Text
    model_file: Text
    model_sha256: Sha256
    plan_sha256: Sha256
    srs_trust: Literal["insecure", "ceremony"]
    statement: Statement
    boundaries: Annotated[tuple[BoundaryCommitment, ...], Boundaries]
    artifacts: Annotated[dict[Name, ArtifactRef], Field(max_length=1_000_000)]
    chunks: Annotated[tuple[ChunkRecord, ...], Chunks]
    stages: Annotated[tuple[StageRecord, ...], Field(max_length=1_000)]
    input_source: InputSource
    accuracy: Accuracy | None
    comparison: Comparison | None = None
    versions: Annotated[dict[Name, Text], Field(max_length=1_000)]
    command: Annotated[tuple[Text, ...], Field(max_length=1_000)]
    warnings: Annotated[tuple[Text, ...], Field(max_length=1_000)]

    @model_validator(mode="after")
    def _of_its_version(self) -> Manifest:
        first = self.format == "zkml_ray/manifest/1"
        if first == ("comparison" in self.model_fields_set):
            raise ValueError("comparison is a field of zkml_ray/manifest/2, and of no other")
        return self

    @model_serializer(mode="wrap")
    def _in_its_version(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = dumped(self)
        if self.format == "zkml_ray/manifest/1":
            del document["comparison"]
        return document
