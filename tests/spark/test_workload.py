"""Whether there is little to do, so that Java need not compile much, is told from the lake before Spark starts."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import jobs.context
from jobs.build_star_schema import build_star_schema
from jobs.context import RunContext, open_run
from jobs.lake.archive import archive
from jobs.reset_marts import reset_marts
from jobs.workload import has_little_to_do, has_little_to_stage
from tests.staging import RawZone

pytestmark = pytest.mark.spark

LINE = '{"user_id": "u%d", "timestamp": "2024-01-02T03:04:05Z", "action_type": "view"}\n'


def log_lines(number: int) -> str:
    return "".join(LINE % user for user in range(number))


@pytest.fixture
def logs(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RawZone:
    """Ten lines of some 80 bytes are little, a hundred are much."""
    monkeypatch.setattr("jobs.workload.LITTLE_BYTES", 2_000)
    return RawZone(spark, str(tmp_path), "logs")


def without_spark(zone: RawZone) -> RunContext:
    def start() -> SparkSession:
        raise AssertionError("Spark was asked for, while it is about to start")

    return RunContext(start, zone.settings, zone.store, "run", "run")


def is_little(zone: RawZone) -> bool:
    return has_little_to_do(without_spark(zone), ["logs", "reviews"])


def test_what_counts_are_the_files_to_be_read(logs: RawZone) -> None:
    logs.put({"a.jsonl": log_lines(100)})
    assert not is_little(logs)
    logs.stage()
    build_star_schema(logs.run())
    assert is_little(logs)
    logs.put({"b.jsonl": log_lines(10)})
    assert is_little(logs)
    logs.put({"c.jsonl.gz": gzip.compress(log_lines(100).encode(), 0)})
    assert not is_little(logs)


def test_files_of_other_feeds_do_not_count(logs: RawZone) -> None:
    logs.put({"a.jsonl": log_lines(100)})
    assert has_little_to_stage(without_spark(logs), ["reviews"])


def test_a_replaced_file_counts_with_those_beside_it(logs: RawZone) -> None:
    logs.put({"a.jsonl": log_lines(10), "b.jsonl": log_lines(100)})
    logs.stage()
    build_star_schema(logs.run())
    logs.put({"a.jsonl": log_lines(9)}, day=2)
    assert not is_little(logs)


def test_a_mart_that_is_behind_is_much_to_do(logs: RawZone) -> None:
    logs.put({"a.jsonl": log_lines(10)})
    logs.stage()
    assert has_little_to_stage(without_spark(logs), ["logs"])
    assert not is_little(logs)
    build_star_schema(logs.run())
    assert is_little(logs)
    reset_marts(logs.run())
    assert not is_little(logs)


def test_a_very_large_lake_is_read_whole_by_checks(logs: RawZone, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.put({"a.jsonl": log_lines(10)})
    logs.stage()
    build_star_schema(logs.run())
    monkeypatch.setattr("jobs.workload.LARGE_LAKE_BYTES", 100)
    assert not is_little(logs)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What a session is told when it starts."""

    class Session:
        def stop(self) -> None: ...

    told: dict[str, bool] = {}

    def get_session(*_: object, **given: bool) -> Session:
        told.update(given)
        return Session()

    monkeypatch.setattr(jobs.context, "get_session", get_session)
    monkeypatch.setattr(jobs.context, "LITTLE_BYTES", 2_000)
    return told


@pytest.mark.parametrize("little", [True, False])
def test_the_session_is_told(logs: RawZone, told: dict[str, bool], little: bool) -> None:
    logs.put({"a.jsonl": log_lines(100)})
    with open_run("test", logs.settings, has_little_to_do=lambda run: little) as run:
        assert not told
        assert run.spark
    assert told == {"small": False, "quick": little}


def test_of_a_small_lake_nothing_more_is_asked(logs: RawZone, told: dict[str, bool]) -> None:
    asked: list[RunContext] = []
    logs.put({"a.jsonl": log_lines(10)})
    with open_run("test", logs.settings, has_little_to_do=lambda run: bool(asked.append(run))) as run:
        assert run.spark
    assert told["small"] is True
    assert not asked


def test_a_lake_stays_large_when_its_files_are_archived(logs: RawZone, told: dict[str, bool]) -> None:
    """Rows of a hundred archived lines were read as those of a lake without any: by plans that are interpreted."""
    logs.put({"a.jsonl": log_lines(100)})
    logs.stage()
    assert archive(logs.run(), "logs", datetime.now(UTC))
    with open_run("test", logs.settings) as run:
        assert run.spark
    assert told["small"] is False


def test_a_damaged_log_is_left_to_spark(logs: RawZone, told: dict[str, bool]) -> None:
    """Spark names the file; asked while it starts, it would wait for itself."""
    logs.put({"a.jsonl": log_lines(100)})
    logs.stage()
    build_star_schema(logs.run())
    assert is_little(logs)
    log = Path(logs.settings.lake_uri) / "marts" / "fact_user_actions" / "_delta_log"
    (log / "00000000000000000001.json").write_text("no JSON")
    with open_run("test", logs.settings, has_little_to_do=partial(has_little_to_do, feeds=["logs"])) as run:
        assert run.spark
    assert told["quick"] is False
