"""Staged events → events: who keeps an id that several events have, and the company behind each address."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.transforms.companies import with_company
from jobs.transforms.keys import KEY, time_ordered_id


def events(staged: DataFrame) -> DataFrame:
    """Staged events, all that have an id → the columns of `sql/events.sql`, and the staged row's key.

    Grain: one row per staged event. The earliest of several with one id keeps it, of equally early ones the one with
    the smaller key; each other gets a UUID computed from its time and its key, and with that from its whole content.
    So the same events have the same ids, whichever was delivered first.
    """
    # Two numbers a row, counted without sorting; only the few ids that repeat are looked at closer.
    id_hash = F.xxhash64("id")
    repeated = staged.groupBy(id_hash.alias("_id_hash")).count().where("count > 1").select("_id_hash")
    of_repeated = staged.select("id", "timestamp", *KEY).withColumn("_id_hash", id_hash)
    keepers = (
        of_repeated.join(repeated, "_id_hash", "left_semi")
        .groupBy("id")
        .agg(F.min(F.struct("timestamp", *KEY)).alias("_keeper"))
    )
    is_clash = F.coalesce(F.struct("timestamp", *KEY) != F.col("_keeper"), F.lit(False))
    own_id = time_ordered_id(F.col("timestamp"), *(F.col(name) for name in KEY))
    return with_company(
        staged.join(keepers, "id", "left").select(
            F.when(is_clash, own_id).otherwise(F.col("id")).alias("id"),
            "timestamp",
            "email",
            "country",
            "uri",
            "action",
            "tags",
            F.col("id").alias("source_id"),
            is_clash.alias("is_clash"),
            *KEY,
        )
    )
