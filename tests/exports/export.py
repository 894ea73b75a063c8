"""Export every architecture by every exporter: `python -m tests.exports.export FOLDER`.

Runs in an environment of its own (requirements.txt), without zkml_ray. Each model is written as
FAMILY/NAME.EXPORTER.onnx with the inputs that it was exported with beside it, as .npz; what an
exporter itself cannot do is printed and left out.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from tests.exports import classical, dense, keras_models, sequences, vision
from tests.exports.architecture import Architecture

TORCHSCRIPT_OPSET = 17

Write = Callable[[Any, tuple[Any, ...], str], None]


def by_torchscript(model: Any, inputs: tuple[Any, ...], path: str) -> None:
    torch.onnx.export(
        model.eval(), inputs, path, dynamo=False, opset_version=TORCHSCRIPT_OPSET
    )  # fmt: skip


def by_dynamo(model: Any, inputs: tuple[Any, ...], path: str) -> None:
    torch.onnx.export(
        model.eval(), inputs, path, dynamo=True, external_data=False, verbose=False
    )  # fmt: skip


def by_keras(model: Any, inputs: tuple[Any, ...], path: str) -> None:
    model.export(path, format="onnx", verbose=False)


def by_converter(model: Any, inputs: tuple[Any, ...], path: str) -> None:
    onnx.save(classical.export_estimator(model, *inputs), path)


def exports() -> Iterator[tuple[Architecture, str, Write]]:
    """Every architecture with every exporter that it has."""
    for architecture in (
        *vision.ARCHITECTURES, *sequences.ARCHITECTURES, *dense.ARCHITECTURES
    ):  # fmt: skip
        yield architecture, "torchscript", by_torchscript
        yield architecture, "dynamo", by_dynamo
    for architecture in keras_models.ARCHITECTURES:
        yield architecture, "keras", by_keras
    for architecture in classical.ARCHITECTURES:
        yield architecture, "converter", by_converter


def save_inputs(path: Path, inputs: tuple[Any, ...]) -> None:
    """Write the inputs under the names that the exporter gave them."""
    names = [value.name for value in onnx.load(path).graph.input]
    if len(names) == len(inputs):  # an exporter leaves out what the model does not use
        np.savez(path.with_suffix(".npz"), **dict(zip(names, map(np.asarray, inputs), strict=True)))


def main(folder: Path) -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    for architecture, exporter, write in exports():
        torch.manual_seed(0)
        place = folder / architecture.family.replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{architecture.name}.{exporter}.onnx"
        try:
            model, inputs = architecture.build()
            write(model, inputs, str(path))
            save_inputs(path, inputs)
        except Exception as error:
            path.unlink(missing_ok=True)
            line = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            print(f"not exported: {path.relative_to(folder)}: {line[:200]}", flush=True)
    print(f"{len(list(folder.rglob('*.onnx')))} models in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
