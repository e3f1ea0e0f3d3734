"""Runs that need no Spark are in the run tables like all others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs import context
from jobs.cli import main
from jobs.runs import run_table
from tests.lakes import Lake
from tests.records import event, json_lines

pytestmark = pytest.mark.spark


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    (tmp_path / "day1.jsonl").write_text(json_lines(event("ann"), event("bob")))
    return Lake(spark, tmp_path / "lake")


def runs(lake: Lake) -> list[tuple[str, str]]:
    rows = run_table(lake, "etl_runs").read().orderBy("started_at").collect()
    return [(row.command, row.outcome) for row in rows]


def test_uploads_are_recorded_with_what_they_wrote_and_without_spark(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "get_session", lambda *_, **__: pytest.fail("Spark was started"))
    file = tmp_path / "day1.jsonl"
    assert main(["upload", "logs", str(file)]) == 0
    file.write_text(json_lines(event("eve")))
    assert main(["upload", "logs", str(file)]) == 1

    assert runs(lake) == [("upload", "done"), ("upload", "failed")]
    steps = run_table(lake, "etl_steps").read().orderBy("started_at").collect()
    assert [(step.name, step.outcome) for step in steps] == [("upload", "done"), ("upload", "failed")]
    assert json.loads(steps[0].outputs) == [{"dataset": "raw/logs", "files": 1}]
    assert steps[0].detail == "1 files, 0 unchanged"
