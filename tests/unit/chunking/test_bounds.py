"""Value bounds: what may be claimed of a tensor, and what may not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from zkml_ray.chunking.bounds import value_bounds
from zkml_ray.chunking.operators import RANGE_CHECKED, SELECTING, SUPPORTED

R = (1 << 28) - 1
HALF, EIGHTH, THIRD = np.float32(0.5), np.float32(0.125), np.float32(1 / 3)


def bounds(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    inputs: dict[str, int] | None = None,
) -> dict[str, int]:
    tensors = {n: numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()}
    return value_bounds(nodes, tensors, {"x": 0} if inputs is None else inputs, R)


def node(op: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output])


def relu_form(left: np.float32 = HALF, right: np.float32 = HALF) -> dict[str, int]:
    """z = x @ w of unknown size; y = left * z + right * |z|."""
    return bounds(
        [
            node("MatMul", ["x", "w"], "z"),
            node("Abs", ["z"], "m"),
            node("Mul", ["z", "f"], "zf"),
            node("Mul", ["m", "g"], "mf"),
            node("Add", ["zf", "mf"], "y"),
        ],
        {"w": np.eye(2, dtype=np.float32), "f": left, "g": right},
    )


def test_relu_form_is_bounded_by_twice_the_range() -> None:
    found = relu_form()
    assert found["z"] == found["m"] == found["zf"] == R
    assert found["y"] == 2 * R
    assert 2 * R <= (1 << 29) - 1


@pytest.mark.parametrize("factors", [(HALF, EIGHTH), (HALF, THIRD), (np.float32(2), np.float32(2))])
def test_sum_of_tensors_of_other_scales_has_no_bound(
    factors: tuple[np.float32, np.float32],
) -> None:
    assert "y" not in relu_form(*factors)


def test_tensor_is_bounded_by_an_absolute_value_of_itself_and_not_of_another() -> None:
    nodes = [
        node("MatMul", ["x", "w"], "z"),
        node("Sub", ["z", "x"], "d"),
        node("Abs", ["d"], "m"),
        node("Add", ["z", "m"], "y"),
    ]
    found = bounds(nodes, {"w": np.eye(2, dtype=np.float32)})
    assert found["d"] == found["m"] == R
    assert "z" not in found
    assert "y" not in found


def test_sum_of_two_products_has_no_bound_though_each_is_taken_apart() -> None:
    # They may be at different scales: then one is multiplied before it is added.
    nodes = [
        node("MatMul", ["x", "v"], "a"),
        node("MatMul", ["x", "w"], "b"),
        node("Relu", ["a"], "ra"),
        node("Relu", ["b"], "rb"),
        node("Add", ["ra", "rb"], "s"),
        node("Concat", ["ra", "rb"], "c"),
    ]
    weights = {"v": np.eye(2, dtype=np.float32), "w": np.eye(2, dtype=np.float32) / 3}
    found = bounds(nodes, weights)
    assert found["ra"] == found["rb"] == R
    assert not {"s", "c"} & found.keys()


def test_concat_of_one_tensor_and_zeros_keeps_the_bound_and_other_constants_do_not() -> None:
    for value, bounded in ((0.0, True), (1.0, False)):
        found = bounds(
            [node("Concat", ["x", "k"], "y")], {"k": np.full(3, value, dtype=np.float32)}
        )
        assert ("y" in found) == bounded


def test_absolute_value_of_a_shifted_tensor_may_be_rebased_and_is_no_partner() -> None:
    # |x / 2| may be rebased while x / 2 is not: then it is multiplied before it is added.
    nodes = [
        node("Mul", ["x", "h"], "s"),
        node("Abs", ["s"], "m"),
        node("Add", ["s", "m"], "y"),
    ]
    found = bounds(nodes, {"h": HALF})
    assert found["s"] == found["m"] == R
    assert "y" not in found


def test_inputs_of_other_scales_are_told_apart() -> None:
    nodes = [node("Add", ["x", "y"], "s")]
    assert bounds(nodes, inputs={"x": 0, "y": 0})["s"] == 2 * R
    assert "s" not in bounds(nodes, inputs={"x": 0, "y": 3})


def test_sums_of_sums_grow() -> None:
    nodes = [node("Add", ["x", "x"], "a"), node("Add", ["a", "a"], "b")]
    # A sum may be rebased, so its scale is its own; twice the same tensor has one all the same.
    assert bounds(nodes)["b"] == 4 * R


@given(
    st.sampled_from(sorted(SUPPORTED - {"Abs", "Add", "Mul", "Sub"})),
    st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_range_is_claimed_only_by_operators_that_check_or_select(
    op_type: str, bounded: list[bool]
) -> None:
    names = [f"t{i}" for i in range(len(bounded))]
    inputs = {name: 0 for name, held in zip(names, bounded, strict=True) if held}
    claimed = "y" in bounds([helper.make_node(op_type, names, ["y"])], inputs=inputs)
    if op_type in RANGE_CHECKED:
        assert claimed
    elif op_type in SELECTING:
        assert claimed == (all(bounded) if op_type == "Concat" else bounded[0])
    else:
        assert not claimed
