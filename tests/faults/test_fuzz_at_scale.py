"""A million records, one in five harmed: every one ends somewhere, and memory is that of a quarter of them."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks.measure import run
from tests.harm import fault_seed, harm, of_each_kind
from tests.staging import RawZone, balanced

pytestmark = [pytest.mark.faults, pytest.mark.spark]

# Both are too large to be staged as a small lake, with another compiler and so another amount of memory.
SIZES = (250_000, 1_000_000)
TIME_LIMIT = 1800.0


@of_each_kind
def test_a_million_records(
    spark: SparkSession, tmp_path: Path, feed: str, name: str, make: Callable[[int], str]
) -> None:
    seed = fault_seed()
    peaks = []
    for size in SIZES:
        lake = tmp_path / str(size)
        zone = RawZone(spark, str(lake), feed)
        zone.put({name: harm(make(size), random.Random(seed))})
        environment = {
            **os.environ,
            "LAKE_URI": str(lake),
            "LOG_FOLDER": str(tmp_path / "logs"),
            "SPARK_DRIVER_MEMORY": "1g",
        }
        command = [sys.executable, "-m", "jobs", "stage", feed, "--max-rejected", "1"]
        log = tmp_path / f"{size}.log"
        staged = run(command, environment, log, TIME_LIMIT)
        assert staged.exit_code == 0, log.read_text()[-3000:]
        entry = zone.ledger()[name]
        print(
            f"{feed}: {entry.records_read:,} records = {entry.accepted:,} accepted + {entry.duplicates:,} duplicates "
            f"+ {entry.rejected:,} rejected; {staged.seconds:.0f} s, {staged.peak_process_bytes / 2**20:,.0f} MB"
        )
        assert entry.error is None
        assert balanced(entry)
        assert entry.accepted == zone.staging().count() > size / 2
        assert entry.rejected > size / 100
        peaks.append(staged.peak_process_bytes)
    # The heap is limited; what grows with the file would have to fit beside it.
    assert peaks[1] < 1.5 * peaks[0]
