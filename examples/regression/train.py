"""Train a small regression MLP on the diabetes data and write it as an ONNX model.

The script is deterministic: on one machine, the same versions of the libraries write the same
files.  The data set ships inside scikit-learn, so nothing is downloaded.

It writes ``regression.onnx``, ``patient.json`` (one test patient in ezkl's input form) and
``training.json``; see the README beside this file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.training import (
    IR_VERSION,
    OPSET,
    begin,
    descend,
    difference_from_torch,
    finish,
    model_of,
    weights_of,
)

FloatArray = npt.NDArray[np.float32]

FEATURES = 10
TARGET_UNIT = 100.0
TEST_SIZE = 0.25
SPLIT_SEED = 0


@dataclass(frozen=True)
class Recipe:
    """How the network is built and trained.

    Attributes:
        hidden: Units of the two hidden layers.
        seed: Seed of the initial weights.
        epochs: Passes over the whole training split, each one step.
        learning_rate: Step size of AdamW.
        weight_decay: Decay of AdamW.
    """

    hidden: tuple[int, int] = (16, 8)
    seed: int = 0
    epochs: int = 100
    learning_rate: float = 0.01
    weight_decay: float = 0.3


@dataclass(frozen=True)
class Split:
    """The data set, split into training and test patients.

    Attributes:
        train_inputs: Standardised features, shape [N, 10].
        train_targets: Disease progression / 100, shape [N].
        test_inputs: The same of the test patients, standardised as the training split is.
        test_targets: Their disease progression / 100.
    """

    train_inputs: FloatArray
    train_targets: FloatArray
    test_inputs: FloatArray
    test_targets: FloatArray


def load_split() -> Split:
    """Load the patients, split them, and standardise features by the training split."""
    data = load_diabetes(scaled=False)
    targets = data.target / TARGET_UNIT
    train, test, train_targets, test_targets = train_test_split(
        data.data, targets, test_size=TEST_SIZE, random_state=SPLIT_SEED
    )
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scaled = [((part - mean) / deviation).astype(np.float32) for part in (train, test)]
    return Split(
        scaled[0], train_targets.astype(np.float32), scaled[1], test_targets.astype(np.float32)
    )


def train_network(recipe: Recipe, split: Split) -> nn.Sequential:
    """Train the network on the training split only."""
    torch.manual_seed(recipe.seed)
    first, second = recipe.hidden
    network = nn.Sequential(
        nn.Linear(FEATURES, first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, 1),
    )
    inputs = torch.from_numpy(split.train_inputs)
    targets = torch.from_numpy(split.train_targets)[:, None]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    for _ in range(recipe.epochs):
        loss = nn.functional.mse_loss(network(inputs), targets)
        descend(optimizer, loss)
    return network.eval()


def build_onnx(network: nn.Sequential) -> onnx.ModelProto:
    """Build the ONNX model of the trained network, with its batch dimension fixed to 1."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    current, linear = "features", 0
    for index, layer in enumerate(network):
        last = index == len(network) - 1
        if isinstance(layer, nn.Linear):
            linear += 1
            made = weights_of(layer, f"fc{linear}")
            weights += made
            inputs = [current, *(weight.name for weight in made)]
            current = "progression" if last else f"fc{linear}_out"
            nodes.append(helper.make_node("Gemm", inputs, [current], f"fc{linear}", transB=1))
        else:
            nodes.append(helper.make_node("Relu", [current], [f"h{linear}"], f"relu{linear}"))
            current = f"h{linear}"
    graph = helper.make_graph(
        nodes,
        "regression",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, FEATURES])],
        [helper.make_tensor_value_info("progression", TensorProto.FLOAT, [1, 1])],
        weights,
    )
    model = model_of(graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def predict(path: Path, inputs: FloatArray) -> FloatArray:
    """Run the saved model over patients, one at a time; shape [N]."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = [session.run(None, {"features": row[None]})[0] for row in inputs]
    return np.concatenate(rows).astype(np.float32).ravel()


def main(arguments: list[str] | None = None) -> None:
    """Train, export, check and describe the model.

    Args:
        arguments: The command line, without the program's name; the process's own if None.
    """
    description = "Train the regression example, write its files."
    out = begin(description, Path(__file__).resolve().parent, arguments)
    recipe, split = Recipe(), load_split()
    network = train_network(recipe, split)
    path = out / "regression.onnx"
    onnx.save(build_onnx(network), path)

    found = predict(path, split.test_inputs)
    difference_from_torch(network, split.test_inputs, found)

    # The patient of median error: neither the best case nor the worst.
    errors = np.abs(found - split.test_targets)
    patient = int(np.argsort(errors, kind="stable")[len(errors) // 2])
    document = {"input_data": [split.test_inputs[patient].tolist()]}
    (out / "patient.json").write_text(json.dumps(document) + "\n", encoding="utf-8")

    linear = LinearRegression().fit(split.train_inputs, split.train_targets)
    baseline = linear.predict(split.test_inputs)
    report = {
        "test": {
            "r2": round(float(r2_score(split.test_targets, found)), 4),
            "mean_abs_error": round(float(mean_absolute_error(split.test_targets, found)), 4),
        },
        "test_of_linear_regression": {
            "r2": round(float(r2_score(split.test_targets, baseline)), 4),
            "mean_abs_error": round(float(mean_absolute_error(split.test_targets, baseline)), 4),
        },
        "train_r2": round(
            float(r2_score(split.train_targets, predict(path, split.train_inputs))), 4
        ),
        "patients": {"train": len(split.train_targets), "test": len(split.test_targets)},
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "target_unit": TARGET_UNIT,
        "example": {
            "patient.json": {
                "test_index": patient,
                "target": round(float(split.test_targets[patient]), 4),
                "prediction": round(float(found[patient]), 4),
            }
        },
        "recipe": asdict(recipe),
        "split": {"test_size": TEST_SIZE, "random_state": SPLIT_SEED},
        "onnx": {"bytes": path.stat().st_size, "opset": OPSET, "ir_version": IR_VERSION},
    }
    finish(out / "training.json", report)


if __name__ == "__main__":
    main()
