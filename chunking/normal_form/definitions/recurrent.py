"""RNN, GRU and LSTM, step by step: a sequence has one length in a circuit.

The products with the inputs of all steps are one product; what a state goes into is one a step. The
equations are those of ONNX's specification (opset 14), gates in its order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.chunking.normal_form.writer import Writer
from zkml_ray.limits import MAX_STEPS

Floats = npt.NDArray[np.float32]

_FUNCTIONS: Final = frozenset({"Relu", "Sigmoid", "Tanh"})
_STATES: Final = {"RNN": 1, "GRU": 1, "LSTM": 2}
_GATES: Final = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS: Final = {
    "RNN": ["Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Direction:
    """One direction's weights, and what it does.

    Attributes:
        inputs: W^T, [inputs, gates * hidden].
        states: R^T, [hidden, gates * hidden].
        bias: What is added to the product with inputs, [gates * hidden].
        state_bias: What is added to the product with states, [gates * hidden].
        functions: Names of its activations, in the specification's order.
        backward: Whether it reads the sequence from its end.
    """

    inputs: Floats
    states: Floats
    bias: Floats
    state_bias: Floats
    functions: list[str]
    backward: bool


@dataclass(slots=True, kw_only=True)
class _Run:
    """What a direction made.

    Attributes:
        steps: States after each step in the sequence's order, [batch, hidden].
        last: The state after its last step, and an LSTM's cell.
    """

    steps: list[ir.Value]
    last: list[ir.Value]


def recurrent(write: Writer) -> list[ir.Value]:
    """The outputs Y, Y_h and, of an LSTM, Y_c."""
    kind = write.place.op_type
    directions, hidden = _directions(write)
    length, batch, _ = write.shape()
    _check_lengths(write, length)
    initial = [write.input(5 + k) for k in range(_STATES[kind])]
    runs = [
        _run(write, direction, [_part(write, value, d) for value in initial], hidden)
        for d, direction in enumerate(directions)
    ]
    columns = []
    for run in runs:
        steps = [write.reshape(step, [1, 1, batch, hidden]) for step in run.steps]
        columns.append(_joined(write, steps, 0))
    results = [_joined(write, columns, 1)]
    for k in range(_STATES[kind]):
        last = [write.reshape(run.last[k], [1, batch, hidden]) for run in runs]
        results.append(_joined(write, last, 0))
    return results


def _directions(write: Writer) -> tuple[list[_Direction], int]:
    kind = write.place.op_type
    weights, states = write.constant(1), write.constant(2)
    if weights is None or states is None:
        raise write.refusal("its weights must be constants")
    if write.input(7) is not None:
        raise write.refusal("peepholes (input P) cannot be proved")
    for name in ("clip", "input_forget", "layout"):
        if write.attribute(name, 0):
            raise write.refusal(f"its attribute {name} cannot be proved")
    count, hidden = weights.shape[0], states.shape[2]
    bias = write.constant(3)
    if bias is None:
        if write.input(3) is not None:
            raise write.refusal("its bias must be a constant")
        bias = np.zeros((count, 2 * _GATES[kind] * hidden), dtype=np.float32)
    functions = list(write.attribute("activations", _DEFAULTS[kind] * count))
    unknown = sorted(set(functions) - _FUNCTIONS)
    if unknown:
        raise write.refusal(
            f"its activations {', '.join(unknown)} cannot be proved; those that can: "
            f"{', '.join(sorted(_FUNCTIONS))}"
        )
    each = len(_DEFAULTS[kind])
    how = write.attribute("direction", "forward")
    found = []
    for d in range(count):
        of_inputs, of_states = np.split(bias[d], 2)
        found.append(
            _Direction(
                inputs=weights[d].T,
                states=states[d].T,
                bias=of_inputs,
                state_bias=of_states,
                functions=functions[each * d : each * (d + 1)],
                backward=how == "reverse" or d == 1,
            )
        )
    return found, hidden


def _check_lengths(write: Writer, length: int) -> None:
    if length > MAX_STEPS:
        raise write.refusal(
            f"its {length} steps are more than the {MAX_STEPS} that are written out"
        )
    if write.input(4) is None:
        return
    lengths = write.constant(4)
    if lengths is None or (lengths != length).any():
        raise write.refusal(
            f"sequences of several lengths cannot be proved; all must have {length} steps"
        )


def _part(write: Writer, value: ir.Value | None, direction: int) -> ir.Value | None:
    """A direction's initial state, [batch, hidden]; None where it is zero."""
    if value is None:
        return None
    return write.op("Gather", value, write.integers(direction), axis=0)


def _run(
    write: Writer,
    direction: _Direction,
    initial: list[ir.Value | None],
    hidden: int,
) -> _Run:
    kind = write.place.op_type
    resets = kind == "GRU"
    # A GRU adds the states' bias where it resets them, or not at all there.
    bias = direction.bias if resets else direction.bias + direction.state_bias
    product = write.op("MatMul", write.input(0), write.floats(direction.inputs))
    whole = write.op("Add", product, write.floats(bias))
    length = write.shape()[0]
    order = range(length)[::-1] if direction.backward else range(length)
    step: Callable[..., list[ir.Value]] = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}[kind]
    # One constant for all steps.
    matrices = [
        write.floats(part) for part in _split(direction.states, _GATES[kind] if resets else 1)
    ]
    state: list[Any] = list(initial)
    steps: dict[int, ir.Value] = {}
    for t in order:
        given = write.op("Gather", whole, write.integers(t), axis=0)
        state = step(write, direction, given, state, matrices)
        steps[t] = state[0]
    return _Run(steps=[steps[t] for t in range(length)], last=state)


def _split(states: Floats, parts: int) -> list[Floats]:
    return list(np.split(states, parts, axis=1))


def _rnn(
    write: Writer,
    direction: _Direction,
    given: ir.Value,
    state: list[ir.Value | None],
    matrices: list[ir.Value],
) -> list[ir.Value]:
    """H = f(X W^T + H R^T + b)."""
    total = _with_state(write, given, state[0], matrices[0])
    return [write.op(direction.functions[0], total)]


def _lstm(
    write: Writer,
    direction: _Direction,
    given: ir.Value,
    state: list[ir.Value | None],
    matrices: list[ir.Value],
) -> list[ir.Value]:
    """C = f(f) C + f(i) g(c); H = f(o) h(C); gates in the order i, o, f, c."""
    total = _with_state(write, given, state[0], matrices[0])
    f, g, h = direction.functions
    hidden = direction.states.shape[0]
    enters, leaves, keeps, new = (_gate(write, total, k, hidden) for k in range(4))
    cell = write.op("Mul", write.op(f, enters), write.op(g, new))
    if state[1] is not None:
        cell = write.op("Add", write.op("Mul", write.op(f, keeps), state[1]), cell)
    return [write.op("Mul", write.op(f, leaves), write.op(h, cell)), cell]


def _gru(
    write: Writer,
    direction: _Direction,
    given: ir.Value,
    state: list[ir.Value | None],
    matrices: list[ir.Value],
) -> list[ir.Value]:
    """H = (1 - z) n + z H, where n resets H before its product with R, or the product itself."""
    f, g = direction.functions
    old = state[0]
    hidden = direction.states.shape[0]
    gates = 2 * hidden
    update, reset, new = (_gate(write, given, k, hidden) for k in range(3))
    bias = direction.state_bias
    parts = [bias[:hidden], bias[hidden:gates], bias[gates:]]
    z = write.op(f, _added(write, _with_state(write, update, old, matrices[0]), parts[0]))
    r = write.op(f, _added(write, _with_state(write, reset, old, matrices[1]), parts[1]))
    if write.attribute("linear_before_reset", 0):
        if old is None:
            inner = write.op("Mul", r, write.floats(parts[2]))
        else:
            product = write.op("MatMul", old, matrices[2])
            inner = write.op("Mul", r, _added(write, product, parts[2]))
        total = write.op("Add", new, inner)
    else:
        kept = None if old is None else write.op("Mul", r, old)
        total = _added(write, _with_state(write, new, kept, matrices[2]), parts[2])
    made = write.op(g, total)
    if old is None:
        return [write.op("Sub", made, write.op("Mul", z, made))]
    # (1 - z) n + z H = n + z (H - n)
    return [write.op("Add", made, write.op("Mul", z, write.op("Sub", old, made)))]


def _with_state(
    write: Writer, given: ir.Value, state: ir.Value | None, matrix: ir.Value
) -> ir.Value:
    if state is None:
        return given
    return write.op("Add", given, write.op("MatMul", state, matrix))


def _added(write: Writer, value: ir.Value, bias: Floats) -> ir.Value:
    return write.op("Add", value, write.floats(bias)) if bias.any() else value


def _gate(write: Writer, value: ir.Value, index: int, hidden: int) -> ir.Value:
    start, end = write.integers([index * hidden]), write.integers([(index + 1) * hidden])
    return write.op("Slice", value, start, end, write.integers([1]))


def _joined(write: Writer, values: list[ir.Value], axis: int) -> ir.Value:
    return values[0] if len(values) == 1 else write.op("Concat", *values, axis=axis)
