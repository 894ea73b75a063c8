"""Attacks on hinted circuits: every kind of hint made wrong, in every way that seemed promising.

docs/adr/0017 argues why none can pass; here each is tried. What may vary freely, and does not
matter, is tried too, so that the harness is seen to accept what is right.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.circuits import backend
from zkml_ray.commitments.field import MODULUS, decode
from zkml_ray.commitments.leaves import hash_leaves, pack_leaves
from zkml_ray.schema.plan import CircuitArguments

from .hinted import HintedChunk, Ints, conv_model, dense_model

LOGROWS = 11
UNFILLED_ROWS = 8
"""Rows at the end of a table that ezkl does not fill: the five of halo2's blinding, and three."""


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> HintedChunk:
    """Convolution, ReLU and maximum, digits of one table entry each."""
    values = np.random.default_rng(1).integers(-16, 16, size=36).tolist()
    numbers = Arithmetic(scale=4, logrows=LOGROWS, range_bits=2)
    return HintedChunk(tmp_path_factory.mktemp("pooled"), conv_model(pooled=True), numbers, values)


@pytest.fixture(scope="module")
def relu(tmp_path_factory: pytest.TempPathFactory) -> HintedChunk:
    """Convolution and ReLU, values of two digits."""
    values = np.random.default_rng(1).integers(-256, 256, size=36).tolist()
    numbers = Arithmetic(scale=8, logrows=LOGROWS, range_bits=4)
    return HintedChunk(tmp_path_factory.mktemp("relu"), conv_model(pooled=False), numbers, values)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> HintedChunk:
    """A dense layer: quotients and remainders alone, one remainder below the table's slack."""
    numbers = Arithmetic(scale=4, logrows=LOGROWS, range_bits=2)
    draw = np.random.default_rng(2)
    folder = tmp_path_factory.mktemp("dense")
    return HintedChunk(folder, dense_model(), numbers, draw.integers(-16, 16, size=6).tolist())


def changed(chunk: HintedChunk, *edits: tuple[Ints, int]) -> list[int]:
    """The honest hints with something added at some positions."""
    hints = list(chunk.hints)
    for places, amount in edits:
        for place in np.ravel(places):
            assert place >= 0
            hints[int(place)] += amount
    return hints


def leaves(chunk: HintedChunk) -> list[int]:
    """The instances that an honest proof shows, from native code."""
    count = chunk.incoming.salt_count
    salts = chunk.salts.tolist()
    offset = 0 if chunk.roles.distances else chunk.numbers.offset
    results = [value - offset for value in chunk.results]
    packed = pack_leaves(chunk.values, salts[:count], chunk.incoming)
    return [
        *hash_leaves(packed),
        *hash_leaves(pack_leaves(chunk.ordered(results), salts[count:], chunk.outgoing)),
    ]


@pytest.mark.parametrize("name", ["pooled", "relu", "dense"])
def test_honest_hints_are_accepted_and_bind_the_values(
    name: str, request: pytest.FixtureRequest
) -> None:
    chunk: HintedChunk = request.getfixturevalue(name)
    proof = chunk.prove(chunk.input())
    assert chunk.verifies(proof)
    assert [decode(i) for i in proof.instances] == leaves(chunk)


def windows(chunk: HintedChunk) -> list[tuple[int, Ints]]:
    """Per window, its result's position and its distances' (one digit each)."""
    (results,), (distances,) = chunk.roles.results, chunk.roles.distances
    sites = np.argwhere(results >= 0)
    return [(int(results[tuple(s)]), distances[(slice(None), *s)]) for s in sites]


def test_maximum_one_too_large_is_refused(pooled: HintedChunk) -> None:
    result, distances = next(w for w in windows(pooled) if pooled.hints[w[0]] > 0)
    vector = pooled.input(hints=changed(pooled, (np.asarray(result), 1), (distances, 1)))
    assert not pooled.accepts(vector)


def test_maximum_that_is_not_the_largest_is_refused(pooled: HintedChunk) -> None:
    for result, distances in windows(pooled):
        apart = sorted(pooled.hints[int(d)] for d in distances)
        if apart[0] == 0 and 0 < apart[1] <= pooled.hints[result]:
            break
    else:
        pytest.fail("no window with a second candidate above zero")
    edits = (np.asarray(result), -apart[1]), (distances, -apart[1])
    assert not pooled.accepts(pooled.input(hints=changed(pooled, *edits)))


@pytest.mark.parametrize("positive", [True, False])
def test_wrong_sign_of_a_relu_is_refused(relu: HintedChunk, positive: bool) -> None:
    """Zero where the sum is positive, or one where it is negative."""
    (low, high), (below, _) = relu.roles.results, relu.roles.distances
    for site in np.argwhere(low >= 0):
        m, top = relu.hints[low[tuple(site)]], relu.hints[high[tuple(site)]]
        if top == 0 and (m > 0) == positive:
            break
    else:
        pytest.fail("no such site")
    amount = -m if positive else 1
    edits = (low[tuple(site)], amount), (below[(0, *site)], amount)
    assert not relu.accepts(relu.input(hints=changed(relu, *edits)))


def test_products_that_cancel_in_the_field_are_refused(pooled: HintedChunk) -> None:
    """One window's product is made positive and another's its negative: their sum is zero."""
    (first, second), hints = windows(pooled)[:2], list(pooled.hints)
    for place in (first[0], *first[1]):
        hints[int(place)] += 1

    def product(window: tuple[int, Ints]) -> int:
        return math.prod(hints[int(place)] for place in (window[0], *window[1]))

    assert product(first) % MODULUS
    places = [int(place) for place in (second[0], *second[1])]
    zero, *rest = sorted(places, key=lambda place: hints[place])
    assert hints[zero] == 0
    for place in rest:
        hints[place] = max(1, hints[place])
    others = math.prod(hints[place] for place in rest)
    hints[zero] = -product(first) * pow(others, -1, MODULUS) % MODULUS
    assert (product(first) + product(second)) % MODULUS == 0
    assert not pooled.accepts(pooled.input(hints=hints))


@pytest.mark.parametrize("amount", [-1, 1])
def test_quotient_off_by_one_is_refused(dense: HintedChunk, amount: int) -> None:
    """The remainder makes up for it, and leaves the table at one end or the other."""
    (results,), divisor = dense.roles.results, dense.numbers.divisor
    remainders = dense.roles.remainders[0]
    slack = (1 << LOGROWS) - UNFILLED_ROWS - divisor
    for site in np.argwhere(remainders >= 0):
        if dense.hints[int(remainders[tuple(site)])] >= slack:
            break
    edits = (results[tuple(site)], amount), (remainders[tuple(site)], -amount * divisor)
    assert not dense.accepts(dense.input(hints=changed(dense, *edits)))


def test_neighbouring_quotient_passes_only_within_the_tables_slack(
    tmp_path_factory: pytest.TempPathFactory, dense: HintedChunk
) -> None:
    """What is left of rounding's freedom: remainders of [q, T), so the quotient below."""
    divisor = dense.numbers.divisor
    slack = (1 << LOGROWS) - UNFILLED_ROWS - divisor
    found = None
    for seed in range(200):
        values = np.random.default_rng(seed).integers(-16, 16, size=6).tolist()
        hints = dense.solved(values)
        remainders = dense.roles.remainders[0]
        places = [s for s in np.argwhere(remainders >= 0) if hints[remainders[tuple(s)]] < slack]
        if places:
            found = values, hints, places[0]
            break
    assert found is not None
    values, hints, site = found
    result = int(dense.roles.results[0][tuple(site)])
    remainder = int(dense.roles.remainders[0][tuple(site)])
    assert dense.accepts(dense.input(hints=hints, values=values))
    for quotient, passes in ((-1, True), (1, False), (-2, False)):
        forged = list(hints)
        forged[result] += quotient
        forged[remainder] -= quotient * divisor
        assert dense.accepts(dense.input(hints=forged, values=values)) is passes, quotient


def test_error_carried_from_one_packed_element_to_the_next_is_refused(dense: HintedChunk) -> None:
    """e_i -= S and e_(i+1) += 1: their packed sum is the same."""
    stride, remainders = 1 << dense.roles.stride, dense.roles.remainders[0]
    unit = next(u for u in remainders.reshape(-1, remainders.shape[-1]) if (u[1:4] >= 0).all())
    for edits in (
        ((unit[1], 1),),  # the first slot's remainder, which the circuit computes, loses S
        ((unit[1], -1),),
        ((unit[1], stride), (unit[2], -1)),
        ((unit[2], -stride), (unit[3], 1)),
    ):
        assert not dense.accepts(dense.input(hints=changed(dense, *edits))), edits


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 6, 7])
def test_table_is_one_column_and_ends_where_it_should(columns: int, tmp_path: Path) -> None:
    """Tried with a blinder, which is looked up and stands in no equation."""
    numbers = Arithmetic(scale=4, logrows=LOGROWS, range_bits=2)
    chunk = HintedChunk(tmp_path, dense_model(), numbers, [0] * 6, columns)
    end = (1 << LOGROWS) - UNFILLED_ROWS
    assert numbers.divisor < end <= numbers.digit_bound
    within = [0, 1, 2, 3, numbers.divisor, end - 1]
    for digit, passes in [*((d, True) for d in within), (end, False), (-1, False)]:
        vector = chunk.input()
        vector[chunk.blinder] = digit
        assert chunk.accepts(vector) is passes, digit


@pytest.mark.parametrize("digit", [-1, 1 << LOGROWS, 1 << 60])
def test_hint_outside_the_table_is_refused(relu: HintedChunk, digit: int) -> None:
    place = int(relu.roles.results[1].ravel()[0])
    hints = list(relu.hints)
    hints[place] = digit
    assert not relu.accepts(relu.input(hints=hints))


def test_other_digits_of_the_same_value_change_nothing(relu: HintedChunk) -> None:
    """Two digits overlap: a value has several forms, and the proof shows the value."""
    low, high = relu.roles.results
    weight = 1 << relu.numbers.overlap_bits
    site = next(s for s in np.argwhere(low >= 0) if relu.hints[low[tuple(s)]] >= weight)
    edits = (low[tuple(site)], -weight), (high[tuple(site)], 1)
    proof = relu.prove(relu.input(hints=changed(relu, *edits)))
    assert relu.verifies(proof)
    assert [decode(i) for i in proof.instances] == leaves(relu)


def test_incoming_values_that_pack_to_the_same_leaf_are_refused(dense: HintedChunk) -> None:
    """The first two have no weight, so that only their range can tell."""
    stride = dense.incoming.packing.stride_bits
    for amount in (1, -1):
        values = list(dense.values)
        values[0] += amount << stride
        values[1] -= amount
        assert not dense.accepts(dense.input(values=values))
    # The harness would accept other values without weight, under another leaf.
    values = [dense.values[0] + 1, *dense.values[1:]]
    proof = dense.prove(dense.input(values=values))
    assert dense.verifies(proof)
    assert decode(proof.instances[0]) != leaves(dense)[0]


def test_salts_of_any_size_leave_the_values_bound(dense: HintedChunk) -> None:
    """No circuit holds salts in range: they fill packed elements in which no value stands."""
    count, layout = dense.incoming.salt_count, dense.incoming
    salts = [1 << 100, -(1 << 90), *[1 << 60] * (len(dense.salts) - 2)]
    proof = dense.prove(dense.input(salts=salts))
    assert dense.verifies(proof)
    stride = 1 << layout.packing.stride_bits
    values = pack_leaves(dense.values, [0] * count, layout)[0][:-1]
    last = sum(salt * stride**i for i, salt in enumerate(salts[:count])) % MODULUS
    assert decode(proof.instances[0]) == hash_leaves([[*values, last]])[0]


@pytest.mark.parametrize(
    ("bits", "count"), [(21, 12), (36, 7), (50, 5), (63, 4), (84, 3), (126, 2)]
)
def test_powers_are_powers(bits: int, count: int, tmp_path: Path) -> None:
    """Beyond float32 and 128-bit integers, which an honest proof would not notice."""
    circuit = Circuit(logrows=10, columns=1)
    result = circuit.node("Mul", [circuit.powers(bits, count), circuit.whole([1])])
    hints = helper.make_node("Concat", [circuit.whole([0]), "x"], ["zkml_ray/hints"], axis=0)
    graph = helper.make_graph(
        [hints, *circuit.nodes],
        "powers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, [count])],
        circuit.initializers,
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "powers.onnx")
    arguments = CircuitArguments(
        input_scale=4,
        param_scale=4,
        decomp_base=128,
        decomp_legs=2,
        num_inner_cols=2,
        logrows=LOGROWS,
        lookup_range=(0, 100),
        kind="hinted",
    )
    args = backend.run_args(arguments)
    settings, compiled = tmp_path / "settings", tmp_path / "circuit"
    settings.write_bytes(backend.settings_for(tmp_path / "powers.onnx", args).data)
    backend.compile_circuit(tmp_path / "powers.onnx", settings, compiled)
    witness = backend.generate_witness("powers", [[5, 6]], compiled, tmp_path / "witness")
    assert witness.outputs == [[pow(2, bits * i, MODULUS) for i in range(count)]]


def test_swapped_leaves_are_refused(dense: HintedChunk) -> None:
    proof = dense.prove(dense.input())
    assert dense.verifies(proof)
    swapped = proof.model_copy(update={"instances": proof.instances[::-1]})
    assert swapped.instances != proof.instances
    assert not dense.verifies(swapped)


def test_two_proofs_of_the_same_values_share_no_commitment(pooled: HintedChunk) -> None:
    """Blinders apart the inputs are the same: what repeats would let a guess be tested."""
    first, second = (pooled.prove(pooled.input()) for _ in range(2))
    assert first.instances == second.instances
    one, other = (bytes.fromhex(proof.proof) for proof in (first, second))
    assert len(one) == len(other)
    assert not [i for i in range(0, len(one), 32) if one[i : i + 32] == other[i : i + 32]]
