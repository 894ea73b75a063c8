"""What a tensor can be while operators are followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from zkml_ray.chunking.hinted.forms import Floats, Pending, RowFactor
from zkml_ray.chunking.hinted.grid import Ints, View


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFunction:
    """Erf of a tensor, which is looked up where it is read.

    Attributes:
        key: The node's output.
        name: The argument's, for messages.
        argument: The argument.
        alone: Emits it with something added, as a tensor of its own.
        plus: What is added to it.
    """

    key: str
    name: str
    argument: Pending
    alone: Callable[[float], View]
    plus: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """A softmax: weights that are still to be divided by their row's sum.

    Attributes:
        weights: One row of the last axis after the other. Their resolution is that of their
            products with the reciprocals.
        reciprocals: The rows' reciprocal sums.
        rounded: Emits the shares as a tensor of its own, given its name.
    """

    weights: View
    reciprocals: RowFactor
    rounded: Callable[[str], View]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """The signs of whole numbers, of which most readers ask one bit.

    Attributes:
        index: Of the tensor's shape.
        above: Emits 1 where a number is above zero, else 0.
        other: Emits 1 where it is not zero, else 0.
        signs: Emits -1, 0 and 1.
    """

    index: Ints
    above: Callable[[], View]
    other: Callable[[], View]
    signs: Callable[[], View]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """Scores of which a softmax reads some alone.

    Attributes:
        source: Name of the scores.
        kept: Of their shape: whether an element is read.
    """

    source: str
    kept: npt.NDArray[np.bool_]


Value: TypeAlias = View | Pending | Floats | ErrorFunction | Shares | Masked | Signs
"""Fixed elements; elements still to be rounded; a constant; an error function; a softmax; scores
of which some are dropped; signs."""
