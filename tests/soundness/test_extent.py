"""Hostile plans that ask for much work are refused before any of it is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests import zoo
from tests.unit.chunking.builders import model as build
from tests.unit.chunking.hinted_circuit import hinted_chunk
from zkml_ray import PlanOptions, limits
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.load import LoadedModel, load_model
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.rewrite import Rewrite, apply_rewrites, find_places
from zkml_ray.circuits import backend, derive
from zkml_ray.errors import ChunkingError, TrustRootError
from zkml_ray.schema.plan import Plan
from zkml_ray.stages.plan import plan as make_plan
from zkml_ray.verifying.extent import check_extent, check_sizes, check_structure


class WorkDoneError(AssertionError):
    """The verifier began what it should have refused."""


def rows_free(rows: str = "N") -> onnx.ModelProto:
    """Three dense layers over a number of rows that the model leaves open."""
    generator = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(generator.normal(size=(8, 8)).astype(np.float32), name)
        for name in ("u", "v", "w")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "u"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "v"], ["c"], "second"),
        helper.make_node("MatMul", ["c", "w"], ["y"], "third"),
    ]
    return build(nodes, {"x": [rows, 8]}, {"y": [rows, 8]}, weights)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    path: Path = tmp_path_factory.mktemp("model") / "rows.onnx"
    onnx.save(rows_free(), path)
    return load_model(path)


@pytest.fixture(scope="module")
def honest(model: LoadedModel) -> Plan:
    options = PlanOptions(scale=8, layers_per_chunk=1, dimensions={"N": 4}, circuits="hinted")
    return make_plan(model, options).plan


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewriting and every call of ezkl count as work."""

    def refuse(*_: object, **__: object) -> None:
        raise WorkDoneError

    for module, name in (
        (derive, "rewritten_graph"),
        (derive, "extract_chunk"),
        (derive, "extract_hinted_chunk"),
        (backend, "_gen_settings"),
    ):
        monkeypatch.setattr(module, name, refuse)


@pytest.fixture
def no_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making any chunk's circuit counts as work."""

    def refuse(*_: object, **__: object) -> None:
        raise WorkDoneError

    for module, name in (
        (derive, "extract_chunk"),
        (derive, "extract_hinted_chunk"),
        (backend, "_gen_settings"),
    ):
        monkeypatch.setattr(module, name, refuse)


def edited(plan: Plan, edit: Callable[[dict[str, Any]], object]) -> Plan:
    document = plan.model_dump(mode="json")
    edit(document)
    return Plan.model_validate_json(json.dumps(document))


def step(name: str, node: str, parameter: int = 2) -> dict[str, Any]:
    return {"name": name, "node": node, "parameter": parameter}


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "2^31 rows": lambda d: d.update(dimensions=[["N", 1 << 31]]),
    "2^24 rows": lambda d: d.update(dimensions=[["N", 1 << 24]]),
    "a dimension that the model has not": lambda d: d.update(dimensions=[["M", 1], ["N", 4]]),
    "no dimension": lambda d: d.update(dimensions=[]),
    "100,000 rewrites": lambda d: d.update(
        rewrites=[step("split-output", f"part{i}") for i in range(100_000)]
    ),
    "one rewrite again and again": lambda d: d.update(
        rewrites=[step("split-output", "first"), step("split-output", "first")]
    ),
    "10,000 chunks": lambda d: d.update(
        chunks=[
            {**d["chunks"][0], "id": f"chunk-{i:03d}", "nodes": [f"node{i}"]} for i in range(10_000)
        ]
    ),
    "100,000 nodes": lambda d: d["chunks"][0].update(nodes=[f"node{i}" for i in range(100_000)]),
    "20,000 boundaries": lambda d: d.update(
        boundaries=[{**d["boundaries"][0], "name": f"b{i}"} for i in range(20_000)]
    ),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_plan_that_asks_for_much_is_refused_before_anything_is_made_of_it(
    model: LoadedModel,
    honest: Plan,
    how: str,
    no_work: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of dimensions that cannot be, the model is not even normalised."""
    if "rows" in how or "dimension" in how:
        monkeypatch.setattr(derive, "normalise", derive.extract_chunk)  # refused by `no_work`
    with pytest.raises(TrustRootError) as caught:
        check_extent(model, edited(honest, HOSTILE[how]))
    assert caught.value.code == "plan-extent"
    assert len(str(caught.value)) < 600


def of_rows(model: LoadedModel, plan: Plan, rows: int) -> Callable[[dict[str, Any]], None]:
    """Another number of rows, boundaries and their layouts made to agree."""
    from zkml_ray.commitments.packing import PackingSpec
    from zkml_ray.schema.plan import LayoutSpec

    arguments = plan.commitment
    packing = PackingSpec.for_decomposition(arguments.decomp_base, arguments.decomp_legs)
    layout = LayoutSpec.of(arguments.leaf_layout(rows * 8, packing)).model_dump(mode="json")

    def edit(document: dict[str, Any]) -> None:
        document["dimensions"] = [["N", rows]]
        for boundary in document["boundaries"]:
            boundary.update(shape=[rows, 8], layout=layout)

    return edit


@pytest.mark.parametrize("rows", [1 << 14, 1 << 20])
def test_rows_that_no_circuit_of_the_plan_can_hash_are_refused_before_one_is_made(
    model: LoadedModel, honest: Plan, rows: int, no_circuit: None
) -> None:
    """16,384 rows, consistent throughout, took 29 s; now a run must bring an SRS of their size."""
    plan = edited(honest, of_rows(model, honest, rows))
    normalised = check_extent(model, plan)
    with pytest.raises(TrustRootError, match="logrows") as caught:
        check_structure(normalised, plan)
    assert caught.value.code == "plan-extent"


def swapped(document: dict[str, Any]) -> None:
    first, second = document["chunks"][:2]
    first["nodes"], second["nodes"] = second["nodes"], first["nodes"]


def test_steps_of_a_recurrent_operator_are_bounded_before_they_are_written_out(
    tmp_path: Path, honest: Plan, no_circuit: None
) -> None:
    """One node becomes a dozen for every step, and the plan says how many steps there are."""
    generator = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (1, 4, 2)), ("r", (1, 4, 4)))
    ]
    node = helper.make_node("RNN", ["x", "w", "r"], ["y", ""], "rnn", hidden_size=4)
    proto = build([node], {"x": ["T", 1, 2]}, {"y": ["T", 1, 1, 4]}, weights)
    path = tmp_path / "rnn.onnx"
    onnx.save(proto, path)
    loaded = load_model(path)

    def of(steps: int) -> Plan:
        return honest.model_copy(update={"dimensions": (("T", steps),)})

    with pytest.raises(TrustRootError, match="steps are more than") as caught:
        check_extent(loaded, of(limits.MAX_STEPS + 1))
    assert caught.value.code == "model-circuits"
    assert len(check_extent(loaded, of(3)).nodes) > 6


def computed_shape(proto_rows: str = "N") -> onnx.ModelProto:
    """Expand to N^3 rows, which follow from a product that shape inference does not follow."""
    integers = {"first": [0], "one": [1], "axes": [0]}
    constants = [
        onnx.numpy_helper.from_array(np.array(values, dtype=np.int64), name)
        for name, values in integers.items()
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], "shape"),
        helper.make_node("Gather", ["s", "first"], ["n"], "rows"),
        helper.make_node("Concat", ["n", "n", "n"], ["three"], "three", axis=0),
        helper.make_node("ReduceProd", ["three"], ["q"], "cube", keepdims=1),
        helper.make_node("Concat", ["q", "one"], ["to"], "target", axis=0),
        helper.make_node("ReduceSum", ["x", "axes"], ["t"], "total"),
        helper.make_node("Expand", ["t", "to"], ["e"], "expand"),
        helper.make_node("ReduceSum", ["e", "axes"], ["y"], "sum"),
    ]
    return build(nodes, {"x": [proto_rows, 8]}, {"y": [1, 8]}, constants)


def test_shapes_that_only_normalising_tells_are_summed_up_as_well(
    tmp_path: Path, honest: Plan, no_work: None
) -> None:
    """They counted as one element each: 4,096 rows would have been 2^39 positions to write out."""
    path = tmp_path / "cube.onnx"
    onnx.save(computed_shape(), path)
    loaded = load_model(path)

    def of(rows: int) -> Plan:
        return honest.model_copy(
            update={"dimensions": (("N", rows),), "rewrites": (), "chunks": (), "boundaries": ()}
        )

    assert check_extent(loaded, of(8)).tensor("e").shape == (512, 8)
    for rows in (1 << 8, 1 << 12):
        with pytest.raises(TrustRootError, match="number of elements of all tensors") as caught:
            check_extent(loaded, of(rows))
        assert caught.value.code == "plan-extent"
        with pytest.raises(ChunkingError, match=r"larger than what can be proved.*--dim"):
            make_plan(loaded, PlanOptions(dimensions={"N": rows}))


def test_shape_that_nothing_tells_is_refused(honest: Plan, model: LoadedModel) -> None:
    graph = check_extent(model, honest)
    proto = onnx.ModelProto.FromString(graph.proto.SerializeToString())
    del proto.graph.value_info[:]
    with pytest.raises(TrustRootError, match="a shape that is known") as caught:
        check_sizes(ModelGraph(proto), limits.MAX_TENSOR_ELEMENTS)
    assert caught.value.code == "plan-extent"


def wide_windows(kernel: int) -> onnx.ModelProto:
    weight = np.full((1, 1, kernel, kernel), 0.01, dtype=np.float32)
    side = 1024 - kernel + 1
    return build(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        {"x": [1, 1, 1024, 1024]},
        {"y": [1, 1, side, side]},
        [onnx.numpy_helper.from_array(weight, "w")],
    )


@pytest.mark.parametrize("kernel", [64, 256])
def test_windows_whose_elements_would_be_written_out_are_refused_before_they_are(
    kernel: int,
) -> None:
    """The tensors are small, what windows of theirs read is not: up to 2^35 positions."""
    proto = normalise(wide_windows(kernel), {})
    with pytest.raises(ChunkingError, match="columns would have more than"):
        apply_rewrites(proto, [Rewrite(name="conv-im2col", node="conv", parameter=10)])
    assert find_places(proto, "conv-im2col") == []
    with pytest.raises(NotHintedError, match="its windows read"):
        hinted_chunk(wide_windows(kernel))


STRUCTURES: dict[str, Callable[[dict[str, Any]], object]] = {
    "other rows": lambda d: d.update(dimensions=[["N", 5]]),
    "a chunk's nodes in another": swapped,
    "a node left out": lambda d: d["chunks"][0]["nodes"].pop(),
    "a rewrite that the chunks do not show": lambda d: d.update(
        rewrites=[step("split-output", "second")]
    ),
    "a rewrite that cannot be": lambda d: d.update(rewrites=[step("split-output", "relu")]),
    "a shape": lambda d: d["boundaries"][1].update(shape=[8, 4]),
    "operators": lambda d: d["chunks"][1].update(operators=["Softmax"]),
    "boundaries": lambda d: d["boundaries"].pop(),
    "a reader": lambda d: d["boundaries"][0].update(consumers=["chunk-001"]),
    "an output": lambda d: d.update(model_outputs=["b"]),
}


@pytest.mark.parametrize("how", STRUCTURES)
def test_structure_that_is_not_the_models_is_refused_before_a_circuit_is_made(
    model: LoadedModel, honest: Plan, how: str, no_circuit: None
) -> None:
    plan = edited(honest, STRUCTURES[how])
    normalised = check_extent(model, plan)
    with pytest.raises(TrustRootError) as caught:
        check_structure(normalised, plan)
    assert caught.value.code == "model-circuits"


def test_first_circuit_that_differs_is_the_last_one_made(
    model: LoadedModel, honest: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zkml_ray.schema.plan import SealedPlan, VerifyingKeyPin
    from zkml_ray.verifying.trust import check_rebuilt

    made: list[str] = []
    extract = derive.extract_hinted_chunk

    def counted(graph: Any, nodes: Any, *rest: Any, **named: Any) -> bytes:
        made.append(nodes[0])
        return extract(graph, nodes, *rest, **named)

    monkeypatch.setattr(derive, "extract_hinted_chunk", counted)
    plan = edited(honest, lambda d: d["chunks"][0].update(onnx_sha256="0" * 64))
    pins = tuple(VerifyingKeyPin(chunk=chunk.id, sha256="0" * 64) for chunk in plan.chunks)
    sealed = SealedPlan(plan=plan, srs=(), verifying_keys=pins)
    with pytest.raises(TrustRootError, match="chunk-000 differs") as caught:
        check_rebuilt(model, check_structure(check_extent(model, plan), plan), sealed, {})
    assert caught.value.code == "model-circuits"
    assert len(plan.chunks) == 3 and len(made) == 1


@pytest.mark.parametrize("circuits", ["hinted", "native"])
@pytest.mark.parametrize("name", ["mlp", "two_inputs", "two_outputs", "residual", "lenet5"])
def test_honest_plans_are_within_their_models_extent(
    name: str, circuits: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(zoo.MODELS[name](), path)
    loaded = load_model(path)
    made = make_plan(loaded, PlanOptions(scale=8, layers_per_chunk=1, circuits=circuits)).plan
    normalised = check_extent(loaded, made)
    check_structure(normalised, made)
    nodes = len(normalised.nodes)
    assert 2 * len(made.rewrites) <= limits.MAX_REWRITES_PER_NODE * nodes
    for chunk in made.chunks:
        packed = sum(
            layout.leaf_count * layout.packed_per_leaf
            for layout in (made.boundary(b).layout.layout() for b in chunk.touched())
        )
        assert chunk.poseidon_rows >= limits.MIN_HASH_ROWS * packed
        assert chunk.poseidon_rows <= 1 << chunk.arguments.logrows
