"""Accuracy, precision and recall of predicted segments, by hand."""

from __future__ import annotations

from jobs.models.segments import FEATURES, measures
from jobs.transforms.customers import SEGMENTS


def test_measures() -> None:
    found = measures(
        {
            ("Premium", "Premium"): 6,
            ("Premium", "Standard"): 2,
            ("Standard", "Standard"): 4,
            ("Standard", "Premium"): 3,
            ("Basic", "Standard"): 5,
        },
        majority="Premium",
    )
    assert found["accuracy"] == 10 / 20
    assert found["majority_baseline"] == 8 / 20
    assert found["per_segment"] == {
        "Premium": {"precision": 6 / 9, "recall": 6 / 8, "samples": 8},
        "Standard": {"precision": 4 / 11, "recall": 4 / 7, "samples": 7},
        # Nobody was called Basic, so there is no precision.
        "Basic": {"precision": None, "recall": 0.0, "samples": 5},
    }
    assert {"segment": "Standard", "predicted": "Premium", "customers": 3} in found["confusion"]


def test_nothing_that_defines_a_segment_is_a_feature() -> None:
    from_the_customers_feed = {"age", "is_age_known", "tenure_days", "registration_month", "city"}
    assert set(FEATURES) == from_the_customers_feed
    assert len(SEGMENTS) == 3
