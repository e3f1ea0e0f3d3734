"""An executor that dies in the middle of a stage, without a word: its work is done again, and nothing comes twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from tests.records import event, json_lines
from tests.staging import RawZone

pytestmark = [pytest.mark.faults, pytest.mark.spark]

FILES, RECORDS = 12, 2_000
# Stages logs on two executors; one is killed when both are at work on a stage.
PROGRAM = """
    import os, signal, sys, threading, time
    import psutil
    from pyspark import SparkContext
    from jobs.cli import main

    def executors():
        mine = psutil.Process().children(recursive=True)
        return [p for p in mine if p.is_running() and "CoarseGrainedExecutorBackend" in " ".join(p.cmdline())]

    def at_work(context):
        tracker = context.statusTracker()
        stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        return any(s and s.numActiveTasks > 1 for s in stages)

    def kill_one():
        while True:
            context = SparkContext._active_spark_context
            try:
                if context is not None and len(executors()) == 2 and at_work(context):
                    victim = executors()[0]
                    victim.send_signal(signal.SIGKILL)
                    print("killed", victim.pid, flush=True)
                    return
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.02)

    threading.Thread(target=kill_one, daemon=True).start()
    sys.exit(main(["stage", "logs"]))
"""


@pytest.fixture
def executors_leave_nothing() -> Iterator[None]:
    """A local cluster keeps its executors' logs in Spark's own folder, and cannot be told another."""
    work = Path(pyspark.__file__).parent / "work"
    before = set(work.glob("*"))
    yield
    for folder in set(work.glob("*")) - before:
        shutil.rmtree(folder)


@pytest.mark.usefixtures("executors_leave_nothing")
def test_an_executor_is_killed_in_the_middle_of_a_stage(spark: SparkSession, tmp_path: Path) -> None:
    zone = RawZone(spark, str(tmp_path / "lake"), "logs")
    for number in range(FILES):
        # Every file shares a tenth of its records with the one before.
        first = number * RECORDS * 9 // 10
        records = (
            event(f"user{n}", timestamp=f"2024-03-01T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}")
            for n in range(first, first + RECORDS)
        )
        zone.put({f"{number:02}.jsonl": json_lines(*records)})
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env={
            **os.environ,
            "LAKE_URI": str(tmp_path / "lake"),
            "LOG_FOLDER": str(tmp_path / "logs"),
            "SPARK_MASTER": "local-cluster[2,1,1024]",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("killed "), done.stderr[-3000:]

    accepted = RECORDS + (FILES - 1) * RECORDS * 9 // 10
    entries = zone.ledger().values()
    assert sum(entry.records_read for entry in entries) == FILES * RECORDS
    assert sum(entry.accepted for entry in entries) == accepted
    assert sum(entry.duplicates for entry in entries) == FILES * RECORDS - accepted
    assert zone.staging().select("user_id", "timestamp").distinct().count() == accepted
    assert zone.staging().count() == accepted
