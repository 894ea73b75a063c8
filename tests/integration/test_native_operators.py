"""Every operator in native circuits, drawn over shapes, axes, ranks and sizes up to thousands.

Its result is near onnxruntime's on the same input, to within what docs/adr/0021 states; only a
value that leaves a circuit's range may be refused. The small multipliers that ezkl alone would
round to nothing have cases of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.unit.chunking.builders import run
from tests.zoo.operators import DRAWN, OPSET, Drawer, Use, integers, node, scalar
from tests.zoo.quantised import real_outputs
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.operators import SUPPORTED

SCALE: Final = 10
STEPS: Final = 4
"""An element is off by at most so many steps of 2^-scale ..."""

SHARE: Final = 2.0**-7
"""... and this share of the largest element."""

FEW: Final = 2
MANY: Final = 30


def error_of(use: Use, folder: Path) -> float:
    """The largest error of an element, in units of what is allowed."""
    model = use.model()
    arrays = {"x": use.values(SCALE)}
    want = run(model, arrays)["y"].astype(np.float64)
    got = real_outputs(model, arrays, folder, scale=SCALE)["y"]
    assert got.shape == want.shape, use.described()
    allowed = STEPS * 2.0**-SCALE + SHARE * float(np.abs(want).max(initial=0.0))
    return float(np.abs(got - want).max(initial=0.0)) / allowed


def test_every_supported_operator_is_drawn() -> None:
    assert set(DRAWN) == SUPPORTED


@pytest.mark.parametrize("operator", sorted(DRAWN))
def test_an_attribute_that_is_written_out_as_its_default_changes_nothing(operator: str) -> None:
    draw = Drawer(seed=3, most=100)
    for _ in range(FEW):
        plain = draw.use(operator).model()
        written = onnx.ModelProto.FromString(plain.SerializeToString())
        for made in written.graph.node:
            given = {attribute.name for attribute in made.attribute}
            for name, known in onnx.defs.get_schema(made.op_type, OPSET).attributes.items():
                if name not in given and known.default_value.name:
                    made.attribute.append(known.default_value)
        onnx.checker.check_model(written)
        kinds = [[n.op_type for n in normalise(m, {}).graph.node] for m in (plain, written)]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize("operator", sorted(DRAWN))
def test_a_few_uses_of_an_operator_are_near_onnxruntime(operator: str, tmp_path: Path) -> None:
    draw = Drawer(seed=1, most=300)
    uses = [draw.use(operator) for _ in range(FEW)]
    for use in (*uses, uses[0].behind_a_shift()):
        assert error_of(use, tmp_path) <= 1, use.described()


@pytest.mark.slow
@pytest.mark.parametrize("operator", sorted(DRAWN))
def test_many_uses_of_an_operator_are_near_onnxruntime(operator: str, tmp_path: Path) -> None:
    draw = Drawer(seed=2, most=3000)
    found = []
    for index in range(MANY):
        use = draw.use(operator)
        if index % 4 == 0:
            use = use.behind_a_shift()
        found.append((error_of(use, tmp_path), use.described()))
    assert max(found)[0] <= 1, max(found)


SMALL = {
    "mean of 49": Use(nodes=[node("ReduceMean", "x")], shape=[49], low=0.0),
    "mean of 300": Use(nodes=[node("ReduceMean", "x")], shape=[300], low=0.0),
    "mean of 2,049": Use(nodes=[node("ReduceMean", "x")], shape=[2049], low=0.0),
    "mean of 40,000": Use(nodes=[node("ReduceMean", "x")], shape=[40000], low=0.0),
    "global average of 28 by 28": Use(
        nodes=[node("GlobalAveragePool", "x")], shape=[1, 1, 28, 28], low=0.0
    ),
    "a three-hundredth": Use(
        nodes=[node("Div", "x", "k")], shape=[50], constants=[scalar("k", 300.0)], high=1000.0
    ),
    "a ten-thousandth": Use(
        nodes=[node("Mul", "x", "k")], shape=[50], constants=[scalar("k", 1e-4)], high=10000.0
    ),
    "a millionth": Use(
        nodes=[node("Mul", "x", "k")], shape=[50], constants=[scalar("k", 1e-6)], high=1e5
    ),
    "small weights": Use(
        nodes=[node("MatMul", "x", "w")],
        shape=[1, 500],
        constants=[numpy_helper.from_array(np.full((500, 1), 3e-4, dtype=np.float32), "w")],
        high=100.0,
    ),
    "a quotient by large sums": Use(
        nodes=[node("ReduceSum", "x", "a", to="s"), node("Div", "x", "s")],
        shape=[2, 900],
        constants=[integers("a", [1])],
        low=0.0,
        high=8.0,
    ),
    "a small slope": Use(
        nodes=[node("LeakyRelu", "x", alpha=0.001)], shape=[50], low=-5000.0, high=0.0
    ),
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_small_multiplier_keeps_its_precision(name: str, tmp_path: Path) -> None:
    use = SMALL[name]
    model, arrays = use.model(), {"x": use.values(SCALE)}
    want = run(model, arrays)["y"].astype(np.float64)
    got = real_outputs(model, arrays, tmp_path, scale=SCALE)["y"]
    allowed = 2 * 2.0**-SCALE + 2.0**-10 * np.abs(want)
    assert (np.abs(got - want) <= allowed).all()
