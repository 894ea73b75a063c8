"""Small models with fixed seeds, built by script: one of every architecture."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from tests.zoo.convolutional import inception, lenet5, mobilenet, norm_pool, resnet, unet
from tests.zoo.dense import deep_mlp, mlp, residual, two_inputs, two_outputs
from tests.zoo.transformer import transformer

MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": mlp,
    "residual": residual,
    "deep_mlp": deep_mlp,
    "two_inputs": two_inputs,
    "two_outputs": two_outputs,
    "lenet5": lenet5,
    "resnet": resnet,
    "inception": inception,
    "unet": unet,
    "mobilenet": mobilenet,
    "norm_pool": norm_pool,
    "transformer": transformer,
}
