"""What rounding may change of the weights that a rewrite makes whole numbers.

A rewrite rounds weights to a step of 2^-bits, and a plan says where rewrites stand and how many
bits they keep. Weights of one output below half a step would be zero: of a whole tensor that may
be a small share, of what is computed it is an output that no longer is the model's. So a rewrite
is refused where an output's weights, taken together, change by more than
`zkml_ray.limits.MAX_WEIGHT_LOSS` of their norm. What no rewrite takes keeps its weights: native
circuits make them whole with as many bits as they need (`zkml_ray.chunking.native.weights`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zkml_ray.errors import ChunkingError
from zkml_ray.limits import MAX_WEIGHT_LOSS

Numbers = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class CoarseWeightsError(ChunkingError):
    """A rewrite would make some output's weights other ones."""


def most_lost(weights: Numbers, bits: int, axis: int | None) -> float:
    """The largest share of one output's weights that rounding changes, Euclidean.

    Args:
        weights: The weights.
        bits: They are rounded to multiples of 2^-bits.
        axis: Along which they are those of one output; None: each is an output's only one.
    """
    scaled = np.ldexp(weights.astype(np.float64), bits)
    lost, kept = np.abs(np.rint(scaled) - scaled), np.abs(scaled)
    if axis is not None:
        lost, kept = (np.sqrt((part**2).sum(axis=axis)) for part in (lost, kept))
    shares = np.divide(lost, kept, out=np.zeros_like(lost), where=kept > 0)
    return float(shares.max(initial=0.0))


def check_kept(weights: Numbers, bits: int, axis: int | None, what: str) -> None:
    """Every output keeps its weights.

    Args:
        weights: The weights.
        bits: As in `most_lost`.
        axis: As in `most_lost`.
        what: The rewrite and its node.

    Raises:
        CoarseWeightsError: One does not.
    """
    share = most_lost(weights, bits, axis)
    if share > MAX_WEIGHT_LOSS:
        raise CoarseWeightsError(
            f"{what}: {bits} bits after the point would change the weights of one output by "
            f"{share:.3g} of their norm; at most {MAX_WEIGHT_LOSS:.3g} is allowed: leave the "
            "rewrite out (--no-pass)"
        )
