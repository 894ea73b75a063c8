"""Pass `saturate`: arguments of Sigmoid, Tanh, Exp and Softmax are clipped to where they count.

Precondition: a Sigmoid, a Tanh, an Exp, or a Softmax without a mask that is none of attention's.

Postcondition: its input is `Clip(x, -BOUND, BOUND)`; that of Exp, which grows above, is
`Clip(x, -BOUND)`, and that of a Softmax `Clip(x - max, -BOUND)`, max being each row's largest.

Exactness: bounded; beyond +-7.75 Sigmoid is within 0.00044 of 0 or 1, Tanh within 4e-7 of -1 or 1,
and below -7.75 Exp within 0.00044 of 0; a Softmax's shares are off by 0.00044 an element.

Why: they are tables in native circuits, which end at +-8; a witness with an argument beyond has no
proof. Costs about 70 cells an element (measured by ezkl 23.0.5's `gen_settings`): `--no-pass
saturate` where arguments are known to stay inside.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from zkml_ray.chunking.operators import WEIGHTED
from zkml_ray.chunking.passes.base import (
    MADE_SUFFIX,
    NO_PARAMETER,
    Builder,
    Exactness,
    Rewrite,
    constant_of,
    node_named,
    refuse,
)

BOUND: Final = 7.75
"""Below 8, where tables end, by more than any scale's rounding."""

_AROUND: Final = frozenset({"Add", "Div", "Mul", "Reshape", "Sub", "Transpose"})
_STEPS: Final = 32

TABLE_END: Final = 7.9
"""Tables hold all up to here at every scale that verifiers accept."""

_FUNCTIONS: Final = frozenset({"Exp", "Sigmoid", "Tanh"})


class Saturate:
    """The pass."""

    name = "saturate"
    exactness: Exactness = "bounded"
    parameters = NO_PARAMETER

    def places(self, model: ir.Model) -> list[Rewrite]:
        """Every such function that can be reached by more than the table holds."""
        return [
            Rewrite(name=self.name, node=str(node.name))
            for node in model.graph
            if (node.op_type in _FUNCTIONS and not _is_clipped(node) and not _is_made(node))
            or _is_plain_softmax(node)
        ]

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Clip one argument."""
        node = node_named(model, rewrite.node)
        source = node.inputs[0]
        if source is not None and _is_plain_softmax(node):
            _bound_softmax(model, node, rewrite, source)
            return
        if node.op_type not in _FUNCTIONS or source is None:
            raise refuse(
                rewrite,
                f"it is a {node.op_type}, not one of {', '.join(sorted(_FUNCTIONS))}, or a Softmax "
                "without a mask",
            )
        if _is_clipped(node):
            raise refuse(rewrite, "its argument is clipped already")
        build = Builder(model, node, f"{rewrite.node}/{self.name}")
        bounds = [build.scalar(-BOUND)]
        if node.op_type != "Exp":
            bounds.append(build.scalar(BOUND))
        node.replace_input_with(0, build.node("Clip", [source, *bounds]))


def _is_made(node: ir.Node) -> bool:
    """Whether a rewrite made what a function reads, and saw to its range."""
    value = node.inputs[0]
    return value is not None and value.name is not None and value.name.endswith(MADE_SUFFIX)


def _is_plain_softmax(node: ir.Node) -> bool:
    """Whether a Softmax is neither of masked scores nor of attention's, and is not clipped yet.

    Scores of attention are many, and seldom that far apart: clipping them would double their cost.
    """
    value = node.inputs[0] if node.op_type == "Softmax" else None
    if value is None or value.shape is None or not value.shape.is_static():
        return False
    maker = value.producer()
    if maker is None:
        return True
    return maker.op_type not in ("Clip", "Where") and not _is_attention(maker)


def _is_attention(node: ir.Node) -> bool:
    """Whether a node's result is, but for factors, addends and moves, a product of two tensors."""
    waiting: list[ir.Node | None] = [node]
    for _ in range(_STEPS):
        if not waiting:
            return False
        current = waiting.pop()
        if current is None:
            continue
        read = [v for v in current.inputs if v is not None and v.const_value is None]
        if current.op_type in WEIGHTED and len(read) > 1:
            return True
        if current.op_type in _AROUND:
            waiting += [value.producer() for value in read]
    return False


def _bound_softmax(model: ir.Model, node: ir.Node, rewrite: Rewrite, source: ir.Value) -> None:
    """Let a Softmax read differences from the largest element, as far as they count."""
    build = Builder(model, node, f"{rewrite.node}/{Saturate.name}")
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    axes = build.indices([axis % len(source.shape or ())], "axis")
    largest = build.node("ReduceMax", [source, axes], {"keepdims": 1})
    below = build.node("Sub", [source, largest])
    node.replace_input_with(0, build.node("Clip", [below, build.scalar(-BOUND)]))


def _is_clipped(node: ir.Node) -> bool:
    """Whether a function's argument is clipped to what its table holds."""
    value = node.inputs[0]
    clip = None if value is None else value.producer()
    if clip is None or clip.op_type != "Clip":
        return False
    for index, sign in ((1, -1.0), (2, 1.0)):
        if sign > 0 and node.op_type == "Exp":
            continue
        bound = constant_of(clip.inputs[index]) if index < len(clip.inputs) else None
        if bound is None or float(bound.reshape(-1)[0]) * sign > TABLE_END:
            return False
    return True
