"""Inputs that no output depends on, and outputs that depend on no input.

Neither takes part in a proof. Such an input is not committed to: whoever proves may give it, and
it is passed over. Such an output is a number of the model's, or an input as it was given: who has
the model or the input knows it. A shape is a constant: a circuit has one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import onnx

from zkml_ray.chunking.normal_form.pruned import reads
from zkml_ray.errors import ChunkingError

_OF_SHAPE: Final = frozenset({"Shape", "Size"})
_GIVEN: Final = "inputs"
"""Key of a normalised model's metadata: the file's inputs, where it does not read all of them."""


def without_idle_outputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model without outputs that depend on no input, or are one.

    Args:
        proto: The model (not changed).

    Returns:
        The model, or the same one if it has none.

    Raises:
        ChunkingError: No output is left.
    """
    idle = _idle_outputs(proto)
    if not idle:
        return proto
    if len(idle) == len(proto.graph.output):
        raise ChunkingError(
            f"nothing is computed from the model's input: output {idle[0]} is constant, or an input"
        )
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    kept = [output for output in result.graph.output if output.name not in idle]
    del result.graph.output[:]
    result.graph.output.extend(kept)
    return result


def output_notices(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Which outputs are not proved because there is nothing to prove, a sentence each."""
    return tuple(
        f"output {name} depends on no input or is one, and is left out"
        for name in _idle_outputs(proto)
    )


def input_notices(unread: Sequence[str]) -> tuple[str, ...]:
    """Which inputs are passed over, a sentence each."""
    return tuple(
        f"no output depends on input {name}: it is not committed to, and need not be given"
        for name in unread
    )


def record_inputs(normalised: onnx.ModelProto, given: Sequence[str]) -> None:
    """Note which inputs a file has, where its normalised form does not read all of them.

    Args:
        normalised: The form; its inputs that no node reads are removed.
        given: Names of the file's inputs, in order.
    """
    graph = normalised.graph
    read = {name for node in graph.node for name in node.input}
    kept = [value for value in graph.input if value.name in read]
    del graph.input[:]
    graph.input.extend(kept)
    if [value.name for value in kept] != list(given):
        entry = normalised.metadata_props.add()
        entry.key, entry.value = _GIVEN, json.dumps(list(given))


def recorded_inputs(normalised: onnx.ModelProto) -> tuple[str, ...]:
    """All inputs of the file that a model is the normalised form of, in order."""
    for entry in normalised.metadata_props:
        if entry.key == _GIVEN:
            return tuple(json.loads(entry.value))
    return tuple(value.name for value in normalised.graph.input)


def _idle_outputs(proto: onnx.ModelProto) -> list[str]:
    graph = proto.graph
    initialised = {tensor.name for tensor in graph.initializer}
    inputs = {value.name for value in graph.input} - initialised
    moving = set(inputs)
    for node in graph.node:
        if node.op_type not in _OF_SHAPE and moving.intersection(reads(node)):
            moving.update(node.output)
    return [o.name for o in graph.output if o.name not in moving or o.name in inputs]
