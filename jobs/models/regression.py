"""Logistic regression with an L2 penalty on sparse rows, by L-BFGS (Nocedal 1980), in NumPy.

Spark's LogisticRegression divides every feature by its standard deviation, also where it is told not to standardise,
and compensates in the penalty. The solution is the same, but with a million rare n-grams the way there is long: 89.1 %
of a fold were right after 40 iterations and two and a half minutes. Every sum here has one order, so that the same rows
in the same order give the same weights to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
MEMORY = 10


@dataclass(frozen=True)
class SparseRows:
    """Rows of a matrix. Row i has values[start[i]:start[i + 1]] in columns[start[i]:start[i + 1]]."""

    start: Integers
    columns: npt.NDArray[np.int32]
    values: Floats
    width: int

    @property
    def lengths(self) -> Integers:
        return np.diff(self.start)

    def times(self, weights: Floats) -> Floats:
        """The product with a vector of weights, one number per row."""
        return row_sums(self.values * weights[self.columns], self.start)

    def transposed_times(self, numbers: Floats) -> Floats:
        """The sum of the rows, each times its number."""
        spread = np.repeat(numbers, self.lengths) * self.values
        return np.bincount(self.columns, weights=spread, minlength=self.width).astype(np.float64)


def row_sums(values: Floats, start: Integers) -> Floats:
    """The sum of every row's values; 0 for an empty row."""
    filled = np.diff(start) > 0
    sums = np.zeros(len(filled))
    # For an empty row reduceat would give the next row's first value.
    if filled.any():
        sums[filled] = np.add.reduceat(values, start[:-1][filled])
    return sums


def fit_logistic(
    rows: SparseRows, label: Floats, strength: float, iterations: int, tolerance: float
) -> tuple[Floats, float]:
    """weights and intercept that minimise |weights|² / 2 + strength · Σ log(1 + exp(−y · (x · weights + intercept))).

    y is 1 for label 1, else −1. Stops when an iteration gains less than tolerance, relative to the sum.
    """
    sign = 2 * label - 1

    def loss(point: Floats) -> tuple[float, Floats]:
        margin = (rows.times(point[:-1]) + point[-1]) * sign
        pull = -strength * sign / (1 + np.exp(np.clip(margin, -500, 500)))
        value = strength * float(np.sum(np.logaddexp(0, -margin))) + _dot(point[:-1], point[:-1]) / 2
        return value, np.append(rows.transposed_times(pull) + point[:-1], np.sum(pull))

    point = _minimise(loss, np.zeros(rows.width + 1), iterations, tolerance)
    return point[:-1], float(point[-1])


def _minimise(
    loss: Callable[[Floats], tuple[float, Floats]], point: Floats, iterations: int, tolerance: float
) -> Floats:
    value, gradient = loss(point)
    steps: list[tuple[Floats, Floats, float]] = []
    for _ in range(iterations):
        direction = _direction(gradient, steps)
        slope = _dot(direction, gradient)
        length = 1.0 if steps else 1.0 / max(np.sqrt(_dot(gradient, gradient)), 1e-12)
        while True:
            tried = point + length * direction
            new_value, new_gradient = loss(tried)
            if new_value <= value + 1e-4 * length * slope or length < 1e-10:
                break
            length /= 2
        step, change = tried - point, new_gradient - gradient
        curvature = _dot(step, change)
        if curvature > 1e-12:
            steps = [*steps, (step, change, curvature)][-MEMORY:]
        gained = value - new_value
        point, value, gradient = tried, new_value, new_gradient
        if gained <= tolerance * max(abs(value), 1.0):
            break
    return point


def _direction(gradient: Floats, steps: list[tuple[Floats, Floats, float]]) -> Floats:
    """Against the gradient, bent by what the last steps said of the curvature."""
    direction = -gradient
    shares = []
    for step, change, curvature in reversed(steps):
        share = _dot(step, direction) / curvature
        shares.append(share)
        direction = direction - share * change
    if steps:
        _, change, curvature = steps[-1]
        direction = direction * (curvature / _dot(change, change))
    for (step, change, curvature), share in zip(steps, reversed(shares), strict=True):
        direction = direction + (share - _dot(change, direction) / curvature) * step
    return direction


def _dot(a: Floats, b: Floats) -> float:
    # Not a BLAS product: its order of summation depends on the number of threads.
    return float(np.sum(a * b))
