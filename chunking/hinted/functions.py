"""Functions by table, beyond the table's end as well.

The table is ezkl's of one function over the digits [0, T), the only one of a circuit. An odd
function that saturates is read at C = min(|v|, top) of the rounded argument v (`clamp`), and its
result given v's sign: s f(C), exactly. `top` is the table's last digit that honest provers use,
8 or more in units of the argument, where the result is within a quantum of the function's limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.hinted.grid import Ints, View
from zkml_ray.chunking.hinted.settle import Rounding

if TYPE_CHECKING:
    from zkml_ray.chunking.hinted.forms import Pending
    from zkml_ray.chunking.hinted.lower import Lowering

REACH_BITS: Final = 3
"""Tables reach 2^3: circuits have 2^(scale + 3) rows or more."""

TABLE_OF: Final[Mapping[str, str]] = {
    "Erf": "Erf",
    **dict.fromkeys(("Exp", "Log", "Softmax"), "Exp"),
    **dict.fromkeys(("Sigmoid", "Tanh"), "Tanh"),
}
"""The table that an operator needs: a circuit has one."""

_BASE: Final = float(np.float32(np.e))
"""Of ezkl's exponential."""

_FUNCTIONS: Final[Mapping[str, Callable[[float], float]]] = {
    "Erf": math.erf,
    "Exp": lambda x: _BASE**x,
    "Tanh": math.tanh,
}


def odd(lowering: Lowering, op: str, argument: Pending, name: str) -> View:
    """An odd function with a table: its results, of nominal scale `scale`, not rounded again.

    Args:
        lowering: Where to.
        op: Its name in ONNX and in ezkl.
        argument: A linear tensor that is not rounded yet.
        name: The argument's, for messages.

    Raises:
        NotHintedError: The circuit has too few rows.
    """
    numbers, circuit = lowering.numbers, lowering.circuit
    least = numbers.scale + REACH_BITS
    if numbers.logrows < least:
        raise NotHintedError(
            f"its table needs 2^{least} rows at scale {numbers.scale}", by_rows=True
        )
    rounding = Rounding(
        resolution=lowering.resolution,
        offset=0,
        result_digits=0,
        below_digits=0,
        clamp_top=numbers.divisor - 1,
    )
    settled = lowering.settle(argument, rounding, name)
    size, one = settled.wire.size, 1 << numbers.scale
    found = circuit.function(op, settled.wire.name, size, numbers.scale)
    tensor = circuit.multiply(found, settled.sign, size)
    lowering.step(
        do="odd", op=op, wire=tensor, within=settled.wire.name, sign=settled.sign, one=one
    )
    wire = lowering.wire(tensor, size, -one, one, nominal=numbers.scale)
    return View(wire=wire, index=settled.index)


def shifted(lowering: Lowering, view: View, plus: float) -> View:
    """A function's results with a constant added, in their own steps."""
    circuit, wire = lowering.circuit, view.wire
    offset = round(plus * wire.resolution)
    raised = circuit.raised(circuit.dynamic(offset), 0, wire.nominal)
    tensor = circuit.add(wire.name, raised, wire.size)
    lowering.step(do="affine", wire=tensor, parts=[wire.name], factor=1, offset=offset)
    low, high = wire.low + offset, wire.high + offset
    made = lowering.wire(tensor, wire.size, low, high, wire.resolution, wire.nominal)
    return View(wire=made, index=view.index)


def entries(op: str, digits: Ints, one: int) -> Ints:
    """What a table holds for digits, as ezkl rounds it, at the scale of `one`."""
    function = _FUNCTIONS[op]
    table = [math.floor(one * function(v / one) + 0.5) for v in range(int(digits.max()) + 1)]
    found: Ints = np.asarray(table, dtype=np.int64)[digits]
    return found
