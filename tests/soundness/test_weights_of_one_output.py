"""One output's weights may be a small share of a tensor and all of an answer.

Rounding to an absolute step wipes them out where they are small beside the others: the loss of the
whole tensor stays within every ceiling, the output becomes zero, and a later layer that takes it
up again gives another answer. Whatever a plan chooses (weights' bits below the inputs', rewrites
that round, a hinted circuit of few rows), every output keeps its weights, or the plan is refused.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.models.build import GraphBuilder
from tests.unit.chunking.builders import model as build
from tests.unit.chunking.builders import run
from tests.unit.chunking.hinted_circuit import checked, hinted_chunk
from tests.zoo.quantised import real_outputs
from zkml_ray import PlanOptions, SampleInputs, VerifierPolicy, limits
from zkml_ray.chunking.choose import default_rewrites
from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.load import LoadedModel, load_model
from zkml_ray.chunking.native.writer import Writer
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.passes.precision import CoarseWeightsError
from zkml_ray.chunking.rewrite import Rewrite, apply_rewrites, find_places
from zkml_ray.errors import TrustRootError, VerificationError
from zkml_ray.schema.plan import Plan
from zkml_ray.stages.plan import plan as make_plan
from zkml_ray.verifying.extent import check_extent, check_structure
from zkml_ray.verifying.policy import check_policy, check_weights, shortfalls

Array = npt.NDArray[np.float32]

SMALL = 2.0**-13


def drawn(*shape: int, seed: int = 0) -> Array:
    found = np.random.default_rng([seed, *shape]).uniform(0.5, 1.0, size=shape)
    return np.asarray(found / math.sqrt(shape[0]), dtype=np.float32)


def two_layers() -> onnx.ModelProto:
    """The first layer's last output is small, and large again in the second."""
    first, second = drawn(16, 8), drawn(8, 4, seed=1)
    # Below half a step of 2^-7, and so far above one of 2^-18 that it stays what it is.
    first[:, -1] *= 2.0**-6
    second[-1] *= 2.0**6
    return build(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
            helper.make_node("MatMul", ["h", "v"], ["y"], "second"),
        ],
        {"x": [1, 16]},
        {"y": [1, 4]},
        [numpy_helper.from_array(first, "w"), numpy_helper.from_array(second, "v")],
    )


def edited(plan: Plan, edit: Callable[[dict[str, object]], None]) -> Plan:
    document = plan.model_dump(mode="json")
    edit(document)
    return Plan.model_validate_json(json.dumps(document))


def weights_of(plan: Plan, bits: int) -> Plan:
    def edit(document: dict[str, object]) -> None:
        for chunk in document["chunks"]:  # type: ignore[attr-defined]
            chunk["arguments"]["param_scale"] = bits

    return edited(plan, edit)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    path: Path = tmp_path_factory.mktemp("model") / "two_layers.onnx"
    onnx.save(two_layers(), path)
    return load_model(path)


@pytest.fixture(scope="module")
def honest(loaded: LoadedModel) -> Plan:
    options = PlanOptions(scale=18, layers_per_chunk=9, circuits="native", passes=())
    return make_plan(loaded, options).plan


def test_native_weights_coarser_than_inputs_are_refused(loaded: LoadedModel, honest: Plan) -> None:
    """Which weights are made whole is judged at the inputs' scale: others lose an output."""
    normalised = check_extent(loaded, honest)
    weight = numpy_helper.to_array(normalised.initializers["w"]).astype(np.float64)
    for bits in range(limits.MIN_WEIGHT_BITS, honest.input_scale):
        plan = weights_of(honest, bits)
        kept = np.rint(weight * 2.0**bits) * 2.0**-bits
        # The tensor as a whole hardly changes, whatever becomes of its last column.
        assert np.linalg.norm(kept - weight) < limits.MAX_WEIGHT_LOSS * np.linalg.norm(weight)
        with pytest.raises(VerificationError, match="--max-weight-loss") as caught:
            check_policy(plan, VerifierPolicy())
        assert (caught.value.code, caught.value.subject) == ("plan-precision", "chunk-000")
        assert caught.value.message == shortfalls(plan, VerifierPolicy(), normalised)
        # Who sets no ceiling takes it.
        check_policy(plan, VerifierPolicy(max_weight_loss=1))
    for bits in range(honest.input_scale, limits.MAX_SCALE_BITS + 1):
        check_policy(weights_of(honest, bits), VerifierPolicy())


def test_what_is_refused_would_be_another_answer(
    loaded: LoadedModel, honest: Plan, tmp_path: Path
) -> None:
    from zkml_ray.circuits.derive import rederive_circuits

    np.save(tmp_path / "x.npy", np.full((1, 16), 0.75, dtype=np.float32))
    errors = [
        SampleInputs([tmp_path / "x.npy"])(loaded, rederive_circuits(loaded, plan)).max_abs_error
        for plan in (honest, weights_of(honest, 7))
    ]
    assert errors[0] is not None and errors[1] is not None
    assert errors[0] < 0.01 < 0.5 < errors[1]


def test_rewrites_of_parts_are_held_to_what_those_of_the_whole_are(
    loaded: LoadedModel, honest: Plan
) -> None:
    """A split gives its parts names of their own; a rewrite of one rounds the model's weights."""
    normalised = check_extent(loaded, honest)
    steps = [
        {"name": "split-output", "node": "first", "parameter": 2},
        {"name": "dense-integer", "node": "first/part1", "parameter": 7},
    ]
    plan = edited(honest, lambda document: document.update(rewrites=steps))
    check_weights(plan, normalised, VerifierPolicy())
    with pytest.raises(VerificationError, match="max-weight-loss"):
        check_weights(plan, normalised, VerifierPolicy(max_weight_loss=0.001))
    with pytest.raises(TrustRootError, match="one output") as caught:
        check_structure(normalised, plan)
    assert caught.value.code == "model-circuits"


# Rewrites: every one that makes weights whole numbers.


def dense(last: float) -> onnx.ModelProto:
    weight = drawn(6, 4)
    weight[:, -1] *= last
    return build(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], "dense"),
            helper.make_node("Relu", ["h"], ["y"], "relu"),
        ],
        {"x": [2, 6]},
        {"y": [2, 4]},
        [numpy_helper.from_array(weight, "w")],
    )


def convolution(last: float, *, group: int = 1) -> onnx.ModelProto:
    weight = 4 * drawn(4, 2 // group, 3, 3)
    weight[-1] *= last
    return build(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=group)],
        {"x": [1, 2, 5, 5]},
        {"y": [1, 4, 3, 3]},
        [numpy_helper.from_array(weight, "w")],
    )


def normalisation(last: float) -> onnx.ModelProto:
    gamma = np.ones(8, dtype=np.float32)
    gamma[-1] = last
    return build(
        [helper.make_node("LayerNormalization", ["x", "g", "b"], ["y"], "norm")],
        {"x": [3, 8]},
        {"y": [3, 8]},
        [numpy_helper.from_array(gamma, "g"), numpy_helper.from_array(0 * gamma, "b")],
    )


def feed_forward(last: float, which: str) -> onnx.ModelProto:
    graph = GraphBuilder("ffn")
    weights = {"first": drawn(8, 12), "second": drawn(12, 8, seed=1)}
    weights[which][:, -1] *= last
    for name, value in (*weights.items(), ("root", 2**-0.5), ("half", 0.5), ("one", 1.0)):
        graph.constant(name, value)
    inner = graph.node("MatMul", ["x", "first"], "inner")
    erf = graph.node("Erf", [graph.node("Mul", [inner, "root"], "argument")], "erf")
    half = graph.node("Mul", [inner, "half"], "halved")
    grown = graph.node("Mul", [half, graph.node("Add", [erf, "one"], "more")], "gelu")
    graph.node("MatMul", [grown, "second"], "y")
    return graph.model([("x", [1, 4, 8])], [("y", [1, 4, 8])])


def attention(last: float, which: str) -> onnx.ModelProto:
    graph = GraphBuilder("attention")
    graph.constant("split", [4, 2, 4], np.int64)
    graph.constant("join", [1, 4, 8], np.int64)
    graph.constant("half", 0.5)
    heads = {}
    for place, name in enumerate("qkvo"):
        weight = drawn(8, 8, seed=place)
        if name == which:
            weight[:, -1] *= last
        graph.constant(f"w{name}", weight)
    for name in "qkv":
        made = graph.node("MatMul", ["x", f"w{name}"], name)
        made = graph.node("Reshape", [made, "split"], f"{name}.split")
        heads[name] = graph.node("Transpose", [made], f"{name}.heads", perm=[1, 0, 2])
    key = graph.node("Transpose", [heads["k"]], "k.turned", perm=[0, 2, 1])
    scores = graph.node("Mul", [graph.node("MatMul", [heads["q"], key], "qk"), "half"], "scores")
    shares = graph.node("Softmax", [scores], "shares", axis=-1)
    context = graph.node("MatMul", [shares, heads["v"]], "context")
    merged = graph.node("Transpose", [context], "merged", perm=[1, 0, 2])
    graph.node("MatMul", [graph.node("Reshape", [merged, "join"], "joined"), "wo"], "y")
    return graph.model([("x", [1, 4, 8])], [("y", [1, 4, 8])])


ROUNDED: dict[str, tuple[str, int, Callable[[float], onnx.ModelProto]]] = {
    "dense layer": ("dense-integer", 7, dense),
    "convolution": ("conv-im2col", 7, convolution),
    "convolution in groups": ("conv-im2col", 7, lambda last: convolution(last, group=2)),
    "normalisation": ("layer-norm", 7, normalisation),
    "hidden layer": ("gelu-ffn", 18, lambda last: feed_forward(last, "first")),
    "layer behind it": ("gelu-ffn", 18, lambda last: feed_forward(last, "second")),
    **{
        f"attention's {name}": (
            "attention",
            15 if name in "kv" else 18,
            lambda last, name=name: attention(last, name),
        )
        for name in "qkvo"
    },
}
"""The pass, the bits that it keeps of these weights, and the model, given its last output's."""


@pytest.mark.parametrize("name", ROUNDED)
def test_rewrite_that_would_wipe_out_an_output_is_refused_and_not_planned(name: str) -> None:
    kind, bits, make = ROUNDED[name]
    taken = set()
    for power in range(0, bits + 8, 2):
        proto = normalise(make(2.0**-power), {})
        (place,) = find_places(proto, kind)
        parameter = bits if kind in ("dense-integer", "conv-im2col", "layer-norm") else 1
        rewrite = Rewrite(name=kind, node=place.node, parameter=parameter)
        try:
            apply_rewrites(proto, [rewrite])
            kept = True
        except CoarseWeightsError as error:
            assert "\n" not in error.message and "--no-pass" in error.message
            kept = False
        # Half a step below any of them nothing is left; four bits above all is.
        assert not (kept and power > bits + 2), power
        assert kept or power >= bits - 6, power
        taken.add(kept)
        # A planner leaves it out, or keeps more bits; what he takes can be made.
        chosen = default_rewrites(proto, weight_bits=7)
        apply_rewrites(proto, chosen)
        assert kept or rewrite not in chosen
    assert taken == {True, False}


# What no rewrite takes.


def product(
    left: Array | None, right: Array | None, shape: Sequence[int], y: Sequence[int]
) -> onnx.ModelProto:
    known = {"l": left, "r": right}
    names = ["x" if value is None else name for name, value in known.items()]
    weights = [numpy_helper.from_array(v, n) for n, v in known.items() if v is not None]
    return build(
        [helper.make_node("MatMul", names, ["y"], "product")], {"x": shape}, {"y": y}, weights
    )


def small_row(*shape: int, axis: int) -> Array:
    """Weights of which the last ones along an axis are small."""
    found = 4 * drawn(*shape)
    np.moveaxis(found, axis, 0)[-1] *= np.float32(SMALL)
    return found


def gemm(left: bool, turned: bool, alpha: float = 1.0) -> onnx.ModelProto:
    shape = (4, 6) if left else (6, 4)
    weight = small_row(*shape, axis=0 if left else 1)
    if turned:
        weight = np.ascontiguousarray(weight.T)
    names, turn = (["w", "x", "b"], "transA") if left else (["x", "w", "b"], "transB")
    return build(
        [helper.make_node("Gemm", names, ["y"], "gemm", alpha=alpha, **{turn: int(turned)})],
        {"x": [6, 3] if left else [3, 6]},
        {"y": [4, 3] if left else [3, 4]},
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(drawn(1), "b")],
    )


def einsum(equation: str, weight: Array, shape: Sequence[int], y: Sequence[int]) -> onnx.ModelProto:
    return build(
        [helper.make_node("Einsum", ["x", "w"], ["y"], "einsum", equation=equation)],
        {"x": shape},
        {"y": y},
        [numpy_helper.from_array(weight, "w")],
    )


def conv_with_computed_bias() -> onnx.ModelProto:
    weight = small_row(4, 2, 3, 3, axis=0)
    return build(
        [
            helper.make_node("Relu", ["x"], ["r"], "relu"),
            helper.make_node("ReduceSum", ["r", "axes"], ["s"], "sum", keepdims=0),
            helper.make_node("Conv", ["x", "w", "s"], ["y"], "conv"),
        ],
        {"x": [1, 4, 5, 5]},
        {"y": [1, 4, 3, 3]},
        [
            numpy_helper.from_array(np.concatenate([weight, weight], axis=1), "w"),
            numpy_helper.from_array(np.array([0, 2, 3]), "axes"),
        ],
    )


NATIVE: dict[str, Callable[[], onnx.ModelProto]] = {
    "matrix on the right": lambda: product(None, small_row(6, 4, axis=1), [3, 6], [3, 4]),
    "matrix on the left": lambda: product(small_row(4, 6, axis=0), None, [6, 3], [4, 3]),
    "batch on the right": lambda: product(None, small_row(2, 6, 4, axis=2), [2, 3, 6], [2, 3, 4]),
    "small batch on the right": lambda: product(
        None, small_row(2, 6, 4, axis=0), [2, 3, 6], [2, 3, 4]
    ),
    "batch on the left": lambda: product(small_row(2, 4, 6, axis=1), None, [2, 6, 3], [2, 4, 3]),
    "einsum": lambda: einsum("bk,kn->bn", small_row(6, 4, axis=1), [3, 6], [3, 4]),
    "einsum, letters in another order": lambda: einsum(
        "bhk,nhk->bhn", small_row(4, 2, 6, axis=0), [3, 2, 6], [3, 2, 4]
    ),
    "convolution": lambda: convolution(SMALL),
    "convolution in groups": lambda: convolution(SMALL, group=2),
    "convolution with a computed bias": conv_with_computed_bias,
    **{
        f"gemm {left} {turned} {alpha}": lambda left=left, turned=turned, alpha=alpha: gemm(
            left, turned, alpha
        )
        for left, turned, alpha in itertools.product((False, True), (False, True), (1.0, 0.5))
    },
}


@pytest.mark.parametrize("name", NATIVE)
def test_native_circuits_keep_the_weights_of_every_output(name: str, tmp_path: Path) -> None:
    """Each element is off by a small share of itself and some steps, the small ones too."""
    proto = NATIVE[name]()
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    # All of one sign: nothing cancels, so that a lost weight shows.
    x = np.random.default_rng(3).uniform(32, 64, size=shape)
    arrays = {"x": np.asarray(np.rint(x * 128) / 128, dtype=np.float32)}
    exact = run(proto, arrays)["y"].astype(np.float64)
    scale = 10
    assert np.abs(exact).min() * 64 < np.abs(exact).max() or "bias" in name or "gemm" in name
    found = real_outputs(proto, arrays, tmp_path, scale=scale)["y"]
    off = np.abs(found - exact)
    assert (off <= 4 * 2.0**-scale + np.abs(exact) * 2.0**-8).all(), float(off.max())


@pytest.mark.parametrize("room", [4, 8, 12, 16, 26])
def test_small_factors_are_not_zero_whatever_a_circuit_takes_apart(room: int) -> None:
    """Decompositions of 2^14 made a factor of 2^-14 zero: mock proofs of another class held."""
    for factor in (2.0**-14, 3 * 2.0**-16, 1e-4, 1e-6, 1 / 49):
        write = Writer(prefix="p", scale=11, max_bits=room)
        write.times("x", np.array(factor), to="y")
        constants = {t.name: numpy_helper.to_array(t) for t in write.constants}
        values: dict[str, float] = {"x": 1.0}
        for node in write.nodes:
            first, second = (values.get(n, constants.get(n)) for n in node.input)
            assert first is not None and second is not None
            made = first * second if node.op_type == "Mul" else first + second
            values[node.output[0]] = float(np.asarray(made).reshape(-1)[0])
        assert abs(values["y"] / factor - 1) <= 2.0 ** -min(room, 11)


# Hinted circuits.


def test_hinted_circuit_whose_rows_do_not_hold_both_is_refused() -> None:
    """Finer weights would not fit float32 beside the largest; coarser ones would be zero."""

    def layer(largest: float, small: float) -> onnx.ModelProto:
        weight = drawn(8, 2)
        weight[0, 0], weight[:, 1] = largest, small
        return product(None, weight, [1, 8], [1, 2])

    numbers = Arithmetic(scale=10, logrows=12, range_bits=5)
    x = {"x": np.full((1, 8), 1.0, dtype=np.float32)}
    x["x"][0, 0] = 2.0**-6
    for largest, small in itertools.product((1.0, 15.0, 500.0), (2.0**-8, 2.0**-14, 2.0**-16.4)):
        proto = layer(largest, small)
        try:
            found = checked(hinted_chunk(proto, numbers), x)["y"]
        except NotHintedError as error:
            assert "some output's weights are too small" in error.message
            assert (largest, small) == (500.0, 2.0**-16.4)
            continue
        exact = run(proto, x)["y"].astype(np.float64) * 2**10
        assert np.abs(found - exact).max() <= 3
    with pytest.raises(NotHintedError, match="too small beside the largest weight"):
        hinted_chunk(layer(2000.0, 2.0**-14), numbers)
