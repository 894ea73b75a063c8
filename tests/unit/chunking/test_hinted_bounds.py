"""Bounds of hinted circuits, computed a second time: what packing and later bounds rest on.

A packed equation holds only if each of its equations does, as long as none can reach its stride,
whatever the digits are. Nothing that an honest witness shows tells a stride that is too small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.unit.chunking import hinted_cases as operators
from tests.unit.chunking import hinted_circuit as circuits
from tests.unit.chunking import test_hinted_decisions as decisions
from tests.unit.chunking import test_hinted_exponentials as exponentials
from tests.unit.chunking import test_hinted_functions as functions
from tests.unit.chunking import test_hinted_quotients as quotients
from tests.unit.chunking import test_hinted_tables as tables
from tests.unit.chunking.hinted_circuit import HintedChunk, hinted_chunk
from zkml_ray.chunking.hinted import fine, layer_norm, lower, settle, softmax
from zkml_ray.chunking.hinted.circuit import HINTS, Circuit
from zkml_ray.chunking.hinted.clamp import Clamp
from zkml_ray.chunking.hinted.forms import Form, Local, NotHintedError, Pending, pooled
from zkml_ray.chunking.hinted.grid import Wire
from zkml_ray.chunking.hinted.layout import Layout
from zkml_ray.chunking.hinted.numbers import Arithmetic, stride_bits
from zkml_ray.chunking.hinted.operators import exponentials as exponential_operators
from zkml_ray.chunking.hinted.operators import quotients as quotient_operators
from zkml_ray.chunking.hinted.recipe import advice_of
from zkml_ray.chunking.hinted.rounding import Quantised
from zkml_ray.commitments.field import MODULUS
from zkml_ray.errors import ChunkingError

FIELD_BITS = 252
ANY = 1 << 300
"""Where the table ends for those who look at what is not looked up as well."""

SHARES = (1.0, 0.0, 0.5, 0.7)
"""Of the digits, how many are as large as they can be; the others are zero."""
CASES = {
    **{f"{name}, {kind}": (case.proto(), numbers)
       for name, case in operators.CASES.items()
       for kind, numbers in operators.ALL_NUMBERS.items()},
    **{f"{name}, {kind}": (case.proto(), numbers)
       for name, case in functions.CASES.items()
       for kind, numbers in functions.ALL_NUMBERS.items()},
    **{f"{name}, {kind}": (case.proto(), numbers)
       for name, case in {**tables.CASES, **decisions.CASES, **quotients.CASES}.items()
       for kind, numbers in functions.ALL_NUMBERS.items()},
    **{f"{name}, deep": (case.proto(), exponentials.DEEP)
       for name, case in exponentials.CASES.items()},
    "selu between layers, short": (
        exponentials.BELOW_ZERO["selu between layers"].proto(), exponentials.SHORT
    ),
}  # fmt: skip


@dataclass
class Seen:
    """What lowering a model went through."""

    settled: list[tuple[Arithmetic, Pending, settle.Rounding, Quantised, Layout, int]]
    wires: list[Wire]
    products: list[tuple[Circuit, str, int]]
    held: set[str]


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Record every settled form with its layout, every wire, and every sum of products."""
    seen, layouts, magnitudes = Seen([], [], [], set()), [], []
    choose, settled, check_zero = Layout.choose, lower.settle, Circuit.check_zero

    def choosing(form: Quantised, *args: Any, **options: Any) -> Layout:
        layouts.append((form, choose(form, *args, **options), magnitudes[-1]))
        return layouts[-1][1]

    def striding(magnitude: int) -> int:
        magnitudes.append(magnitude)
        return stride_bits(magnitude)

    def settling(
        circuit: Circuit, numbers: Arithmetic, pending: Pending, rounding: Any, *rest: Any
    ) -> Any:
        found = settled(circuit, numbers, pending, rounding, *rest)
        seen.settled.append((numbers, pending, rounding, *layouts[-1]))
        seen.wires.append(found[0].wire)
        return found

    def wiring(self: lower.Lowering, *args: Any, **options: Any) -> Wire:
        seen.wires.append(wire(self, *args, **options))
        return seen.wires[-1]

    def checking(self: Circuit, total: str, bound: int) -> None:
        seen.products.append((self, total, bound))
        check_zero(self, total, bound)

    def holding(self: Circuit, tensor: str, count: int, nominal: int = 0) -> None:
        seen.held.add(tensor)
        check_digits(self, tensor, count, nominal)

    def looking(self: Circuit, op: str, tensor: str, count: int, nominal: int) -> str:
        seen.held.add(tensor)
        return function(self, op, tensor, count, nominal)

    wire, check_digits, function = lower.Lowering.wire, Circuit.check_digits, Circuit.function
    with monkeypatch.context() as patch:
        patch.setattr(settle.Layout, "choose", choosing)
        patch.setattr(settle, "stride_bits", striding)
        patch.setattr(lower, "settle", settling)
        patch.setattr(lower.Lowering, "wire", wiring)
        patch.setattr(Circuit, "check_zero", checking)
        patch.setattr(Circuit, "check_digits", holding)
        patch.setattr(Circuit, "function", looking)
        yield seen


def lowered(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[HintedChunk, Seen]:
    proto, numbers = CASES[name]
    with watched(monkeypatch) as seen:
        chunk = hinted_chunk(proto, numbers)
    return chunk, seen


def of_digits(numbers: Arithmetic, digits: int) -> int:
    """The largest value of digits of which no lookup tells more than that it is in the rows."""
    most = 2**numbers.logrows - 1
    weight = 2 ** max(0, numbers.scale + numbers.range_bits + 1 - numbers.logrows)
    return sum(most * weight**place for place in range(digits))


def most_of(form: Quantised) -> int:
    """The largest sum of a form, constant included, element by element."""
    channels = form.form.channels
    found = [0] * channels
    for dense, weights in form.dense:
        for column in range(channels):
            found[column] += sum(abs(int(w)) for w in weights[:, column]) * dense.wire.magnitude
    for local, weights in form.local:
        for row in range(channels):
            found[row] += sum(abs(int(w)) for w in weights[row]) * local.wire.magnitude
    for pair, factor in form.pairs:
        held = pair.left.magnitude * pair.right.magnitude * (pair.rows.most if pair.rows else 1)
        for row in range(channels):
            found[row] += pair.left_index.shape[-1] * abs(factor) * held
    return max(found) + max(abs(int(c)) for c in form.constant.ravel())


@pytest.mark.parametrize("name", sorted(CASES))
def test_no_equation_reaches_its_stride_and_no_packed_sum_wraps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, seen = lowered(name, monkeypatch)
    for numbers, _, rounding, form, layout, reckoned in seen.settled:
        most, d = 2**numbers.logrows - 1, form.divisor
        remainder = sum(most << (d.step * place) for place in range(d.digits))
        moved = of_digits(numbers, numbers.digits) if rounding.row_top is not None else 0
        digits = of_digits(numbers, rounding.result_digits)
        digits += of_digits(numbers, rounding.below_digits)
        if rounding.clamp_top is not None:
            largest = most_of(form) // d.value + 1
            beyond = Clamp.of(numbers, rounding.clamp_top, largest).beyond
            weights = [1 << (beyond.step * place) for place in range(beyond.count)]
            # What honest provers need: nothing that sums can be is too large.
            assert rounding.clamp_top + (numbers.divisor - 1) * sum(weights) >= largest
            digits += most + most * sum(weights)
        reach = most_of(form) + remainder + d.value * (digits + moved)
        assert reach < 1 << layout.bits, "an equation could make up for its neighbour"
        # The next power of two may forgive what is left out here, and not in a larger model.
        assert reach <= reckoned, "the stride is reckoned from less than an equation can reach"
        assert reach * sum(1 << (layout.bits * i) for i in range(layout.width)) < 1 << FIELD_BITS


class Extremes:
    """A chunk's tensors where digits are as large or as small as the rows allow, or random."""

    def __init__(self, chunk: HintedChunk, seen: Seen, share: float, loose: str = "") -> None:
        """Start with the hints and what is received.

        What is looked up is held among the digits; `loose` names what is not to be.
        """
        given = seen.wires[: len(chunk.incoming)]
        self._held = seen.held - {loose}
        draw = np.random.default_rng(0)
        proto = onnx.ModelProto.FromString(chunk.data)
        self._numbers = chunk.numbers
        self._nodes = {node.output[0]: node for node in proto.graph.node}
        self._known = {
            tensor.name: whole(numpy_helper.to_array(tensor)) for tensor in proto.graph.initializer
        }
        read = [n.input[1] for n in proto.graph.node if n.input[0] == HINTS]
        count = 1 + max(int(self._known[name].max()) for name in read)
        hints = np.where(draw.random(count) < share, 2**chunk.numbers.logrows - 1, 0)
        hints[0] = 0
        for known, places in self._complements():
            hints[places] = np.minimum(hints[places], known)
        self._known[HINTS] = whole(hints)
        for wire in given:
            # Every second one at the other end is what a row's variance is largest for.
            ends = np.arange(wire.size) % 2 if share == 1 else draw.random(wire.size) < share
            self._known[wire.name] = np.where(ends, wire.high, wire.low).astype(object)

    def _complements(self) -> Iterator[tuple[int, Any]]:
        """Hints of which what they leave of a number is looked up, and the number."""
        for name in self._held & self._nodes.keys():
            node = self._nodes[name]
            if node.op_type == "Sub" and node.input[0] in self._known:
                source = self._nodes.get(node.input[1])
                if source is not None and source.input[0] == HINTS:
                    yield (
                        int(self._known[node.input[0]][0]),
                        self._known[source.input[1]].astype(int),
                    )

    def of(self, name: str) -> Any:
        """A tensor's numbers; those it is computed from are kept."""
        waiting = [name]
        while waiting:
            last = waiting[-1]
            missing = (
                [n for n in self._nodes[last].input if n not in self._known]
                if (last not in self._known)
                else []
            )
            if missing:
                waiting += missing
                continue
            waiting.pop()
            if last not in self._known:
                node = self._nodes[last]
                read = [self._known[n] for n in node.input]
                found = circuits._computed(node, read, self._numbers, ANY)
                if last in self._held:
                    found = np.clip(found, 0, 2**self._numbers.logrows - 1)
                self._known[last] = found
        return self._known[name]

    def summands(self, name: str) -> list[Any]:
        """The two tensors that a tensor is the sum of."""
        node = self._nodes[name]
        assert node.op_type == "Add"
        self.of(name)
        return [self.of(each) for each in node.input]


def whole(array: Any) -> Any:
    """An array of Python's integers, and floats where a number is none."""
    numbers = [int(v) if v == int(v) else float(v) for v in array.ravel()]
    return np.array(numbers, dtype=object).reshape(array.shape)


@pytest.mark.parametrize("name", sorted(CASES))
def test_no_digits_take_a_wire_or_a_sum_of_products_out_of_its_bounds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk, seen = lowered(name, monkeypatch)
    for share in SHARES:
        tensors = Extremes(chunk, seen, share)
        for wire in seen.wires:
            found = tensors.of(wire.name)
            assert found.size == wire.size
            if wire is seen.wires[-1] and name.startswith("magnitude"):
                # |v| = p + n, and p n is checked to be zero: one of them at a time.
                found = np.concatenate([part.ravel() for part in tensors.summands(wire.name)])
            assert wire.low <= found.min(), "a wire is lower than what follows is reckoned with"
            assert found.max() <= wire.high, "a wire is higher than what follows is reckoned with"
        sums = [(int(tensors.of(total).sum()), bound) for _, total, bound in seen.products]
        assert all(0 <= total <= bound for total, bound in sums)
        assert sum(bound for _, bound in sums) < 1 << FIELD_BITS


@pytest.mark.parametrize("kind", sorted(operators.ALL_NUMBERS))
def test_what_is_received_is_bounded_by_its_digits(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that holds an incoming value is that it is digits minus the offset."""
    numbers = operators.ALL_NUMBERS[kind]
    _, seen = lowered(f"relu alone, {kind}", monkeypatch)
    received, offset = seen.wires[0], 1 << (numbers.scale + numbers.range_bits)
    assert received.low <= -offset
    assert received.high >= of_digits(numbers, numbers.digits) - offset


def test_sums_of_products_that_could_wrap_are_refused() -> None:
    """Together they are one sum: it is zero only if each is, as long as it cannot wrap."""
    circuit = Circuit(logrows=10, columns=1)
    circuit.check_zero("a", (1 << FIELD_BITS) - 2)
    circuit.check_zero("b", 1)
    with pytest.raises(ChunkingError, match="too many elements"):
        circuit.check_zero("c", 1)
    with pytest.raises(ChunkingError, match="too many elements"):
        Circuit(logrows=10, columns=1).check_zero("a", 1 << FIELD_BITS)


NORMALISED = [
    name
    for name in CASES
    if "softmax" in name
    or "layer norm" in name
    or name.rpartition(",")[0] in quotients.CASES
    or "logarithm" in name
]


@pytest.mark.parametrize("name", NORMALISED)
def test_no_difference_wraps_whatever_its_digits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held at zero or above: no digits make it wrap, and digits reach every honest one."""
    checked: list[tuple[str, int, int]] = []
    hinted: list[tuple[str, int]] = []

    def hinting(lowering: Any, digits: fine.FineDigits, count: int) -> str:
        hinted.append((fine.fine_hints(lowering, digits, count), digits.bound(lowering.numbers)))
        return hinted[-1][0]

    def checking(lowering: Any, tensor: str, count: int, **bounds: int) -> None:
        checked.append((tensor, bounds["most"], bounds["honest"]))
        fine.check_not_negative(lowering, tensor, count, **bounds)

    with monkeypatch.context() as patch:
        for module in (softmax, layer_norm, quotient_operators, exponential_operators):
            if not hasattr(module, "fine_hints"):
                patch.setattr(module, "check_not_negative", checking)
                continue
            patch.setattr(module, "check_not_negative", checking)
            patch.setattr(module, "fine_hints", hinting)
        chunk, seen = lowered(name, monkeypatch)
    assert len(checked) >= 2
    step, numbers = chunk.numbers.logrows - 1, chunk.numbers
    for tensor, bound in hinted:
        assert int(Extremes(chunk, seen, 1.0).of(tensor).max()) == bound
    for tensor, most, honest in checked:
        weights = [1 << (step * place) for place in range(fine.places(numbers, honest))]
        assert most + (2**numbers.logrows - 1) * sum(weights) < 1 << FIELD_BITS
        assert (numbers.divisor - 1) * sum(weights) >= honest
        for share in SHARES:
            tensors = Extremes(chunk, seen, share, loose=tensor)
            assert max(abs(int(v)) for v in tensors.of(tensor).ravel()) <= most


def test_differences_that_could_wrap_are_refused() -> None:
    circuit = Circuit(logrows=10, columns=1)
    lowering: Any = SimpleNamespace(circuit=circuit, numbers=circuits.NUMBERS)
    tensor = circuit.hinted(circuit.hints(1))
    # A thousand is the largest digit, and one digit more than none is enough for it.
    fine.check_not_negative(lowering, tensor, 1, most=(1 << FIELD_BITS) - 1024, honest=500)
    with pytest.raises(NotHintedError, match="too large"):
        fine.check_not_negative(lowering, tensor, 1, most=(1 << FIELD_BITS) - 1023, honest=500)


@pytest.mark.parametrize("kind", sorted(operators.ALL_NUMBERS))
def test_averages_of_half_a_table_have_no_remainder_of_two_quotients(kind: str) -> None:
    """A mean of n elements is divided by n exactly where that leaves one quotient, or none below.

    Where n is a little more than half a table, a digit of the table's reserve reaches 2 n.
    """
    numbers = operators.ALL_NUMBERS[kind]
    half = numbers.divisor // 2
    for count in range(half - 40, half + 60):
        wire = Wire(name="w", size=4, low=0, high=7, resolution=2.0**numbers.scale)
        index = np.arange(4, dtype=np.int64).reshape(1, 1, 4)
        local = Local(wire=wire, index=index, weights=np.full((1, 4), 1 / count))
        form = Form(groups=1, channels=1, local=(local,), bias=np.zeros((1, 1)))
        made = Quantised(form, numbers, resolution=2.0**numbers.scale, offset=0)
        assert made.divisor.digits == 1
        assert 2**numbers.logrows - 1 < 2 * made.divisor.value, count


def test_channels_that_a_product_lacks_are_nothing() -> None:
    """Five channels in units of three: the sixth slot reads no element, not the first."""
    layout = Layout(np.arange(2)[:, None], 5, 3, 20, over_channels=True)
    index = np.arange(2 * 5, dtype=np.int64).reshape(1, 2, 5)
    found = layout.paired(index).reshape(1, 2, 6)
    np.testing.assert_array_equal(found[..., :5], index)
    np.testing.assert_array_equal(found[..., 5:], -1)


def test_window_over_channels_is_refused_among_others_that_are_not() -> None:
    sites = np.arange(8, dtype=np.int64)  # four groups of two channels
    form = Form(groups=4, channels=2, bias=np.zeros((1, 2)))
    pending = Pending(form=form, sites=sites)
    pooled(pending, np.array([[0, 2], [1, 3], [4, 6], [5, 7]]), (4,))
    with pytest.raises(NotHintedError, match="over channels"):
        pooled(pending, np.array([[0, 2], [1, 3], [4, 6], [5, 6]]), (4,))


def test_windows_that_overlap_are_not_pooled_as_they_stand() -> None:
    """A group's equation belongs to one maximum; `windows.max_pool` has another form for these."""
    form = Form(groups=4, channels=2, bias=np.zeros((1, 2)))
    pending = Pending(form=form, sites=np.arange(8, dtype=np.int64))
    with pytest.raises(NotHintedError, match="overlapping"):
        pooled(pending, np.array([[0, 2], [1, 3], [2, 4], [3, 5]]), (4,))


@pytest.mark.parametrize("value", [1, 5, 991, 1 << 100, pow(2, -100, MODULUS) * 3 % MODULUS])
def test_sum_of_products_that_is_not_zero_is_refused(value: int) -> None:
    """It is looked up as it is and times 2^100: for one of the two it must not be in the table.

    The last is what 2^100 takes into the table: large, but not too large for a sum of products.
    """
    circuit = Circuit(logrows=10, columns=1)
    total = circuit.hinted(circuit.hints(1))
    circuit.check_zero(total, 1 << 251)
    circuit.finish()
    numbers = Arithmetic(scale=7, logrows=10, range_bits=5)
    for digit, held in ((0, True), (value, False)):
        hints = np.zeros(circuit.hint_count + 2, dtype=object)
        hints[1] = digit
        known = {t.name: whole(numpy_helper.to_array(t)) for t in circuit.initializers}
        known[HINTS] = hints
        looked_up: list[int] = []
        for node in circuit.nodes:
            if any(name not in known for name in node.input):
                continue
            read = [known[name] for name in node.input]
            if node.op_type == "HardSwish":
                looked_up += read[0].ravel().tolist()
            found = circuits._computed(node, read, numbers, ANY)
            known[node.output[0]] = found % MODULUS if found.dtype == object else found
        assert looked_up
        assert all(0 <= v < numbers.divisor for v in looked_up) == held


REFUSED = ("relu alone", "conv, relu, max pool", "concat of two layers and the input")


@pytest.mark.parametrize("name", REFUSED)
def test_any_hint_one_more_or_less_is_refused_or_changes_nothing(name: str) -> None:
    """Every equation leaves something that is looked up."""
    case, numbers = operators.CASES[name], circuits.NUMBERS
    chunk = hinted_chunk(case.proto(), numbers)
    vector = chunk.advice(chunk.quantised(operators.inputs(case, numbers)))
    honest = circuits.evaluated(chunk, vector)
    advice = advice_of(onnx.ModelProto.FromString(chunk.data))
    hints = advice.looked_up()[advice.hints.places]
    draw, refused = np.random.default_rng(0), 0
    for place in draw.permutation(hints)[:60]:
        for amount in (-1, 1):
            changed = list(vector)
            changed[place] += amount
            try:
                found = circuits.evaluated(chunk, changed)
            except circuits.OutsideTableError:
                refused += 1
                continue
            assert found == honest, "another result is accepted"
    assert refused > 5
