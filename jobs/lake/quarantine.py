"""Rejected records, whole, with every reason. Nothing that was delivered is dropped."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.lake.tables import LakeTable
from jobs.settings import Settings

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
            table.replace_where(table.spark.createDataFrame([], SCHEMA), condition)
        return
    table.ensure().replace_where(rejected.where(F.col("feed") == feed), condition)
