"""Prices by non-negative least squares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zkml_ray.cost.geometry import Geometry
from zkml_ray.cost.model import features
from zkml_ray.schema.profile import Prices

Matrix = npt.NDArray[np.float64]


def fit_prices(measured: Sequence[tuple[Geometry, float]]) -> Prices:
    """The prices that predict measurements with the least relative error.

    A price is zero where the measurements do not call for it, never negative: a column that
    saves time would make the search allocate columns.

    Args:
        measured: Circuits and what they cost, in the prices' unit.
    """
    rows = np.array([features(geometry) for geometry, _ in measured])
    costs = np.array([cost for _, cost in measured])
    weighted = rows / costs[:, None]
    sizes = np.maximum(np.abs(weighted).max(axis=0), 1e-30)
    found = non_negative_least_squares(weighted / sizes, np.ones(len(costs))) / sizes
    return Prices(**dict(zip(Prices.model_fields, map(float, found), strict=True)))


def non_negative_least_squares(matrix: Matrix, target: Matrix) -> Matrix:
    """Argmin ||matrix x - target|| over x >= 0 (Lawson and Hanson, 1974, chapter 23).

    Args:
        matrix: [m, n].
        target: [m].

    Returns:
        [n].
    """
    count = matrix.shape[1]
    solution = np.zeros(count)
    passive = np.zeros(count, dtype=bool)
    for _ in range(30 * count):
        gradient = matrix.T @ (target - matrix @ solution)
        gradient[passive] = -np.inf
        best = int(np.argmax(gradient))
        if gradient[best] <= 1e-10:
            break
        passive[best] = True
        while True:
            trial = np.zeros(count)
            trial[passive] = np.linalg.lstsq(matrix[:, passive], target, rcond=None)[0]
            negative = passive & (trial <= 0)
            if not negative.any():
                break
            step = np.min(solution[negative] / (solution[negative] - trial[negative]))
            solution = solution + step * (trial - solution)
            passive &= solution > 1e-14
        solution = trial
    return solution
