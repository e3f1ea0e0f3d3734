"""Staged logs → dimensions and facts. Keys are computed, so a fact needs no look-up in its dimensions."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.transforms.keys import KEY, surrogate_key, time_ordered_id


@dataclass(frozen=True)
class Dimension:
    """A dimension: its table, its columns, and the column of staged logs that holds the business key."""

    table: str
    key: str
    business_key: str
    source: str


DIMENSIONS = (
    Dimension("dim_users", "user_key", "user_id", "user_id"),
    Dimension("dim_actions", "action_key", "action_type", "action_type"),
    Dimension("dim_devices", "device_key", "device_type", "device"),
    Dimension("dim_locations", "location_key", "location_name", "location"),
)


def dimension_members(dimension: Dimension, logs: DataFrame) -> DataFrame:
    """Staged logs → (key bigint, business key string). Grain: one row per business key that occurs."""
    return (
        logs.select(F.col(dimension.source).alias(dimension.business_key))
        .where(F.col(dimension.business_key).isNotNull())
        .distinct()
        .select(surrogate_key(F.col(dimension.business_key)).alias(dimension.key), dimension.business_key)
    )


def user_actions(logs: DataFrame) -> DataFrame:
    """Staged logs → fact_user_actions: action_event_id string (UUID), four keys bigint, timestamp.

    Grain: one row per staged log record. A `_deleted` column passes through.
    """
    return logs.select(
        time_ordered_id(F.col("timestamp"), *(F.col(name) for name in KEY)).alias("action_event_id"),
        *(surrogate_key(F.col(d.source)).alias(d.key) for d in DIMENSIONS),
        "timestamp",
        *(["_deleted"] if "_deleted" in logs.columns else []),
    )
