"""A residual block that halves the image and doubles the channels, with a projection shortcut.

Two 3x3 convolutions (the first with stride 2), a 1x1 convolution with stride 2 on the shortcut,
8 to 16 channels, 16x16 to 8x8 pixels. Batch normalisation is folded into the convolutions, as
torch's exporter does by default: left unfolded, it would burden the stock circuit with work that
nobody who exports such a model has. Weights are seeded: their values change no circuit's cost.
"""

from __future__ import annotations

import numpy as np
import onnx

from benchmarks.models.build import GraphBuilder


def build_resnet_block(
    seed: int = 0, *, channels: int = 8, filters: int = 16, side: int = 16
) -> onnx.ModelProto:
    """The block.

    Args:
        seed: Of the weights.
        channels: Channels of the input.
        filters: Channels of the output.
        side: Height and width of the input, an even number.
    """
    generator = np.random.default_rng(seed)
    graph = GraphBuilder("resnet_block")

    def conv(data: str, name: str, inputs: int, kernel: int, stride: int) -> str:
        fan_in = inputs * kernel * kernel
        shape = (filters, inputs, kernel, kernel)
        weight = generator.normal(size=shape) * np.sqrt(2 / fan_in)
        graph.constant(f"{name}.weight", weight)
        graph.constant(f"{name}.bias", generator.normal(size=filters) * 0.1)
        return graph.conv(
            data,
            f"{name}.weight",
            f"{name}.bias",
            f"{name}_out",
            kernel=kernel,
            stride=stride,
            pad=kernel // 2,
        )

    hidden = graph.node("Relu", [conv("x", "conv1", channels, 3, 2)], "relu1_out")
    main = conv(hidden, "conv2", filters, 3, 1)
    shortcut = conv("x", "downsample", channels, 1, 2)
    graph.node("Add", [main, shortcut], "add_out")
    graph.node("Relu", ["add_out"], "y")
    return graph.model(
        [("x", [1, channels, side, side])], [("y", [1, filters, side // 2, side // 2])]
    )
