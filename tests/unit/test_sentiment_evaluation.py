"""Measures against values worked out by hand, and Platt's calibration against probabilities that are known."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.models.evaluation import evaluate, platt, roc_auc


def test_measures_of_six_texts() -> None:
    probability = np.array([0.95, 0.85, 0.6, 0.4, 0.15, 0.05])
    positive = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])

    result = evaluate(probability, positive, confident=0.8)

    assert (result.true_positive, result.false_positive) == (2, 1)
    assert (result.true_negative, result.false_negative) == (2, 1)
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.f1 == pytest.approx(2 / 3)
    assert result.roc_auc == pytest.approx(8 / 9)
    assert result.brier == pytest.approx((0.05**2 + 0.15**2 + 0.6**2 + 0.6**2 + 0.15**2 + 0.05**2) / 6)
    assert result.ece == pytest.approx((0.05 + 0.15 + 0.6 + 0.6 + 0.15 + 0.05) / 6)
    assert (result.confident_share, result.confident_accuracy) == (pytest.approx(4 / 6), 1.0)
    assert sum(b.texts for b in result.reliability) == 6


def test_equal_scores_count_half() -> None:
    assert roc_auc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5


@pytest.mark.parametrize(("slope", "offset"), [(2.0, 0.0), (0.3, -0.5), (1.0, 1.0)])
def test_platt_finds_the_slope_and_offset_that_made_the_labels(slope: float, offset: float) -> None:
    random = np.random.default_rng(5)
    score = random.normal(0, 3, 100_000)
    positive = (random.random(100_000) < 1 / (1 + np.exp(-(slope * score + offset)))).astype(float)

    assert platt(score, positive) == pytest.approx((slope, offset), abs=0.05)


def test_platt_stays_finite_when_the_classes_do_not_overlap() -> None:
    slope, offset = platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0.0, 0.0, 1.0, 1.0]))

    assert 0 < slope < 10
    assert abs(offset) < 1e-6
