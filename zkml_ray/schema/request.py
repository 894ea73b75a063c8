"""What a run keeps in the store while it is under way, so that another machine can go on.

None of these documents is read by a verifier. What they say is checked before it is used: a
finished chunk's proof must show the instances that the checkpoints give, and verify.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zkml_ray.limits import MAX_RANGE_BITS
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.document import Document, Name, Sha256, Text
from zkml_ray.schema.manifest import ChunkRecord, InputSource, RunName
from zkml_ray.schema.plan import Dimension, Products, Scale, SrsPin

PositiveError = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PlanChoices(Document):
    """A user's choices about a plan (see `zkml_ray.stages.plan.PlanOptions`)."""

    scale: Scale
    layers_per_chunk: Annotated[int, Field(ge=1)] | None
    workers: Annotated[int, Field(ge=1)]
    memory_bytes: Annotated[int, Field(ge=1, le=1 << 53)] | None
    dimensions: tuple[tuple[Text, Dimension], ...]
    salted: bool
    max_leaf_slots: Annotated[int, Field(ge=8, le=1 << 16)]
    passes: tuple[Name, ...] | None = None
    circuits: Literal["auto", "hinted", "native"] = "auto"
    range_bits: Annotated[int, Field(ge=0, le=MAX_RANGE_BITS)] = 5
    products: Products = "packed"
    tokens: Literal["revealed", "hidden"] = "revealed"


class RunRequest(Document):
    """Everything that a run was asked to do.

    Attributes:
        format: Version of this schema.
        project: Project in the store.
        run_id: Id of the run.
        created_at: UTC time, ISO 8601.
        model_file: The model file's name, for people.
        model: The model.
        input: The input (private).
        input_source: Where the input came from.
        choices: Choices about the plan.
        reveal: Boundaries that the statement opens; None: the model's inputs and outputs.
        private_input: Do not reveal the inputs.
        allow_leaky_native: Hide inputs behind native circuits all the same, whose proofs show
            counts of their values' signs.
        keep_checkpoints: Keep boundary values and salts when the run is complete.
        seeded_salts: Whether salts came from a given seed (the seed itself is not kept).
        max_error: Largest accepted difference of an output from the float model's.
        command: The command that made the run.
    """

    format: Literal["zkml_ray/request/1"] = "zkml_ray/request/1"
    project: RunName
    run_id: RunName
    created_at: Text
    model_file: Text
    model: ArtifactRef
    input: ArtifactRef
    input_source: InputSource
    choices: PlanChoices
    reveal: tuple[Name, ...] | None
    private_input: bool
    allow_leaky_native: bool = False
    keep_checkpoints: bool
    seeded_salts: bool
    max_error: Literal["default", "none"] | PositiveError = "default"
    command: tuple[Text, ...]


class StoredTensor(Document):
    """One input tensor: float32 values as decimals that restore them exactly."""

    name: Name
    values: tuple[float, ...]


class StoredInput(Document):
    """A run's input.

    Attributes:
        format: Version of this schema.
        run_id: The run.
        salt: 256 random bits. The manifest shows this document's digest; without them a guess of
            a hidden input could be tested against it.
        tensors: The input, tensor by tensor.
    """

    format: Literal["zkml_ray/input/1"] = "zkml_ray/input/1"
    run_id: RunName
    salt: Sha256
    tensors: tuple[StoredTensor, ...]


class ChosenSrs(Document):
    """The SRS files of a run: another machine must go on with the same."""

    format: Literal["zkml_ray/srs/1"] = "zkml_ray/srs/1"
    pins: tuple[SrsPin, ...]


class FinishedChunk(Document):
    """A chunk that is proved. It counts once its proof is stored, which happens after it.

    Attributes:
        format: Version of this schema.
        run_id: The run.
        record: How it was proved.
        vk: Its verifying key.
        proof: Its proof.
    """

    format: Literal["zkml_ray/finished/1"] = "zkml_ray/finished/1"
    run_id: RunName
    record: ChunkRecord
    vk: ArtifactRef
    proof: ArtifactRef
