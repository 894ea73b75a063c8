"""Packed equations of emitted circuits are their elements' equations: for every number there is.

The analyser reads the emitted nodes alone (`tests/emitted/analyser.py`). It would be worth nothing
if it found no fault: faults are planted in every bound that the emitter computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from benchmarks.models.registry import MODELS
from tests import zoo
from tests.emitted.analyser import Analysis, analyse
from tests.emitted.faults import planted
from tests.emitted.intervals import NotUnderstoodError
from tests.unit.chunking.builders import weight
from tests.unit.chunking.hinted_cases import CASES as OPERATORS
from tests.unit.chunking.hinted_cases import Case, convolutions, dense, node, number
from tests.unit.chunking.hinted_circuit import HintedChunk, hinted_chunk
from tests.unit.chunking.test_hinted_decisions import CASES as DECISIONS
from tests.unit.chunking.test_hinted_exponentials import BELOW_ZERO
from tests.unit.chunking.test_hinted_functions import ALL_NUMBERS, gelu
from tests.unit.chunking.test_hinted_functions import CASES as FUNCTIONS
from tests.unit.chunking.test_hinted_quotients import CASES as QUOTIENTS
from tests.unit.chunking.test_hinted_tables import CASES as TABLES
from zkml_ray.chunking.hinted import (
    bits,
    circuit,
    clamp,
    extract,
    forms,
    layer_norm,
    lower,
    numbers,
    rounding,
    settle,
    softmax,
)
from zkml_ray.chunking.hinted import (
    gelu as gated_numbers,
)
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.operators import decisions
from zkml_ray.chunking.hinted.operators import products as products_
from zkml_ray.chunking.load import parse_model
from zkml_ray.errors import ChunkingError
from zkml_ray.stages.plan import PlanOptions, plan


def gelu_and_layer() -> Case:
    """A sum of many gated numbers is larger than what it is rounded to."""
    first = gelu("Div x, x half (1 + erf)")
    *head, last = first.nodes
    last = node("Mul", *last.input, to="z")
    return Case(
        nodes=[*head, last, node("MatMul", "z", "u")],
        x=first.x,
        y=[3, 2],
        constants=[*first.constants, numpy_helper.from_array(np.full((10, 2), 3, np.float32), "u")],
    )


CASES: Mapping[str, Case] = {
    **OPERATORS,
    **FUNCTIONS,
    **TABLES,
    **DECISIONS,
    **QUOTIENTS,
    "selu between layers": BELOW_ZERO["selu between layers"],
    "gelu and a layer": gelu_and_layer(),
    "wide layer": Case(
        nodes=[node("MatMul", "x", "w")],
        x=[2, 64],
        y=[2, 3],
        constants=[numpy_helper.from_array(np.full((64, 3), 0.5, np.float32), "w")],
    ),
}

SHORT = Arithmetic(scale=5, logrows=8, range_bits=4)
"""Two digits, of few rows."""

WIDE = Arithmetic(scale=10, logrows=13, range_bits=9)

KINDS = {**ALL_NUMBERS, "scale 5": SHORT, "scale 10": WIDE}


def analysed(chunk: HintedChunk) -> Analysis:
    model = onnx.ModelProto.FromString(chunk.data)
    return analyse(model, logrows=chunk.numbers.logrows, scale=chunk.numbers.scale)


def products(model: onnx.ModelProto) -> bool:
    """Whether something is multiplied that has to be zero: an inner product that has no rows."""
    return any(
        a.s == b"i,i->" for n in model.graph.node if n.op_type == "Einsum" for a in n.attribute
    )


@pytest.mark.parametrize(
    "kind",
    ["scale 7", *(pytest.param(f"scale {s}", marks=pytest.mark.slow) for s in (5, 8, 10))],
)
@pytest.mark.parametrize("name", sorted(CASES))
def test_packed_equations_of_every_operator_are_their_elements(name: str, kind: str) -> None:
    try:
        chunk = hinted_chunk(CASES[name].proto(), KINDS[kind])
    except ChunkingError:
        assert kind in ("scale 5", "scale 10"), "has a hinted form where the recipe was tested"
        return
    found = analysed(chunk)
    assert not found.findings
    model = onnx.ModelProto.FromString(chunk.data)
    assert found.zeros == int(products(model))
    assert found.fill < 1
    digits = chunk.numbers.digits - 1
    sizes = [t.layout.element_count for t in chunk.incoming]
    # Each incoming value is held by an equation; its second digit and all other hints are digits.
    assert found.values == sum(sizes)
    assert found.looked_up >= digits * sum(sizes)


def planned_findings(data: bytes, name: str, scale: int) -> Iterator[tuple[str, Analysis]]:
    circuits = plan(parse_model(data, name), PlanOptions(circuits="hinted", scale=scale))
    for chunk in circuits.plan.chunks:
        model = onnx.ModelProto.FromString(circuits.files[chunk.id].onnx)
        arguments = chunk.arguments
        found = analyse(model, logrows=arguments.logrows, scale=arguments.input_scale)
        assert found.zeros == int(products(model))
        yield chunk.id, found


SLOW = {"deep_mlp", "lenet5", "transformer"}
"""Models that take seconds to plan."""


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        pytest.param(name, scale, marks=pytest.mark.slow if name in SLOW or scale > 8 else ())
        for name in sorted(zoo.MODELS)
        for scale in (8, 11)
    ],
)
def test_packed_equations_of_the_zoo_are_their_elements(name: str, scale: int) -> None:
    data = zoo.MODELS[name]().SerializeToString()
    for chunk, found in planned_findings(data, name, scale):
        assert not found.findings, chunk
        assert found.packed + found.single > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *[(name, scale) for name in ("digits", "lenet5", "resnet_block") for scale in (8, 10, 12)],
        ("encoder_block", 11),
        ("encoder_block", 12),
    ],
)
def test_packed_equations_of_benchmark_models_are_their_elements(name: str, scale: int) -> None:
    for chunk, found in planned_findings(MODELS[name].path.read_bytes(), name, scale):
        assert not found.findings, chunk


@st.composite
def nets(draw: st.DrawFn) -> tuple[Case, Arithmetic]:
    """Layers of tokens, one behind the other, with any numbers."""
    tokens, width = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    first = width
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = [number("half", 0.5), number("one", 1.0)]
    value = "x"
    count = draw(st.integers(1, 4))
    table = draw(st.sampled_from(["Softmax", "Erf", ""]))
    kinds = ["Gemm", "Relu", "Attention", "LayerNormalization", "Residual", table or "Gemm"]
    for index in range(count):
        to = f"t{index}" if index + 1 < count else "y"
        kind = draw(st.sampled_from(kinds))
        if kind == "Gemm":
            rows, width = width, draw(st.integers(1, 24))
            constants += [dense(rows, width, to=f"w{index}"), weight(f"b{index}", width)]
            nodes.append(node("Gemm", value, f"w{index}", f"b{index}", to=to))
        elif kind == "Attention":
            nodes += [
                node("Transpose", value, to=f"k{index}", perm=[1, 0]),
                node("MatMul", value, f"k{index}", to=f"s{index}"),
                node("MatMul", f"s{index}", value, to=to),
            ]
        elif kind == "LayerNormalization":
            constants += [weight(f"g{index}", width), weight(f"b{index}", width)]
            nodes.append(node(kind, value, f"g{index}", f"b{index}", to=to, axis=-1))
        elif kind == "Residual":
            nodes += [node("Relu", value, to=f"r{index}"), node("Add", f"r{index}", value, to=to)]
        elif kind == "Erf":
            nodes += [
                node("Mul", value, "half", to=f"v{index}"),
                node("Erf", f"v{index}", to=f"e{index}"),
                node("Add", f"e{index}", "one", to=f"p{index}"),
                node("Mul", f"p{index}", f"v{index}", to=to),
            ]
        else:
            attributes = {"axis": -1} if kind == "Softmax" else {}
            nodes.append(node(kind, value, to=to, **attributes))
        value = to
    scale = draw(st.integers(4, 9))
    logrows = scale + 3 if table == "Softmax" else scale + draw(st.integers(2, 5))
    numbers_ = Arithmetic(
        scale=scale, logrows=max(logrows, 8), range_bits=draw(st.integers(2, min(7, logrows - 2)))
    )
    return Case(nodes=nodes, x=[tokens, first], y=[tokens, width], constants=constants), numbers_


def hold(case: Case, numbers_: Arithmetic) -> None:
    try:
        chunk = hinted_chunk(case.proto(), numbers_)
    except ChunkingError:
        return
    assert not analysed(chunk).findings


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(nets())
def test_packed_equations_of_random_nets_are_their_elements(
    net: tuple[Case, Arithmetic],
) -> None:
    hold(*net)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(nets())
def test_packed_equations_of_many_random_nets_are_their_elements(
    net: tuple[Case, Arithmetic],
) -> None:
    hold(*net)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(convolutions())
def test_packed_equations_of_random_convolutions_are_their_elements(case: Case) -> None:
    for numbers_ in (SHORT, ALL_NUMBERS["scale 7"]):
        hold(case, numbers_)


# What the analyser is worth.

RESULT = ("reach += divisor.value * numbers.bound_of(rounding.result_digits)", "pass")
DISTANCE = ("reach += divisor.value * numbers.bound_of(rounding.below_digits)", "pass")
MOVE = ("(numbers.value_bound if moved else 0)", "0")
REMAINDER = ("divisor.remainder_bound(numbers)", "0")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and a circuit that shows it."""

    module: ModuleType
    edits: tuple[tuple[str, str], ...]
    case: str
    kind: str = "scale 7"


FAULTS = {
    "move and distance left out": Fault(settle, (MOVE, DISTANCE), "softmax"),
    "result left out": Fault(settle, (RESULT,), "softmax"),
    "all digits left out": Fault(settle, (RESULT, DISTANCE, MOVE, REMAINDER), "max pool alone"),
    "bound of a softmax's weights": Fault(
        softmax,
        (("0, bounds.high, float(bounds.target), bits", "0, 1, float(bounds.target), bits"),),
        "attention",
    ),
    "bound of a softmax's shares": Fault(
        softmax,
        (("weights.wire.high * reciprocals.most,", "weights.wire.high,"),),
        "softmax",
        "scale 10",
    ),
    "bound of what is clamped": Fault(
        clamp,
        (("numbers.digit_bound + self.beyond.bound(numbers)", "self.top"),),
        "tanh between layers",
    ),
    "bits that nothing holds": Fault(
        bits,
        (("circuit.check_digits(circuit.subtract(one, bits, size), size)", "pass"),),
        "signs of a layer",
    ),
    "whole parts without a bound": Fault(
        decisions,
        (
            (
                "circuit.check_digits(circuit.subtract(circuit.whole([most]), digits, size), size)",
                "pass",
            ),
        ),
        "floor of a layer",
    ),
    "signs that nothing holds": Fault(
        clamp,
        (("circuit.check_digits(circuit.subtract(one, bits, count), count)", "pass"),),
        "tanh between layers",
    ),
    "bound of GELU": Fault(
        gated_numbers,
        (("bound = numbers.digit_bound * (one + abs(plus))", "bound = numbers.digit_bound"),),
        "gelu and a layer",
    ),
    "depth of products": Fault(
        forms,
        (("return depth * self.left.magnitude", "return self.left.magnitude"),),
        "product of activations",
    ),
    "bound of a normalisation": Fault(
        layer_norm, (("reach = bound * digits.bound(numbers)", "reach = bound"),), "layer norm"
    ),
    "weights of a layer": Fault(
        rounding,
        (("np.abs(weights).sum(axis=0)", "0 * np.abs(weights).sum(axis=0)"),),
        "conv",
    ),
    "sum of a layer's weights": Fault(
        rounding,
        (("np.abs(weights).sum(axis=0)", "np.abs(weights).max(axis=0)"),),
        "wide layer",
    ),
    "stride": Fault(
        numbers, (("return magnitude.bit_length()", "return magnitude.bit_length() - 1"),), "conv"
    ),
    "elements of a packed equation": Fault(
        numbers,
        (("return PACKED_BITS // stride", "return 2 * PACKED_BITS // stride"),),
        "conv, depthwise",
    ),
    "powers": Fault(
        circuit,
        (
            (
                "step = self.whole([2.0 ** (bits * min(run, _CONSTANT_BITS // bits))])",
                "step = self.whole([2.0 ** (bits * min(run, _CONSTANT_BITS // bits) - 1)])",
            ),
        ),
        "conv, depthwise",
    ),
    "incoming values unchecked": Fault(
        lower, (("circuit.check_digits(shifted, size)", "pass"),), "gemm"
    ),
    "range of incoming values": Fault(
        lower,
        (("size, -numbers.offset, numbers.value_bound - numbers.offset)", "size, 0, 1)"),),
        "wide layer",
    ),
    "hints that are not looked up": Fault(
        extract,
        (
            (
                'helper.make_node("HardSwish", [GIVEN], [digits], name=digits)',
                'helper.make_node("Reshape", [GIVEN, circuit.indices([-1])], [digits])',
            ),
        ),
        "gemm",
    ),
    "hints that are not looked up beside a function": Fault(
        circuit, (("if self._function and self.hint_count:", "if False:"),), "softmax"
    ),
    "salts added to values": Fault(
        extract,
        (
            (
                "kept = salts[index] if salted else source",
                "kept = salts[index]; first = circuit.advice().places[:1] * 0; "
                "source = circuit.add(source, circuit.gather(kept, first), count)",
            ),
        ),
        "gemm",
    ),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_planted_fault_is_found(name: str) -> None:
    fault = FAULTS[name]
    assert not analysed(made(fault.case, fault.kind)).findings
    with planted(fault.module, *fault.edits):
        try:
            found = analysed(made(fault.case, fault.kind)).findings
        except NotUnderstoodError as error:
            found = [str(error)]
    assert found


@pytest.mark.parametrize("name", ["move", "distance", "remainder"])
@pytest.mark.parametrize("kind", ["scale 7", pytest.param("scale 8", marks=pytest.mark.slow)])
def test_one_term_of_reach_may_be_left_out(name: str, kind: str) -> None:
    """The bound adds magnitudes, of which half at most can be of one sign.

    A result, a move and a remainder are taken away; a distance, of as many digits as each, and half
    a divisor or more are added. So no slot reaches 2^b for want of one of these terms.
    """
    edit = {"move": MOVE, "distance": DISTANCE, "remainder": REMAINDER}[name]
    with planted(settle, edit):
        for case in ("softmax", "softmax of a layer", "max pool alone", "relu alone", "gemm"):
            assert not analysed(made(case, kind)).findings


def test_numbers_of_twice_a_functions_scale_are_refused_and_would_be_found() -> None:
    """A remainder times 2^s in the field is a digit for remainders that are none."""
    unrounded = ("return [as_factor(lowering, name) for name in (first, second)]", "pass")
    with planted(products_, unrounded):
        with pytest.raises(ChunkingError, match="scale 14 cannot be read at scale 7"):
            made("product of two GELUs", "scale 7")
        with planted(circuit, ("if nominal > target:", "if False:")):
            assert analysed(made("product of two GELUs", "scale 7")).findings


def made(case: str, kind: str) -> HintedChunk:
    return hinted_chunk(CASES[case].proto(), KINDS[kind])


def test_products_isolated_by_too_little_are_not_held_at_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chunk = made("relu alone", "scale 7")
    assert analysed(chunk).zeros == 1
    monkeypatch.setattr(circuit, "_ISOLATION_BITS", chunk.numbers.logrows - 1)
    assert analysed(made("relu alone", "scale 7")).zeros == 0
