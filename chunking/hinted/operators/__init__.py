"""How each operator is lowered.

    reading    attributes and optional inputs
    moves      what only changes where elements come from
    linear     sums, multiples, elementwise products
    products   matrix products
    quotients  quotients of two tensors, square roots
    reductions sums, means and maxima over some elements
    windows    convolutions and pooling
    pointwise  what a split at zero gives
    decisions  signs, comparisons, whole parts
    exponentials Exp and Log, by one table
    saturating functions by table that have a limit

An operator's function raises `NotHintedError` for every node that it has no exact form for; that
what it gives has the shape that ONNX infers is checked behind it (`Lowering.run`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkml_ray.chunking.hinted.gelu import error_function
from zkml_ray.chunking.hinted.layer_norm import layer_norm
from zkml_ray.chunking.hinted.operators import (
    decisions,
    exponentials,
    linear,
    moves,
    pointwise,
    products,
    quotients,
    reductions,
    saturating,
    windows,
)
from zkml_ray.chunking.hinted.softmax import softmax

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.lower import Operators

OPERATORS: Operators = {
    "Abs": pointwise.absolute,
    "Add": linear.added(1.0),
    "AveragePool": windows.average_pool,
    "Clip": pointwise.clipped,
    "Concat": moves.concatenated,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "Div": linear.divided,
    "Erf": error_function,
    "Exp": exponentials.exponential,
    "Expand": moves.expanded,
    "Flatten": moves.reshaped,
    "Floor": decisions.floor,
    "Gather": moves.gathered,
    "Gemm": products.gemm,
    "GlobalAveragePool": windows.global_average,
    "Identity": moves.handed_on,
    "LayerNormalization": layer_norm,
    "LeakyRelu": pointwise.leaky,
    "Log": exponentials.logarithm,
    "MatMul": products.matmul,
    "Max": pointwise.farthest(1.0),
    "MaxPool": windows.max_pool,
    "Min": pointwise.farthest(-1.0),
    "Mul": linear.multiplied,
    "Neg": linear.negated,
    "Pad": moves.padded,
    "Pow": exponentials.power,
    "ReduceMax": reductions.extreme(1.0),
    "ReduceMean": reductions.averaged,
    "ReduceMin": reductions.extreme(-1.0),
    "ReduceSum": reductions.totalled,
    "Relu": pointwise.relu,
    "Reshape": moves.reshaped,
    "Sigmoid": saturating.sigmoid,
    "Sign": decisions.sign,
    "Slice": moves.sliced,
    "Softmax": softmax,
    "Split": moves.split,
    "Sqrt": quotients.root,
    "Squeeze": moves.reshaped,
    "Sub": linear.added(-1.0),
    "Sum": linear.summed,
    "Tanh": saturating.tanh,
    "Transpose": moves.transposed,
    "Unsqueeze": moves.reshaped,
    "Where": moves.chosen,
}
"""Operators with a hinted form. A lowered operator may still refuse its node."""
