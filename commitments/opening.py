"""Openings: one leaf of a boundary, shown with the path to the boundary's commitment.

An opening convinces whoever holds a verified run's manifest of the values of one leaf's
activations, without showing the rest. It shows the leaf's salts as well, so it reveals that leaf
entirely and the other leaves not at all (their hashes are salted).

`verify_opening` takes the commitment and the metadata from its caller, who must have them from a
run that verified: the commitment from the proofs' public instances, the metadata from the plan.
What an opening says about itself is only compared. `run_id` is a label for finding the run and is
not bound by the commitment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zkml_ray.commitments.field import decode, encode
from zkml_ray.commitments.leaves import LeafLayout, hash_leaves, pack_leaf, pack_leaves
from zkml_ray.commitments.merkle import (
    BoundaryMetadata,
    MerkleTree,
    boundary_commitment,
    root_from_path,
)
from zkml_ray.commitments.packing import PACKED_BITS
from zkml_ray.commitments.poseidon import hash_elements
from zkml_ray.errors import FieldRangeError, OpeningError

MAX_OPENING_BYTES: Final[int] = 1 << 20
"""The largest opening that `parse_opening` reads."""

OPENING_FORMAT: Final = "zkml_ray/opening/1"

# Bounds on parsed numbers, so that no message and no comparison meets one of thousands of digits.
_Size = Annotated[int, Field(ge=0, lt=1 << 53)]
_Scale = Annotated[int, Field(gt=-(1 << 53), lt=1 << 53)]
_Base = Annotated[int, Field(ge=0, lt=1 << PACKED_BITS)]
_Element = Annotated[int, Field(gt=-(1 << PACKED_BITS), lt=1 << PACKED_BITS)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OpeningPacking(_Document):
    """The fields of `PackingSpec`, as claimed."""

    decomp_base: _Base
    decomp_legs: _Size
    stride_bits: _Size
    inner: _Size
    outer: _Size


class OpeningLayout(_Document):
    """The fields of `LeafLayout`, as claimed."""

    element_count: _Size
    leaf_count: _Size
    leaf_size: _Size
    salts_per_leaf: _Size
    slots: _Size
    packing: OpeningPacking


class Opening(_Document):
    """One opened leaf, as a document.

    Attributes:
        format: Version of this form.
        run_id: The run whose boundary is opened; a label.
        boundary: The boundary's name.
        shape: The tensor's dimensions.
        scale: Binary exponent: real value = element / 2**scale.
        layout: The cut into leaves.
        leaf_index: The leaf, from 0.
        elements: The leaf's elements, signed, without padding.
        salts: The leaf's salts.
        siblings: Field elements in hexadecimal, from the leaf upwards.
        commitment: The boundary commitment, a field element in hexadecimal.
    """

    format: Literal["zkml_ray/opening/1"] = OPENING_FORMAT
    run_id: str
    boundary: str
    shape: tuple[_Size, ...]
    scale: _Scale
    layout: OpeningLayout
    leaf_index: _Size
    elements: tuple[_Element, ...]
    salts: tuple[_Element, ...]
    siblings: tuple[str, ...]
    commitment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedElements:
    """What a verified opening shows.

    Attributes:
        start_index: Flat, row-major index of the first element in the tensor.
        elements: The quantised integers.
        values: The real numbers they stand for, element / 2**scale.
    """

    start_index: int
    elements: tuple[int, ...]
    values: tuple[float, ...]


def open_leaf(
    *,
    run_id: str,
    metadata: BoundaryMetadata,
    values: Sequence[int],
    salts: Sequence[int],
    index_of_element: int,
) -> Opening:
    """Open the leaf that holds one element.

    Args:
        run_id: The run's id.
        metadata: The boundary's metadata.
        values: The whole tensor, flat and row-major, signed integers.
        salts: All of the boundary's salts, leaf by leaf.
        index_of_element: Flat index of the wanted element, from 0.

    Returns:
        The opening. Its commitment is computed from `values` and `salts`.

    Raises:
        FieldRangeError: There is no such element, or values or salts do not fit the layout.
    """
    layout = metadata.layout
    if not 0 <= index_of_element < layout.element_count:
        raise FieldRangeError(
            f"no element {index_of_element}: boundary {metadata.name} has {layout.element_count}"
        )
    leaf = index_of_element // layout.leaf_size
    tree = MerkleTree(hash_leaves(pack_leaves(values, salts, layout)))
    start, width = leaf * layout.leaf_size, layout.salts_per_leaf
    return Opening(
        run_id=run_id,
        boundary=metadata.name,
        shape=metadata.shape,
        scale=metadata.scale,
        layout=OpeningLayout.model_validate(asdict(layout)),
        leaf_index=leaf,
        elements=tuple(int(v) for v in values[start : start + layout.elements_in(leaf)]),
        salts=tuple(int(s) for s in salts[leaf * width : (leaf + 1) * width]),
        siblings=tuple(encode(step.sibling) for step in tree.path(leaf)),
        commitment=encode(boundary_commitment(tree.root, metadata)),
    )


def verify_opening(
    opening: Opening, *, expected_commitment: int, expected_metadata: BoundaryMetadata
) -> OpenedElements:
    """Check an opening.

    The caller has `expected_commitment` from the proofs of a verified run and
    `expected_metadata` from its plan, both for the boundary and the run it means to ask about.

    Args:
        opening: The opening; nothing in it is trusted.
        expected_commitment: The boundary commitment, a canonical field element.
        expected_metadata: The boundary's metadata.

    Returns:
        The elements shown.

    Raises:
        OpeningError: The opening does not lead to the commitment, or says anything else about
            the boundary than the metadata.
        FieldRangeError: What the caller expects is itself wrong: `expected_commitment` is no
            field element, or `expected_metadata` has no canonical JSON form.
    """
    # 1. It speaks of this boundary: every field of the metadata, then the commitment.
    for subject, expected, got in _claims(opening, expected_metadata):
        _require_equal(subject, expected, got)
    _require_equal("commitment", encode(expected_commitment), opening.commitment)

    # 2. Its elements and salts make a leaf of the trusted layout, within the packing's bound.
    layout = expected_metadata.layout
    try:
        packed = pack_leaf(opening.leaf_index, opening.elements, opening.salts, layout)
        siblings = [decode(sibling) for sibling in opening.siblings]
    except FieldRangeError as error:
        raise OpeningError(
            f"opening of {expected_metadata.name}: {error.message}", subject="leaf"
        ) from None

    # 3. The leaf, along the path that its index has in this tree, leads to the commitment.
    root = root_from_path(hash_elements(packed), opening.leaf_index, layout.leaf_count, siblings)
    _require_equal(
        "commitment computed from the leaf and its path",
        encode(expected_commitment),
        encode(boundary_commitment(root, expected_metadata)),
    )
    return OpenedElements(
        start_index=opening.leaf_index * layout.leaf_size,
        elements=opening.elements,
        values=tuple(math.ldexp(e, -expected_metadata.scale) for e in opening.elements),
    )


def parse_opening(data: bytes) -> Opening:
    """Read an opening from untrusted bytes.

    Args:
        data: UTF-8 JSON, at most `MAX_OPENING_BYTES`.

    Returns:
        The opening, of the right form and otherwise unchecked.

    Raises:
        OpeningError: The bytes are too many, no JSON, or of another form.
    """
    if len(data) > MAX_OPENING_BYTES:
        raise OpeningError(
            f"opening of {len(data)} bytes is too large",
            expected=f"at most {MAX_OPENING_BYTES} bytes",
            got=f"{len(data)} bytes",
            subject="opening",
        )
    try:
        return Opening.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise OpeningError(
            f"opening is malformed at {where[:200]}: {first['msg'][:200]}",
            expected=f"a JSON document of format {OPENING_FORMAT}",
            subject="opening",
        ) from None


def _claims(opening: Opening, metadata: BoundaryMetadata) -> Iterator[tuple[str, object, object]]:
    """(field, expected, got) for everything an opening repeats from its boundary's metadata."""
    yield "boundary", metadata.name, opening.boundary
    yield "shape", metadata.shape, opening.shape
    yield "scale", metadata.scale, opening.scale
    expected, got = _flat(metadata.layout), opening.layout.model_dump()
    got.update(got.pop("packing"))
    for name, value in expected.items():
        yield f"layout.{name}", value, got[name]


def _flat(layout: LeafLayout) -> dict[str, int]:
    fields = asdict(layout)
    fields.update(fields.pop("packing"))
    return fields


def _require_equal(subject: str, expected: object, got: object) -> None:
    if expected != got:
        shown = str(got)[:200]
        raise OpeningError(
            f"opening refused: {subject} is {shown}, expected {expected}",
            expected=str(expected),
            got=shown,
            subject=subject,
        )
