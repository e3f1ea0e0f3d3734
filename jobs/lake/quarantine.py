"""Rejected records, whole, with every reason. Nothing that was delivered is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.lake.tables import LakeTable
from jobs.settings import Settings
from jobs.spark import local_rows

SCHEMA = T.StructType(
    [
        T.StructField("feed", T.StringType()),
        T.StructField("file_id", T.LongType()),
        T.StructField("path", T.StringType()),
        T.StructField("reasons", T.ArrayType(T.StringType())),
        T.StructField("record", T.StringType()),
        T.StructField("run_id", T.StringType()),
        T.StructField("rejected_at", T.TimestampType()),
    ]
)


def quarantine_table(spark: SparkSession, settings: Settings) -> LakeTable:
    """`staging/_quarantine`, one row per rejected record; a file's rows are those of its last reading."""
    return LakeTable(
        spark,
        settings.lake_path("staging", "_quarantine"),
        SCHEMA,
        partitioned_by=("feed",),
        comment="Rejected records as they came, with the names of all rules they break.",
    )


def write_quarantine(
    table: LakeTable, feed: str, file_ids: Sequence[int], rejected: DataFrame | None
) -> None:
    """Make the quarantine of these files what this reading rejected, in one commit; rejected None means nothing.

    rejected: columns of SCHEMA.
    """
    condition = f"feed = '{feed}' AND file_id IN ({', '.join(map(str, file_ids))})"
    if rejected is None:
        if table.exists() and not table.read().where(condition).isEmpty():
            table.replace_where(local_rows(table.spark, [], SCHEMA), condition)
        return
    table.ensure().replace_where(rejected.where(F.col("feed") == feed), condition)


@dataclass(frozen=True)
class RejectedCount:
    """How many records of a file break the same rules."""

    feed: str
    path: str
    reasons: tuple[str, ...]
    records: int


def selected(
    table: LakeTable, feed: str | None = None, reason: str | None = None, file: str | None = None
) -> DataFrame:
    """The rejected records of a feed, for a reason, of the files whose path fits a pattern with `*` and `?`."""
    rows = table.read()
    if feed:
        rows = rows.where(F.col("feed") == feed)
    if reason:
        rows = rows.where(F.array_contains("reasons", reason))
    if file:
        letters = "".join("\\" + c if c in "\\%_" else {"*": "%", "?": "_"}.get(c, c) for c in file)
        rows = rows.where(F.col("path").like(letters))
    return rows


def count_rejected(rows: DataFrame) -> list[RejectedCount]:
    """Count rejected records by feed, file and reasons, in this order."""
    counted = rows.groupBy("feed", "path", "reasons").count().collect()
    return sorted(
        (RejectedCount(row.feed, row.path, tuple(row.reasons), row["count"]) for row in counted),
        key=lambda count: (count.feed, count.path, count.reasons),
    )
