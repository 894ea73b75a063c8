"""Train a small CNN on the 8x8 handwritten digits and write it as an ONNX model.

The script is deterministic: on one machine, the same versions of the libraries write the same
files.  The data set ships inside scikit-learn, so nothing is downloaded.  The ONNX graph is
built node by node from the trained weights, which keeps it free of exporter artefacts.

It writes ``digits.onnx``, ten input files (``zero.json`` to ``nine.json``),
``test_images.npz`` and ``training.json``; see the README beside this file.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.training import (
    IR_VERSION,
    OPSET,
    OneCycle,
    begin,
    difference_from_torch,
    finish,
    model_of,
    weights_of,
)

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

IMAGE_SHAPE = (1, 8, 8)
CLASSES = 10
PIXEL_MAX = 16.0
TEST_SIZE = 0.25
SPLIT_SEED = 0
MAX_MODEL_BYTES = 100_000
MAX_ACTIVATION = 64.0
DIGIT_NAMES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
)


@dataclass(frozen=True)
class Architecture:
    """Sizes of the network.

    Attributes:
        conv1_channels: Output channels of the first convolution.
        conv2_channels: Output channels of the second convolution.
        hidden: Units of the hidden fully connected layer.
    """

    conv1_channels: int = 4
    conv2_channels: int = 8
    hidden: int = 24


@dataclass(frozen=True)
class Recipe:
    """How the network is trained.

    Attributes:
        seed: Seed of the initial weights, the batches and the augmentation.
        epochs: Passes over the training split.
        batch_size: Images in one step.
        learning_rate: Peak learning rate of the one-cycle schedule.
        weight_decay: Decoupled weight decay of AdamW.
        label_smoothing: Label smoothing of the cross-entropy loss, which bounds the logits.
        shift_probability: Chance that an image of a batch is shifted along an axis by one pixel.
    """

    seed: int = 0
    epochs: int = 120
    batch_size: int = 64
    learning_rate: float = 0.01
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    shift_probability: float = 0.15


@dataclass(frozen=True)
class Split:
    """The data set, split into training and test images.

    Attributes:
        train_images: Training images, shape [N, 1, 8, 8], pixels in [0, 1].
        train_labels: Training labels, shape [N].
        test_images: Test images, shape [M, 1, 8, 8], pixels in [0, 1].
        test_labels: Test labels, shape [M].
    """

    train_images: FloatArray
    train_labels: IntArray
    test_images: FloatArray
    test_labels: IntArray


def load_split() -> Split:
    """Load the digits and split them, stratified by label.

    Returns:
        The training and the test split.
    """
    digits = load_digits()
    images = (digits.images / PIXEL_MAX).astype(np.float32).reshape(-1, *IMAGE_SHAPE)
    labels = digits.target.astype(np.int64)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=TEST_SIZE, random_state=SPLIT_SEED, stratify=labels
    )
    return Split(train_images, train_labels, test_images, test_labels)


def build_network(architecture: Architecture) -> nn.Sequential:
    """Build the untrained network; the names of its layers become the ONNX node names.

    Args:
        architecture: The sizes of the layers.

    Returns:
        The network, with freshly drawn weights.
    """
    conv1, conv2, hidden = (
        architecture.conv1_channels,
        architecture.conv2_channels,
        architecture.hidden,
    )
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(1, conv1, kernel_size=3, padding=1),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(conv1, conv2, kernel_size=3, padding=1),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(conv2 * 2 * 2, hidden),
        relu3=nn.ReLU(),
        fc2=nn.Linear(hidden, CLASSES),
    )
    return nn.Sequential(layers)


def shift_randomly(
    images: torch.Tensor, probability: float, generator: torch.Generator
) -> torch.Tensor:
    """Shift each image by at most one pixel along each axis, filling with background.

    Args:
        images: A batch of images, shape [N, 1, 8, 8].
        probability: Chance of a shift along one axis, split evenly over both directions.
        generator: Source of randomness.

    Returns:
        The shifted batch, of the same shape.
    """
    count, _, height, width = images.shape
    chance = torch.rand((2, count), generator=generator)
    offsets = torch.ones((2, count), dtype=torch.int64)
    offsets[chance < probability] = 2
    offsets[chance < probability / 2] = 0
    padded = functional.pad(images, (1, 1, 1, 1))
    rows = (offsets[0][:, None] + torch.arange(height))[:, :, None]
    columns = (offsets[1][:, None] + torch.arange(width))[:, None, :]
    batch = torch.arange(count)[:, None, None]
    return padded[batch, 0, rows, columns].unsqueeze(1)


def train_network(architecture: Architecture, recipe: Recipe, split: Split) -> nn.Sequential:
    """Train the network on the training split only.

    Args:
        architecture: The sizes of the layers.
        recipe: The settings of the training.
        split: The data; the test part is not looked at.

    Returns:
        The trained network, in evaluation mode.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    network = build_network(architecture)
    images = torch.from_numpy(split.train_images)
    labels = torch.from_numpy(split.train_labels)
    optimizer = OneCycle(
        network,
        peak=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        total_steps=recipe.epochs * -(-len(images) // recipe.batch_size),
    )
    network.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        for batch in order.split(recipe.batch_size):
            shifted = shift_randomly(images[batch], recipe.shift_probability, generator)
            loss = functional.cross_entropy(
                network(shifted), labels[batch], label_smoothing=recipe.label_smoothing
            )
            optimizer.step(loss)
    return network.eval()


def _as_tuple(value: int | str | tuple[int, ...]) -> tuple[int, int]:
    """Return a two-dimensional torch setting as a pair."""
    if isinstance(value, str):
        raise TypeError(f"padding must be given in numbers, not as {value!r}")
    if isinstance(value, int):
        return value, value
    height, width = value
    return height, width


def _node_attributes(layer: nn.Module) -> tuple[str, dict[str, Any]]:
    """Return the ONNX operator of a layer and all of its attributes."""
    match layer:
        case nn.Conv2d():
            return "Conv", {
                "kernel_shape": _as_tuple(layer.kernel_size),
                "strides": _as_tuple(layer.stride),
                "dilations": _as_tuple(layer.dilation),
                "pads": _as_tuple(layer.padding) * 2,
                "group": layer.groups,
            }
        case nn.MaxPool2d():
            return "MaxPool", {
                "kernel_shape": _as_tuple(layer.kernel_size),
                "strides": _as_tuple(layer.stride),
                "pads": _as_tuple(layer.padding) * 2,
            }
        case nn.Linear():
            return "Gemm", {"alpha": 1.0, "beta": 1.0, "transB": 1}
        case nn.Flatten():
            return "Flatten", {"axis": 1}
        case nn.ReLU():
            return "Relu", {}
        case _:
            raise ValueError(f"no ONNX operator for {type(layer).__name__}")


def build_onnx(network: nn.Sequential) -> onnx.ModelProto:
    """Build the ONNX model of the trained network.

    Args:
        network: The trained network.

    Returns:
        The checked model, with its batch dimension fixed to 1.
    """
    layers = list(network.named_children())
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    current = "image"
    for index, (name, layer) in enumerate(layers):
        weights = weights_of(layer, name)
        initializers += weights
        inputs = [current, *(weight.name for weight in weights)]
        current = "logits" if index == len(layers) - 1 else f"{name}_out"
        operator, attributes = _node_attributes(layer)
        nodes.append(helper.make_node(operator, inputs, [current], name=name, **attributes))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *IMAGE_SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        initializers,
    )
    model = model_of(graph)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _session(model: onnx.ModelProto | Path, optimize: bool = True) -> ort.InferenceSession:
    """Open a single-threaded onnxruntime session of a model or a model file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_logits(path: Path, images: FloatArray) -> FloatArray:
    """Run the saved model over images, one at a time.

    Args:
        path: The ONNX file.
        images: Images, shape [N, 1, 8, 8].

    Returns:
        The logits, shape [N, 10].
    """
    session = _session(path)
    rows = [session.run(["logits"], {"image": image[None]})[0] for image in images]
    return np.concatenate(rows).astype(np.float32)


def accuracy(logits: FloatArray, labels: IntArray) -> float:
    """Return the share of rows whose largest logit is the label's."""
    return float((logits.argmax(axis=1) == labels).mean())


def max_activations(path: Path, images: FloatArray) -> dict[str, float]:
    """Find the largest absolute output of each node over images.

    Args:
        path: The ONNX file.
        images: Images, shape [N, 1, 8, 8].

    Returns:
        The largest absolute value by node name, in graph order, after the input's own.
    """
    model = onnx.load(path)
    names = {node.output[0]: node.name for node in model.graph.node}
    inner = {value.name: value for value in model.graph.value_info}
    model.graph.output.extend(inner[output] for output in names if output in inner)
    session = _session(model, optimize=False)
    largest = dict.fromkeys(names.values(), 0.0)
    for image in images:
        outputs = session.run(list(names), {"image": image[None]})
        for output, value in zip(names, outputs, strict=True):
            largest[names[output]] = max(largest[names[output]], float(np.abs(value).max()))
    return {"image": float(np.abs(images).max()), **largest}


def pick_examples(logits: FloatArray, labels: IntArray) -> dict[int, tuple[int, float]]:
    """Pick one clearly recognised image of each digit.

    Of each digit, the first image is taken that is classified correctly with at least the
    digit's median margin, so that the examples are typical and not the easiest ones.

    Args:
        logits: The logits of the images, shape [N, 10].
        labels: The labels of the images, shape [N].

    Returns:
        By digit, the index of the image and the margin between its two largest logits.
    """
    ranked = np.sort(logits, axis=1)
    margins = ranked[:, -1] - ranked[:, -2]
    correct = logits.argmax(axis=1) == labels
    picked: dict[int, tuple[int, float]] = {}
    for digit in range(CLASSES):
        candidates = np.flatnonzero(correct & (labels == digit))
        if not len(candidates):
            raise RuntimeError(f"no image of the digit {digit} is classified correctly")
        typical = candidates[margins[candidates] >= np.median(margins[candidates])]
        picked[digit] = int(typical[0]), float(margins[typical[0]])
    return picked


def write_examples(
    out: Path, split: Split, logits: FloatArray
) -> dict[str, dict[str, float | int]]:
    """Write one test image of each digit in ezkl's input form, and the whole test split.

    Args:
        out: The folder to write to.
        split: The data.
        logits: The saved model's logits of the test images.

    Returns:
        By file name, the label, the index in the test split and the margin of the logits.
    """
    written: dict[str, dict[str, float | int]] = {}
    for digit, (index, margin) in pick_examples(logits, split.test_labels).items():
        pixels = split.test_images[index].ravel().tolist()
        name = f"{DIGIT_NAMES[digit]}.json"
        (out / name).write_text(json.dumps({"input_data": [pixels]}) + "\n", encoding="utf-8")
        written[name] = {"label": digit, "test_index": index, "margin": round(margin, 4)}
    np.savez_compressed(out / "test_images.npz", images=split.test_images, labels=split.test_labels)
    return written


def main(arguments: list[str] | None = None) -> None:
    """Train, export, check and describe the model.

    Args:
        arguments: The command line, without the program's name; the process's own if None.
    """
    description = "Train the digits example and write its files."
    out = begin(description, Path(__file__).resolve().parent, arguments)
    architecture, recipe, split = Architecture(), Recipe(), load_split()
    network = train_network(architecture, recipe, split)

    path = out / "digits.onnx"
    onnx.save(build_onnx(network), path)
    size = path.stat().st_size
    if size >= MAX_MODEL_BYTES:
        raise RuntimeError(f"{path.name} has {size} bytes, {MAX_MODEL_BYTES} or more")

    train_logits = run_logits(path, split.train_images)
    test_logits = run_logits(path, split.test_images)
    difference = difference_from_torch(network, split.test_images, test_logits)

    activations = max_activations(path, np.concatenate([split.train_images, split.test_images]))
    report = {
        "accuracy": {
            "train": accuracy(train_logits, split.train_labels),
            "test": accuracy(test_logits, split.test_labels),
        },
        "images": {"train": len(split.train_labels), "test": len(split.test_labels)},
        "architecture": asdict(architecture),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "max_abs_weight": {
            name: round(float(parameter.detach().abs().max()), 4)
            for name, parameter in network.named_parameters()
        },
        "max_abs_activation": {name: round(value, 4) for name, value in activations.items()},
        "examples": write_examples(out, split, test_logits),
        "recipe": asdict(recipe),
        "split": {"test_size": TEST_SIZE, "random_state": SPLIT_SEED, "stratified": True},
        "seed": recipe.seed,
        "onnx": {"bytes": size, "opset": OPSET, "ir_version": IR_VERSION},
    }
    finish(out / "training.json", report)
    print(f"largest difference between torch and onnxruntime: {difference:.2e}")
    if max(activations.values()) >= MAX_ACTIVATION:
        raise RuntimeError(f"an activation reaches {max(activations.values()):g}")


if __name__ == "__main__":
    main()
