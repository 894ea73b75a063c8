"""The plan: how a model becomes circuits.

Two layers. `Plan` holds all that follows from the model and the chosen arguments, before any key
exists: the partition into chunks, every circuit's arguments, and the digests of the chunk models
and settings. `SealedPlan` adds what setup adds: the SRS and the digest of every verifying key.
The digest of the sealed plan is a trust root: it pins everything that `ezkl.verify` is handed.

Nothing in here depends on an input or on a machine's speed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from zkml_ray.commitments.leaves import LeafLayout, salts_for
from zkml_ray.commitments.merkle import BoundaryMetadata
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.limits import MAX_BOUNDARY_SCALE, MAX_RANGE_BITS
from zkml_ray.schema.document import ChunkId, Document, Integer, Name, Sha256

Dimension = Annotated[int, Field(ge=1, le=1 << 31)]
Count = Annotated[int, Field(ge=0, le=1 << 40)]
Scale = Annotated[int, Field(ge=0, le=MAX_BOUNDARY_SCALE)]
Names = Annotated[tuple[Name, ...], Field(max_length=100_000)]
Products: TypeAlias = Literal["packed", "challenge"]
Shape = Annotated[tuple[Dimension, ...], Field(max_length=16)]


class CircuitArguments(Document):
    """The ezkl run arguments that a plan may choose; all others are fixed by the backend.

    Attributes:
        input_scale: log2 of the fixed-point denominator of every incoming tensor.
        param_scale: The same for weights.
        scale_rebase_multiplier: A result is divided back once its scale exceeds
            input_scale times this.
        decomp_base: Base of the range-check decomposition.
        decomp_legs: Digits of the decomposition; values lie in +-(base^legs - 1).
        num_inner_cols: Columns of the inner products.
        logrows: log2 of the circuit's rows.
        lookup_range: Inclusive bounds of lookup-table inputs (used only by circuits with tables).
        kind: "native": ezkl computes and rounds; "hinted": results are given and checked, in
            whole numbers (`zkml_ray.chunking.hinted`). A hinted circuit's scale is that of its
            rounded values; weights' scale follows from `logrows`.
        range_bits: Rounded values of a hinted circuit may reach 2^range_bits, as real numbers.
        products: How a hinted circuit checks products: "packed": inside, several in one field
            element; "challenge": by a random combination, their weights outside
            (`zkml_ray.chunking.hinted.challenge`), where that is cheaper.
    """

    input_scale: Scale
    param_scale: Scale
    scale_rebase_multiplier: Annotated[int, Field(ge=1, le=8)] = 1
    decomp_base: Annotated[int, Field(ge=2, le=1 << 20)]
    decomp_legs: Annotated[int, Field(ge=1, le=16)]
    num_inner_cols: Annotated[int, Field(ge=1, le=16)]
    logrows: Annotated[int, Field(ge=6, le=26)]
    lookup_range: tuple[Integer, Integer] = (-128, 128)
    kind: Literal["native", "hinted"] = "native"
    range_bits: Annotated[int, Field(ge=0, le=MAX_RANGE_BITS)] = 0
    products: Products = "packed"


class LayoutSpec(Document):
    """How a boundary's elements are cut into leaves and packed (see `LeafLayout`)."""

    element_count: Dimension
    leaf_count: Dimension
    leaf_size: Dimension
    salts_per_leaf: Annotated[int, Field(ge=0, le=64)]
    slots: Dimension
    decomp_base: Annotated[int, Field(ge=2, le=1 << 20)]
    decomp_legs: Annotated[int, Field(ge=1, le=16)]
    stride_bits: Annotated[int, Field(ge=2, le=126)]
    inner: Annotated[int, Field(ge=1, le=64)]
    outer: Annotated[int, Field(ge=1, le=64)]

    @classmethod
    def of(cls, layout: LeafLayout) -> LayoutSpec:
        """The document form of a layout."""
        return cls(
            element_count=layout.element_count,
            leaf_count=layout.leaf_count,
            leaf_size=layout.leaf_size,
            salts_per_leaf=layout.salts_per_leaf,
            slots=layout.slots,
            decomp_base=layout.packing.decomp_base,
            decomp_legs=layout.packing.decomp_legs,
            stride_bits=layout.packing.stride_bits,
            inner=layout.packing.inner,
            outer=layout.packing.outer,
        )

    def layout(self) -> LeafLayout:
        """The layout itself.

        Raises:
            FieldRangeError: The numbers do not describe an injective packing.
        """
        return LeafLayout(
            element_count=self.element_count,
            leaf_count=self.leaf_count,
            leaf_size=self.leaf_size,
            salts_per_leaf=self.salts_per_leaf,
            slots=self.slots,
            packing=PackingSpec(
                decomp_base=self.decomp_base,
                decomp_legs=self.decomp_legs,
                stride_bits=self.stride_bits,
                inner=self.inner,
                outer=self.outer,
            ),
        )


class BoundaryPlan(Document):
    """One tensor that crosses a cut, or enters or leaves the model.

    Attributes:
        name: The tensor's name in the normalised model.
        shape: Its dimensions, row-major.
        scale: log2 of the fixed-point denominator of its elements.
        producer: The chunk whose circuit computes it; None for an input of the model.
        consumers: The chunks whose circuits read it, in plan order.
        layout: Its cut into leaves.
    """

    name: Name
    shape: Shape
    scale: Scale
    producer: ChunkId | None
    consumers: Annotated[tuple[ChunkId, ...], Field(max_length=10_000)]
    layout: LayoutSpec

    def metadata(self) -> BoundaryMetadata:
        """What the boundary's commitment binds besides its values."""
        return BoundaryMetadata(
            name=self.name, shape=self.shape, scale=self.scale, layout=self.layout.layout()
        )


class ChunkPlan(Document):
    """One circuit.

    Attributes:
        id: "chunk-000" and so on, in topological order.
        nodes: The normalised model's nodes in it, in topological order.
        operators: Their operator types, for people.
        inputs: Boundaries it reads, in the order of its ONNX inputs.
        outputs: Boundaries it produces, in the order of its ONNX outputs.
        arguments: Its circuit's arguments.
        onnx_sha256: Digest of the chunk's ONNX file (operators, weights, commit sub-graph).
        settings_sha256: Digest of the canonical settings file.
        weights_sha256: Digest of the weights that the circuit does not hold
            (`commitments.challenge.write_weights`); None: it holds all.
        num_rows: Rows of the main region, before they are split over column blocks.
        poseidon_rows: Rows of the hash region.
    """

    id: ChunkId
    nodes: Names
    operators: Names
    inputs: Names
    outputs: Names
    arguments: CircuitArguments
    onnx_sha256: Sha256
    settings_sha256: Sha256
    weights_sha256: Sha256 | None = None
    num_rows: Count
    poseidon_rows: Count

    def touched(self) -> tuple[str, ...]:
        """Boundaries whose commitments the circuit exposes, in instance order."""
        return self.inputs + self.outputs


class CommitmentArguments(Document):
    """How every boundary of a plan is committed to.

    Attributes:
        decomp_base: With `decomp_legs`, the range that packing must be injective on; no circuit
            of the plan may admit a larger one.
        decomp_legs: See `decomp_base`.
        max_slots: Upper bound of a leaf's slots (elements, zeros and salts).
        salted: Whether leaves carry salts; without them a commitment can be guessed open.
        salts_apart: Whether salts fill packed elements of their own, so that circuits need not
            hold them in range.
    """

    decomp_base: Annotated[int, Field(ge=2, le=1 << 20)] = 128
    decomp_legs: Annotated[int, Field(ge=1, le=16)] = 4
    max_slots: Annotated[int, Field(ge=8, le=1 << 16)] = 128
    salted: bool = True
    salts_apart: bool = False

    def leaf_layout(self, element_count: int, packing: PackingSpec) -> LeafLayout:
        """The layout of a boundary.

        Args:
            element_count: Its elements.
            packing: `PackingSpec.for_decomposition` of these arguments.

        Raises:
            FieldRangeError: There is none.
        """
        salts = salts_for(packing) if self.salted else 0
        if self.salts_apart:
            salts = packing.pack * -(-salts // packing.pack)
        return LeafLayout.plan(
            element_count, packing, max_slots=self.max_slots, salts_per_leaf=salts
        )


class RewriteStep(Document):
    """One change of the normalised graph (see `zkml_ray.chunking.rewrite.Rewrite`)."""

    name: Name
    node: Name
    parameter: Annotated[int, Field(ge=0, le=1 << 20)] = 0


class LookupPlan(Document):
    """Rows that are looked up outside of all circuits, at places that the statement shows.

    Attributes:
        input: The model's input that holds the places.
        boundary: The rows, an input of the circuits: a row for every place, in order.
        rows: Rows of the table; places lie in 0..rows - 1.
        table_sha256: Digest of the quantised table: 32-bit integers, little-endian, row-major.
    """

    input: Name
    boundary: Name
    rows: Annotated[int, Field(ge=1, le=1 << 24)]
    table_sha256: Sha256


class Plan(Document):
    """Everything about a model's circuits that does not need a key.

    Attributes:
        format: Version of this schema.
        ezkl_version: The proving backend's exact version.
        model_sha256: Digest of the ONNX file as the user gave it.
        normalised_sha256: Digest of the normalised and rewritten model that the chunks are cut
            from.
        dimensions: Values given to symbolic dimensions, sorted by name.
        rewrites: Changes made to the normalised model, in order.
        input_scale: log2 of the fixed-point denominator of the model's inputs.
        commitment: How boundaries are committed to.
        chunks: In topological order.
        boundaries: Inputs of the model first, then in order of production.
        model_inputs: Boundaries that are the model's inputs.
        model_outputs: Boundaries that are the model's outputs.
        lookups: Rows that are looked up outside of circuits; a plan without any does not name
            them.
    """

    format: Literal["zkml_ray/plan/2"] = "zkml_ray/plan/2"
    ezkl_version: Name
    model_sha256: Sha256
    normalised_sha256: Sha256
    dimensions: Annotated[tuple[tuple[Name, Dimension], ...], Field(max_length=100)]
    rewrites: Annotated[tuple[RewriteStep, ...], Field(max_length=100_000)] = ()
    input_scale: Scale
    commitment: CommitmentArguments
    chunks: Annotated[tuple[ChunkPlan, ...], Field(min_length=1, max_length=10_000)]
    boundaries: Annotated[tuple[BoundaryPlan, ...], Field(min_length=1, max_length=100_000)]
    model_inputs: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1_000)]
    model_outputs: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1_000)]
    lookups: Annotated[tuple[LookupPlan, ...], Field(max_length=1_000)] = ()

    @model_validator(mode="after")
    def _one_spelling(self) -> Plan:
        if not self.lookups and "lookups" in self.model_fields_set:
            raise ValueError("a plan that looks nothing up does not name lookups")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = dumped(self)
        if not self.lookups:
            del document["lookups"]
        return document

    def boundary(self, name: str) -> BoundaryPlan:
        """The boundary of this name (KeyError if there is none)."""
        for boundary in self.boundaries:
            if boundary.name == name:
                return boundary
        raise KeyError(name)

    def chunk(self, chunk_id: str) -> ChunkPlan:
        """The chunk of this id (KeyError if there is none)."""
        for chunk in self.chunks:
            if chunk.id == chunk_id:
                return chunk
        raise KeyError(chunk_id)

    def instance_count(self, chunk: ChunkPlan) -> int:
        """Public instances of a chunk's proof: one leaf hash per leaf it touches.

        A chunk with weights outside its circuit shows one more, of its challenges.
        """
        leaves = sum(self.boundary(name).layout.leaf_count for name in chunk.touched())
        return leaves + (chunk.weights_sha256 is not None)


class SrsPin(Document):
    """The SRS of one circuit size.

    Attributes:
        logrows: log2 of its size.
        sha256: Digest of the file.
        verifier_sha256: Digest of the 388 bytes of it that a verifier needs (`verifier_srs`).
        trust: "insecure" (generated on some machine, whose owner can forge) or "ceremony".
    """

    logrows: Annotated[int, Field(ge=6, le=26)]
    sha256: Sha256
    verifier_sha256: Sha256
    trust: Literal["insecure", "ceremony"]


class VerifyingKeyPin(Document):
    """The verifying key that belongs to a chunk."""

    chunk: ChunkId
    sha256: Sha256


class SealedPlan(Document):
    """A plan with its keys: the document whose digest is a trust root."""

    format: Literal["zkml_ray/sealed-plan/1"] = "zkml_ray/sealed-plan/1"
    plan: Plan
    srs: Annotated[tuple[SrsPin, ...], Field(max_length=26)]
    verifying_keys: Annotated[tuple[VerifyingKeyPin, ...], Field(max_length=10_000)]

    def srs_trust(self) -> Literal["insecure", "ceremony"]:
        """The weakest trust among the SRS files."""
        return "ceremony" if all(pin.trust == "ceremony" for pin in self.srs) else "insecure"
