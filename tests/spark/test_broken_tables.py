"""A table of the lake whose log or data is broken: the job ends with a line that names the file, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.cli import main
from tests.lake_contents import delta_rows
from tests.lakes import Lake

pytestmark = pytest.mark.spark
TABLE = "staging/logs"


def newest_version(table: Path) -> Path:
    return max((table / "_delta_log").glob("*.json"))


def newest_data(table: Path) -> Path:
    """The file that the newest version added."""
    actions = map(json.loads, newest_version(table).read_text().splitlines())
    [path] = [action["add"]["path"] for action in actions if "add" in action]
    return table / path


def cut_log(table: Path) -> Path:
    file = newest_version(table)
    file.write_bytes(file.read_bytes()[:-40])
    return file


def garbage_log(table: Path) -> Path:
    file = newest_version(table)
    file.write_text("garbage\n")
    return file


def gap_in_log(table: Path) -> Path:
    file = table / "_delta_log" / f"{1:020d}.json"
    file.unlink()
    return file


def missing_data(table: Path) -> Path:
    file = newest_data(table)
    file.unlink()
    return file


def cut_data(table: Path) -> Path:
    file = newest_data(table)
    file.write_bytes(file.read_bytes()[:-200])
    return file


def flipped_data(table: Path) -> Path:
    file = newest_data(table)
    content = bytearray(file.read_bytes())
    # The head of the first column's pages.
    content[4:60] = bytes(byte ^ 0xFF for byte in content[4:60])
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("harm", [cut_log, garbage_log, gap_in_log, missing_data, cut_data, flipped_data])
def test_a_broken_table_stops_the_job_by_name(
    spark: SparkSession,
    tmp_lake: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], Path],
) -> None:
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    lake, table = Lake(spark, tmp_lake), Path(tmp_lake) / TABLE
    lake.stage_logs(1, "u1 | 2024-01-01 00:00:00 | view | iOS | Oslo")
    assert main(["build-star-schema"]) == 0
    before = delta_rows(Path(tmp_lake) / "marts" / "fact_user_actions")
    lake.stage_logs(2, "u2 | 2024-01-02 00:00:00 | view | iOS | Oslo")

    file = harm(table)
    spark.sparkContext._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
    # Checksums beside files are a courtesy of Hadoop's local file system; a store has none.
    for checksum in Path(tmp_lake).rglob(".*.crc"):
        checksum.unlink()
    capsys.readouterr()

    assert main(["build-star-schema"]) == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    [line] = [line for line in errors.splitlines() if "error:" in line]
    named = file.name if harm is not gap_in_log else TABLE
    assert named in line
    assert delta_rows(Path(tmp_lake) / "marts" / "fact_user_actions") == before
