"""Real files with known truth; skipped where ../shared/data is missing. Invoices go all the way in test_run_all.py."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tests.staging import RawZone

pytestmark = [pytest.mark.spark, pytest.mark.shared_data, pytest.mark.usefixtures("compiled")]


def test_raw_logs(spark: SparkSession, tmp_lake: str, shared_data: Path) -> None:
    zone = RawZone(spark, tmp_lake, "logs")
    zone.put({"raw_logs.json": (shared_data / "raw_logs.json").read_bytes()})
    zone.stage()
    assert zone.counts() == {"raw_logs.json": (100, 100, 0, 0)}
    names = ("user_id", "action_type", "device", "location")
    found = zone.staging().select(*(F.count_distinct(name) for name in names)).first()
    assert found is not None
    assert tuple(found) == (10, 5, 3, 4)


def test_movie_reviews(spark: SparkSession, tmp_lake: str, shared_data: Path) -> None:
    zone = RawZone(spark, tmp_lake, "reviews")
    zone.put({"movie_review.csv.gz": (shared_data / "movie_review.csv.gz").read_bytes()})
    zone.stage()
    assert zone.counts() == {"movie_review.csv.gz": (25_000, 25_000, 0, 0)}
    staged = {row.review_id: row.review for row in zone.staging().select("review_id", "review").collect()}
    with gzip.open(shared_data / "movie_review.csv.gz", "rt", encoding="utf-8", newline="") as file:
        delivered = {
            row["id_review"]: row["review_str"].strip(" \t\r\n\u00a0") for row in csv.DictReader(file)
        }
    assert staged == delivered, "every text as Python reads it"
    assert len(set(staged.values())) == 24_904
