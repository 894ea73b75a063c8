"""Takes look-ups at places that are an input out of a model: it begins with the rows then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.lookups import Lookup
from zkml_ray.chunking.normal_form.affine import constant
from zkml_ray.chunking.normal_form.graph import described, sizes
from zkml_ray.errors import ChunkingError

_INTEGERS: Final = frozenset({ir.DataType.INT32, ir.DataType.INT64})
_SAME_ORDER: Final = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators on whole numbers that leave their elements, and the order of these, as they are."""


@dataclass
class Outside:
    """What was taken out of a model.

    Attributes:
        lookups: In the order of the model's nodes.
        tables: Their constants.
    """

    lookups: list[Lookup] = field(default_factory=list)
    tables: dict[str, onnx.TensorProto] = field(default_factory=dict)


class CutLookups(InPlacePass):
    """Pre: shapes inferred, constants folded.

    Post: no Gather reads rows of a constant at places that are an input of whole numbers, if
    nothing else reads that input; in the input's place are the Gathers' results.
    """

    def __init__(self, outside: Outside) -> None:
        """Take look-ups out.

        Args:
            outside: Where they are noted.
        """
        super().__init__()
        self._outside = outside

    def call(self, model: ir.Model) -> PassResult:
        """Take them out, input by input."""
        modified = False
        for value in list(model.graph.inputs):
            gathers = None if value.dtype not in _INTEGERS else _lookups_of(value)
            if not gathers:
                continue
            place = model.graph.inputs.index(value)
            model.graph.inputs.pop(place)
            for offset, node in enumerate(gathers):
                rows = self._begun(value, node)
                ir.convenience.replace_all_uses_with(
                    node.outputs[0], rows, replace_graph_outputs=True
                )
                node.outputs[0].name = None
                model.graph.inputs.insert(place + offset, rows)
                model.graph.remove(node, safe=True)
            modified = True
        return PassResult(model, modified=modified)

    def _begun(self, places: ir.Value, node: ir.Node) -> ir.Value:
        """An input in a Gather's place."""
        made, table = node.outputs[0], node.inputs[0]
        numbers = constant(table)
        if numbers is None or table is None or made.is_graph_output():
            raise ChunkingError(f"{described(node)}: its rows are an output, and not computed")
        if not np.isfinite(numbers).all():
            raise ChunkingError(f"{described(node)}: its table holds numbers that are not finite")
        name = f"{made.name}/table"
        self._outside.tables[name] = numpy_helper.from_array(np.ascontiguousarray(numbers), name)
        self._outside.lookups.append(
            Lookup(
                input=str(places.name),
                tensor=str(made.name),
                table=name,
                shape=sizes(places, node),
            )
        )
        return ir.Value(name=made.name, shape=made.shape, type=made.type)


def _lookups_of(value: ir.Value) -> list[ir.Node] | None:
    """The Gathers that an input leads to; None where it leads to something else."""
    found: list[ir.Node] = []
    for node, place in _uses(value):
        table = constant(node.inputs[0])
        rows = node.op_type == "Gather" and place == 1 and table is not None and table.ndim > 1
        if not rows or table is None or table.dtype != np.float32:
            return None
        if "axis" in node.attributes and node.attributes["axis"].as_int() != 0:
            return None
        found.append(node)
    return found


def _uses(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """What reads a value, or the same elements in another shape, and as which input."""
    for use in value.uses():
        node, made = use.node, use.node.outputs[0]
        if node.op_type in _SAME_ORDER and use.idx == 0 and made.dtype in _INTEGERS:
            yield from _uses(made)
        else:
            yield node, use.idx
