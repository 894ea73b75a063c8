"""What a node's attributes and inputs say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.hinted.grid import Ints


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute, or its default."""
    for each in node.attribute:
        if each.name == name:
            return helper.get_attribute_value(each)
    return default


def number(node: onnx.NodeProto, name: str, default: float) -> float:
    """An attribute that is a finite number.

    Raises:
        NotHintedError: It is not finite.
    """
    found = float(attribute(node, name, default))
    if not math.isfinite(found):
        raise NotHintedError(f"its {name} is {found}")
    return found


def text(node: onnx.NodeProto, name: str, default: str) -> str:
    """An attribute that is a string."""
    found = attribute(node, name, default)
    return found.decode() if isinstance(found, bytes) else str(found)


def optional(node: onnx.NodeProto, place: int) -> str:
    """The name of an input that may be left out; empty if it is."""
    return node.input[place] if len(node.input) > place else ""


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the start.

    Raises:
        NotHintedError: There is no such axis.
    """
    if not -rank <= axis < rank:
        raise NotHintedError(f"axis {axis} of a tensor of {rank} dimensions")
    return axis % rank


def broadcast(index: Ints, shape: Sequence[int]) -> Ints:
    """Positions repeated to a shape, by the rules of broadcasting.

    Raises:
        NotHintedError: They do not fit it.
    """
    if index.shape == tuple(shape):
        return index
    try:
        return np.ascontiguousarray(np.broadcast_to(index, tuple(shape)))
    except ValueError:
        raise NotHintedError(f"a tensor of shape {index.shape} stands for {tuple(shape)}") from None
