from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from zkml_ray.commitments.field import MODULUS, decode, encode
from zkml_ray.commitments.leaves import LeafLayout, draw_salts, hash_leaves, pack_leaves
from zkml_ray.commitments.merkle import BoundaryMetadata, MerkleTree, boundary_commitment
from zkml_ray.commitments.opening import (
    MAX_OPENING_BYTES,
    Opening,
    OpeningLayout,
    OpeningPacking,
    open_leaf,
    parse_opening,
    verify_opening,
)
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.errors import FieldRangeError, OpeningError

SPEC = PackingSpec.for_decomposition(128, 4)
BOUND = SPEC.element_bound
METADATA = BoundaryMetadata(
    name="boundary-001", shape=(4, 7), scale=7, layout=LeafLayout.plan(28, SPEC, max_slots=16)
)
VALUES = [(-1) ** i * (i * 1000 + 1) for i in range(28)]
SALTS = draw_salts(METADATA.layout, seed=b"seed", label="boundary-001")
COMMITMENT = boundary_commitment(
    MerkleTree(hash_leaves(pack_leaves(VALUES, SALTS, METADATA.layout))).root, METADATA
)

Document = dict[str, Any]


def _open(index: int) -> Opening:
    return open_leaf(
        run_id="run", metadata=METADATA, values=VALUES, salts=SALTS, index_of_element=index
    )


def _document(index: int = 12) -> Document:
    document: Document = json.loads(_open(index).model_dump_json())
    return document


def _parse(document: Document) -> Opening:
    return parse_opening(json.dumps(document).encode())


@st.composite
def boundaries(draw: st.DrawFn) -> tuple[BoundaryMetadata, list[int], list[int]]:
    shape = tuple(draw(st.lists(st.integers(min_value=1, max_value=4), max_size=3)))
    count = math.prod(shape)
    spec = draw(st.sampled_from([SPEC, PackingSpec.for_decomposition(128, 2)]))
    salts = draw(st.sampled_from([0, 1, 5]))
    room = 2 * spec.pack + salts
    layout = LeafLayout.plan(
        count, spec, max_slots=draw(st.integers(room - spec.pack, room)), salts_per_leaf=salts
    )
    bound = spec.element_bound
    values = draw(st.lists(st.integers(-bound, bound), min_size=count, max_size=count))
    scale = draw(st.integers(min_value=-3, max_value=14))
    metadata = BoundaryMetadata(name="b", shape=shape, scale=scale, layout=layout)
    return metadata, values, draw_salts(layout, label="b")


@given(boundaries())
@settings(max_examples=25, deadline=None)
def test_open_then_verify_every_index_shows_the_values(
    boundary: tuple[BoundaryMetadata, list[int], list[int]],
) -> None:
    metadata, values, salts = boundary
    layout = metadata.layout
    tree = MerkleTree(hash_leaves(pack_leaves(values, salts, layout)))
    commitment = boundary_commitment(tree.root, metadata)
    for index in range(0, len(values), layout.leaf_size):
        opening = open_leaf(
            run_id="run", metadata=metadata, values=values, salts=salts, index_of_element=index
        )
        opening = parse_opening(opening.model_dump_json().encode())
        opened = verify_opening(opening, expected_commitment=commitment, expected_metadata=metadata)
        stop = index + len(opened.elements)
        assert opened.start_index == index
        assert list(opened.elements) == values[index:stop]
        assert list(opened.values) == [v / 2.0**metadata.scale for v in values[index:stop]]


@pytest.mark.parametrize("index", range(28))
def test_open_leaf_holds_the_element_asked_for(index: int) -> None:
    opened = verify_opening(
        _open(index), expected_commitment=COMMITMENT, expected_metadata=METADATA
    )
    assert opened.elements[index - opened.start_index] == VALUES[index]


@pytest.mark.parametrize("index", [-1, 28])
def test_open_leaf_of_no_element_is_refused(index: int) -> None:
    with pytest.raises(FieldRangeError, match="no element"):
        _open(index)


def _set(path: str, value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *parents, last = (int(p) if p.isdigit() else p for p in path.split("."))
        node: Any = document
        for parent in parents:
            node = node[parent]
        if repr(node[last]) == repr(value):
            raise ValueError(f"{path} already is {value}: the case changes nothing")
        node[last] = value

    return change


def _swap_elements(document: Document) -> None:
    elements = document["elements"]
    elements[0], elements[1] = elements[1], elements[0]


def _move_last_element_to_salts(document: Document) -> None:
    document["salts"].insert(0, document["elements"].pop())


def _extend_with_padding(document: Document) -> None:
    document["elements"].append(0)


# One or more cases per field; the test below fails when a field has none.
TAMPERED: list[tuple[str, Callable[[Document], None]]] = [
    ("boundary", _set("boundary", "boundary-002")),
    ("shape", _set("shape", [7, 4])),
    ("shape", _set("shape", [28])),
    ("scale", _set("scale", 6)),
    ("layout.element_count", _set("layout.element_count", 27)),
    ("layout.leaf_count", _set("layout.leaf_count", 4)),
    ("layout.leaf_size", _set("layout.leaf_size", 9)),
    ("layout.salts_per_leaf", _set("layout.salts_per_leaf", 4)),
    ("layout.slots", _set("layout.slots", 1 << 52)),
    ("layout.packing.decomp_base", _set("layout.packing.decomp_base", 16384)),
    ("layout.packing.decomp_legs", _set("layout.packing.decomp_legs", 1 << 52)),
    ("layout.packing.stride_bits", _set("layout.packing.stride_bits", 29)),
    ("layout.packing.inner", _set("layout.packing.inner", 1 << 52)),
    ("layout.packing.outer", _set("layout.packing.outer", 1)),
    ("leaf_index", _set("leaf_index", 0)),
    ("leaf_index", _set("leaf_index", 2)),
    ("leaf_index", _set("leaf_index", 3)),
    ("leaf_index", _set("leaf_index", 1 << 52)),
    ("elements", _swap_elements),
    ("elements", _set("elements.3", BOUND + 1)),
    ("elements", _set("elements", [])),
    ("elements", _extend_with_padding),
    ("elements", _move_last_element_to_salts),
    ("salts", _set("salts", [])),
    ("salts", _set("salts.0", -1)),
    ("salts", _set("salts.0", 1 << 28)),
    ("siblings", _set("siblings", [])),
    ("siblings", _set("siblings.0", encode(0))),
    ("siblings", _set("siblings.1", encode(0))),
    ("siblings", _set("siblings.0", "0" * 63)),
    ("siblings", _set("siblings.0", MODULUS.to_bytes(32, "little").hex())),
    ("commitment", _set("commitment", encode(0))),
    ("commitment", _set("commitment", "")),
    ("commitment", _set("commitment", encode(COMMITMENT).upper())),
]


@pytest.mark.parametrize(
    "change",
    [change for _, change in TAMPERED],
    ids=[f"{n}-{i}" for i, (n, _) in enumerate(TAMPERED)],
)
def test_verify_after_any_change_is_refused(change: Callable[[Document], None]) -> None:
    document = _document()
    change(document)
    opening = _parse(document)
    with pytest.raises(OpeningError) as caught:
        verify_opening(opening, expected_commitment=COMMITMENT, expected_metadata=METADATA)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500


def test_every_field_of_an_opening_has_a_tamper_case() -> None:
    fields = set(Opening.model_fields) - {"layout"}
    fields |= {f"layout.{name}" for name in OpeningLayout.model_fields if name != "packing"}
    fields |= {f"layout.packing.{name}" for name in OpeningPacking.model_fields}
    # The format is refused when parsed; the run's id is a label that nothing binds.
    assert {name for name, _ in TAMPERED} == fields - {"format", "run_id"}


def test_opening_models_have_the_fields_they_claim_to_repeat() -> None:
    layout = {field.name for field in dataclasses.fields(LeafLayout)}
    packing = {field.name for field in dataclasses.fields(PackingSpec)}
    assert set(OpeningLayout.model_fields) == layout
    assert set(OpeningPacking.model_fields) == packing


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_verify_after_any_changed_number_is_refused(data: st.DataObject) -> None:
    document = _document(data.draw(st.integers(min_value=0, max_value=27)))
    numbers = document[data.draw(st.sampled_from(["elements", "salts"]))]
    position = data.draw(st.integers(min_value=0, max_value=len(numbers) - 1))
    honest = numbers[position]
    numbers[position] = data.draw(st.integers(-BOUND, BOUND).filter(lambda n: n != honest))
    with pytest.raises(OpeningError, match="commitment computed"):
        verify_opening(_parse(document), expected_commitment=COMMITMENT, expected_metadata=METADATA)


@pytest.mark.parametrize(
    "metadata",
    [
        dataclasses.replace(METADATA, name="boundary-002"),
        dataclasses.replace(METADATA, shape=(28,)),
        dataclasses.replace(METADATA, scale=8),
        dataclasses.replace(METADATA, layout=LeafLayout.plan(28, SPEC, max_slots=24)),
    ],
)
def test_verify_against_other_metadata_is_refused(metadata: BoundaryMetadata) -> None:
    with pytest.raises(OpeningError, match="expected"):
        verify_opening(_open(12), expected_commitment=COMMITMENT, expected_metadata=metadata)


def test_verify_against_other_commitment_is_refused_with_both() -> None:
    other = COMMITMENT ^ 1
    with pytest.raises(OpeningError, match="commitment") as caught:
        verify_opening(_open(12), expected_commitment=other, expected_metadata=METADATA)
    assert caught.value.expected == encode(other)
    assert caught.value.got == encode(COMMITMENT)


def test_verify_of_forger_who_repeats_the_expected_commitment_is_refused() -> None:
    forged = open_leaf(
        run_id="run", metadata=METADATA, values=[0] * 28, salts=SALTS, index_of_element=12
    ).model_copy(update={"commitment": encode(COMMITMENT)})
    with pytest.raises(OpeningError, match="commitment computed"):
        verify_opening(forged, expected_commitment=COMMITMENT, expected_metadata=METADATA)


def test_opening_error_survives_pickling() -> None:
    with pytest.raises(OpeningError) as caught:
        verify_opening(_open(12), expected_commitment=0, expected_metadata=METADATA)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.expected, error.got) == (caught.value.expected, caught.value.got)


def test_parse_of_dumped_opening_is_identity() -> None:
    opening = _open(12)
    assert parse_opening(opening.model_dump_json(indent=2).encode()) == opening
    assert decode(opening.commitment) == COMMITMENT


def _add(document: Document) -> None:
    document["more"] = 1


def _add_to_packing(document: Document) -> None:
    document["layout"]["packing"]["more"] = 1


@pytest.mark.parametrize(
    "change",
    [
        _add,
        _add_to_packing,
        lambda document: document.pop("salts"),
        lambda document: document["layout"].pop("slots"),
        _set("format", "zkml_ray/opening/2"),
        _set("scale", "7"),
        _set("scale", 7.0),
        _set("leaf_index", True),
        _set("leaf_index", -1),
        _set("elements.0", "1"),
        _set("elements.0", 1.0),
        _set("elements.0", None),
        _set("elements.0", 10**4000),
        _set("shape", 28),
        _set("siblings.0", 0),
        _set("layout", None),
        _set("layout.slots", 1 << 60),
    ],
)
def test_parse_of_other_form_is_refused(change: Callable[[Document], None]) -> None:
    document = _document()
    change(document)
    with pytest.raises(OpeningError, match="malformed") as caught:
        _parse(document)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"elements":[' + b"9" * 100_000 + b"]}",
        b'{"run_id":"\\ud800"}',
    ],
)
def test_parse_of_no_opening_is_refused(data: bytes) -> None:
    with pytest.raises(OpeningError, match="malformed"):
        parse_opening(data)


@given(st.binary(max_size=200))
def test_parse_of_any_bytes_raises_nothing_else(data: bytes) -> None:
    with pytest.raises(OpeningError):
        parse_opening(data)


def test_parse_of_too_many_bytes_is_refused_unread() -> None:
    data = json.dumps(_document()).encode().ljust(MAX_OPENING_BYTES)
    assert parse_opening(data) == _open(12)
    with pytest.raises(OpeningError, match="too large"):
        parse_opening(data + b" ")


def test_opening_is_immutable() -> None:
    with pytest.raises(ValidationError):
        _open(12).leaf_index = 0  # type: ignore[misc]
