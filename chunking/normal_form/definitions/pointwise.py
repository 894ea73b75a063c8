"""Functions of one element.

exp is read only at -7.75 and above, where it is in ezkl's table; below, e^x is under 0.00044 and
counts as that.
"""

from __future__ import annotations

import math
from typing import Final

import onnx_ir as ir

from zkml_ray.chunking.normal_form.writer import Writer

FLOOR: Final = -7.75
"""Smallest argument at which exp is read."""


def gelu(write: Writer) -> ir.Value:
    """x/2 (1 + erf(x / sqrt 2)), or x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    x, kind = write.input(0), write.attribute("approximate", "none")
    if kind == "none":
        bent = write.op("Erf", write.op("Mul", x, write.floats(math.sqrt(0.5))))
    elif kind == "tanh":
        cube = write.op("Mul", write.op("Mul", x, x), x)
        inner = write.op("Add", x, write.op("Mul", cube, write.floats(0.044715)))
        bent = write.op("Tanh", write.op("Mul", inner, write.floats(math.sqrt(2 / math.pi))))
    else:
        raise write.refusal(f"there is no approximation {kind!r}")
    twice = write.op("Mul", x, write.op("Add", bent, write.floats(1.0)))
    return write.op("Mul", twice, write.floats(0.5))


def elu(write: Writer) -> ir.Value:
    """Relu(x) + alpha (e^min(x, 0) - 1)."""
    return _bent(write, write.attribute("alpha", 1.0), 1.0, 1.0)


def celu(write: Writer) -> ir.Value:
    """Relu(x) + alpha (e^(min(x, 0) / alpha) - 1)."""
    alpha = write.attribute("alpha", 1.0)
    if not alpha > 0:
        raise write.refusal(f"alpha is {alpha:g}; above 0 was expected")
    return _bent(write, alpha, 1 / alpha, 1.0)


def selu(write: Writer) -> ir.Value:
    """Gamma (Relu(x) + alpha (e^min(x, 0) - 1))."""
    alpha = write.attribute("alpha", 1.67326319217681884765625)
    return _bent(write, alpha, 1.0, write.attribute("gamma", 1.05070102214813232421875))


def _bent(write: Writer, alpha: float, slope: float, gamma: float) -> ir.Value:
    x = write.input(0)
    grown = write.op("Exp", _below_zero(write, x, slope))
    below = write.op("Mul", grown, write.floats(alpha * gamma))
    above = write.op("Relu", x)
    if gamma != 1.0:
        above = write.op("Mul", above, write.floats(gamma))
    return write.op("Add", write.op("Add", above, below), write.floats(-alpha * gamma))


def _below_zero(write: Writer, x: ir.Value | None, slope: float = 1.0) -> ir.Value:
    """Max(FLOOR, min(slope x, 0)), for a slope above 0."""
    if slope != 1.0:
        x = write.op("Mul", x, write.floats(slope))
    return write.op("Clip", x, write.floats(FLOOR), write.floats(0.0))


def softplus(write: Writer) -> ir.Value:
    """Relu(x) + ln(1 + e^-|x|): ln is read between 1 and 2 alone."""
    return _softplus(write, write.input(0))


def _softplus(write: Writer, x: ir.Value | None) -> ir.Value:
    small = _below_zero(write, write.op("Neg", write.op("Abs", x)))
    more = write.op("Log", write.op("Add", write.op("Exp", small), write.floats(1.0)))
    return write.op("Add", write.op("Relu", x), more)


def mish(write: Writer) -> ir.Value:
    """X tanh(softplus(x)); tanh counts as 1 from 8 on."""
    x = write.input(0)
    bounded = write.op("Clip", _softplus(write, x), write.floats(0.0), write.floats(-FLOOR))
    return write.op("Mul", x, write.op("Tanh", bounded))


def softsign(write: Writer) -> ir.Value:
    """X / (1 + |x|)."""
    x = write.input(0)
    return write.op("Div", x, write.op("Add", write.op("Abs", x), write.floats(1.0)))


def swish(write: Writer) -> ir.Value:
    """X sigmoid(alpha x)."""
    x, alpha = write.input(0), write.attribute("alpha", 1.0)
    inner = x if alpha == 1.0 else write.op("Mul", x, write.floats(alpha))
    return write.op("Mul", x, write.op("Sigmoid", inner))


def hard_sigmoid(write: Writer) -> ir.Value:
    """Clip(alpha x + beta, 0, 1)."""
    return _hard(write, write.attribute("alpha", 0.2), write.attribute("beta", 0.5))


def hard_swish(write: Writer) -> ir.Value:
    """X clip(x / 6 + 1/2, 0, 1)."""
    return write.op("Mul", write.input(0), _hard(write, 1 / 6, 0.5))


def _hard(write: Writer, alpha: float, beta: float) -> ir.Value:
    line = write.op("Add", write.op("Mul", write.input(0), write.floats(alpha)), write.floats(beta))
    return write.op("Clip", line, write.floats(0.0), write.floats(1.0))


def prelu(write: Writer) -> ir.Value:
    """Relu(x) - slope Relu(-x)."""
    x = write.input(0)
    below = write.op("Relu", write.op("Neg", x))
    return write.op("Sub", write.op("Relu", x), write.op("Mul", below, write.input(1)))


def reciprocal(write: Writer) -> ir.Value:
    """1 / x."""
    return write.op("Div", write.floats(1.0), write.input(0))


def ceil(write: Writer) -> ir.Value:
    """-floor(-x)."""
    return write.op("Neg", write.op("Floor", write.op("Neg", write.input(0))))


def round_to_even(write: Writer) -> ir.Value:
    """Floor(x + 1/2), less 1 where x + 1/2 is whole and odd."""
    raised = write.op("Add", write.input(0), write.floats(0.5))
    whole = write.op("Floor", raised)
    above = write.op("Relu", write.op("Sign", write.op("Sub", raised, whole)))
    tied = write.op("Sub", write.floats(1.0), above)
    half = write.op("Floor", write.op("Mul", whole, write.floats(0.5)))
    rest = write.op("Sub", whole, write.op("Mul", half, write.floats(2.0)))
    odd = write.op("Relu", write.op("Sign", rest))
    return write.op("Sub", whole, write.op("Mul", tied, odd))


def shrink(write: Writer) -> ir.Value:
    """X - bias above lambd, x + bias below -lambd, else 0."""
    x = write.input(0)
    bound, bias = float(write.attribute("lambd", 0.5)), float(write.attribute("bias", 0.0))
    if bound < 0:
        raise write.refusal(f"lambd is {bound:g}; 0 or more was expected")
    high = write.op("Add", x, write.floats(-bound))
    low = write.op("Add", write.op("Neg", x), write.floats(-bound))
    if bias == bound:
        return write.op("Sub", write.op("Relu", high), write.op("Relu", low))
    sides = []
    for beyond, shift in ((high, -bias), (low, bias)):
        chosen = write.op("Relu", write.op("Sign", beyond))
        moved = x if shift == 0 else write.op("Add", x, write.floats(shift))
        sides.append(write.op("Mul", chosen, moved))
    return write.op("Add", *sides)
