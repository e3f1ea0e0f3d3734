"""A machine whose clock was set back: files are told apart by their versions, readings by their numbers."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.lake.ledger import Ledger
from jobs.runs import recorded, run_table
from tests.records import event, json_lines
from tests.staging import RawZone

pytestmark = pytest.mark.spark


class LastYear(datetime):
    """The clock of a machine that is a year behind."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) - timedelta(days=365)


def test_a_clock_that_goes_backwards(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = {n: event(f"user{n}", timestamp=f"2024-03-0{n}T10:00:00") for n in (1, 2, 3)}
    corrected = {**at[1], "action_type": "login"}
    first = json_lines(at[1], at[2])
    second, third = json_lines(at[2], at[3]), json_lines(corrected)

    zone = RawZone(spark, str(tmp_path / "lake"), "logs")
    zone.put({"a.jsonl": first}, day=10)
    zone.stage()
    for module in ("jobs.lake.staging", "jobs.context", "jobs.runs", "jobs.lake.locks"):
        monkeypatch.setattr(f"{module}.datetime", LastYear)
    # Both are older than what was read before, by the clock of the machine and by their own times.
    zone.put({"b.jsonl": second}, day=2)
    assert [entry.path for entry in zone.stage().entries] == ["raw/logs/b.jsonl"]
    zone.put({"a.jsonl": third}, day=1)
    run = zone.run()
    with recorded(run), run.step("stage"):
        zone.stage()
    assert zone.stage().entries == ()
    history = Ledger(zone).history("logs")
    assert [entry.batch for entry in history] == sorted(entry.batch for entry in history)
    assert history[-1].staged_at < history[0].staged_at
    (recorded_run,) = run_table(zone, "etl_runs").read().collect()
    assert recorded_run.seconds >= 0

    clean = RawZone(spark, str(tmp_path / "clean"), "logs")
    clean.put({"a.jsonl": third, "b.jsonl": second})
    monkeypatch.undo()
    clean.stage()
    assert zone.rows() == clean.rows()
    assert len(zone.rows()) == 3
    assert zone.counts() == clean.counts() == {"a.jsonl": (1, 1, 0, 0), "b.jsonl": (2, 2, 0, 0)}
