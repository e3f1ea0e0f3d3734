"""A table of the lake whose log or data is broken: the job ends with a line that names the file, and writes nothing."""

from __future__ import annotations

import json
import shutil
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


def test_a_broken_table_stops_the_job_by_name(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Path(tmp_lake)
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    lake = Lake(spark, tmp_lake)
    lake.stage_logs(1, "u1 | 2024-01-01 00:00:00 | view | iOS | Oslo")
    assert main(["build-star-schema"]) == 0
    lake.stage_logs(2, "u2 | 2024-01-02 00:00:00 | view | iOS | Oslo")
    # Checksums beside files are a courtesy of Hadoop's local file system; a store has none.
    for checksum in whole.rglob(".*.crc"):
        checksum.unlink()

    for harm in (cut_log, garbage_log, gap_in_log, missing_data, cut_data, flipped_data):
        broken = whole.with_name(harm.__name__)
        shutil.copytree(whole, broken)
        file = harm(broken / TABLE)
        monkeypatch.setenv("LAKE_URI", str(broken))
        capsys.readouterr()
        assert main(["build-star-schema"]) == 1, harm
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        [line] = [line for line in errors.splitlines() if "error:" in line]
        # Of a version that is missing, the table is named, and which it is.
        assert (f"{broken / TABLE}: its Delta log" if harm is gap_in_log else file.name) in line
        facts = "marts/fact_user_actions"
        assert delta_rows(broken / facts) == delta_rows(whole / facts)


def test_a_table_that_was_being_made_when_its_process_died_is_made_again(
    spark: SparkSession, tmp_lake: str
) -> None:
    lake = Lake(spark, tmp_lake)
    # What Delta makes before the first commit.
    (Path(tmp_lake) / TABLE / "_delta_log" / "_staged_commits").mkdir(parents=True)
    assert not lake.staged().exists()
    lake.stage_logs(1, "u1 | 2024-01-01 00:00:00 | view | iOS | Oslo")
    assert lake.staged().read().count() == 1


def test_a_commit_without_a_byte_is_made_again(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a power failure leaves it; Delta takes it for a commit of nothing."""
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    lake = Lake(spark, tmp_lake)
    facts = Path(tmp_lake) / "marts/fact_user_actions"
    for day in (1, 2):
        lake.stage_logs(day, f"u{day} | 2024-01-0{day} 00:00:00 | view | iOS | Oslo")
        assert main(["build-star-schema"]) == 0
    whole = delta_rows(facts)
    file = newest_version(facts)
    for emptied in (file, file.with_name(f".{file.name}.crc")):
        emptied.write_bytes(b"")
    assert len(delta_rows(facts)) == 1
    assert main(["build-star-schema"]) == 0
    assert delta_rows(facts) == whole
