"""Pass `saturate`: the argument of Sigmoid and Tanh is clipped to where the function still moves.

Precondition: a Sigmoid or a Tanh.

Postcondition: its input is `Clip(x, -BOUND, BOUND)`.

Exactness: bounded; beyond +-7.75 Sigmoid is within 0.00044 of 0 or 1, Tanh within 4e-7 of -1 or 1.

Why: both are tables in native circuits, which end at +-8; a witness with an argument beyond has no
proof. Costs about 70 cells an element (measured by ezkl 23.0.5's `gen_settings`): `--no-pass
saturate` where arguments are known to stay inside.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from zkml_ray.chunking.passes.base import (
    NO_PARAMETER,
    Builder,
    Exactness,
    Rewrite,
    node_named,
    refuse,
)

BOUND: Final = 7.75
"""Below 8, where tables end, by more than any scale's rounding."""

_FUNCTIONS: Final = frozenset({"Sigmoid", "Tanh"})


class Saturate:
    """The pass."""

    name = "saturate"
    exactness: Exactness = "bounded"
    parameters = NO_PARAMETER

    def places(self, model: ir.Model) -> list[Rewrite]:
        """Every Sigmoid and Tanh that can be reached by more than the table holds."""
        return [
            Rewrite(name=self.name, node=str(node.name))
            for node in model.graph
            if node.op_type in _FUNCTIONS and not _is_clipped(node.inputs[0])
        ]

    def apply(self, model: ir.Model, rewrite: Rewrite) -> None:
        """Clip one argument."""
        node = node_named(model, rewrite.node)
        source = node.inputs[0]
        if node.op_type not in _FUNCTIONS or source is None:
            raise refuse(rewrite, f"it is a {node.op_type}, not one of {', '.join(_FUNCTIONS)}")
        if _is_clipped(source):
            raise refuse(rewrite, "its argument is clipped already")
        build = Builder(model, node, f"{rewrite.node}/{self.name}")
        bounds = [build.scalar(-BOUND), build.scalar(BOUND)]
        node.replace_input_with(0, build.node("Clip", [source, *bounds]))


def _is_clipped(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "Clip"
