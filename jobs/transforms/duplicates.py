"""Which of several records with one key stays. The same input gives the same survivor, whatever the partitioning."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.errors import KeyCollision
from jobs.feeds.declaration import Feed
from jobs.transforms.keys import KEY, record_key

HALF_KEY = KEY[0]


def with_record_key(feed: Feed, records: DataFrame) -> DataFrame:
    """Checked records (see `jobs.transforms.checks`) → the same with `_key_hi` and `_key_lo`, hash of the natural key.

    For a feed without a key of its own, the occurrence number of equal records within a file is part of it. Rejected
    records, whose unreadable fields are null, are counted apart: they must not move an accepted record's number.
    """
    required = {field.name for field in feed.fields if field.required}
    columns = [F.col(name) for name in feed.key]
    nullable = [F.col(name) for name in feed.key if name not in required]
    keyed = records.withColumns(record_key(columns, nullable))
    if not feed.counts_repeats:
        return keyed
    occurrence = F.row_number().over(
        Window.partitionBy("_file_id", F.col("_reasons") == "", *KEY).orderBy(
            F.col("_extra").asc_nulls_first()
        )
    )
    return (
        keyed.withColumn("_occurrence", occurrence)
        .withColumns(record_key([*(F.col(name) for name in KEY), F.col("_occurrence")]))
        .drop("_occurrence")
    )


def repeated_keys(keyed: DataFrame) -> DataFrame:
    """The first halves of keys that more than one record has.

    One number is counted and looked up faster than two. Keys that share only their first half are told apart where
    records are ranked.
    """
    return keyed.groupBy(HALF_KEY).count().where("count > 1").select(HALF_KEY)


def with_repeated_key(keyed: DataFrame, repeated: DataFrame) -> DataFrame:
    """The records whose key is one of those repeated."""
    return keyed.join(repeated, HALF_KEY, "left_semi")


def rejected_or_repeated(keyed: DataFrame, repeated: DataFrame) -> DataFrame:
    """The records that are rejected (`_reasons`), and those whose key is one of those repeated."""
    marked = repeated.withColumn("_is_repeated", F.lit(True))
    return keyed.join(marked, HALF_KEY, "left").where("_reasons <> '' OR _is_repeated").drop("_is_repeated")


def survivors(feed: Feed, keyed: DataFrame, repeated: DataFrame, candidates: DataFrame) -> DataFrame:
    """Keep one record per key: the greatest by `preference`. Records whose key is not repeated pass untouched.

    candidates: those with a repeated key.
    """
    once = keyed.join(repeated, HALF_KEY, "left_anti")
    order = Window.partitionBy(*KEY).orderBy(preference(feed).desc(), F.col("_file_id"))
    ranked = candidates.withColumn("_rank", F.row_number().over(order))
    return once.unionByName(ranked.where("_rank = 1").drop("_rank"))


def preference(feed: Feed, prefix: str = "") -> Column:
    """What decides between records with one key, greatest first: the feed's own order, then the content.

    prefix: an alias such as `s.` before every column.
    """
    own = [_prefixed(feed, sql, prefix) for sql in feed.prefer]
    content = [F.col(f"{prefix}{name}") for name in (*feed.columns, "_extra")]
    return F.struct(*own, *content)


def _prefixed(feed: Feed, sql: str, prefix: str) -> Column:
    if not prefix:
        return F.expr(sql)
    names = (*feed.columns, "_delivered_at")
    return F.expr(" ".join(prefix + word if word in names else word for word in sql.split(" ")))


def content_differs(feed: Feed, left: str, right: str) -> Column:
    """Whether two records with one key say different things; prefixes as in `preference`."""
    pairs = [~F.col(f"{left}{n}").eqNullSafe(F.col(f"{right}{n}")) for n in (*feed.columns, "_extra")]
    return reduce(lambda a, b: a | b, pairs)


def require_same_natural_key(feed: Feed, candidates: DataFrame) -> None:
    """Stop with KeyCollision if records with different natural keys have the same 128-bit key."""
    natural = F.to_json(F.struct(*feed.key))
    clash = (
        candidates.groupBy(*KEY)
        .agg(F.min(natural).alias("a"), F.max(natural).alias("b"))
        .where("a <> b")
        .first()
    )
    if clash:
        raise KeyCollision(
            f"{feed.name}: the records {clash.a} and {clash.b} have the same key; nothing was written"
        )
