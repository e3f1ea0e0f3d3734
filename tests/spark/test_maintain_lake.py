"""Compaction and vacuum: fewer files, the same rows, and marts and warehouse go on from where they were."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.build_events import build_events
from jobs.build_star_schema import build_star_schema
from jobs.feeds.events import EVENTS
from jobs.geolocation.base import Location
from jobs.geolocation.cache import LocationCache
from jobs.lake.tables import LakeTable
from jobs.maintain_lake import main as maintain_main
from jobs.maintain_lake import maintain
from jobs.runs import run_table
from tests.lakes import Lake, all_rows_are_many

pytestmark = pytest.mark.spark


def number_of_files(table: LakeTable) -> int:
    with all_rows_are_many():
        return len(table.read().inputFiles())


def test_small_files_become_one_and_what_is_young_stays(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(spark, tmp_path)
    for day in (1, 2):
        lake.stage_logs(day, f"ann | 2024-05-0{day} 08:00:00 | login | phone | Rome")
    build_star_schema(lake.run())
    before, staged = lake.star(), lake.staged()
    old_files = set((tmp_path / "staging" / "logs").glob("*.parquet"))
    assert number_of_files(staged) == 2
    cache = LocationCache(lake)
    cache.table.ensure()
    for address in ("192.0.2.1", "192.0.2.2"):
        cache.keep([(address, Location("not public"), None)], datetime(2024, 5, 1, tzinfo=UTC), timedelta(1))
    known = sorted(row.ip_address for row in cache.table.read().collect())
    assert number_of_files(cache.table) == 2

    monkeypatch.setenv("LAKE_URI", str(tmp_path))
    assert maintain_main(["--keep-days", "7"]) == 0
    assert number_of_files(staged) == number_of_files(cache.table) == 1
    assert sorted(row.ip_address for row in cache.table.read().collect()) == known
    # A version of the last week needs them.
    assert old_files < set((tmp_path / "staging" / "logs").glob("*.parquet"))
    assert lake.star() == before
    (step,) = run_table(lake, "etl_steps").read().collect()
    written = {each["dataset"]: each["version"] for each in json.loads(step.outputs)}
    assert (step.name, step.outcome, step.detail) == ("maintain", "done", f"{len(written)} tables")
    assert written["staging/logs"] == staged.version()

    # What follows the tables is not confused by commits that change no row.
    lake.stage_logs(3, "bob | 2024-05-03 08:00:00 | login | phone | Rome")
    build_star_schema(lake.run())
    assert lake.actions() == [
        "ann | 2024-05-01 08:00:00 | login | phone | Rome",
        "ann | 2024-05-02 08:00:00 | login | phone | Rome",
        "bob | 2024-05-03 08:00:00 | login | phone | Rome",
    ]


def test_marts_are_built_where_nothing_was_staged_since(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(spark, tmp_path)
    lake.stage(EVENTS, 1, "e1 | 2024-03-01 10:00:00 | ann@acme.com | Ireland | / | view | sale,mobile")
    build_events(lake.run())
    version = lake.staged(EVENTS).version()
    # Of one file nothing is compacted, and no version since has any row.
    lake.staged(EVENTS).vacuum(keep_hours=7 * 24)
    assert lake.staged(EVENTS).version() > version
    build_events(lake.run())
    assert [(row.id, row.tags) for row in lake.mart("events").read().collect()] == [
        ("e1", ["sale", "mobile"])
    ]
    assert not build_events(lake.run())


def test_an_empty_lake_and_too_short_a_history(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maintain(Lake(spark, tmp_path).run(), keep_days=7)
    with pytest.raises(SystemExit, match="2"):
        maintain_main(["--keep-days", "6"])
    assert "'6' is not a whole number from 7 to" in capsys.readouterr().err
