"""LeNet-5 for 28x28 images, and the images it was trained on.

The layers are those of the usual ReLU and max-pooling form: 6 and 16 filters of 5x5, dense layers
of 120, 84 and 10 units. `train_lenet5.py` trains it; the weights lie beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.models.build import GraphBuilder

SIDE: Final = 28

PARAMETERS: Final[dict[str, tuple[int, ...]]] = {
    "conv1.weight": (6, 1, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (120, 400),
    "fc1.bias": (120,),
    "fc2.weight": (84, 120),
    "fc2.bias": (84,),
    "fc3.weight": (10, 84),
    "fc3.bias": (10,),
}
"""Name and shape of every parameter, as torch names and shapes them."""

_TEST_IMAGES = Path(__file__).parents[2] / "examples" / "digits" / "test_images.npz"


def build_lenet5(parameters: Mapping[str, npt.NDArray[np.float32]]) -> onnx.ModelProto:
    """The ONNX model with the given parameters.

    Args:
        parameters: One array per entry of `PARAMETERS`, in its shape.
    """
    graph = GraphBuilder("lenet5")
    for name, shape in PARAMETERS.items():
        if parameters[name].shape != shape:
            raise ValueError(f"{name} has shape {parameters[name].shape}, expected {shape}")
        graph.constant(name, parameters[name])
    data = "image"
    for index, pad in ((1, 2), (2, 0)):
        weight, bias = f"conv{index}.weight", f"conv{index}.bias"
        data = graph.conv(data, weight, bias, f"conv{index}_out", kernel=5, stride=1, pad=pad)
        data = graph.node("Relu", [data], f"relu{index}_out")
        data = graph.max_pool(data, f"pool{index}_out", size=2)
    data = graph.node("Flatten", [data], "flatten_out", axis=1)
    for index in (1, 2, 3):
        made = "logits" if index == 3 else f"fc{index}_out"
        inputs = [data, f"fc{index}.weight", f"fc{index}.bias"]
        data = graph.node("Gemm", inputs, made, alpha=1.0, beta=1.0, transB=1)
        if index < 3:
            data = graph.node("Relu", [data], f"relu{index + 2}_out")
    return graph.model([("image", [1, 1, SIDE, SIDE])], [("logits", [1, 10])])


def upscale(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Enlarge images bilinearly, pixel centres aligned, edges repeated.

    Args:
        images: Shape [N, 1, H, H].

    Returns:
        Shape [N, 1, 28, 28].
    """
    size = images.shape[-1]
    centres = (np.arange(SIDE) + 0.5) * size / SIDE - 0.5
    low = np.floor(centres).astype(int)
    part = (centres - low).astype(np.float64)
    first, second = low.clip(0, size - 1), (low + 1).clip(0, size - 1)
    matrix = np.zeros((SIDE, size))
    np.add.at(matrix, (np.arange(SIDE), first), 1 - part)
    np.add.at(matrix, (np.arange(SIDE), second), part)
    enlarged: npt.NDArray[np.float64] = matrix @ images.astype(np.float64) @ matrix.T
    return enlarged.astype(np.float32)


def digits_test_split() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The held-out images of examples/digits, shape [450, 1, 8, 8] in 0..1, and their labels."""
    with np.load(_TEST_IMAGES) as stored:
        return stored["images"].astype(np.float32), stored["labels"].astype(np.int64)
