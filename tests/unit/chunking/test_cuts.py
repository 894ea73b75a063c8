"""Cut search: dynamic programming finds what trying everything finds, and loses no node."""

from __future__ import annotations

import itertools
import random
import time

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests import zoo
from tests.unit.chunking.builders import integers, model, weight
from zkml_ray.chunking.cuts import (
    SegmentCost,
    best_cuts,
    branch_order,
    cheapest_segments,
    forbidden_positions,
    makespan_s,
    units_of,
)
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.normalize import normalise
from zkml_ray.errors import ChunkingError

Segments = list[tuple[int, int]]


def indexed(proto: onnx.ModelProto) -> ModelGraph:
    return ModelGraph(normalise(proto, {}))


def every_segmentation(count: int) -> list[Segments]:
    found = []
    for size in range(count):
        for inner in itertools.combinations(range(1, count), size):
            ends = [0, *inner, count]
            found.append(list(itertools.pairwise(ends)))
    return found


@st.composite
def prices(draw: st.DrawFn) -> tuple[int, dict[tuple[int, int], SegmentCost]]:
    """Up to six units; a segment may be missing, dearer than its parts, or cheaper."""
    count = draw(st.integers(1, 6))
    numbers = random.Random(draw(st.integers(0, 1 << 32)))
    costs = {}
    for start in range(count):
        for end in range(start + 1, count + 1):
            if numbers.random() < 0.85:
                costs[start, end] = SegmentCost(
                    seconds=numbers.randint(1, 40) / 4, peak_bytes=numbers.randint(1, 100)
                )
    return count, costs


@given(prices(), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_cheapest_segments_equal_brute_force(
    case: tuple[int, dict[tuple[int, int], SegmentCost]], quarter_cap: int
) -> None:
    count, costs = case
    cap = quarter_cap / 4
    seconds = {segment: cost.seconds for segment, cost in costs.items()}
    possible = [
        (sum(seconds[s] for s in way), len(way))
        for way in every_segmentation(count)
        if all(s in seconds and seconds[s] <= cap for s in way)
    ]
    found = cheapest_segments(count, seconds, cap)
    if found is None:
        assert not possible
    else:
        assert (sum(seconds[s] for s in found), len(found)) == min(possible)


@given(prices(), st.integers(1, 3), st.integers(20, 100))
@settings(max_examples=200, deadline=None)
def test_best_cuts_keep_within_memory_and_beat_every_single_worker_plan(
    case: tuple[int, dict[tuple[int, int], SegmentCost]], workers: int, memory: int
) -> None:
    count, costs = case
    fitting = {s for s, cost in costs.items() if cost.peak_bytes <= memory}
    ways = [way for way in every_segmentation(count) if set(way) <= fitting]
    try:
        found = best_cuts(count, costs, workers=workers, memory_bytes=memory)
    except ChunkingError:
        assert not ways
        return
    assert found in ways
    spans = [makespan_s([costs[s].seconds for s in way], workers) for way in ways]
    mine = makespan_s([costs[s].seconds for s in found], workers)
    if workers == 1:
        assert mine == pytest.approx(min(spans))
    else:  # never worse than the cheapest in total, which is one of the family
        cheapest = min(ways, key=lambda way: sum(costs[s].seconds for s in way))
        assert mine <= sum(costs[s].seconds for s in cheapest)


def test_best_cuts_for_more_workers_are_finer() -> None:
    costs = {
        (start, end): SegmentCost(seconds=float(end - start) + 0.5, peak_bytes=1)
        for start in range(8)
        for end in range(start + 1, 9)
    }
    sizes = [
        len(best_cuts(8, costs, workers=workers, memory_bytes=None)) for workers in (1, 2, 4, 8)
    ]
    assert sizes == [1, 2, 4, 8]


def test_a_little_sooner_is_not_worth_twice_the_work() -> None:
    half = {(0, 1): 9.8, (1, 2): 9.8, (0, 2): 10.0}
    costs = {s: SegmentCost(seconds=seconds, peak_bytes=1) for s, seconds in half.items()}
    assert best_cuts(2, costs, workers=2, memory_bytes=None) == [(0, 2)]
    halved = costs | {s: SegmentCost(seconds=7.0, peak_bytes=1) for s in ((0, 1), (1, 2))}
    assert best_cuts(2, halved, workers=2, memory_bytes=None) == [(0, 1), (1, 2)]


def test_best_cuts_of_equal_costs_are_always_the_same() -> None:
    costs = {
        (start, end): SegmentCost(seconds=1.0, peak_bytes=1)
        for start in range(10)
        for end in range(start + 1, 11)
    }
    first = best_cuts(10, costs, workers=3, memory_bytes=None)
    shuffled = dict(sorted(costs.items(), key=lambda item: hash(item[0]) % 17))
    assert best_cuts(10, shuffled, workers=3, memory_bytes=None) == first == [(0, 10)]


def test_best_cuts_of_two_hundred_units_take_seconds() -> None:
    numbers = random.Random(3)
    weights = [numbers.uniform(0.1, 5) for _ in range(200)]
    costs = {
        (start, end): SegmentCost(seconds=0.3 + sum(weights[start:end]), peak_bytes=end - start)
        for start in range(200)
        for end in range(start + 1, 201)
    }
    started = time.process_time()
    found = best_cuts(200, costs, workers=8, memory_bytes=60)
    assert time.process_time() - started < 20
    assert [start for start, _ in found] == [0, *(end for _, end in found[:-1])]
    assert found[-1][1] == 200


@pytest.mark.parametrize(("workers", "expected"), [(1, 10.0), (2, 6.0), (3, 5.0), (9, 4.0)])
def test_makespan_hands_chunks_to_the_first_free_worker(workers: int, expected: float) -> None:
    assert makespan_s([1.0, 2.0, 3.0, 4.0], workers) == expected


def branched() -> ModelGraph:
    """Two branches of two layers each, joined; the file interleaves them."""
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a0"], "left0"),
        helper.make_node("MatMul", ["x", "w1"], ["b0"], "right0"),
        helper.make_node("Relu", ["a0"], ["a1"], "left1"),
        helper.make_node("Relu", ["b0"], ["b1"], "right1"),
        helper.make_node("Concat", ["a1", "b1"], ["c"], "join", axis=1),
        helper.make_node("Reshape", ["c", "shape"], ["r"], "reshape"),
        helper.make_node("Relu", ["r"], ["y"], "last"),
    ]
    weights = [weight("w0", 4, 4), weight("w1", 4, 4), integers("shape", 1, 8)]
    return indexed(model(nodes, {"x": [1, 4]}, {"y": [1, 8]}, weights))


def test_branch_order_keeps_branches_together() -> None:
    order = branch_order(branched())
    assert order == ["left0", "left1", "right0", "right1", "join", "reshape", "last"]


def test_units_keep_moving_operators_with_their_neighbours() -> None:
    graph = branched()
    order = branch_order(graph)
    units = units_of(order, forbidden_positions(graph, order))
    assert units == [("left0",), ("left1",), ("right0",), ("right1",), ("join", "reshape", "last")]


def test_units_do_not_part_readers_of_a_fixed_tensor() -> None:
    graph = branched()
    order = branch_order(graph)
    units = units_of(order, forbidden_positions(graph, order, fixed={"a0"}))
    assert units[0] == ("left0", "left1")


@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_any_cut_between_units_is_a_partition(name: str) -> None:
    graph = indexed(zoo.MODELS[name]())
    order = branch_order(graph)
    units = units_of(order, forbidden_positions(graph, order))
    assert sorted(node for unit in units for node in unit) == sorted(graph.nodes)
    graph.crossings(units)  # raises where a part would read from a later one


def test_integers_between_nodes_forbid_the_cut() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("ArgMax", ["a"], ["i"], "argmax", axis=1),
        helper.make_node("Cast", ["i"], ["f"], "cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "f"], ["y"], "mul"),
    ]
    # Normalisation refuses such an operator on activations; the search does not count on that.
    proto = model(nodes, {"x": [1, 4]}, {"y": [1, 1]})
    graph = ModelGraph(onnx.shape_inference.infer_shapes(proto))
    order = branch_order(graph)
    assert ("argmax", "cast") in units_of(order, forbidden_positions(graph, order))
