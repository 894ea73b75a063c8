"""The benchmark models by name: their files and their inputs.

    python -m benchmarks.models.registry      writes the files whose weights are seeded

Inputs are real held-out images for the trained models and seeded values for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.models.encoder import BLOCK, build_encoder
from benchmarks.models.lenet import digits_test_split, upscale
from benchmarks.models.resnet import build_resnet_block

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]

SEEDED: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet_block": build_resnet_block,
    "encoder_block": lambda: build_encoder(BLOCK),
}
"""Builders of the files that are not trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkModel:
    """A model with inputs to measure it on.

    Attributes:
        name: Its name on the command line.
        title: Its name in tables.
        path: Its ONNX file.
        inputs: Gives its inputs, shape [N, ...]; one of them has the shape of the model's input
            less the batch dimension.
        labels: Gives their labels, shape [N]; None for models that classify nothing.
    """

    name: str
    title: str
    path: Path
    inputs: Callable[[], FloatArray]
    labels: Callable[[], IntArray] | None = None


def _seeded_inputs(*shape: int) -> Callable[[], FloatArray]:
    return lambda: np.random.default_rng(1).normal(size=(16, *shape)).astype(np.float32)


MODELS = {
    model.name: model
    for model in (
        BenchmarkModel(
            name="digits",
            title="digits CNN",
            path=_ROOT / "examples" / "digits" / "digits.onnx",
            inputs=lambda: digits_test_split()[0],
            labels=lambda: digits_test_split()[1],
        ),
        BenchmarkModel(
            name="lenet5",
            title="LeNet-5",
            path=_HERE / "lenet5.onnx",
            inputs=lambda: upscale(digits_test_split()[0]),
            labels=lambda: digits_test_split()[1],
        ),
        BenchmarkModel(
            name="resnet_block",
            title="ResNet block",
            path=_HERE / "resnet_block.onnx",
            inputs=_seeded_inputs(8, 16, 16),
        ),
        BenchmarkModel(
            name="encoder_block",
            title="encoder block",
            path=_HERE / "encoder_block.onnx",
            inputs=_seeded_inputs(BLOCK.tokens, BLOCK.width),
        ),
    )
}


def main() -> None:
    for name, build in SEEDED.items():
        onnx.save(build(), MODELS[name].path)


if __name__ == "__main__":
    main()
