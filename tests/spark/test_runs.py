"""Runs that need no Spark leave a note; the next run that has it enters the note in the run tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.cli import main
from jobs.lake.objects import LocalStore
from jobs.runs import recorded, run_table
from tests.lakes import Lake
from tests.records import event, json_lines

pytestmark = pytest.mark.spark


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    (tmp_path / "day1.jsonl").write_text(json_lines(event("ann"), event("bob")))
    return Lake(spark, tmp_path / "lake")


def runs(lake: Lake) -> list[tuple[str, str]]:
    rows = run_table(lake.spark, lake.settings, "etl_runs").read().orderBy("started_at").collect()
    return [(row.command, row.outcome) for row in rows]


def notes(lake: Lake) -> list[Path]:
    return list((lake.folder / "runs" / "waiting").glob("*.json"))


def record_a_run(lake: Lake) -> None:
    run = lake.run()
    with recorded(run), run.step("nothing"):
        pass


def test_uploads_are_entered_with_what_they_wrote(lake: Lake, tmp_path: Path) -> None:
    assert main(["upload", "logs", str(tmp_path / "day1.jsonl")]) == 0
    (tmp_path / "day1.jsonl").write_text(json_lines(event("eve")))
    assert main(["upload", "logs", str(tmp_path / "day1.jsonl")]) == 1
    assert len(notes(lake)) == 2

    record_a_run(lake)
    assert runs(lake) == [("upload", "done"), ("upload", "failed"), ("test", "done")]
    steps = run_table(lake.spark, lake.settings, "etl_steps").read().orderBy("started_at").collect()
    assert [(step.name, step.outcome) for step in steps] == [
        ("upload", "done"),
        ("upload", "failed"),
        ("nothing", "done"),
    ]
    assert json.loads(steps[0].outputs) == [{"dataset": "raw/logs", "files": 1}]
    assert steps[0].detail == "1 files, 0 unchanged"
    assert notes(lake) == []

    record_a_run(lake)
    assert [command for command, _ in runs(lake)] == ["upload", "upload", "test", "test"]


@pytest.mark.parametrize("after", [1, 2])
def test_a_note_is_entered_once_by_runs_that_are_killed(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    assert main(["upload", "logs", str(tmp_path / "day1.jsonl")]) == 0
    delete: Callable[[LocalStore, str], None] = LocalStore.delete
    calls = 0

    def killed(store: LocalStore, path: str) -> None:
        nonlocal calls
        if "/waiting/" in path:
            calls += 1
            if calls <= after:
                raise KeyboardInterrupt
        delete(store, path)

    monkeypatch.setattr(LocalStore, "delete", killed)
    for _ in range(after):
        with pytest.raises(KeyboardInterrupt):
            record_a_run(lake)
    record_a_run(lake)
    assert [command for command, _ in runs(lake)] == ["upload", *["test"] * (after + 1)]
    assert notes(lake) == []
