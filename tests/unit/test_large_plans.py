"""What planning counts and lowers does not grow with what repeats; sharing changes no plan."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests import zoo
from tests.unit.chunking import builders
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.extract import extract_hinted_chunk
from zkml_ray.chunking.hinted.lower import Lowering
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.recipe import cell_count
from zkml_ray.chunking.hinted.sizes import End, sized_circuits
from zkml_ray.chunking.load import LoadedModel, parse_model
from zkml_ray.chunking.partition import layer_partition
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import committed_tensors, normalised_graph, rederive_circuits
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.cost.model import CostModel
from zkml_ray.cost.profiles import shipped_profile
from zkml_ray.errors import ChunkingError, StageError
from zkml_ray.events import Event, Working
from zkml_ray.schema.plan import CommitmentArguments
from zkml_ray.stages import estimate, size
from zkml_ray.stages.estimate import Estimator
from zkml_ray.stages.hinted import MAX_UNITS, HintedPlanner
from zkml_ray.stages.pieces import likeness
from zkml_ray.stages.plan import PlanOptions, hinted_commitment, plan

PROFILE = shipped_profile()
WIDTH = 12
COLUMNS = range(1, 8)


def deep(layers: int, *, bias: float = 0.1) -> onnx.ModelProto:
    """Layers of one shape, weights of their own."""
    nodes, weights, data = [], [], "x"
    for index in range(layers):
        names = [f"{each}{index}" for each in "wbgry"]
        weight, offset, product, kept, total = names
        weights += [
            builders.weight(weight, WIDTH, WIDTH, seed=index),
            numpy_helper.from_array(np.full(WIDTH, bias, dtype=np.float32), offset),
        ]
        nodes += [
            helper.make_node("Gemm", [data, weight, offset], [product], product),
            helper.make_node("Relu", [product], [kept], kept),
            helper.make_node("Add", [kept, data], [total], total),
        ]
        data = total
    return builders.model(nodes, {"x": [1, WIDTH]}, {data: [1, WIDTH]}, weights)


def loaded(proto: onnx.ModelProto) -> LoadedModel:
    return parse_model(proto.SerializeToString(), "model.onnx")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What ezkl is asked to count, on a machine that has counted nothing yet."""
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []
    real = backend._gen_settings

    def gen_settings(onnx_path: Path, out: Path, args: Any) -> None:
        asked.append(likeness(onnx_path.read_bytes()))
        real(onnx_path, out, args)

    monkeypatch.setattr(backend, "_gen_settings", gen_settings)
    return asked


def test_layers_of_one_shape_are_counted_as_often_as_a_few(
    counted: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []
    for layers in (3, 6, 12):
        counted.clear()
        monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / str(layers)))
        graph = normalised_graph(loaded(deep(layers)), {})
        estimator = Estimator(graph, input_scale=7, commitment=CommitmentArguments())
        assert len(estimator.units) >= 2 * layers
        found.append(len(counted))
    assert found[0] > 0
    assert found == [found[0]] * 3


@pytest.mark.parametrize("name", ["residual", "resnet", "deep"])
def test_plan_of_pieces_that_are_counted_once_is_the_plan_of_pieces_that_all_are(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(deep(5) if name == "deep" else zoo.MODELS[name]())
    options = PlanOptions(circuits="native", scale=7)
    cache = _without_kept_plans(monkeypatch)
    shared = plan(model, options, PROFILE)
    unlike = map(str, itertools.count())
    monkeypatch.setattr(estimate, "likeness", lambda _piece: next(unlike))
    cache()
    assert plan(model, options, PROFILE).plan.digest() == shared.plan.digest()


def _without_kept_plans(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have `plan` plan: what is returned is called before it does so again."""

    def made(*args: Any) -> Any:
        return args[-1]()

    def again() -> None:
        monkeypatch.setattr("zkml_ray.stages.plan.kept_plan", made)

    again()
    return again


def one_layer(proto: onnx.ModelProto) -> bytes:
    """The last layer alone, under names of its own."""
    kept, weights = list(proto.graph.node)[-3:], {w.name: w for w in proto.graph.initializer}
    used = [weights[name] for node in kept for name in node.input if name in weights]
    data, last = kept[0].input[0], kept[-1].output[0]
    made = builders.model(kept, {data: [1, WIDTH]}, {last: [1, WIDTH]}, used)
    return made.SerializeToString()


def test_pieces_that_differ_in_names_and_weights_are_alike() -> None:
    assert one_layer(deep(1)) != one_layer(deep(2))
    assert likeness(one_layer(deep(1))) == likeness(one_layer(deep(2)))


def _with(change: Callable[[onnx.GraphProto], Any]) -> bytes:
    proto = onnx.ModelProto.FromString(one_layer(deep(1)))
    change(proto.graph)
    return proto.SerializeToString()


def _replaced(graph: onnx.GraphProto, index: int, array: np.ndarray) -> None:
    name = graph.initializer[index].name
    graph.initializer[index].CopyFrom(numpy_helper.from_array(array, name))


WHOLE = np.ones((WIDTH, WIDTH), dtype=np.float32)
CHANGES: dict[str, Callable[[onnx.GraphProto], Any]] = {
    "another operator": lambda g: setattr(g.node[1], "op_type", "Abs"),
    "an attribute": lambda g: g.node[0].attribute.append(helper.make_attribute("transB", 1)),
    "other inputs": lambda g: g.node[2].input.__setitem__(1, g.node[2].input[0]),
    "a few values": lambda g: _replaced(g, 1, np.full(WIDTH, 0.25, dtype=np.float32)),
    "whole weights": lambda g: _replaced(g, 0, WHOLE),
    "a shape": lambda g: g.input[0].type.tensor_type.shape.dim.add(),
    "another output": lambda g: setattr(g.output[0], "name", g.node[0].output[0]),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_pieces_that_differ_in_what_matters_are_not_alike(change: str) -> None:
    assert likeness(_with(CHANGES[change])) != likeness(one_layer(deep(1)))


@pytest.mark.parametrize(("zeros", "alike"), [(1, True), (8, True), (9, False), (72, False)])
def test_pieces_with_many_more_zeros_are_not_alike(zeros: int, alike: bool) -> None:
    def some_zeros(graph: onnx.GraphProto) -> None:
        array = numpy_helper.to_array(graph.initializer[0]).copy()
        array.flat[:zeros] = 0
        _replaced(graph, 0, array)

    assert (likeness(_with(some_zeros)) == likeness(one_layer(deep(1)))) is alike


# Hinted circuits.


def test_hinted_plans_ask_ezkl_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path))
    monkeypatch.delattr(backend, "_gen_settings")
    model = loaded(deep(3))
    made = plan(model, PlanOptions(circuits="hinted", scale=7), PROFILE)
    assert rederive_circuits(model, made.plan).plan.digest() == made.plan.digest()


def segments(graph: ModelGraph) -> Iterator[list[End]]:
    """Of every unit, the chunks that begin there."""
    options = PlanOptions(scale=7)
    commitment = hinted_commitment(options)
    packing = PackingSpec.for_decomposition(commitment.decomp_base, commitment.decomp_legs)
    units = layer_partition(graph)

    def joined(parts: Sequence[Sequence[str]]) -> list[str]:
        return [name for part in parts for name in part]

    for start in range(len(units)):
        ends = []
        for end in range(start + 1, len(units) + 1):
            parts = [joined(units[:start]), joined(units[start:end]), joined(units[end:])]
            crossings = graph.crossings([part for part in parts if part])
            committed = committed_tensors(crossings, packing, commitment)
            own = 1 if start else 0
            ends.append(
                End(
                    nodes=units[end - 1],
                    incoming=[committed[c.tensor.name] for c in crossings if own in c.consumers],
                    outgoing=[committed[c.tensor.name] for c in crossings if c.producer == own],
                )
            )
        yield ends


@pytest.mark.parametrize("name", ["mlp", "residual", "resnet", "inception", "transformer"])
@pytest.mark.parametrize("logrows", [10, 12])
def test_chunks_that_are_sized_together_have_the_sizes_of_each_alone(
    name: str, logrows: int
) -> None:
    graph = normalised_graph(loaded(zoo.MODELS[name]()), {})
    numbers = Arithmetic(scale=7, logrows=logrows, range_bits=5)
    sized = 0
    for ends in segments(graph):
        nodes: list[str] = []
        for end, found in zip(ends, sized_circuits(graph, ends, numbers), strict=True):
            nodes += end.nodes
            whole = End(nodes=list(nodes), incoming=end.incoming, outgoing=end.outgoing)
            (alone,) = sized_circuits(graph, [whole], numbers)
            if isinstance(found, ChunkingError):
                assert isinstance(alone, ChunkingError) and alone.message == found.message
                continue
            assert isinstance(alone, Circuit)
            assert [found.cells_at(c) for c in COLUMNS] == [alone.cells_at(c) for c in COLUMNS]
            emitted = extract_hinted_chunk(graph, nodes, end.incoming, end.outgoing, numbers)
            assert cell_count(onnx.ModelProto.FromString(emitted), 1) == found.cells_at(1)
            sized += 1
    assert sized


def test_every_node_is_lowered_once_for_all_chunks_that_begin_at_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = normalised_graph(loaded(deep(6)), {})
    numbers = Arithmetic(scale=7, logrows=10, range_bits=5)
    followed: list[str] = []
    real = Lowering._follow

    def follow(self: Lowering, node: onnx.NodeProto, operators: Any) -> None:
        followed.append(node.name)
        real(self, node, operators)

    monkeypatch.setattr(Lowering, "_follow", follow)
    for ends in segments(graph):
        followed.clear()
        assert all(isinstance(c, Circuit) for c in sized_circuits(graph, ends, numbers))
        assert followed == [name for end in ends for name in end.nodes]


@pytest.mark.parametrize("layers", [MAX_UNITS + 8, 2 * MAX_UNITS])
def test_many_small_layers_are_joined_before_cuts_are_searched(layers: int) -> None:
    graph = normalised_graph(loaded(deep(layers)), {})
    planner = HintedPlanner(
        graph,
        scale=7,
        range_bits=5,
        commitment=hinted_commitment(PlanOptions(scale=7)),
        prices=CostModel(profile=PROFILE, threads=1),
        memory_bytes=None,
    )
    units = layer_partition(graph)
    assert len(units) == layers
    joined = planner._joined(units)
    assert MAX_UNITS / 2 <= len(joined) <= 2 * MAX_UNITS
    assert [n for unit in joined for n in unit] == [n for unit in units for n in unit]


# Large native circuits.


@pytest.mark.parametrize("limit", [1, 1 << 40])
def test_large_circuits_are_counted_once_for_each_decomposition(
    limit: int, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = normalised_graph(loaded(deep(1)), {})
    model, options = loaded(deep(1)), PlanOptions(circuits="native", layers_per_chunk=1, scale=12)
    assert len(graph.nodes) == 3
    monkeypatch.setattr(size, "LARGE_CELLS", limit)
    monkeypatch.setattr(size, "LARGE_LOGROWS", 0)
    made = plan(model, options, PROFILE)
    arguments = made.plan.chunks[0].arguments
    bound = arguments.decomp_base**arguments.decomp_legs
    assert bound == CommitmentArguments().decomp_base ** CommitmentArguments().decomp_legs
    ways = 1 + len(size.wider_digits(128, 4))
    assert ways > 1
    # The settings that are proved are derived anew; a second time where the outputs' scale is.
    tries = ways if limit == 1 else ways * len(size.COLUMNS)
    assert tries < len(counted) <= 2 * (tries + 1)
    assert rederive_circuits(model, made.plan).plan.digest() == made.plan.digest()


# Telling what is done.


def test_planning_tells_what_it_does_and_counts_up(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_kept_plans(monkeypatch)
    told: list[Event] = []
    for circuits in ("hinted", "native"):
        options = PlanOptions(circuits=circuits, scale=7)  # type: ignore[arg-type]
        plan(loaded(deep(3)), options, PROFILE, told.append)
    steps = [event for event in told if isinstance(event, Working)]
    assert len(steps) == len(told)
    heads = [what for what, _ in itertools.groupby(step.what for step in steps)]
    for words in ("one form", "sizing pieces as hinted", "counting native", "chunks' circuits"):
        assert any(words in head for head in heads), words
    assert all(step.done <= step.total for step in steps)


def test_a_model_that_no_circuit_holds_is_still_a_refusal_of_ezkl(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path))

    def fails(*_: Any) -> None:
        raise StageError("no room", stage="plan")

    monkeypatch.setattr(backend, "_gen_settings", fails)
    with pytest.raises((ChunkingError, StageError), match="no room"):
        plan(loaded(deep(2)), PlanOptions(circuits="native", scale=7), PROFILE)
