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
    """erf of a multiple of a tensor, waiting to be multiplied by one.

    Attributes:
        source: Name of the tensor that the argument v is a multiple of.
        multiple: Which multiple.
        positive: max(v, 0), and with it the shape.
        negative: Tensor of max(-v, 0), in the same order.
        magnitude: Tensor of |v|.
        result: Tensor of erf |v|, at nominal scale `bits`.
        bits: log2 of the denominator of v and of the result.
        plus: What is added to it.
    """

    source: str
    multiple: float
    positive: View
    negative: str
    magnitude: str
    result: str
    bits: int
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
