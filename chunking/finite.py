"""Numbers that are none: a model with NaN or an infinity in it is refused.

A circuit's integers have no NaN and no infinity; ezkl takes them for 0. NaN is refused wherever it
stands in a file. An infinity is refused where it is left when all that follows from constants alone
is computed (`normal_form`): before that it may be a bound that bounds nothing, or compared with.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx import numpy_helper

from zkml_ray.chunking.places import NodePlace, TensorPlace
from zkml_ray.errors import ChunkingError, ModelFormatError, UnsupportedOperatorError

_MAY_BE_INFINITE: Final = frozenset({"Clip", "Constant"})
"""Operators with attributes that may be infinite: bounds that bound nothing, and constants, which
are looked at when they are no longer attributes."""

_MAY_BE_NAN: Final = frozenset({"membership_values", "replaced_value_float"})
"""Attributes of classical models in which NaN is no number: it parts sets, and says that missing
values are replaced."""

_BOUNDS: Final = frozenset({"nodes_values", "nodes_splits"})
"""Attributes that inputs are compared with: infinite where every input is below."""

_MASKED: Final = frozenset({"Add", "Sub", "Where"})


def check_tensors(places: Iterable[TensorPlace]) -> None:
    """Refuse tensors whose data does not fit their shape, or holds NaN.

    Args:
        places: Tensors with their data.

    Raises:
        ModelFormatError: One does or has; its name and place are told.
    """
    for place in places:
        try:
            values = numpy_helper.to_array(place.tensor)
        except Exception as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else "unknown data"
            raise ModelFormatError(f"{place.where} cannot be read: {line}") from None
        numbers = _real(values)
        if place.where.removeprefix("attribute ").split(" of ")[0] in _MAY_BE_NAN:
            continue
        if numbers is not None and np.isnan(numbers).any():
            count = int(np.isnan(numbers).sum())
            raise ModelFormatError(
                f"{place.where} holds NaN ({count} of {values.size} elements): the file is damaged "
                "or its training failed; export the model again"
            )


def check_attributes(places: Iterable[NodePlace]) -> None:
    """Refuse attributes that are NaN or infinite.

    Args:
        places: Nodes.

    Raises:
        ModelFormatError: One has such an attribute.
    """
    for place in places:
        for attribute in place.node.attribute:
            if attribute.name in _MAY_BE_NAN:
                continue
            bounds = attribute.name in _BOUNDS or place.node.op_type in _MAY_BE_INFINITE
            for value in (attribute.f, *attribute.floats):
                if math.isnan(value) or (math.isinf(value) and not bounds):
                    raise ModelFormatError(
                        f"attribute {attribute.name} of {place.where} is {value}: a finite number "
                        "was expected"
                    )


def check_constants(model: ir.Model, original: Collection[str]) -> None:
    """Refuse a model whose constants are not finite.

    Args:
        model: A model whose constants are initializers.
        original: Names of the constants that the user's file has.

    Raises:
        ModelFormatError: A constant is NaN or infinite.
        UnsupportedOperatorError: It looks like a mask of attention.
    """
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            raise ChunkingError(f"initializer {name!r} has no data")
        numbers = _real(value.const_value.numpy())
        if numbers is None or np.isfinite(numbers).all():
            continue
        wrong = numbers[~np.isfinite(numbers)]
        shown = f"{wrong[0]:g} ({wrong.size} of {numbers.size} elements)"
        readers = sorted({node.op_type for node in value.consumers()})
        if (wrong == -np.inf).all() and _MASKED.intersection(readers):
            raise UnsupportedOperatorError(
                f"constant {name!r}, read by {', '.join(readers)}, holds {shown} as masks of "
                "attention do; a mask can be proved where constants add it to the scores of a "
                "Softmax, or choose it in their place, and nothing else reads those"
            )
        made = "" if name in original else ", which follows from other constants,"
        raise ModelFormatError(
            f"constant {name!r}{made} holds {shown}, read by {', '.join(readers) or 'nobody'}: a "
            "circuit's numbers are finite; export the model again with finite weights"
        )


def _real(values: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Values that can be NaN, or None."""
    if values.dtype.kind in "iubOSU":
        return None
    if values.dtype.kind in "fc":
        return np.abs(values) if values.dtype.kind == "c" else values
    return values.astype(np.float32)  # bfloat16 and the like, which are no kind of numpy's
