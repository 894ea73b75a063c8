"""Scan over a known number of slices: its body once for each, in its place.

Converters write pairwise distances so. What is unrolled is bounded: a body's nodes times its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.writer import Writer

MAX_UNROLLED: Final = 1 << 12
"""Nodes that one Scan may become."""


class UnrollScans(InPlacePass):
    """Pre: opset 18 or later, shapes inferred as far as known. Post: no Scan whose length is known.

    Exact.
    """

    def __init__(self, opset: int) -> None:
        """Write in a version of ONNX's operators.

        Args:
            opset: The version.
        """
        super().__init__()
        self._opset = opset

    def call(self, model: ir.Model) -> PassResult:
        """Replace every such Scan of the model's own graph."""
        modified = False
        for node in list(model.graph):
            if node.op_type != "Scan" or node.domain not in ("", "ai.onnx"):
                continue
            count = int(node.attributes["num_scan_inputs"].as_int())
            scanned = node.inputs[len(node.inputs) - count :]
            if all(v is not None and v.shape is not None and v.shape.is_static() for v in scanned):
                _unroll(model, Writer(model, node, self._opset), count)
                modified = True
        return PassResult(model, modified=modified)


def _unroll(model: ir.Model, write: Writer, count: int) -> None:
    node = write.place
    body = node.attributes["body"].as_graph()
    states: list[ir.Value | None] = list(node.inputs[: len(node.inputs) - count])
    kept = len(states)
    axes = _numbers(write, "scan_input_axes", count)
    backwards = _numbers(write, "scan_input_directions", count)
    made_axes = _numbers(write, "scan_output_axes", len(node.outputs) - kept)
    turned = _numbers(write, "scan_output_directions", len(node.outputs) - kept)
    ranks = [len(write.shape(kept + index)) for index in range(count)]
    axes = [axis % rank for axis, rank in zip(axes, ranks, strict=True)]
    lengths = {write.shape(kept + index)[axis] for index, axis in enumerate(axes)}
    if len(lengths) != 1:
        raise write.refusal(f"it scans tensors of different lengths: {sorted(lengths)}")
    steps = lengths.pop()
    if steps * len(body) > MAX_UNROLLED:
        raise write.refusal(
            f"{steps} steps of {len(body)} operators are more than the {MAX_UNROLLED} that are "
            "unrolled"
        )
    prefix = node.name or node.outputs[0].name
    for name, value in list(body.initializers.items()):
        body.initializers.pop(name)
        value.name = f"{prefix}/{name}"
        model.graph.register_initializer(value)
    collected: list[list[ir.Value]] = [[] for _ in made_axes]
    for step in range(steps):
        slices: list[ir.Value | None] = []
        for index, axis in enumerate(axes):
            place = steps - 1 - step if backwards[index] else step
            data = write.input(kept + index)
            slices.append(write.op("Gather", data, write.integers(place), axis=axis))
        outputs = _copied(model, write, body, [*states, *slices], f"{prefix}/step_{step}")
        states = list(outputs[:kept])
        for parts, value in zip(collected, outputs[kept:], strict=True):
            parts.append(value)
    stacked = []
    for parts, axis, turn in zip(collected, made_axes, turned, strict=True):
        rows = [write.op("Unsqueeze", part, write.integers([axis])) for part in parts]
        rows = rows[::-1] if turn else rows
        stacked.append(rows[0] if len(rows) == 1 else write.op("Concat", *rows, axis=axis))
    results = [value for value in [*states, *stacked] if value is not None]
    write.replace([write.op("Identity", value) for value in results])


def _copied(
    model: ir.Model, write: Writer, body: ir.Graph, given: Sequence[ir.Value | None], prefix: str
) -> list[ir.Value]:
    """The body's nodes once more; its outputs."""
    known: dict[ir.Value, ir.Value | None] = dict(zip(body.inputs, given, strict=True))
    for node in body:
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in _own(node)):
            raise write.refusal("its body holds graphs of its own")
        made = ir.Node(
            node.domain,
            node.op_type,
            [None if value is None else known.get(value, value) for value in node.inputs],
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
            name=f"{prefix}/{node.name or node.outputs[0].name}",
        )
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.name = f"{prefix}/{old.name}" if old.name else ""
            new.type = old.type
            known[old] = new
        model.graph.insert_before(write.place, made)
    found = [known.get(value, value) for value in body.outputs]
    if any(value is None for value in found):
        raise write.refusal("its body hands an input on that is not given")
    return [value for value in found if value is not None]


def _own(node: ir.Node) -> list[ir.Attr]:
    return list(node.attributes.values())


def _numbers(write: Writer, name: str, count: int) -> list[int]:
    found = [int(value) for value in write.attribute(name, ())] or [0] * count
    if len(found) != count:
        raise write.refusal(f"{name} has {len(found)} numbers; {count} were expected")
    return found
