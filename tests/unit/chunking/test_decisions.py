"""Comparisons, choices and computed places, as arithmetic: onnxruntime is the judge.

Inputs are multiples of 1/4, so that values are equal, and places tie, often.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.chunking.builders import integers, weight
from zkml_ray.chunking.normal_form.definitions.decisions import MAX_RANKED
from zkml_ray.chunking.normal_form.logic import LOGIC
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.operators import SUPPORTED
from zkml_ray.errors import ChunkingError

Inputs = Mapping[str, tuple[int, Sequence[int]]]
Case = tuple[str, list[onnx.NodeProto], Inputs, list[onnx.TensorProto], int]
FLOAT, BOOL, INT64, INT32 = (
    TensorProto.FLOAT,
    TensorProto.BOOL,
    TensorProto.INT64,
    TensorProto.INT32,
)
SHAPES = (((3,), (3,)), ((2, 5), (5,)), ((2, 1, 4), (3, 1)), ((1, 2, 3, 4), (1, 2, 3, 4)))


def node(op_type: str, *inputs: str, to: Sequence[str] = ("y",), **more: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, list(to), f"the_{op_type}_{to[0]}", **more)


def truths(name: str, *shape: int) -> onnx.TensorProto:
    values = np.random.default_rng([*name.encode()]).integers(0, 2, shape)
    return numpy_helper.from_array(values.astype(bool), name)


def comparisons() -> Iterator[Case]:
    for op_type in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        for left, right in SHAPES:
            inputs = {"x": (FLOAT, left), "z": (FLOAT, right)}
            yield f"{op_type} {left}", [node(op_type, "x", "z")], inputs, [], 18
        quarter = numpy_helper.from_array(np.float32([0.25, -0.5, 0]), "k")
        given = {"x": (FLOAT, (2, 3))}
        yield f"{op_type} constants", [node(op_type, "x", "k")], given, [quarter], 18
        yield f"constants {op_type}", [node(op_type, "k", "x")], given, [quarter], 18
        whole = {"x": (INT64, (2, 3)), "z": (INT64, (3,))}
        yield f"{op_type} of integers", [node(op_type, "x", "z")], whole, [], 18
    yield (
        "a new version",
        [node("Less", "x", "x2")],
        {"x": (FLOAT, (3,)), "x2": (FLOAT, (3,))},
        [],
        21,
    )


def truth_values() -> Iterator[Case]:
    for op_type in ("And", "Or", "Xor"):
        for left, right in SHAPES:
            inputs = {"x": (BOOL, left), "z": (BOOL, right)}
            yield f"{op_type} {left}", [node(op_type, "x", "z")], inputs, [], 18
        yield (
            f"{op_type} constants",
            [node(op_type, "x", "k")],
            {"x": (BOOL, (2, 3))},
            [truths("k", 3)],
            18,
        )
    yield "Not", [node("Not", "x")], {"x": (BOOL, (2, 3))}, [], 18
    equal = [node("Equal", "x", "z", to=["e"]), node("Not", "e")]
    yield "Equal of truths", equal, {"x": (BOOL, (2, 3)), "z": (BOOL, (3,))}, [], 18


def casts() -> Iterator[Case]:
    for source, middle, to in itertools.product(
        (FLOAT, BOOL, INT32, INT64, TensorProto.DOUBLE), (BOOL, INT32, INT64), (FLOAT, INT64)
    ):
        nodes = [node("Cast", "x", to=["c"], to_=0), node("Cast", "c", to_=0)]
        for each, kind in zip(nodes, (middle, to), strict=True):
            each.attribute[0].CopyFrom(helper.make_attribute("to", kind))
        name = f"Cast {source} to {middle} to {to}"
        yield name, nodes, {"x": (source, (2, 7))}, [], 18


def choices() -> Iterator[Case]:
    for (left, right), kind in itertools.product(SHAPES, (FLOAT, INT64)):
        inputs = {"c": (BOOL, left), "x": (kind, right), "z": (kind, left)}
        yield f"Where {kind} {left}", [node("Where", "c", "x", "z")], inputs, [], 18
    compared = [node("Greater", "x", "z", to=["c"]), node("Where", "c", "x", "k")]
    inputs = {"x": (FLOAT, (2, 3)), "z": (FLOAT, (2, 3))}
    yield "Where of a comparison", compared, inputs, [weight("k", 3)], 18


def places() -> Iterator[Case]:
    for op_type, keep, last, (shape, axes) in itertools.product(
        ("ArgMax", "ArgMin"), (0, 1), (0, 1), (((7,), (0,)), ((3, 4), (0, 1)), ((2, 3, 4), (1, -1)))
    ):
        for axis in axes:
            arg = node(op_type, "x", axis=axis, keepdims=keep, select_last_index=last)
            name = f"{op_type} {shape} {axis} {keep} {last}"
            yield name, [arg], {"x": (FLOAT, shape)}, [], 18
    for largest, (shape, axis), k in itertools.product(
        (0, 1),
        (((9,), 0), ((3, 5), 1), ((4, 3), 0), ((2, 4, 3), -2), ((2, 19, 3), 1), ((600,), 0)),
        (1, 3),
    ):
        top = node("TopK", "x", "k", to=["y", "i"], axis=axis, largest=largest)
        name = f"TopK {shape} {axis} {largest} {k}"
        yield name, [top], {"x": (FLOAT, shape)}, [integers("k", k)], 18
    for axis, shape in itertools.product((0, 1, -1), ((4,), (2, 3))):
        hot = node("OneHot", "x", "d", "v", axis=axis)
        for values in ((0.0, 1.0), (-1.5, 2.0)):
            constants = [integers("d", 5), numpy_helper.from_array(np.float32(values), "v")]
            yield f"OneHot {axis} {shape} {values}", [hot], {"x": (INT64, shape)}, constants, 18


def gathers() -> Iterator[Case]:
    for shape, axis, index in itertools.product(
        ((5, 2), (3, 4, 5)), (0, 1, -1), ((), (3,), (2, 2))
    ):
        if shape[axis] < 4:
            continue
        given = {"i": (INT64, index)}
        gather = [node("Gather", "d", "i", axis=axis)]
        yield f"Gather constant {shape} {axis} {index}", gather, given, [weight("d", *shape)], 18
        given = {"i": (INT64, index), "d": (FLOAT, shape)}
        yield f"Gather {shape} {axis} {index}", gather, given, [], 18
    for shape, axis, index in (
        ((5,), 0, (3,)),
        ((5, 2), 0, (3, 2)),
        ((5, 3), 0, (4, 2)),
        ((2, 3, 4), 2, (2, 1, 7)),
        ((2, 4, 3), -2, (1, 2, 3)),
    ):
        given = {"i": (INT64, index), "d": (FLOAT, shape)}
        elements = [node("GatherElements", "d", "i", axis=axis)]
        yield f"GatherElements {shape} {axis} {index}", elements, given, [], 18
    for size in (16, 17, 31, 64, 100, 1000):
        index = numpy_helper.from_array(np.array([size - 1, 0, -size, size // 2, 3]), "k")
        nodes = [node("Mul", "x", "none", to=["m"]), node("Add", "m", "k", to=["i"])]
        constants = [integers("none", 0), index]
        table = [*constants, weight("d", size, 3)]
        gather = [*nodes, node("Gather", "d", "i")]
        yield f"Gather among {size}", gather, {"x": (INT64, (5,))}, table, 18
        row = [*constants, weight("d", size)]
        elements = [*nodes, node("GatherElements", "d", "i")]
        yield f"GatherElements among {size}", elements, {"x": (INT64, (5,))}, row, 18
    argmax = [node("ArgMax", "x", to=["i"], axis=1, keepdims=0), node("Gather", "d", "i")]
    yield "Gather by ArgMax", argmax, {"x": (FLOAT, (3, 4))}, [weight("d", 4, 2)], 18


def scattered() -> Iterator[Case]:
    """Places lie between -4 and 3, and are equal often: of such updates the last one counts."""
    for shape, index, batches in (
        ((5,), (3, 1), 0),
        ((5, 4), (3, 2), 0),
        ((5, 4, 3), (2, 3, 1), 0),
        ((4, 5, 3), (2, 2), 0),
        ((2, 5, 4), (2, 3, 2), 1),
        ((2, 3, 5), (2, 3, 1), 2),
        ((7, 9), (4, 2), 0),
    ):
        given = {"d": (FLOAT, shape), "i": (INT64, index)}
        nodes = [node("GatherND", "d", "i", batch_dims=batches)]
        yield f"GatherND {shape} {index} {batches}", nodes, given, [], 18
    for shape, index in (
        ((5,), (3, 1)),
        ((5, 4), (3, 2)),
        ((4, 3), (6, 1)),
        ((4, 5, 2), (2, 2, 2)),
    ):
        updates = (*index[:-1], *shape[index[-1] :])
        given = {"d": (FLOAT, shape), "i": (INT64, index), "u": (FLOAT, updates)}
        for reduction in ("none", "add"):
            nodes = [node("ScatterND", "d", "i", "u", reduction=reduction)]
            yield f"ScatterND {shape} {index} {reduction}", nodes, given, [], 18
    for shape, axis, count in (((5,), 0, 3), ((2, 4), 1, 5), ((4, 3), 0, 2), ((2, 6, 3), -2, 4)):
        index = tuple(count if at == axis % len(shape) else n for at, n in enumerate(shape))
        given = {"d": (FLOAT, shape), "i": (INT64, index), "u": (FLOAT, index)}
        for reduction in ("none", "add"):
            nodes = [node("ScatterElements", "d", "i", "u", axis=axis, reduction=reduction)]
            yield f"ScatterElements {shape} {axis} {count} {reduction}", nodes, given, [], 18
    zeros = numpy_helper.from_array(np.zeros(8, dtype=np.int64), "d")
    given = {"i": (INT64, (3, 1)), "u": (INT64, (3,))}
    yield "ScatterND of integers", [node("ScatterND", "d", "i", "u")], given, [zeros], 18


def whole_numbers() -> Iterator[Case]:
    for op_type in ("Add", "Sub", "Mul", "Max", "Min"):
        given = {"x": (INT64, (2, 3)), "z": (INT64, (3,))}
        yield f"{op_type} of integers", [node(op_type, "x", "z")], given, [], 18
    for op_type, divisor in itertools.product(("Div", "Mod"), (1, 2, 3, 7)):
        given = {"x": (INT64, (2, 9))}
        yield (
            f"{op_type} by {divisor}",
            [node(op_type, "x", "k")],
            given,
            [integers("k", divisor)],
            18,
        )
    steps = [
        node("Reshape", "x", "s", to=["a"]),
        node("Concat", "a", "k", to=["b"], axis=0),
        node("ReduceSum", "b", "s0", keepdims=0),
    ]
    constants = [integers("s", 6), integers("k", 3, -4), integers("s0", 0)]
    yield "moves and a sum of integers", steps, {"x": (INT64, (2, 3))}, constants, 18


def roundings() -> Iterator[Case]:
    for op_type in ("Floor", "Ceil", "Round", "Sign"):
        for shape in ((40,), (2, 3, 4)):
            yield f"{op_type} {shape}", [node(op_type, "x")], {"x": (FLOAT, shape)}, [], 18


CASES = [
    *(*comparisons(), *truth_values(), *casts(), *choices()),
    *(*places(), *gathers(), *scattered(), *whole_numbers(), *roundings()),
]


def built(
    nodes: Sequence[onnx.NodeProto], inputs: Inputs, used: list[onnx.TensorProto], opset: int
) -> onnx.ModelProto:
    last = [name for name in nodes[-1].output if name]
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, *given) for name, given in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in last],
        used,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    made = onnx.shape_inference.infer_shapes(made, data_prop=True)
    return made


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def feeds_of(inputs: Inputs, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    found = {}
    for name, (kind, shape) in inputs.items():
        low, high = (0, 2) if kind == BOOL else (-4, 4) if kind in (INT64, INT32) else (-12, 12)
        values = generator.integers(low, high, shape)
        quarters = 1 if kind in (BOOL, INT64, INT32) else 4
        found[name] = np.asarray(values / quarters, dtype=np.float32)
    return found


@pytest.mark.parametrize(
    ("nodes", "inputs", "used", "opset"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_what_depends_on_decisions_computes_the_same(
    nodes: list[onnx.NodeProto], inputs: Inputs, used: list[onnx.TensorProto], opset: int
) -> None:
    proto = built(nodes, inputs, used, opset)
    onnx.checker.check_model(proto)
    result = normalise(_read_on(proto), {})
    assert {each.op_type for each in result.graph.node} <= SUPPORTED
    values = (*result.graph.input, *result.graph.value_info, *result.graph.output)
    read = {name for each in result.graph.node for name in each.input}
    constant = {tensor.name for tensor in result.graph.initializer}
    kinds = {v.type.tensor_type.elem_type for v in values if v.name in read - constant}
    assert kinds <= {FLOAT}
    ours, theirs = session(result), session(_read_on(proto))
    for seed in range(3):
        feeds = feeds_of(inputs, seed)
        typed = {
            name: values.astype(helper.tensor_dtype_to_np_dtype(inputs[name][0]))
            for name, values in feeds.items()
        }
        got, expected = ours.run(None, feeds), theirs.run(None, typed)
        for left, right in zip(got, expected, strict=True):
            assert left.dtype == np.float32
            assert left.shape == right.shape
            np.testing.assert_allclose(left, right.astype(np.float32), rtol=1e-6, atol=1e-6)


def _read_on(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model whose outputs are made by no tail that is cut off."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for index, value in enumerate(proto.graph.output):
        made.graph.node.append(node("Unsqueeze", value.name, "front", to=[f"o{index}"]))
        made.graph.node.append(node("Concat", f"o{index}", f"o{index}", to=[f"out{index}"], axis=0))
        made.graph.output[index].name = f"out{index}"
        made.graph.output[index].type.tensor_type.ClearField("shape")
    made.graph.initializer.append(integers("front", 0))
    return onnx.shape_inference.infer_shapes(made, data_prop=True)


def test_every_operator_of_decisions_has_a_case() -> None:
    assert {each.op_type for _, nodes, *_ in CASES for each in nodes} >= LOGIC


@pytest.mark.parametrize(
    ("nodes", "inputs", "used", "said"),
    [
        (
            [node("Mod", "x", "x")],
            {"x": (INT64, (3,))},
            [],
            r"the_Mod_y \(Mod\): .* divided only by one constant above 0",
        ),
        (
            [node("Div", "x", "k")],
            {"x": (INT64, (3,))},
            [integers("k", -2)],
            r"the_Div_y \(Div\): .* divided only by one constant above 0",
        ),
        (
            [node("Add", "x", "k")],
            {"x": (INT64, (3,))},
            [integers("k", (1 << 24) + 1)],
            r"the_Add_y \(Add\): its input k has integers beyond 2\^24",
        ),
        (
            [node("TopK", "x", "k", to=["y", "i"])],
            {"x": (FLOAT, (MAX_RANKED + 1,))},
            [integers("k", MAX_RANKED // 2)],
            r"the_TopK_y \(TopK\): more than 256 elements",
        ),
        (
            [node("TopK", "x", "k", to=["y", "i"], sorted=0)],
            {"x": (FLOAT, (4,))},
            [integers("k", 2)],
            r"the_TopK_y \(TopK\): its number must be a constant, and its result sorted",
        ),
        (
            [node("ReduceProd", "x", "k")],
            {"x": (INT64, (3,))},
            [integers("k", 0)],
            r"the_ReduceProd_y \(ReduceProd\): truth values or integers that depend on the input",
        ),
    ],
)
def test_what_is_not_known_to_be_right_is_refused_by_name(
    nodes: list[onnx.NodeProto], inputs: Inputs, used: list[onnx.TensorProto], said: str
) -> None:
    with pytest.raises(ChunkingError, match=said):
        normalise(_read_on(built(nodes, inputs, used, 18)), {})


def test_a_narrow_integer_that_a_float_is_cast_to_is_refused_by_name() -> None:
    narrow = helper.make_node("Cast", ["x"], ["y"], "the_cast", to=TensorProto.UINT8)
    proto = built([narrow], {"x": (FLOAT, (3,))}, [], 18)
    with pytest.raises(ChunkingError, match=r"the_cast \(Cast\): a Cast to UINT8"):
        normalise(_read_on(proto), {})


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.INT16, TensorProto.UINT8])
@pytest.mark.parametrize("right", [True, False], ids=["truths first", "constant first"])
@pytest.mark.parametrize("beyond", [0, 1])
def test_narrow_product_of_truths_is_right_or_could_wrap(
    kind: int, right: bool, beyond: int
) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    limits = np.iinfo(dtype)
    # One output can reach the type's end, or one further.
    largest = np.zeros((4, 3))
    largest[:3, 1] = limits.max - 2, 1, 1 + beyond
    largest[:, 0] = (0, 1, 0, 1) if limits.min == 0 else (limits.min + 1, 5, -1, 0)
    constant = (largest if right else largest.T).astype(dtype)
    nodes = [
        node("Less", "x", "z", to=["truth"]),
        node("Cast", "truth", to=["narrow"], to_=kind),
        node("MatMul", *(("narrow", "k") if right else ("k", "narrow")), to=["m"]),
        node("Cast", "m", to_=FLOAT),
    ]
    for each in nodes:
        for attribute in each.attribute:
            attribute.name = attribute.name.rstrip("_")
    shape = (2, 4) if right else (4, 2)
    inputs: Inputs = {"x": (FLOAT, shape), "z": (FLOAT, shape)}
    proto = built(nodes, inputs, [numpy_helper.from_array(constant, "k")], 18)
    if beyond:
        with pytest.raises(ChunkingError, match=r"the_MatMul_m \(MatMul\): .* wraps"):
            normalise(_read_on(proto), {})
        return
    ours = session(normalise(_read_on(proto), {}))
    for seed in range(3):
        feeds = feeds_of(inputs, seed)
        truth = (feeds["x"] < feeds["z"]).astype(np.int64)
        wide = constant.astype(np.int64)
        expected = truth @ wide if right else wide @ truth
        (found,) = ours.run(None, feeds)
        first = found.ravel()[: expected.size]
        np.testing.assert_array_equal(first.reshape(expected.shape), expected)
