"""The object store goes away in the middle of a job and comes back, answers 503 or slowly, refuses a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.cli import main
from jobs.settings import Settings
from jobs.spark import _configure_object_store
from tests.faulty_proxy import FaultyProxy
from tests.records import event, json_lines
from tests.services import ObjectStore
from tests.staging import RawZone
from tests.write_points import WritePoints

pytestmark = [pytest.mark.spark, pytest.mark.integration]


@pytest.fixture
def proxy(minio: ObjectStore) -> Iterator[FaultyProxy]:
    running = FaultyProxy(minio.endpoint)
    yield running
    running.close()


@pytest.fixture
def zone(
    spark: SparkSession, minio: ObjectStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> RawZone:
    """A feed in the store behind the proxy, to which the command points."""
    environment = {
        **minio.environment(),
        "AWS_ENDPOINT_URL_S3": proxy.url,
        "LAKE_URI": f"s3a://{minio.make_bucket()}/lake",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # A file system of Spark's keeps the address with which it was made.
    spark.sparkContext._jvm.org.apache.hadoop.fs.FileSystem.closeAll()  # type: ignore[union-attr]
    _configure_object_store(spark, Settings.from_env(environment))
    return RawZone(spark, environment["LAKE_URI"], "logs", environment)


@pytest.mark.parametrize(
    ("mode", "times", "code"),
    [
        ("503", 2, 0),
        ("gone", 2, 0),
        pytest.param("slow", 5, 0, marks=pytest.mark.faults),
        # Minutes, until all that is tried again was.
        pytest.param("gone", 1_000_000, 1, marks=pytest.mark.faults),
        pytest.param("403", 1_000_000, 1, marks=pytest.mark.faults),
    ],
)
def test_a_store_that_fails_in_the_middle(
    zone: RawZone,
    proxy: FaultyProxy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    times: int,
    code: int,
) -> None:
    """A short fault is lived through; a long one ends the job in one line, and the next run ends as a clean one."""
    file = tmp_path / "day.jsonl"
    file.write_text(json_lines(event("a"), event("b"), event("b"), "garbage"))
    assert main(["upload", "logs", str(file)]) == 0
    capsys.readouterr()

    points = WritePoints(4, lambda: proxy.set(mode, times), outlives_it=True)
    with pytest.MonkeyPatch.context() as patch:
        points.install(patch)
        assert main(["stage", "logs", "--max-rejected", "1"]) == code
    assert proxy.misbehaved >= min(times, 2)
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert len([line for line in errors.splitlines() if "error:" in line]) == code

    proxy.set("ok")
    assert main(["stage", "logs", "--max-rejected", "1"]) == 0
    assert zone.counts() == {"day.jsonl": (4, 2, 1, 1)}
    assert zone.rows("user_id") == [("a",), ("b",)]
    assert zone.rejected() == [("day.jsonl", ("malformed_json",), "garbage")]


@pytest.mark.faults
def test_a_file_whose_answers_break_off_is_not_refused(
    zone: RawZone, proxy: FaultyProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was noted as one that cannot be read to its end, and the others were staged and published without it."""
    file = tmp_path / "day.jsonl"
    file.write_text(json_lines(*(event(f"user {number}") for number in range(2000))))
    assert main(["upload", "logs", str(file)]) == 0
    proxy.set("breaks off")
    capsys.readouterr()
    assert main(["stage", "logs"]) == 1
    assert "error: Spark: Premature end of Content-Length" in capsys.readouterr().err
    assert zone.refused() == {}
    proxy.set("ok")
    assert main(["stage", "logs"]) == 0
    assert zone.counts() == {"day.jsonl": (2000, 2000, 0, 0)}
