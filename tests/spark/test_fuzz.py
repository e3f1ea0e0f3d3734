"""Files harmed at random: bits flipped, lines cut, types swapped. Every record ends somewhere, and nothing crashes."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest
from pyspark.sql import SparkSession

from tests.harm import harm, invoices, logs
from tests.staging import RawZone, balanced

pytestmark = pytest.mark.spark
COUNT = 400


@pytest.mark.parametrize(
    ("feed", "name", "make"), [("logs", "a.jsonl", logs), ("purchases", "a.csv", invoices)]
)
def test_every_record_of_a_harmed_file_ends_somewhere(
    spark: SparkSession, tmp_lake: str, feed: str, name: str, make: Callable[[int], str]
) -> None:
    seed = int(os.environ.get("FAULTS_SEED") or time.time())
    print(f"FAULTS_SEED={seed}")
    zone = RawZone(spark, tmp_lake, feed)
    zone.put({name: harm(make(COUNT), random.Random(seed))})
    zone.stage()
    entry = zone.ledger()[name]
    assert entry.error is None
    assert balanced(entry), f"FAULTS_SEED={seed}"
    assert entry.accepted == zone.staging().count() > COUNT / 2
    assert entry.rejected == len(zone.rejected()) > COUNT / 100
    # A quote that appears or goes joins lines of a CSV; lines that are cut lose their ends.
    assert COUNT / 2 < entry.records_read < COUNT * 1.1
