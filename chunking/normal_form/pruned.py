"""What of a file takes no part in its outputs, and what it says of shapes, left out.

Exporters leave branches that nothing reads, with operators that could not be proved, inputs of
training, and shapes that were true of another batch. All are taken away before anything is judged.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx


def pruned(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model without nodes, initializers and inputs that no output depends on, or shapes inferred.

    Args:
        proto: The model (not changed).

    Returns:
        A copy; its outputs have types but no shapes.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    needed = needed_names(graph)
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    kept = [tensor for tensor in graph.initializer if tensor.name in needed]
    _replace(graph.node, nodes)
    _replace(graph.initializer, kept)
    # An input with a value is a constant: whoever proves has no other one for it.
    initialised = {tensor.name for tensor in proto.graph.initializer}
    _replace(
        graph.input, [v for v in graph.input if v.name not in initialised and v.name in needed]
    )
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    return result


def needed_names(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that a graph's outputs depend on, themselves among them."""
    made_by = {name: node for node in graph.node for name in node.output if name}
    wanted = [output.name for output in graph.output]
    needed: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in needed:
            continue
        needed.add(name)
        if name in made_by:
            wanted += reads(made_by[name])
    return needed


def reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those of the graphs that it carries among them."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            own = {value.name for value in (*graph.input, *graph.initializer)}
            inner: list[str] = [output.name for output in graph.output]
            for each in graph.node:
                inner += reads(each)
                own.update(each.output)
            names += [name for name in inner if name not in own]
    return names


def _replace(field: object, messages: Iterable[object]) -> None:
    kept = list(messages)
    del field[:]  # type: ignore[attr-defined]
    field.extend(kept)  # type: ignore[attr-defined]
