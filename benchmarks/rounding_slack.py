"""How far a prover can push an output with the rounding that a circuit leaves free.

ezkl constrains a division back to the base scale by |x - q d| < d (`layouts::div`), so that either
neighbouring integer of x / d passes. An honest prover takes the nearest. Here one takes whichever
serves him, in every rebase of the digits model at once, and tries to move a logit, or the margin
between two classes, as far as he can: on integers, because stock ezkl computes the quotients itself
and proves no others. Every quotient he takes is one that the constraint admits.

Two bounds stand beside what he reaches, in quanta (2^-scale) of the output:

- first order: 1.5 x the sum over all rebased elements of |d output / d element|. A quotient is less
  than one quantum from x / d, the honest one at most half of one.
- rigorous: D' = |W| / d D + 1.5 from layer to layer, D = 0 at the input; ReLU and MaxPool do not
  enlarge it.

    python benchmarks/rounding_slack.py --out benchmarks/results/rounding_slack.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from benchmarks import record
from zkml_ray.chunking.native.weights import coarse_weights
from zkml_ray.chunking.native.writer import whole_and_bits
from zkml_ray.commitments.packing import PackingSpec

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

FREE = 1.5
"""Quanta between an admitted quotient and the honest one, at most (they differ by less)."""

PASSES = 3


@dataclass(frozen=True)
class Layer:
    """A linear layer and its rebase, flat.

    Attributes:
        weights: [outputs, inputs] integers at the weights' scale.
        before: [outputs] added before the rebase, at the product's scale (Conv's bias).
        after: [outputs] added after it, at the base scale (Gemm's bias).
        pools: Index [outputs / 4, 4] of the ReLU's outputs in each MaxPool window, or None.
        relu: Whether a ReLU follows.
        divisor: What its rebase divides by.
    """

    weights: Integers
    before: Integers
    after: Integers
    pools: Integers | None
    relu: bool
    divisor: int


class DigitsModel:
    """The digits model in the integers that its circuits compute with."""

    def __init__(self, path: Path, scale: int = 10) -> None:
        """Quantise the model as a plan without rewrites does, inputs and weights at one scale."""
        loaded = onnx.load(path)
        tensors = {
            t.name: numpy_helper.to_array(t).astype(np.float64) for t in loaded.graph.initializer
        }
        self.scale = scale
        element_bits = PackingSpec.for_decomposition(128, 4).element_bound.bit_length()

        def at(values: Reals, bits: int) -> Integers:
            return np.rint(values * 2.0**bits).astype(np.int64)

        def whole(name: str) -> tuple[Reals, int] | None:
            """Coarse weights as whole numbers and a power of two (docs/adr/0021)."""
            weights = tensors[f"{name}.weight"]
            if not coarse_weights(weights.reshape(len(weights), -1), scale):
                return None
            return whole_and_bits(weights, element_bits - 2)

        def convolution(name: str, size: int) -> Layer:
            lowered = whole(name) or (at(tensors[f"{name}.weight"], scale), scale)
            weights = unrolled(lowered[0].astype(np.int64), size)
            bias = at(tensors[f"{name}.bias"], scale + lowered[1])
            bias = np.repeat(bias, size * size)
            pools, none = windows(len(tensors[f"{name}.bias"]), size), np.zeros_like(bias)
            return Layer(weights, bias, none, pools, relu=True, divisor=1 << lowered[1])

        def dense(name: str, *, relu: bool) -> Layer:
            lowered = whole(name)
            if lowered is not None:
                bias = at(tensors[f"{name}.bias"], scale + lowered[1])
                weights = lowered[0].astype(np.int64)
                return Layer(weights, bias, np.zeros_like(bias), None, relu, 1 << lowered[1])
            bias = at(tensors[f"{name}.bias"], scale)
            weights = at(tensors[f"{name}.weight"], scale)
            return Layer(weights, np.zeros_like(bias), bias, None, relu, 1 << scale)

        self.layers = [
            convolution("conv1", 8),
            convolution("conv2", 4),
            dense("fc1", relu=True),
            dense("fc2", relu=False),
        ]

    def quantised(self, image: Reals) -> Integers:
        """An image in [0, 1] as the model's input integers, flat."""
        return np.rint(image.ravel() * 2.0**self.scale).astype(np.int64)

    def rebased(self, layer: Layer, incoming: Integers) -> tuple[Integers, Integers]:
        """The quotients below and above x / d (equal where d divides x)."""
        x = layer.weights @ incoming + layer.before
        return x // layer.divisor, -(-x // layer.divisor)

    def honest(self, layer: Layer, incoming: Integers) -> Integers:
        """The nearest quotients, halves away from zero."""
        x = layer.weights @ incoming + layer.before
        return np.sign(x) * ((2 * np.abs(x) + layer.divisor) // (2 * layer.divisor))

    def follow(self, layer: Layer, quotients: Integers) -> Integers:
        """What comes of a layer's quotients: bias, ReLU, MaxPool."""
        values = quotients + layer.after
        if layer.relu:
            values = np.maximum(values, 0)
        return values if layer.pools is None else values[layer.pools].max(axis=1)

    def run(self, image: Integers, choices: Sequence[npt.NDArray[np.bool_]] | None = None) -> Trace:
        """The forward pass; with choices (True: the quotient above), a cheating prover's."""
        trace = Trace([], [image])
        for index, layer in enumerate(self.layers):
            if choices is None:
                quotients = self.honest(layer, trace.values[-1])
            else:
                below, above = self.rebased(layer, trace.values[-1])
                quotients = np.where(choices[index], above, below)
            trace.quotients.append(quotients)
            trace.values.append(self.follow(layer, quotients))
        return trace

    def gradients(self, trace: Trace, direction: Reals) -> list[Reals]:
        """Per layer, d(direction . outputs) / d(quotient), in quanta per quantum."""
        found: list[Reals] = []
        flow = direction.astype(np.float64)
        for layer, quotients in zip(reversed(self.layers), reversed(trace.quotients), strict=True):
            values = quotients + layer.after
            if layer.pools is not None:
                passed = np.maximum(values, 0)
                spread = np.zeros(len(values))
                winners = layer.pools[
                    np.arange(len(layer.pools)), passed[layer.pools].argmax(axis=1)
                ]
                spread[winners] = flow
                flow = spread
            if layer.relu:
                flow = flow * (values > 0)
            found.insert(0, flow)
            flow = layer.weights.T @ flow / layer.divisor
        return found

    def rigorous_bound(self) -> Reals:
        """Per output, a bound of the displacement that holds for every input."""
        bound = np.zeros(self.layers[0].weights.shape[1])
        for layer in self.layers:
            bound = np.abs(layer.weights) @ bound / layer.divisor + FREE
            if layer.pools is not None:
                bound = bound[layer.pools].max(axis=1)
        return bound


@dataclass
class Trace:
    """One forward pass.

    Attributes:
        quotients: Per layer, what its rebase gave.
        values: The input, then per layer what follows from its quotients.
    """

    quotients: list[Integers]
    values: list[Integers]


def unrolled(kernel: Integers, size: int) -> Integers:
    """A 3x3 convolution, padding 1, as a matrix [made * size^2, read * size^2]."""
    made, read = kernel.shape[:2]
    matrix = np.zeros((made, size, size, read, size, size), dtype=np.int64)
    for row in range(size):
        for column in range(size):
            for dy in range(3):
                for dx in range(3):
                    y, x = row + dy - 1, column + dx - 1
                    if 0 <= y < size and 0 <= x < size:
                        matrix[:, row, column, :, y, x] = kernel[:, :, dy, dx]
    return matrix.reshape(made * size * size, read * size * size)


def windows(channels: int, size: int) -> Integers:
    """Indices of 2x2 MaxPool windows, [channels * (size/2)^2, 4]."""
    grid = np.arange(channels * size * size).reshape(channels, size // 2, 2, size // 2, 2)
    return grid.transpose(0, 1, 3, 2, 4).reshape(-1, 4)


def attack(model: DigitsModel, image: Integers, direction: Reals, *, climb: bool) -> Trace:
    """Choose every quotient so that `direction . outputs` becomes as large as can be.

    First by the gradient, again and again at the point reached; then, with `climb`, by turning one
    choice at a time, the most influential first, for as long as that helps.

    Returns:
        The best forward pass found; each of its quotients is one that the circuit admits.
    """

    def score(trace: Trace) -> float:
        return float(direction @ trace.values[-1])

    best, chosen = model.run(image), None
    at = best
    for _ in range(PASSES):
        choices = [gradient > 0 for gradient in model.gradients(at, direction)]
        at = model.run(image, choices)
        if chosen is None or score(at) > score(best):
            best, chosen = at, choices
    if climb and chosen is not None:
        best = _climbed(model, image, best, chosen, direction, score)
    return best


def _climbed(
    model: DigitsModel,
    image: Integers,
    best: Trace,
    chosen: list[npt.NDArray[np.bool_]],
    direction: Reals,
    score: Callable[[Trace], float],
) -> Trace:
    for _ in range(PASSES):
        before = score(best)
        influence = [np.abs(gradient) for gradient in model.gradients(best, direction)]
        places = [(i, j) for i, row in enumerate(influence) for j in range(len(row))]
        for i, j in sorted(places, key=lambda place: -influence[place[0]][place[1]]):
            chosen[i][j] = not chosen[i][j]
            tried = model.run(image, chosen)
            if score(tried) > score(best):
                best = tried
            else:
                chosen[i][j] = not chosen[i][j]
        if score(best) == before:
            break
    return best


def admitted(model: DigitsModel, trace: Trace) -> bool:
    """Whether the circuit's constraint |x - q d| < d holds of every quotient of a forward pass."""
    for layer, incoming, quotients in zip(
        model.layers, trace.values[:-1], trace.quotients, strict=True
    ):
        x = layer.weights @ incoming + layer.before
        if np.any(np.abs(x - quotients * layer.divisor) >= layer.divisor):
            return False
    return True


def first_order_bound(model: DigitsModel, trace: Trace, direction: Reals) -> float:
    """The first-order bound of a displacement along a direction, in quanta."""
    return FREE * sum(float(np.abs(g).sum()) for g in model.gradients(trace, direction))


def measure_logits(model: DigitsModel, images: dict[str, Integers]) -> list[dict[str, Any]]:
    """Per image, the logit that moves furthest, up or down."""
    rigorous = model.rigorous_bound()
    rows = []
    for name, image in images.items():
        honest = model.run(image)
        best: dict[str, Any] = {}
        for output in range(len(rigorous)):
            for sign in (1.0, -1.0):
                direction = sign * np.eye(len(rigorous))[output]
                cheated = attack(model, image, direction, climb=True)
                if not admitted(model, cheated):
                    raise RuntimeError("the attack left what the circuit admits")
                moved = float(direction @ (cheated.values[-1] - honest.values[-1]))
                if moved > best.get("reached_quanta", 0.0):
                    best = {
                        "image": name,
                        "logit": output,
                        "sign": int(sign),
                        "reached_quanta": moved,
                        "reached": moved / 2**model.scale,
                        "first_order_quanta": first_order_bound(model, honest, direction),
                        "rigorous_quanta": float(rigorous[output]),
                    }
        top = np.sort(honest.values[-1])
        best["margin_quanta"] = int(top[-1] - top[-2])
        rows.append(best)
    return rows


def measure_flips(model: DigitsModel, images: Sequence[Integers]) -> dict[str, Any]:
    """Of many images, those whose class a cheating prover can change."""
    flipped, margins, reached = [], [], []
    for index, image in enumerate(images):
        honest = model.run(image).values[-1]
        order = np.argsort(-honest, kind="stable")
        direction = np.zeros(len(honest))
        direction[order[1]], direction[order[0]] = 1.0, -1.0
        cheated = attack(model, image, direction, climb=False).values[-1]
        margins.append(int(honest[order[0]] - honest[order[1]]))
        reached.append(float(direction @ (cheated - honest)))
        if cheated[order[1]] > cheated[order[0]]:
            flipped.append({"image": index, "margin_quanta": margins[-1]})
    return {
        "images": len(images),
        "flipped": flipped,
        "median_margin_quanta": float(np.median(margins)),
        "smallest_margin_quanta": min(margins),
        "largest_margin_reached_quanta": max(reached),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    folder = Path(__file__).resolve().parent.parent / "examples" / "digits"
    model = DigitsModel(folder / "digits.onnx")
    test = np.load(folder / "test_images.npz")["images"]
    named = {str(index): model.quantised(test[index]) for index in range(10)}
    logits = measure_logits(model, named)
    flips = measure_flips(model, [model.quantised(image) for image in test])
    for row in logits:
        print(
            f"image {row['image']}: logit {row['logit']} by {row['reached_quanta']:.0f} quanta "
            f"({row['reached']:.4f}); first order {row['first_order_quanta']:.0f}, rigorous "
            f"{row['rigorous_quanta']:.0f}, margin {row['margin_quanta']}"
        )
    print(
        f"classes changed: {len(flips['flipped'])} of {flips['images']}, margins there "
        f"{[entry['margin_quanta'] for entry in flips['flipped']]}; smallest margin "
        f"{flips['smallest_margin_quanta']}, median {flips['median_margin_quanta']:.0f}, furthest "
        f"move of a margin {flips['largest_margin_reached_quanta']:.0f}"
    )
    record.write(given.out, {"scale": model.scale, "logits": logits, "classes": flips})


if __name__ == "__main__":
    main()
