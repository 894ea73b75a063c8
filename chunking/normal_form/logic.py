"""Truth values and integers that depend on a model's input, as float32 numbers.

A circuit's tensors are fixed-point numbers. So a comparison's result becomes the float 0 or 1, an
index a whole float, and what is computed with them the same in floats (`definitions.decisions`):
exact below 2^24, which constants are held to. Inputs and outputs of these types become float32
too; an input that should be true or false counts as true where it is not 0, and one that should
be whole is rounded down.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.definitions import decisions, scattered
from zkml_ray.chunking.normal_form.writer import Writer

_Kind = Literal["truth", "natural", "whole"]
"""What a float stands for: true or false, an integer that is not negative, any integer."""

_FLOAT: Final = ir.DataType.FLOAT
_INTEGERS: Final = frozenset(
    {
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    }
)
_WIDE: Final = frozenset({ir.DataType.INT32, ir.DataType.INT64})
_OTHERS: Final = _INTEGERS | {ir.DataType.BOOL}

_EXACT: Final = 1 << 24
"""Whole numbers up to here are float32 numbers."""

_ALL: Final = -1
_SAME: Final = {
    **dict.fromkeys(("Add", "Concat", "MatMul", "Max", "Mean", "Min", "Mul", "Sub", "Sum"), _ALL),
    **dict.fromkeys(
        ("Abs", "CumSum", "Expand", "Flatten", "Identity", "Neg", "Relu", "Reshape", "Sign"), 1
    ),
    **dict.fromkeys(("DepthToSpace", "ReduceMax", "ReduceMin", "ReduceSum", "Slice", "Split"), 1),
    **dict.fromkeys(("SpaceToDepth", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"), 1),
    "Clip": _ALL,
}
"""Operators that are the same on whole floats, and how many of their inputs are data."""
_WRAPPING: Final = frozenset(
    {"Abs", "Add", "CumSum", "MatMul", "Mean", "Mul", "Neg", "ReduceSum", "Sub", "Sum"}
)
"""Of these, those whose result may not fit the integers that they are of."""

_NATURAL: Final = frozenset(_SAME) - {"Neg", "Sub"}
"""Of these, those that make no negative number of others."""

LOGIC: Final = frozenset(
    {
        *decisions.BINARY,
        *("ArgMax", "ArgMin", "Cast", "Not", "OneHot", "TopK", "Where"),
    }
)
"""Operators that read or make truth values or integers, and are written with others."""


class AsFloats(InPlacePass):
    """Pre: shapes inferred, constants are initializers. Post: see the module.

    Nothing is left that computes with truth values or integers that are not constant.
    """

    def __init__(self, opset: int) -> None:
        """Read operators in a version.

        Args:
            opset: The version.
        """
        super().__init__()
        self._opset = opset

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite inputs, then nodes in topological order."""
        walk = _Walk(model, self._opset)
        walk.inputs()
        for node in list(model.graph):
            if node.domain in ("", "ai.onnx"):
                walk.visit(node)
        return PassResult(model, modified=walk.modified)


class _Walk:
    def __init__(self, model: ir.Model, opset: int) -> None:
        self.modified = False
        self._model = model
        self._opset = opset
        self._kinds: dict[ir.Value, _Kind] = {}
        self._bits: set[ir.Value] = set()
        self._writers: dict[ir.Node, Writer] = {}

    def inputs(self) -> None:
        """Make every input a float, read once, before the first node that reads it."""
        for value in self._model.graph.inputs:
            kind = value.dtype
            if kind not in _OTHERS or value.is_initializer():
                continue
            value.type = ir.TensorType(_FLOAT)
            self.modified = True
            users = {use.node for use in value.uses()}
            first = next((node for node in self._model.graph if node in users), None)
            if first is None:
                continue
            write = self._writer(first)
            if kind == ir.DataType.BOOL:
                read = decisions.is_true(write, value)
            else:
                read = write.op("Floor", value)
            read.shape, read.type = value.shape, value.type
            for node in users:
                for index, each in enumerate(node.inputs):
                    if each is value:
                        node.replace_input_with(index, read)
            self._kinds[read] = "truth" if kind == ir.DataType.BOOL else "whole"

    def _writer(self, node: ir.Node) -> Writer:
        """One a node: names count up."""
        return self._writers.setdefault(node, Writer(self._model, node, self._opset))

    def visit(self, node: ir.Node) -> None:
        """Rewrite a node, where it is one of those."""
        write = self._writer(node)
        known = [None if value is None else self._kinds.get(value) for value in node.inputs]
        computed = any(known)
        places = known[1] if len(known) > 1 else None
        op_type = node.op_type
        if op_type in decisions.BINARY:
            left, right = self._float(write, 0), self._float(write, 1)
            self._put(write, [decisions.BINARY[op_type](write, left, right)], "truth")
        elif op_type == "Not":
            self._put(write, [decisions.negated(write, self._float(write, 0))], "truth")
        elif op_type == "Cast":
            self._cast(write, known[0])
        elif op_type == "Where" and (computed or not _is_constant(node.inputs[0])):
            self._where(write, known)
        elif op_type in ("ArgMax", "ArgMin"):
            self._put(write, [decisions.largest_place(write, self._float(write, 0))], "natural")
        elif op_type == "TopK":
            values, indices = decisions.top_k(write, self._float(write, 0))
            self._put(write, [values, indices], known[0], "natural")
        elif op_type in ("Div", "Mod") and known[0] is not None:
            self._divide(write, known[0])
        elif op_type == "OneHot" and computed:
            natural, kind = known[0] != "whole", self._kind_of(node, 2)
            made = decisions.one_hot(write, self._float(write, 0), natural=natural)
            self._put(write, [made], kind)
        elif op_type in ("Gather", "GatherElements") and places is not None:
            rule = decisions.gather if op_type == "Gather" else decisions.gather_elements
            natural = places != "whole"
            made = rule(write, self._float(write, 0), self._float(write, 1), natural=natural)
            self._put(write, [made], self._kind_of(node, 0))
        elif op_type == "GatherND" and places is not None:
            data, at = self._float(write, 0), self._float(write, 1)
            made = scattered.gather_nd(write, data, at, natural=places != "whole")
            self._put(write, [made], self._kind_of(node, 0))
        elif op_type in ("ScatterElements", "ScatterND") and places is not None:
            nd = op_type == "ScatterND"
            spread = scattered.scatter_nd if nd else scattered.scatter_elements
            data, at, updates = (self._float(write, index) for index in range(3))
            made = spread(write, data, at, updates, natural=places != "whole")
            self._put(write, [made], self._joint(node, [0, 2], node.outputs[0]))
        elif computed:
            self._same(write, known)

    def _cast(self, write: Writer, known: _Kind | None) -> None:
        to = ir.DataType(write.attribute("to", 0))
        value = self._float(write, 0)
        if to == ir.DataType.BOOL:
            made = value if known == "truth" else decisions.is_true(write, value)
            self._put(write, [made], "truth")
        elif to in _INTEGERS:
            if to not in _WIDE and known != "truth":
                raise write.refusal(
                    f"a Cast to {to.name} that depends on the input cannot be proved"
                )
            made = decisions.truncated(write, value) if known is None else value
            kind: _Kind = "natural" if known == "truth" else known or "whole"
            own = self._put(write, [made], kind)
            self._bits.update(own if known == "truth" else ())
        elif known is not None:
            self._put(write, [value], None)

    def _divide(self, write: Writer, known: _Kind) -> None:
        """Division of integers by a constant one: towards zero, or Mod as Python has it."""
        constant = write.constant(1)
        divisor = 0 if constant is None or constant.size != 1 else int(constant.reshape(-1)[0])
        if not 0 < divisor < _EXACT or write.attribute("fmod", 0):
            raise write.refusal(
                "integers that depend on the input can be divided only by one constant above 0"
            )
        value = self._float(write, 0)
        if write.place.op_type == "Mod":
            self._put(write, [decisions.divided(write, value, divisor)[1]], "natural")
        elif known == "whole":
            sign = write.op("Sign", value)
            quotient, _ = decisions.divided(write, write.op("Abs", value), divisor)
            self._put(write, [write.op("Mul", sign, quotient)], "whole")
        else:
            self._put(write, [decisions.divided(write, value, divisor)[0]], "natural")

    def _where(self, write: Writer, known: list[_Kind | None]) -> None:
        condition, then, other = (self._float(write, index) for index in range(3))
        made = decisions.chosen(write, condition, then, other)
        self._put(write, [made], self._joint(write.place, [1, 2], write.place.outputs[0]))

    def _same(self, write: Writer, known: list[_Kind | None]) -> None:
        node = write.place
        gathers = node.op_type in ("Gather", "GatherElements")
        count = 1 if gathers else _SAME.get(node.op_type)
        if count is None:
            raise write.refusal(
                "truth values or integers that depend on the input go into it: "
                "that cannot be proved"
            )
        narrow = node.op_type in _WRAPPING and node.outputs[0].dtype in _INTEGERS - _WIDE
        if narrow and not self._stays_within(write):
            raise write.refusal(
                f"{node.outputs[0].dtype} wraps where a circuit does not; use int32 or int64"
            )
        positions = list(range(len(node.inputs) if count == _ALL else count))
        kind = self._joint(node, positions, node.outputs[0])
        if node.op_type not in _NATURAL and not gathers:
            kind = "whole" if kind is not None else None
        for position in positions:
            if node.inputs[position] is not None:
                node.replace_input_with(position, self._float(write, position))
        for output in node.outputs:
            self._mark(output, kind)
        self.modified = True

    def _stays_within(self, write: Writer) -> bool:
        """Whether a product of truth values and a constant is within its type, whatever they are.

        So trees choose a leaf's path in int8.
        """
        node, dtype = write.place, write.place.outputs[0].dtype
        if node.op_type != "MatMul" or dtype is None:
            return False
        for position, axis in ((0, -1), (1, -2)):
            constant, other = write.constant(position), node.inputs[1 - position]
            if constant is None or constant.ndim < 2 or other is None:
                continue
            if self._kinds.get(other) != "truth" and other not in self._bits:
                continue
            wide, limits = constant.astype(np.int64), np.iinfo(dtype.numpy())
            most = np.maximum(wide, 0).sum(axis=axis).max(initial=0)
            least = np.minimum(wide, 0).sum(axis=axis).min(initial=0)
            return bool(limits.min <= least and most <= limits.max)
        return False

    def _joint(self, node: ir.Node, positions: list[int], output: ir.Value) -> _Kind | None:
        """What a result stands for that is made of some inputs; None: a float."""
        if output.dtype not in _OTHERS:
            return None
        kinds = {self._kind_of(node, position) for position in positions}
        return "natural" if kinds <= {"truth", "natural"} else "whole"

    def _kind_of(self, node: ir.Node, position: int) -> _Kind | None:
        value = node.inputs[position]
        if value is None or value in self._kinds:
            return None if value is None else self._kinds[value]
        if value.dtype not in _OTHERS or value.const_value is None:
            return None
        return "natural" if (value.const_value.numpy() >= 0).all() else "whole"

    def _float(self, write: Writer, position: int) -> ir.Value:
        """An input as floats."""
        value = write.input(position)
        if value is None:
            raise write.refusal(f"its input {position} is missing")
        if value.dtype not in _OTHERS or value in self._kinds:
            return value
        constant = write.constant(position)
        if constant is None:
            raise write.refusal(
                f"its input {value.name} is computed in a way that cannot be proved"
            )
        if constant.size and np.abs(constant.astype(np.float64)).max() > _EXACT:
            raise write.refusal(f"its input {value.name} has integers beyond 2^24")
        return write.floats(constant)

    def _put(self, write: Writer, made: list[ir.Value], *kinds: _Kind | None) -> list[ir.Value]:
        """Let values be the node's outputs, and say which these are then."""
        own = [
            write.op("Identity", value)
            if value in write.place.inputs or value.producer() is None
            else value
            for value in made[: len(write.place.outputs)]
        ]
        write.replace(own)
        for value, kind in zip(own, kinds, strict=False):
            self._mark(value, kind)
        self.modified = True
        return own

    def _mark(self, value: ir.Value, kind: _Kind | None) -> None:
        value.type = ir.TensorType(_FLOAT)
        if kind is not None:
            self._kinds[value] = kind


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.const_value is not None
