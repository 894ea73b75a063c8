"""Functions that a file defines for itself, put in place of their calls.

onnx's own inliner leaves out the default values of a function's attributes (onnx 1.23), which
changes what is computed; onnx_ir's keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from zkml_ray.errors import ModelFormatError, UnsupportedOperatorError
from zkml_ray.limits import MAX_INLINED_NODES

_STANDARD = ("", "ai.onnx")
_TAKEN = ("ai.onnx", "com.microsoft", "com.ms", "org.pytorch.aten")
"""Domains with operators of onnxruntime's own, which it takes before a file's functions."""


def inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Put the nodes of functions in place of the nodes that call them. Exact.

    Args:
        proto: A model (not changed).

    Returns:
        The model without functions, or the same one if it has none.

    Raises:
        ModelFormatError: A function calls itself, or has an operator set that the model lacks.
        UnsupportedOperatorError: A function takes the name of an operator of ONNX, or hands an
            input on as its result.
    """
    if not proto.functions:
        return proto
    for function in proto.functions:
        name = f"{function.domain}.{function.name}".removeprefix(".")
        if function.domain in _STANDARD or function.domain.startswith(_TAKEN):
            raise UnsupportedOperatorError(
                f"function {name} has a domain whose operators runtimes know themselves: what its "
                "name then means is not defined; give it a domain of its own"
            )
        if handed := sorted(set(function.input) & set(function.output)):
            raise UnsupportedOperatorError(
                f"function {name} hands its input {handed[0]} on as its result; let it return an "
                "Identity of it"
            )
    _check_size(proto)
    outputs = [value.name for value in proto.graph.output]
    try:
        model = ir.from_proto(proto)
        passes.InlinePass()(model)
        inlined = ir.to_proto(model)
    except Exception as error:
        cause = error.__cause__ or error
        line = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise ModelFormatError(f"the model's functions cannot be inlined: {line}") from None
    if [value.name for value in inlined.graph.output] != outputs:
        raise ModelFormatError(
            "the model's functions cannot be inlined: an output would lose its name"
        )
    del inlined.functions[:]
    return inlined


def _check_size(proto: onnx.ModelProto) -> None:
    """Calls of functions that call functions stand for no more nodes than can be worked with.

    Counted without writing them out: thirty functions of two calls each would be 2^30 nodes.
    """
    bodies = {(f.domain, f.name, f.overload): list(_all(f.node)) for f in proto.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    unfinished = set()
    work = [(key, False) for key in bodies]
    while work:
        key, done = work.pop()
        if done:
            sizes[key] = sum(sizes.get(_called(node), 1) for node in bodies[key])
            unfinished.discard(key)
        elif key not in sizes:
            unfinished.add(key)
            work.append((key, True))
            inner = {_called(node) for node in bodies[key]} & bodies.keys()
            if inner & unfinished:
                raise ModelFormatError(f"function {key[1]} calls itself")
            work += [(each, False) for each in inner if each not in sizes]
    total = sum(sizes.get(_called(node), 1) for node in _all(proto.graph.node))
    if total > MAX_INLINED_NODES:
        raise ModelFormatError(
            f"the model's functions stand for {total} nodes in all, more than {MAX_INLINED_NODES}"
        )


def _all(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of graphs that are attributes of theirs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all(graph.node)


def _called(node: onnx.NodeProto) -> tuple[str, str, str]:
    return node.domain, node.op_type, node.overload
