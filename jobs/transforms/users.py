"""Staged versions of users → users_history and users."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.feeds.users import ATTRIBUTES
from jobs.transforms.keys import hash_id


def users_history(versions: DataFrame) -> DataFrame:
    """Staged versions of users → users_history, see `sql/users_history.sql`.

    versions: all that was staged of each user in it. Grain: one row per user and version.

    Versions follow one another by the date that they have, then by their first delivery, then by their content. Of
    several with one date, the first is valid from that date, and one that differs from the moment it was delivered,
    but no longer than until the next date. A version that says what the one before it said is not a new one.
    """
    in_time = Window.partitionBy("email").orderBy("changed_at", "delivered_at", "content_id")
    from_here_on = in_time.rowsBetween(Window.currentRow, Window.unboundedFollowing)
    same_date = F.lag("changed_at").over(in_time) == F.col("changed_at")
    since = F.when(same_date, F.greatest("changed_at", "delivered_at")).otherwise(F.col("changed_at"))
    dated = (
        versions.withColumn("_since", since)
        .withColumn("valid_from", F.min("_since").over(from_here_on))
        .withColumn("_next", F.lead("valid_from").over(in_time))
        .where(F.col("_next").isNull() | (F.col("_next") > F.col("valid_from")))
    )
    changes = dated.withColumn("_before", F.lag("content_id").over(in_time)).where(
        F.col("_before").isNull() | (F.col("_before") != F.col("content_id"))
    )
    return changes.withColumn("valid_to", F.lead("valid_from").over(in_time)).select(
        hash_id(F.col("email")).alias("user_id"),
        F.row_number().over(in_time).cast("bigint").alias("version"),
        "valid_from",
        "valid_to",
        F.col("valid_to").isNull().alias("is_current"),
        "email",
        *ATTRIBUTES,
    )


def users(history: DataFrame) -> DataFrame:
    """users_history → users, see `sql/users.sql`. Grain: one row per user. A dropped attribute is left out."""
    return history.where("is_current").select(
        F.col("user_id").alias("id"),
        "email",
        *(name for name in ATTRIBUTES if name in history.columns),
        F.col("valid_from").alias("updated_at"),
        (F.col("version") > 1).alias("updated"),
    )
