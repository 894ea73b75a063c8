"""Small models of the convolutional architectures."""

from __future__ import annotations

import onnx

from tests.zoo.net import Net


def lenet5() -> onnx.ModelProto:
    """LeNet-5 in full, for 28x28 images."""
    net = Net(20)
    x = net.op("Relu", net.conv("x", 1, 6, 5, pads=[0, 0, 0, 0]))
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Relu", net.conv(x, 6, 16, 5, pads=[0, 0, 0, 0]))
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Flatten", x)
    x = net.op("Relu", net.dense(x, 256, 120))
    x = net.op("Relu", net.dense(x, 120, 84))
    x = net.dense(x, 84, 10)
    return net.model({"x": [1, 1, 28, 28]}, {x: [1, 10]})


def resnet() -> onnx.ModelProto:
    """A residual block whose shortcut is projected: stride 2, 2 to 4 channels."""
    net = Net(21)
    x = net.op("Relu", net.norm(net.conv("x", 2, 2, 3), 2))
    y = net.op("Relu", net.norm(net.conv(x, 2, 4, 3, strides=[2, 2]), 4))
    y = net.norm(net.conv(y, 4, 4, 3), 4)
    shortcut = net.norm(net.conv(x, 2, 4, 1, strides=[2, 2]), 4)
    y = net.op("Relu", net.op("Add", y, shortcut))
    y = net.dense(net.op("Flatten", net.op("GlobalAveragePool", y)), 4, 3)
    return net.model({"x": [1, 2, 6, 6]}, {y: [1, 3]})


def inception() -> onnx.ModelProto:
    """Branches of 1x1, 3x3 and pooling, concatenated by channel."""
    net = Net(22)
    x = net.op("Relu", net.conv("x", 1, 2, 3))
    one = net.op("Relu", net.conv(x, 2, 2, 1))
    three = net.op("Relu", net.conv(net.op("Relu", net.conv(x, 2, 2, 1)), 2, 2, 3))
    pooled = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    pooled = net.op("Relu", net.conv(pooled, 2, 2, 1))
    joined = net.op("Concat", one, three, pooled, axis=1)
    y = net.dense(net.op("Flatten", joined), 6 * 16, 3)
    return net.model({"x": [1, 1, 4, 4]}, {y: [1, 3]})


def unet() -> onnx.ModelProto:
    """Down, up by a transposed convolution, and a skip over all that; the output is an image."""
    net = Net(23)
    skip = net.op("Relu", net.conv("x", 1, 2, 3))
    down = net.op("MaxPool", skip, kernel_shape=[2, 2], strides=[2, 2])
    low = net.op("Relu", net.conv(down, 2, 4, 3))
    up = net.op(
        "ConvTranspose",
        low,
        net.weight(4, 2, 2, 2, inputs=4),
        kernel_shape=[2, 2],
        strides=[2, 2],
        pads=[0, 0, 0, 0],
    )
    joined = net.op("Concat", skip, up, axis=1)
    y = net.conv(net.op("Relu", net.conv(joined, 4, 2, 3)), 2, 1, 1)
    return net.model({"x": [1, 1, 4, 4]}, {y: [1, 1, 4, 4]})


def mobilenet() -> onnx.ModelProto:
    """Depthwise and pointwise convolution, each normalised and clipped to 0..6, with a skip."""
    net = Net(24)
    low, high = net.constant(0.0), net.constant(6.0)
    x = net.op("Clip", net.norm(net.conv("x", 1, 4, 3, strides=[2, 2]), 4), low, high)
    y = net.op("Clip", net.norm(net.conv(x, 4, 4, 3, group=4), 4), low, high)
    y = net.norm(net.conv(y, 4, 4, 1), 4)
    y = net.op("Add", x, y)
    y = net.dense(net.op("Flatten", net.op("GlobalAveragePool", y)), 4, 3)
    return net.model({"x": [1, 1, 6, 6]}, {y: [1, 3]})


def norm_pool() -> onnx.ModelProto:
    """BatchNormalization before and behind a convolution, then GlobalAveragePool over 9 pixels."""
    net = Net(25)
    x = net.op("Relu", net.norm(net.conv(net.norm("x", 2), 2, 3, 2, pads=[0, 0, 0, 0]), 3))
    y = net.dense(net.op("Flatten", net.op("GlobalAveragePool", x)), 3, 4)
    return net.model({"x": [1, 2, 4, 4]}, {y: [1, 4]})
