"""Attention, feed-forward and normalisation rewritten: closer to the model, in fewer cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from benchmarks.models.build import GraphBuilder
from benchmarks.models.encoder import EncoderSize, build_encoder
from tests.unit.chunking.builders import Array, random_feeds, run
from tests.unit.chunking.quantised import run_quantised
from zkml_ray.chunking.choose import default_rewrites
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.rewrite import Rewrite, apply_rewrites, find_places
from zkml_ray.errors import ChunkingError

TOKENS, WIDTH, HEADS, HIDDEN = 4, 8, 2, 12
PASSES = ["attention", "gelu-ffn", "layer-norm"]
SHAPE = [1, TOKENS, WIDTH]


def benchmark_form() -> onnx.ModelProto:
    """LayerNormalization operators, scores divided by sqrt(d), key transposed at once."""
    size = EncoderSize(width=WIDTH, heads=HEADS, hidden=HIDDEN, tokens=TOKENS)
    return normalise(build_encoder(size), {})


class Writer:
    """Writes the pieces of an encoder as other exporters do."""

    def __init__(self, tokens: int = TOKENS) -> None:
        self.graph = GraphBuilder("encoder")
        self.random = np.random.default_rng(3)
        self.shape = [1, tokens, WIDTH]
        self.graph.constant("split", [tokens, HEADS, WIDTH // HEADS], np.int64)
        self.graph.constant("join", self.shape, np.int64)

    def weight(self, name: str, *shape: int) -> str:
        return self.graph.constant(name, self.random.normal(size=shape) / math.sqrt(shape[0]))

    def number(self, name: str, value: float) -> str:
        return self.graph.constant(name, value)

    def dense(self, data: str, name: str, rows: int, columns: int, *, bias: bool = True) -> str:
        product = self.graph.node(
            "MatMul", [data, self.weight(f"{name}.w", rows, columns)], f"{name}.product"
        )
        if not bias:
            return product
        offset = self.graph.constant(f"{name}.b", self.random.normal(size=columns) * 0.3)
        return self.graph.node("Add", [product, offset], f"{name}.sum")

    def attention(self, data: str, *, key_data: str | None = None, axis: int = 2) -> str:
        """Query and key both scaled by the fourth root, as torch's exporter does; no batch axis."""
        node, root = self.graph.node, self.number("root", (WIDTH // HEADS) ** -0.25)
        sides = {}
        for name, source in (("q", data), ("k", key_data or data), ("v", data)):
            made = self.dense(source, name, WIDTH, WIDTH, bias=name != "v")
            made = node("Reshape", [made, "split"], f"{name}.split")
            sides[name] = node("Transpose", [made], f"{name}.heads", perm=[1, 0, 2])
        key = node("Transpose", [sides["k"]], "k.turned", perm=[0, 2, 1])
        scores = node(
            "MatMul",
            [node("Mul", [sides["q"], root], "q.scaled"), node("Mul", [key, root], "k.scaled")],
            "scores",
        )
        shares = node("Softmax", [scores], "shares", axis=axis)
        context = node("MatMul", [shares, sides["v"]], "context")
        merged = node("Transpose", [context], "merged", perm=[1, 0, 2])
        return self.dense(
            node("Reshape", [merged, "join"], "joined"), "o", WIDTH, WIDTH, bias=False
        )

    def norm(self, data: str, *, affine: bool = True, power: float = 2.0) -> str:
        node = self.graph.node
        mean = node("ReduceMean", [data], "mean", axes=[-1], keepdims=1)
        centred = node("Sub", [data, mean], "centred")
        square = node("Pow", [centred, self.number("two", power)], "square")
        variance = node("ReduceMean", [square], "variance", axes=[-1], keepdims=1)
        shifted = node("Add", [variance, self.number("epsilon", 1e-5)], "shifted")
        result = node("Div", [centred, node("Sqrt", [shifted], "deviation")], "quotient")
        if affine:
            gamma = self.graph.constant("gamma", 1 + 0.2 * self.random.normal(size=WIDTH))
            beta = self.graph.constant("beta", 0.2 * self.random.normal(size=WIDTH))
            result = node("Add", [node("Mul", [result, gamma], "grown"), beta], "moved")
        return result

    def feed_forward(self, data: str, *, factor: float = 1 / math.sqrt(2)) -> str:
        """The half first, the argument by multiplication, no biases."""
        node = self.graph.node
        inner = self.dense(data, "first", WIDTH, HIDDEN, bias=False)
        erf = node("Erf", [node("Mul", [inner, self.number("by", factor)], "argument")], "erf")
        half = node("Mul", [inner, self.number("half", 0.5)], "halved")
        grown = node("Add", [self.number("one", 1.0), erf], "one.more")
        return self.dense(node("Mul", [half, grown], "gelu"), "second", HIDDEN, WIDTH, bias=False)

    def finished(self, result: str, *more: str) -> onnx.ModelProto:
        made = self.graph.model([("x", self.shape)], [(n, self.shape) for n in (result, *more)])
        return normalise(made, {})


def exported_form() -> onnx.ModelProto:
    writer = Writer()
    attended = writer.graph.node("Add", ["x", writer.attention("x")], "attended")
    normed = writer.norm(attended)
    return writer.finished(writer.graph.node("Add", [writer.feed_forward(normed), normed], "y"))


FORMS: dict[str, Callable[[], onnx.ModelProto]] = {
    "benchmark": benchmark_form,
    "exported": exported_form,
}


@pytest.fixture(scope="module", params=list(FORMS))
def proto(request: pytest.FixtureRequest) -> onnx.ModelProto:
    made: onnx.ModelProto = FORMS[request.param]()
    return made


def feeds_of(proto: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    return random_feeds({proto.graph.input[0].name: SHAPE}, seed)


def every(proto: onnx.ModelProto, *names: str, parts: int = 1) -> onnx.ModelProto:
    for name in names:
        for place in find_places(proto, name):
            parameter = place.parameter if name == "layer-norm" else parts
            proto = apply_rewrites(proto, [replace(place, parameter=parameter)])
    return proto


def float_error(changed: onnx.ModelProto, proto: onnx.ModelProto) -> float:
    before, after = (run(p, feeds_of(proto)) for p in (proto, changed))
    return max(float(np.abs(after[name] - before[name]).max()) for name in before)


def quantised(proto: onnx.ModelProto, wanted: onnx.ModelProto) -> tuple[float, int]:
    """Root mean square of the error against onnxruntime over 3 inputs, and cells."""
    squares, cells = [], 0
    for seed in range(3):
        feeds = feeds_of(proto, seed)
        (expected,) = run(wanted, feeds).values()
        result = run_quantised(proto, feeds)
        error = result.reals() - expected.reshape(-1)
        squares.append(float((error**2).mean()))
        cells = result.cells
    return math.sqrt(sum(squares) / 3), cells


@pytest.mark.parametrize("name", PASSES)
def test_rewritten_model_computes_the_same_reals(name: str, proto: onnx.ModelProto) -> None:
    changed = every(proto, name)
    assert changed != proto
    assert float_error(changed, proto) < 2e-3


@pytest.mark.parametrize("name", PASSES)
def test_rewritten_circuit_is_no_less_exact_and_smaller(name: str, proto: onnx.ModelProto) -> None:
    error, cells = quantised(every(proto, name), proto)
    error_before, cells_before = quantised(proto, proto)
    assert error < 1.05 * error_before
    assert cells < 0.97 * cells_before


def test_all_passes_together_save_a_quarter_of_the_cells_and_of_the_error(
    proto: onnx.ModelProto,
) -> None:
    error, cells = quantised(every(proto, *PASSES), proto)
    error_before, cells_before = quantised(proto, proto)
    assert error < 0.75 * error_before
    assert cells < 0.75 * cells_before


@pytest.mark.parametrize("name", PASSES)
def test_a_rewrite_gives_the_same_bytes_every_time(name: str, proto: onnx.ModelProto) -> None:
    once, again = (every(proto, name).SerializeToString(deterministic=True) for _ in range(2))
    assert once == again
    assert find_places(onnx.load_from_string(once), name) == []
    ModelGraph(onnx.load_from_string(once))


@pytest.mark.parametrize("name", ["attention", "gelu-ffn"])
def test_parts_add_up_to_the_whole_through_narrow_tensors(
    name: str, proto: onnx.ModelProto
) -> None:
    assert float_error(every(proto, name, parts=2), proto) < 2e-3
    operators = [node.op_type for node in every(proto, name, parts=2).graph.node]
    table = "Exp" if name == "attention" else "Erf"
    assert operators.count(table) == 2


@pytest.mark.parametrize(("name", "most"), [("attention", HEADS), ("gelu-ffn", HIDDEN)])
def test_more_parts_than_heads_or_units_are_refused(
    name: str, most: int, proto: onnx.ModelProto
) -> None:
    (place,) = find_places(proto, name)
    apply_rewrites(proto, [replace(place, parameter=most)])
    for parts, why in (
        (0, "expected 1 to"),
        (most + 1, f"cannot be dealt out to {most + 1} parts"),
    ):
        with pytest.raises(ChunkingError, match=why):
            apply_rewrites(proto, [replace(place, parameter=parts)])


@pytest.mark.parametrize("name", PASSES)
def test_rewrite_of_another_node_is_refused(name: str, proto: onnx.ModelProto) -> None:
    add = next(node.name for node in proto.graph.node if node.op_type == "Add")
    with pytest.raises(ChunkingError, match=add):
        apply_rewrites(proto, [Rewrite(name=name, node=add, parameter=1)])


def without_affine() -> onnx.ModelProto:
    writer = Writer()
    return writer.finished(writer.norm("x", affine=False))


def test_normalisation_without_gamma_and_beta_is_rewritten() -> None:
    proto = without_affine()
    changed = every(proto, "layer-norm")
    assert "ReduceMean" not in [node.op_type for node in changed.graph.node]
    assert float_error(changed, proto) < 1e-3


def test_factors_and_addends_per_token_are_not_taken_for_those_per_feature() -> None:
    """As many tokens as features: their size alone does not tell which they are."""
    writer = Writer(tokens=WIDTH)
    result = writer.norm("x", affine=False)
    for operator, name in (("Mul", "factors"), ("Add", "addends")):
        column = writer.graph.constant(name, 1 + writer.random.normal(size=(WIDTH, 1)))
        result = writer.graph.node(operator, [result, column], f"by.{name}")
    proto = writer.finished(result)
    changed = every(proto, "layer-norm")
    assert "ReduceMean" not in [node.op_type for node in changed.graph.node]
    feeds = {"x": writer.random.normal(size=(1, WIDTH, WIDTH)).astype(np.float32)}
    before, after = (next(iter(run(p, feeds).values())) for p in (proto, changed))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-2)


@pytest.mark.parametrize("factor", [1 / math.sqrt(2), 0.5, 1.25])
def test_any_factor_of_the_argument_is_folded_into_the_weights(factor: float) -> None:
    writer = Writer()
    proto = writer.finished(writer.feed_forward("x", factor=factor))
    assert float_error(every(proto, "gelu-ffn"), proto) < 1e-3


def other_power() -> onnx.ModelProto:
    writer = Writer()
    return writer.finished(writer.norm("x", power=4.0))


def softmax_over_queries() -> onnx.ModelProto:
    writer = Writer()
    return writer.finished(writer.attention("x", axis=1))


def keys_of_another_sequence() -> onnx.ModelProto:
    writer = Writer()
    other = writer.graph.node("Neg", ["x"], "other")
    return writer.finished(writer.attention("x", key_data=other))


def shares_shown() -> onnx.ModelProto:
    writer = Writer(tokens=WIDTH // HEADS)
    result = writer.attention("x")
    shown = writer.graph.node("Reshape", ["shares", "shown_shape"], "shown")
    writer.graph.constant("shown_shape", [1, WIDTH // HEADS, WIDTH], np.int64)
    return writer.finished(result, shown)


def activation_shown() -> onnx.ModelProto:
    writer = Writer(tokens=WIDTH)
    result = writer.feed_forward("x")
    writer.graph.constant("corner", [HIDDEN - WIDTH], np.int64)
    writer.graph.constant("end", [HIDDEN], np.int64)
    writer.graph.constant("axes", [2], np.int64)
    shown = writer.graph.node("Slice", ["gelu", "corner", "end", "axes"], "shown")
    return writer.finished(result, shown)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (other_power, "layer-norm"),
        (softmax_over_queries, "attention"),
        (keys_of_another_sequence, "attention"),
        (shares_shown, "attention"),
        (activation_shown, "gelu-ffn"),
    ],
)
def test_what_only_looks_like_the_form_is_left_alone(
    build: Callable[[], onnx.ModelProto], name: str
) -> None:
    proto = build()
    assert find_places(proto, name) == []
    kind = {"layer-norm": "ReduceMean", "attention": "Softmax", "gelu-ffn": "Erf"}[name]
    node = next(node.name for node in proto.graph.node if node.op_type == kind)
    with pytest.raises(ChunkingError, match=node):
        apply_rewrites(proto, [Rewrite(name=name, node=node, parameter=1)])


@pytest.mark.parametrize(("scale", "bits"), [(8, 15), (11, 15), (12, 14), (13, 13)])
def test_gamma_gives_up_bits_where_the_scale_leaves_no_room(scale: int, bits: int) -> None:
    chosen = default_rewrites(without_affine(), weight_bits=scale)
    assert chosen == [Rewrite(name="layer-norm", node=chosen[0].node, parameter=bits)]


@pytest.mark.parametrize("scale", [8, 12])
def test_rewritten_circuit_keeps_its_ranges_from_scale_8_to_12(
    scale: int, proto: onnx.ModelProto
) -> None:
    changed = apply_rewrites(proto, default_rewrites(proto, weight_bits=scale))
    feeds = feeds_of(proto)
    (expected,) = run(proto, feeds).values()
    error = run_quantised(changed, feeds, scale=scale).reals() - expected.reshape(-1)
    assert np.abs(error).max() < 6 * 2.0**-scale


def test_at_a_scale_without_room_attention_and_normalisation_stay_as_they_are(
    proto: onnx.ModelProto,
) -> None:
    assert {r.name for r in default_rewrites(proto, weight_bits=12)} == set(PASSES)
    assert "attention" not in {r.name for r in default_rewrites(proto, weight_bits=13)}
    assert {r.name for r in default_rewrites(proto, weight_bits=17)} == {"gelu-ffn"}


def test_every_layer_of_an_encoder_is_rewritten() -> None:
    size = EncoderSize(layers=2, width=WIDTH, heads=HEADS, hidden=HIDDEN, tokens=TOKENS)
    proto = normalise(build_encoder(size), {})
    chosen = default_rewrites(proto, weight_bits=10)
    assert sorted(rewrite.name for rewrite in chosen) == sorted(
        [*PASSES, *PASSES, *["layer-norm"] * 2]
    )
    assert float_error(apply_rewrites(proto, chosen), proto) < 2e-3
