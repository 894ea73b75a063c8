"""Train LeNet-5 on scikit-learn's digits, enlarged to 28x28, and write it as an ONNX model.

    python -m benchmarks.models.train_lenet5 [--out FOLDER]

Needs torch and scikit-learn, which nothing else here does. The split is that of examples/digits:
the held-out images are those of its test_images.npz. On one machine the same versions of the
libraries write the same files: lenet5.onnx and lenet5.json, which records the recipe and the float
accuracy on both parts of the data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

from benchmarks.models.lenet import PARAMETERS, build_lenet5, digits_test_split, upscale
from examples.digits.train import load_split
from examples.training import OneCycle, begin, finish

RECIPE = {
    "seed": 0,
    "epochs": 30,
    "batch_size": 64,
    "peak_learning_rate": 0.004,
    "weight_decay": 0.05,
    "label_smoothing": 0.05,
    "largest_shift_pixels": 2,
}


class LeNet5(nn.Module):
    """The trained network; attribute names are the parameter names of the ONNX model."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, shape [N, 10], of images, shape [N, 1, 28, 28]."""
        data = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        data = functional.max_pool2d(functional.relu(self.conv2(data)), 2).flatten(1)
        data = functional.relu(self.fc1(data))
        logits: torch.Tensor = self.fc3(functional.relu(self.fc2(data)))
        return logits


def train(images: torch.Tensor, labels: torch.Tensor) -> LeNet5:
    generator = torch.Generator().manual_seed(int(RECIPE["seed"]))
    torch.manual_seed(int(RECIPE["seed"]))
    network = LeNet5()
    size = int(RECIPE["batch_size"])
    optimizer = OneCycle(
        network,
        peak=float(RECIPE["peak_learning_rate"]),
        weight_decay=float(RECIPE["weight_decay"]),
        total_steps=-(-len(images) // size) * int(RECIPE["epochs"]),
    )
    reach = int(RECIPE["largest_shift_pixels"])
    for _ in range(int(RECIPE["epochs"])):
        for batch in torch.randperm(len(images), generator=generator).split(size):
            down, right = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
            shifted = images[batch].roll((down, right), (2, 3))
            loss = functional.cross_entropy(
                network(shifted), labels[batch], label_smoothing=float(RECIPE["label_smoothing"])
            )
            optimizer.step(loss)
    return network.eval()


def main() -> None:
    out = begin(__doc__.partition("\n")[0], Path(__file__).resolve().parent)
    split = load_split()
    held_out, held_out_labels = digits_test_split()
    if not np.array_equal(held_out, split.test_images):
        raise RuntimeError("test_images.npz is not the test part of the split")
    images, labels = upscale(split.train_images), split.train_labels
    network = train(torch.from_numpy(images), torch.from_numpy(labels))

    parameters = {name: value.detach().numpy() for name, value in network.named_parameters()}
    model = build_lenet5({name: parameters[name] for name in PARAMETERS})
    path = out / "lenet5.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def accuracy(inputs: np.ndarray, expected: np.ndarray) -> float:
        rows = [session.run(None, {"image": image[None]})[0][0] for image in inputs]
        return float((np.argmax(rows, axis=1) == expected).mean())

    record = {
        "accuracy": {
            "train": accuracy(images, labels),
            "held_out": accuracy(upscale(held_out), held_out_labels),
        },
        "images": {"train": len(labels), "held_out": len(held_out_labels)},
        "parameters": sum(value.size for value in parameters.values()),
        "recipe": RECIPE,
        "bytes": path.stat().st_size,
    }
    finish(out / "lenet5.json", record)


if __name__ == "__main__":
    main()
