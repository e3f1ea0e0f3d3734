"""Files harmed at random: bits flipped, lines cut, types swapped. Every record ends somewhere, and nothing crashes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from pyspark.sql import SparkSession

from tests.harm import fault_seed, harm, of_each_kind
from tests.staging import RawZone, balanced

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("compiled")]
COUNT = 400


@of_each_kind
def test_every_record_of_a_harmed_file_ends_somewhere(
    spark: SparkSession, tmp_lake: str, feed: str, name: str, make: Callable[[int], str]
) -> None:
    seed = fault_seed()
    zone = RawZone(spark, tmp_lake, feed)
    zone.put({name: harm(make(COUNT), random.Random(seed))})
    zone.stage()
    entry = zone.ledger()[name]
    assert entry.error is None
    assert balanced(entry), f"FAULTS_SEED={seed}"
    accepted = zone.staging().collect()
    rejected = [record for _, _, record in zone.rejected()]
    assert entry.accepted == len(accepted)
    assert entry.rejected == len(rejected)
    # A quote that appears or goes joins lines of a CSV, up to the end of the file: they are all there, in one record.
    joined = sum(record.strip().count("\n") + record.count("\\n") for record in rejected)
    joined += sum(str(value).count("\n") for row in accepted for value in row)
    assert entry.accepted + joined > COUNT / 2
    assert entry.rejected + joined > COUNT / 100
    # Lines that are cut lose their ends.
    assert COUNT * 0.85 < entry.records_read + joined < COUNT * 1.1
