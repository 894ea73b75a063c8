"""Open dimensions: batches count as 1 and say so; every other needs a value, by name or place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from zkml_ray import PlanOptions
from zkml_ray.chunking.dimensions import complete_dimensions, fix_dimensions
from zkml_ray.chunking.load import load_model
from zkml_ray.errors import ConfigError, DynamicShapeError
from zkml_ray.stages.plan import plan


def relu(**shapes: Sequence[int | str | None]) -> onnx.ModelProto:
    """A model that adds up all its inputs behind a Relu."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        [helper.make_node("Sum", list(shapes), ["s"]), helper.make_node("Relu", ["s"], ["y"])],
        "open",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["p", "q"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("shapes", "given", "expected"),
    [
        ({"x": ["batch_size", 4]}, {}, {"batch_size": 1}),
        ({"x": [None, 4]}, {}, {"x:0": 1}),
        ({"x": [0, 4]}, {}, {"x:0": 1}),
        ({"x": ["N", 4]}, {"N": 3}, {"N": 3}),
        ({"x": [None, 4], "z": [None, 4]}, {"z:0": 2}, {"z:0": 2, "x:0": 1}),
        ({"x": ["n", 4], "z": ["n", 4]}, {}, {"n": 1}),
        ({"x": ["n", "m"]}, {}, {"n": 1}),
        ({"x": [4, "n"]}, {}, {}),
        ({"x": ["sequence_length", 4]}, {}, {}),
        ({"x": ["seq", "batch"]}, {}, {}),
        ({"x": [4, 4]}, {}, {}),
    ],
)
def test_open_first_axis_is_a_batch_of_one(
    shapes: dict[str, list[int | str | None]], given: dict[str, int], expected: dict[str, int]
) -> None:
    found = complete_dimensions(relu(**shapes), given)
    assert found.values == expected
    assert len(found.notices) == len(set(expected) - set(given))
    for key in set(expected) - set(given):
        assert any(f"--dim {key}=NUMBER" in notice for notice in found.notices)


@pytest.mark.parametrize(
    ("shape", "given", "fixed"),
    [
        (["n", 4], {"n": 2}, [2, 4]),
        ([None, None], {"x:0": 2, "x:1": 5}, [2, 5]),
        (["n", "n"], {"n": 3}, [3, 3]),
    ],
)
def test_open_dimension_takes_the_value_of_its_name_or_place(
    shape: list[int | str | None], given: dict[str, int], fixed: list[int]
) -> None:
    proto = fix_dimensions(relu(x=shape), given)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == fixed


def test_every_dimension_without_a_value_is_named_at_once() -> None:
    with pytest.raises(DynamicShapeError) as caught:
        fix_dimensions(relu(x=["n", None], z=["n", "m"]), {})
    for option in ("--dim n=NUMBER", "--dim x:1=NUMBER", "--dim m=NUMBER"):
        assert caught.value.message.count(option) == 1


@pytest.mark.parametrize("name", ["x:0", "x:2", "z:1", "m"])
def test_value_for_what_is_not_open_is_refused_with_what_is(name: str) -> None:
    with pytest.raises(ConfigError, match=r"open dimensions: n, x:1"):
        fix_dimensions(relu(x=["n", None]), {"n": 1, "x:1": 2, name: 1})


def test_plan_records_the_batch_that_it_took_and_says_so(tmp_path: Path) -> None:
    onnx.save(relu(x=[None, 4]), tmp_path / "open.onnx")
    made = plan(load_model(tmp_path / "open.onnx"), PlanOptions(layers_per_chunk=1))
    assert made.plan.dimensions == (("x:0", 1),)
    assert made.plan.boundary("x").layout.element_count == np.prod([1, 4])
    assert "dimension x:0 of input x is taken as 1" in made.notices[0]
