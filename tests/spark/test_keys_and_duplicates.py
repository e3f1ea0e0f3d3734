"""Keys are the same for the same input, always; of several records with one key the same one stays, always."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.errors import KeyCollision
from jobs.feeds.logs import LOGS
from jobs.transforms.duplicates import (
    rejected_or_repeated,
    repeated_keys,
    require_same_natural_key,
    survivors,
    with_record_key,
    with_repeated_key,
)
from jobs.transforms.keys import KEY, record_key, require_distinct, surrogate_key, time_ordered_id

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("compiled")]
few = settings(
    max_examples=6, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MORNING = datetime(2024, 3, 1, 10)  # noqa: DTZ001 - UTC, as the session's zone


def keys_of(spark: SparkSession, pairs: Sequence[tuple[str | None, str | None]]) -> list[tuple[int, int]]:
    frame = spark.createDataFrame([(n, *pair) for n, pair in enumerate(pairs)], "n int, a string, b string")
    columns = [F.col("a"), F.col("b")]
    rows = frame.withColumns(record_key(columns, nullable=columns)).select("n", *KEY).collect()
    return [(hi, lo) for _, hi, lo in sorted(rows)]


def test_keys_are_these_numbers_today_and_in_ten_years(spark: SparkSession) -> None:
    """If this fails, every table in every lake would have to be rebuilt."""
    [plain, with_null] = keys_of(spark, [("ann", "view"), ("ann", None)])
    surrogates = spark.createDataFrame([("Android",), ("",), ("東京",)], "name string").select(
        surrogate_key(F.col("name")).alias("key")
    )
    assert plain == (-7649629267286698390, -4067834132956618474)
    assert with_null == (5995208932777279397, -1011188619398619440)
    assert [row.key for row in surrogates.collect()] == [
        1800822085163137121,
        1779300269653747460,
        3505823177798730495,
    ]


def test_a_null_is_a_value_of_its_own(spark: SparkSession) -> None:
    pairs = [("a", None), (None, "a"), (None, None), ("a", ""), ("", "a"), ("a", "a"), ("aa", None)]
    assert len(set(keys_of(spark, pairs))) == len(pairs)


def test_a_surrogate_key_is_null_for_null_and_never_negative(spark: SparkSession) -> None:
    frame = spark.range(1000).select(surrogate_key(F.col("id").cast("string")).alias("key"))
    assert frame.selectExpr("min(key) >= 0", "count(DISTINCT key)").first() == (True, 1000)
    assert spark.range(1).select(surrogate_key(F.lit(None).cast("string")).alias("k")).first() == (None,)


@few
@given(st.lists(st.tuples(*[st.none() | st.text(max_size=3)] * 2), min_size=30, max_size=80))
def test_equal_records_have_equal_keys_and_different_ones_different_keys(
    spark: SparkSession, pairs: list[tuple[str | None, str | None]]
) -> None:
    keys = keys_of(spark, pairs)
    assert len(set(zip(pairs, keys, strict=True))) == len(set(pairs)) == len(set(keys))


def test_an_id_is_a_uuid_of_version_8_that_sorts_by_time(spark: SparkSession) -> None:
    times = [
        "1969-12-31 23:59:59.999",
        "1970-01-01 00:00:00",
        "2024-02-29 23:59:59.999",
        "2024-03-01 00:00:00",
    ]
    frame = spark.createDataFrame([(t, k) for t in times for k in (0, -1, 5)], "at string, key long")
    at, hi, lo = F.col("at").cast("timestamp"), F.col("key"), F.col("key") * 3
    rows = frame.select("at", time_ordered_id(at, hi, lo).alias("id")).collect()
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", r.id)
        for r in rows
    )
    assert len({row.id for row in rows}) == len(rows)
    since_1970 = sorted((r for r in rows if r.at >= "1970"), key=lambda row: str(row.id))
    assert [row.at for row in since_1970] == sorted(row.at for row in since_1970)
    assert rows[3].id[:15] == "00000000-0000-8"


def test_two_names_with_one_key_stop_the_job(spark: SparkSession) -> None:
    members = spark.createDataFrame([(1, "ann"), (2, "bob"), (2, "bo")], "user_key long, user_id string")
    require_distinct(members.where("user_key = 1"), "user_key", "user_id", "dim_users")
    with pytest.raises(KeyCollision, match=r"dim_users: user_id 'bo' and 'bob' have the same user_key 2"):
        require_distinct(members, "user_key", "user_id", "dim_users")


# -- duplicates ----------------------------------------------------------------------------------------------

Record = tuple[str, datetime, str, str | None, str | None, str | None, int, datetime]
SCHEMA = """user_id string, timestamp timestamp, action_type string, device string, location string, _extra string,
    _file_id long, _delivered_at timestamp"""


def record(
    user: str, device: str | None, location: str | None, file: int = 1, extra: str | None = None
) -> Record:
    return user, MORNING, "view", device, location, extra, file, MORNING


def kept(spark: SparkSession, records: Sequence[Record], partitions: int = 1) -> list[tuple[Any, ...]]:
    frame: DataFrame = spark.createDataFrame(list(records), SCHEMA).repartition(partitions)
    keyed = with_record_key(LOGS, frame)
    repeated = repeated_keys(keyed)
    rows = survivors(LOGS, keyed, repeated, with_repeated_key(keyed, repeated)).select(
        "user_id", "device", "location", "_extra", "_file_id"
    )
    return sorted((tuple(row) for row in rows.collect()), key=repr)


def test_the_record_that_says_more_stays(spark: SparkSession) -> None:
    assert kept(
        spark,
        [
            record("device first", None, "Bonn"),
            record("device first", "Web", None),
            record("both", "Web", None),
            record("both", "Android", "Bonn"),
            record("greater text", "Android", "Bonn"),
            record("greater text", "Web", "Bonn"),
            record("extra", "Web", "Bonn"),
            record("extra", "Web", "Bonn", extra="{}"),
            record("file", "Web", "Bonn", file=7),
            record("file", "Web", "Bonn", file=-7),
            record("alone", None, None),
        ],
    ) == [
        ("alone", None, None, None, 1),
        ("both", "Android", "Bonn", None, 1),
        ("device first", "Web", None, None, 1),
        ("extra", "Web", "Bonn", "{}", 1),
        ("file", "Web", "Bonn", None, -7),
        ("greater text", "Web", "Bonn", None, 1),
    ]


some = st.sampled_from([None, "a", "b"])
drawn = st.builds(record, st.sampled_from("xyz"), some, some, st.integers(1, 3), some)


@settings(few, max_examples=3)
@given(st.lists(drawn, min_size=10, max_size=30), st.randoms(use_true_random=False))
def test_neither_order_nor_partitions_matter(
    spark: SparkSession, records: list[Record], chance: random.Random
) -> None:
    first = kept(spark, records)
    assert kept(spark, chance.sample(records, len(records)), partitions=3) == first
    assert [row[0] for row in first] == sorted({row[0] for row in records})


def test_keys_that_share_only_their_first_half_stay_apart(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [record("ann", "a", "b"), record("bob", "a", "b"), record("bob", "c", "b")], SCHEMA
    )
    keyed = frame.withColumns({KEY[0]: F.lit(1), KEY[1]: F.when(F.col("user_id") == "ann", 1).otherwise(2)})
    repeated = repeated_keys(keyed)
    candidates = with_repeated_key(keyed, repeated)
    rows = survivors(LOGS, keyed, repeated, candidates).select("user_id", "device").collect()
    assert sorted(tuple(row) for row in rows) == [("ann", "a"), ("bob", "c")]


def test_two_natural_keys_with_one_hash_stop_the_job(spark: SparkSession) -> None:
    frame = spark.createDataFrame([record("ann", "a", "b"), record("bob", "a", "b")], SCHEMA)
    collided = frame.withColumns({name: F.lit(1) for name in KEY})
    with pytest.raises(KeyCollision, match=r"logs: the records .*ann.* and .*bob.* have the same key"):
        require_same_natural_key(LOGS, with_repeated_key(collided, repeated_keys(collided)))


def test_rejected_records_and_those_with_a_repeated_key_are_picked_out_each_once(spark: SparkSession) -> None:
    records = [
        ("ann", 1, ""),
        ("ann", 1, ""),
        ("bob", 2, ""),
        ("cy", 1, "at_invalid"),
        ("di", 3, "at_invalid"),
    ]
    keyed = spark.createDataFrame(records, f"user_id string, {KEY[0]} bigint, _reasons string")
    picked = rejected_or_repeated(keyed, repeated_keys(keyed.where("_reasons = ''")))
    assert sorted(row.user_id for row in picked.collect()) == ["ann", "ann", "cy", "di"]
