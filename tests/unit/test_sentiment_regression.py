"""The regression against problems whose solution is known."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.models.regression import SparseRows, fit_logistic, row_sums


def sparse(dense: np.ndarray) -> SparseRows:
    rows, columns = np.nonzero(dense)
    start = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return SparseRows(start, columns.astype(np.int32), dense[rows, columns], dense.shape[1])


def test_products_are_those_of_the_dense_matrix() -> None:
    random = np.random.default_rng(2)
    dense = random.normal(size=(50, 20)) * (random.random((50, 20)) < 0.2)
    dense[[0, 7, 49]] = 0
    rows = sparse(dense)
    weights, numbers = random.normal(size=20), random.normal(size=50)
    assert rows.times(weights) == pytest.approx(dense @ weights)
    assert rows.transposed_times(numbers) == pytest.approx(dense.T @ numbers)
    assert list(row_sums(np.zeros(0), np.array([0, 0, 0]))) == [0, 0]


def test_gradient_vanishes_at_the_solution() -> None:
    random = np.random.default_rng(3)
    dense = random.normal(size=(300, 40)) * (random.random((300, 40)) < 0.3)
    label = (dense @ random.normal(size=40) + 0.7 + random.normal(size=300) > 0).astype(float)
    weights, intercept = fit_logistic(sparse(dense), label, 3.0, 500, 1e-14)
    error = 1 / (1 + np.exp(-(dense @ weights + intercept))) - label
    assert 3.0 * dense.T @ error + weights == pytest.approx(np.zeros(40), abs=1e-4)
    assert error.sum() == pytest.approx(0, abs=1e-4)
    assert intercept > 0


def test_one_feature_has_the_penalised_solution() -> None:
    # Two texts, x = ±1: the loss is w² / 2 + 2 C log(1 + exp(-w)), so w = 2 C / (1 + exp(w)).
    (weight,), intercept = fit_logistic(
        sparse(np.array([[1.0], [-1.0]])), np.array([1.0, 0.0]), 1.0, 100, 1e-15
    )
    assert weight == pytest.approx(2 / (1 + np.exp(weight)), abs=1e-6)
    assert intercept == pytest.approx(0, abs=1e-9)
