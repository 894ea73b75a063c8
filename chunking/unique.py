"""Names of tensors mean one tensor each, and some names are ours.

What is written into a model stands beside what its author wrote, and readers of ONNX files find
tensors by name. Were one name to mean two, which of them is read would be the reader's choice: ezkl
takes a node's result for a constant of the same name. So names are compared wherever nodes have
been written, and the prefix of a circuit's own tensors is refused in a user's file.
"""

from __future__ import annotations

from typing import Final

import onnx

from zkml_ray.errors import ChunkingError, ModelFormatError

OURS: Final = "zkml_ray"
"""How names begin that only a circuit's own tensors and nodes may have."""


def check_names(graph: onnx.GraphProto) -> None:
    """Every tensor of a graph has a name of its own.

    Raises:
        ChunkingError: An input, a constant or a node's result has a name that another one has.
    """
    seen: set[str] = set()
    for name in (
        *(value.name for value in graph.input),
        *(tensor.name for tensor in graph.initializer),
        *(name for node in graph.node for name in node.output if name),
    ):
        if name in seen:
            raise ChunkingError(
                f"two tensors would have the name {name!r}, one of them made from another operator "
                "of the model: give the model's tensor another name"
            )
        seen.add(name)


def refuse_ours(graph: onnx.GraphProto) -> None:
    """No name of a user's file begins as a circuit's own do.

    Raises:
        ModelFormatError: A tensor's or a node's does.
    """
    for name in (
        *(value.name for value in graph.input),
        *(tensor.name for tensor in graph.initializer),
        *(name for node in graph.node for name in (node.name, *node.input, *node.output)),
    ):
        if name.startswith(OURS):
            raise ModelFormatError(
                f"the name {name!r} begins with {OURS}, as only a circuit's own names do: give it "
                "another name in the model"
            )
