"""Rows of this process as a DataFrame: the same as Spark's own way gives, without its Python workers.

And rows that are computed once for several reads.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.spark import FEW_ROWS, computed_once, local_rows, session_settings

pytestmark = pytest.mark.spark

SCHEMA = (
    "text string, number bigint, at timestamp, price decimal(12,3), list array<string>, names map<string,string>, "
    "one struct<a:int,b:string>, share double, yes boolean, day date"
)
ROWS = [
    (
        *("é\n'", 2**60, datetime(2024, 2, 29, 23, 59, 59, 1, tzinfo=UTC), Decimal("-1.5"), ["x", None]),
        *({"k": "v"}, (1, "b"), 0.1, True, date(1999, 12, 31)),
    ),
    (None,) * 10,
]


@pytest.mark.parametrize("rows", [ROWS, []])
def test_rows_are_as_spark_itself_makes_them(spark: SparkSession, rows: list[tuple[object, ...]]) -> None:
    expected, found = spark.createDataFrame(rows, SCHEMA), local_rows(spark, rows, SCHEMA)
    assert found.schema == expected.schema
    assert found.collect() == expected.collect() == found.collect()


def test_they_are_a_part_of_the_plan(spark: SparkSession) -> None:
    found = local_rows(spark, [(1,)], "n int")
    assert "LocalTableScan" in found._jdf.queryExecution().executedPlan().toString()


def test_a_missing_value_that_has_to_be_there(spark: SparkSession) -> None:
    with pytest.raises(PySparkException, match="must not be None"):
        local_rows(spark, [(None,)], T.StructType([T.StructField("n", T.StringType(), nullable=False)]))


def test_what_is_kept_is_joined_as_what_it_is_not_as_what_it_was_guessed_to_be(spark: SparkSession) -> None:
    """The guess is four megabytes. Kept are half a megabyte, which go to the other rows and not these about."""
    rows = spark.range(2**18).groupBy((F.col("id") % (FEW_ROWS + 1)).alias("id")).count().select("id")
    with (
        session_settings(spark, {"spark.sql.autoBroadcastJoinThreshold": str(2 * 1024 * 1024)}),
        computed_once(rows) as kept,
    ):
        joined = spark.range(2**20).join(kept, "id", "left_semi")
        assert "BroadcastHashJoin" in joined._jdf.queryExecution().sparkPlan().toString()
        assert joined.count() == FEW_ROWS + 1
