"""What the scripts that train the models here do alike: options, optimiser, export, report.

They are deterministic: one thread, PyTorch's deterministic algorithms, seeds in their recipes. On
one machine, the same versions of the libraries write the same files.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import sklearn
import torch
from onnx import helper, numpy_helper
from torch import nn

OPSET = 17
IR_VERSION = 9
TORCH_TOLERANCE = 1e-4


def begin(description: str, folder: Path, arguments: list[str] | None = None) -> Path:
    """Read the command line and make PyTorch deterministic.

    Args:
        description: What the script does.
        folder: Where it writes to by default: its own folder.
        arguments: The command line, without the program's name; the process's own if None.

    Returns:
        The folder to write to, which exists.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--out",
        type=Path,
        default=folder,
        help="folder to write the files to (default: this script's own)",
    )
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    return out


class OneCycle:
    """AdamW whose learning rate rises to its peak and falls again, once over the training."""

    def __init__(
        self, network: nn.Module, *, peak: float, weight_decay: float, total_steps: int
    ) -> None:
        """Start before the first step.

        Args:
            network: What is trained.
            peak: The largest learning rate.
            weight_decay: Decoupled weight decay of AdamW.
            total_steps: Steps that the training takes.
        """
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=peak, weight_decay=weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, max_lr=peak, total_steps=total_steps
        )

    def step(self, loss: torch.Tensor) -> None:
        """Take one step down a loss."""
        descend(self._optimizer, loss)
        self._schedule.step()


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """Take one step down a loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def weights_of(layer: nn.Module, name: str) -> list[onnx.TensorProto]:
    """A layer's weights as ONNX initializers, `<name>.weight` before `<name>.bias`."""
    return [
        numpy_helper.from_array(parameter.detach().numpy().copy(), f"{name}.{suffix}")
        for suffix, parameter in layer.named_parameters()
    ]


def model_of(graph: onnx.GraphProto) -> onnx.ModelProto:
    """The ONNX model of a graph, not checked yet."""
    return helper.make_model(
        graph,
        producer_name="zkml_ray-examples",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def difference_from_torch(
    network: nn.Module, inputs: npt.NDArray[np.float32], found: npt.NDArray[np.float32]
) -> float:
    """The largest difference between the network's outputs and the ONNX model's.

    Args:
        network: The trained network.
        inputs: Its inputs, one a row.
        found: The ONNX model's outputs, in the shape of the network's or flat.

    Raises:
        RuntimeError: They differ by more than `TORCH_TOLERANCE`.
    """
    with torch.no_grad():
        expected = network(torch.from_numpy(inputs)).numpy()
    difference = float(np.abs(expected.ravel() - found.ravel()).max())
    if difference > TORCH_TOLERANCE:
        raise RuntimeError(f"the ONNX model differs from torch by {difference:g}")
    return difference


def finish(path: Path, report: dict[str, Any]) -> None:
    """Write the report, with the versions of the libraries, and show it."""
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "sklearn": sklearn.__version__,
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
    }
    text = json.dumps({**report, "versions": versions}, indent=2) + "\n"
    path.write_text(text, encoding="utf-8")
    print(text, end="")
