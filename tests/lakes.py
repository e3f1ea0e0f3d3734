"""A small lake for a test of the marts: staged records written as text, marts built on them, rows as plain Python."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.context import RunContext
from jobs.feeds.declaration import Feed
from jobs.feeds.logs import LOGS
from jobs.generate_samples import make_samples
from jobs.lake.marts import declared, mart_table
from jobs.lake.objects import LocalStore
from jobs.lake.staging import SAME_KEY, staging_table
from jobs.lake.tables import LakeTable
from jobs.settings import Settings
from jobs.spark import local_rows, session_settings
from jobs.transforms.duplicates import with_record_key
from jobs.transforms.keys import KEY

STAR = ("dim_users", "dim_actions", "dim_devices", "dim_locations", "fact_user_actions")


@contextmanager
def all_rows_are_many() -> Iterator[None]:
    """Inside the block, tables of any size are read and written as large ones are: by Spark's tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.spark.FEW_ROWS", -1)
        yield


class Lake:
    """A local lake under a folder, and jobs on it in the tests' Spark session."""

    def __init__(
        self, spark: SparkSession, folder: Path | str, warehouse_url: str = "embedded:unused"
    ) -> None:
        self.spark = spark
        self.folder = Path(folder)
        self.settings = Settings(lake_uri=str(folder), warehouse_url=warehouse_url)

    def run(self, command: str = "test") -> RunContext:
        """A run of its own, as `open_run` would give it."""
        store = LocalStore(self.folder)
        return RunContext(
            lambda: self.spark, self.settings, store, run_id=os.urandom(16).hex(), command=command
        )

    def stage_logs(self, file: int, *lines: str) -> None:
        """Make lines `user | timestamp | action | device | location` the staged records of a file; `-` is null."""
        self.stage(LOGS, file, *lines)

    def stage(self, feed: Feed, file: int, *lines: str) -> None:
        """Make lines with the feed's columns in order, as text, the staged records of a file."""
        records = [[None if (v := part.strip()) == "-" else v for part in line.split("|")] for line in lines]
        texts = local_rows(self.spark, records, ", ".join(f"{name} string" for name in feed.columns))
        typed = texts.select(
            *(field.parse(F.col(field.name)).cast(field.type).alias(field.name) for field in feed.fields),
            F.lit(None).cast("string").alias("_extra"),
            F.lit(file).cast("long").alias("_file_id"),
            F.current_timestamp().alias("_delivered_at"),
        )
        self._replace_file(feed, file, with_record_key(feed, typed.withColumn("_reasons", F.lit(""))))

    def _replace_file(self, feed: Feed, file: int, rows: DataFrame) -> None:
        table = self.staged(feed).ensure()
        if table.read().where(F.col("_file_id") == file).isEmpty():
            # What another file brought before is a duplicate.
            table.append(rows.join(table.read().select(*KEY), list(KEY), "left_anti"))
        else:
            table.merge(
                rows,
                SAME_KEY,
                lambda merge: (
                    merge.whenMatchedUpdateAll()
                    .whenNotMatchedInsertAll()
                    .whenNotMatchedBySourceDelete(F.col("t._file_id") == file)
                ),
            )

    def staged(self, feed: Feed = LOGS) -> LakeTable:
        return staging_table(self, feed)

    def mart(self, name: str) -> LakeTable:
        return mart_table(self, declared(name))

    def rows(self, name: str) -> list[tuple[object, ...]]:
        """The rows of a mart, in order."""
        return sorted((tuple(row) for row in self.mart(name).read().collect()), key=repr)

    def star(self) -> dict[str, list[tuple[object, ...]]]:
        """All rows of the star schema."""
        return {name: self.rows(name) for name in STAR}

    def values(self, name: str, column: str) -> list[object]:
        """A column of a mart, in order."""
        return sorted(row[column] for row in self.mart(name).read().select(column).collect())

    def versions(self) -> dict[str, int]:
        """The Delta version of every mart of the star schema."""
        return {name: self.mart(name).version() for name in STAR}

    def actions(self) -> list[str]:
        """The facts in words, as `stage_logs` takes them."""
        names = {
            table: dict(self.mart(table).read().collect())
            for table in ("dim_users", "dim_actions", "dim_devices", "dim_locations")
        }
        return sorted(
            " | ".join(
                (
                    names["dim_users"][row.user_key],
                    str(row.timestamp),
                    names["dim_actions"][row.action_key],
                    names["dim_devices"][row.device_key] if row.device_key is not None else "-",
                    names["dim_locations"][row.location_key] if row.location_key is not None else "-",
                )
            )
            for row in self.mart("fact_user_actions")
            .read()
            .withColumn("timestamp", F.date_format("timestamp", "yyyy-MM-dd HH:mm:ss"))
            .collect()
        )

    def changed(self, name: str, since: int) -> list[bool]:
        """For every row of a mart that changed since a version: whether it was deleted."""
        table = self.mart(name)
        rows, only_inserts = table.changes(since, table.version(), declared(name).primary_key)
        return [False] * rows.count() if only_inserts else sorted(row._deleted for row in rows.collect())


def deliver(lake: Path, delivery: int) -> None:
    """Raw files of each feed: a first delivery, then a correction of it and a file more."""
    for first, second in zip(make_samples(7, 0.001), make_samples(8, 0.001), strict=True):
        folder = lake / "raw" / first.name
        folder.mkdir(parents=True, exist_ok=True)
        file, content = first.files[0].name, first.files[0].content
        if delivery == 1:
            (folder / file).write_bytes(content)
            continue
        (folder / f"more-{file}").write_bytes(second.files[0].content)
        if first.name == "logs":
            # An array, of which an event leaves.
            corrected = json.dumps(json.loads(content)[1:]).encode()
        elif first.name == "reviews":
            corrected = content.replace(b"film", b"movie")
        else:
            corrected = b"".join(content.splitlines(keepends=True)[:-3])
        assert corrected != content
        (folder / file).write_bytes(corrected)


def vacuum(spark: SparkSession, uri: str) -> None:
    """Remove every file that the table's newest version does not need."""
    settings = {
        "spark.databricks.delta.retentionDurationCheck.enabled": "false",
        # As `LakeTable.vacuum` has it.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
    }
    with session_settings(spark, settings):
        spark.sql(f"VACUUM delta.`{uri}` RETAIN 0 HOURS")


def put_back(spark: SparkSession, uri: str, versions: int = 1) -> None:
    """Put a table back by so many versions, as from a backup."""
    commits = sorted((Path(uri) / "_delta_log").glob("*.json"))
    for commit in commits[-versions:]:
        for file in commit.parent.glob(f"{commit.stem}.*"):
            file.unlink()
    spark.sparkContext._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
