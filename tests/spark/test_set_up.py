"""Sessions start with our settings and what set-up did: stored classes, and Python packages in folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import jobs.spark
from jobs.errors import ConfigurationError
from tests.lakes import Lake

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.spark


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_archive_of_classes_is_mapped_into_the_jvm(spark: SparkSession) -> None:
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    process = jvm.java.lang.ProcessHandle.current().pid()
    # See jars/share_classes.py for why no other version takes one.
    is_taken = jvm.java.lang.Runtime.version().feature() == 17
    assert ("shared-classes.jsa" in Path(f"/proc/{process}/maps").read_text()) is is_taken


def test_what_delta_prints_does_not_reach_standard_output(spark: SparkSession) -> None:
    """The JSON document of `erase --json` began with what each vacuum had deleted."""
    jvm: Any = spark.sparkContext._jvm
    assert jvm.scala.Console.out().equals(jvm.java.lang.System.err)


def test_small_letters_do_not_depend_on_the_machines_language(spark: SparkSession, tmp_path: Path) -> None:
    jvm: Any = spark.sparkContext._jvm
    jvm.java.util.Locale.setDefault(jvm.java.util.Locale("tr", "TR"))
    try:
        session = jobs.spark.get_session("any", Lake(spark, tmp_path).settings)
        assert session.range(1).selectExpr("lower('IVO.WEIß')").first() == ("ivo.weiß",)
    finally:
        jvm.java.util.Locale.setDefault(jvm.java.util.Locale.ENGLISH)


def test_files_have_dictionaries_for_counted_columns_only(spark: SparkSession, tmp_path: Path) -> None:
    rows = spark.range(1000).selectExpr("'x' AS user_id", "1L AS _file_id").coalesce(1)
    rows.write.parquet(str(tmp_path / "rows"))
    (file,) = (tmp_path / "rows").glob("*.parquet")
    group = pq.read_metadata(file).row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    assert {c.path_in_schema: c.has_dictionary_page for c in columns} == {"user_id": False, "_file_id": True}
    assert {c.compression for c in columns} == {"ZSTD"}


def test_workers_import_nothing_from_archives(spark: SparkSession) -> None:
    def archives(_: int) -> list[str]:
        return [path for path in {*sys.path, *sys.path_importer_cache} if Path(path).is_file()]

    assert spark.sparkContext.parallelize([0], 1).flatMap(archives).collect() == []


def test_a_java_with_which_hadoop_reads_nothing_is_refused(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.spark, "NEWEST_JAVA", 16)
    with pytest.raises(ConfigurationError, match=r"Spark's Java is (17|21)\..*: use Java 17 or 21"):
        jobs.spark.get_session("any", Lake(spark, tmp_path).settings)


def staged(lake: Path, name: str, **environment: str) -> str:
    """Stage a file of that name with one record, in a process of its own; gives what the command said."""
    (lake / "raw" / "logs").mkdir(parents=True)
    (lake / "raw" / "logs" / name).write_text(
        '{"user_id": "u", "timestamp": "2024-01-01T00:00:00Z", "action_type": "click"}\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "stage", "logs"],
        cwd=ROOT,
        env=os.environ | {"LAKE_URI": str(lake), "LOG_FOLDER": str(lake.parent / "logs")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_folder_of_sparks_log_may_have_any_name(tmp_path: Path) -> None:
    # Spark's launcher takes the options of its Java apart at spaces, and the rest would be another program to start.
    logs = tmp_path / 'the team\'s "log" files'
    assert "1 accepted" in staged(tmp_path / "lake", "a.jsonl", LOG_FOLDER=str(logs))
    assert (logs / "spark.log").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are UTF-8 in every locale")
def test_names_of_files_are_read_in_the_c_locale(tmp_path: Path) -> None:
    assert "1 accepted" in staged(tmp_path / "lake", "für-März.jsonl", LC_ALL="C")
