"""Floor in a native circuit has one result, whichever quotients a prover chooses.

A rebase admits both whole numbers beside a quotient. The lowered nodes are evaluated on integers
with every choice that the circuit leaves.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from onnx import helper, numpy_helper

from tests.unit.chunking.builders import model
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.native.lower import Lowered, lower_nodes
from zkml_ray.errors import ChunkingError

Number = tuple[int, int]
"""An integer and its scale."""


def lowered(scale: int, raised: int = 0, range_bits: int = 28) -> Lowered:
    node = helper.make_node("Floor", ["x"], ["y"], "floor")
    graph = ModelGraph(model([node], {"x": [1]}, {"y": [1]}))
    return lower_nodes(graph, ["floor"], {"x": raised}, scale=scale, range_bits=range_bits)


def results(nodes: Lowered, start: Number, scale: int) -> set[Number]:
    """Every y that some choice of quotients gives."""
    constants = {
        name: Fraction(float(numpy_helper.to_array(tensor).reshape(-1)[0]))
        for name, tensor in nodes.constants.items()
    }
    states: list[dict[str, Number]] = [{"x": start}]
    for node in nodes.nodes:
        after = []
        for state in states:
            value, at = state[node.input[0]]
            if node.op_type == "Mul":
                factor = constants[node.input[1]]
                if factor < 1:
                    made = [(value, at + int(math.log2(factor.denominator)))]
                else:
                    made = [(value * int(factor), at)]
            elif node.op_type in ("Add", "Sub"):
                other, its = state[node.input[1]]
                assert at == its
                made = rebased(value + other if node.op_type == "Add" else value - other, at, scale)
            elif node.op_type == "Sign":
                made = [((value > 0) - (value < 0), 0)]
            elif node.op_type == "Relu":
                made = [(max(value, 0), at)]
            else:
                assert node.op_type == "Identity"
                made = [(value, at)]
            after += [state | {node.output[0]: each} for each in made]
        states = after
    return {state["y"] for state in states}


def rebased(value: int, at: int, scale: int) -> list[Number]:
    if at == scale:
        return [(value, at)]
    divisor = 1 << (at - scale)
    low = value // divisor
    return [(q, scale) for q in (low, low + 1) if abs(value - q * divisor) < divisor]


@pytest.mark.parametrize("scale", [0, 1, 3, 6])
def test_every_choice_of_quotients_gives_the_floor(scale: int) -> None:
    nodes = lowered(scale)
    choices = 0
    for value in range(-3 << scale, (3 << scale) + 1):
        found = results(nodes, (value, scale), scale)
        assert found == {((value >> scale) << scale, scale)}
        choices += len(rebased(2 * value, 2 * scale + 1, scale))
    assert scale == 0 or choices > 6 << scale  # there was something to choose


@pytest.mark.parametrize("raised", [1, 4])
def test_a_raised_tensor_is_rounded_once_and_then_has_one_floor(raised: int) -> None:
    scale = 3
    nodes = lowered(scale, raised)
    for value in range(-40, 41):
        rounded = {q for q, _ in rebased(value, scale + raised, scale)}
        wanted = {((q >> scale) << scale, scale) for q in rounded}
        assert results(nodes, (value, scale + raised), scale) == wanted


def test_a_scale_that_a_rebase_cannot_divide_by_is_refused_by_name() -> None:
    with pytest.raises(ChunkingError, match=r"floor.*Floor at scale 12.*--scale"):
        lowered(12, range_bits=14)
