"""Records as delivered to typed columns, and the reasons why a record cannot be accepted."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.feeds.declaration import Feed, Field
from jobs.transforms.parsing import blank_to_null

BOOKKEEPING = ("_extra", "_file_id", "_delivered_at")


def checked(feed: Feed, records: DataFrame) -> DataFrame:
    """Parse and check every field of every record.

    In: the rows of `jobs.lake.raw.read`. Out: the feed's columns, typed; `_extra`, `_file_id`, `_delivered_at`;
    `_reasons` string, the names of all rules that the record breaks, joined by commas, empty when it is accepted;
    `_record` string, the record as it came, only where it is rejected. Grain: one row per record.
    """
    parsed = {field.name: field.parse(blank_to_null(F.col(field.name))) for field in feed.fields}
    broken_rules = [rule for field in feed.fields for rule in _broken_rules(field, parsed[field.name])]
    reasons = F.coalesce("_problem", F.concat_ws(",", *broken_rules))
    frame = records.select(
        *(parsed[field.name].cast(field.type).alias(field.name) for field in feed.fields),
        *BOOKKEEPING,
        reasons.alias("_reasons"),
        F.when(reasons != "", F.col("_record")).alias("_record"),
    )
    return frame.withColumns({name: F.expr(sql) for name, sql in feed.derived.items()})


def _broken_rules(field: Field, parsed: Column) -> list[Column]:
    raw = blank_to_null(F.col(field.name))
    rules = [F.when(raw.isNotNull() & parsed.isNull(), f"{field.name}_invalid")]
    if field.required:
        rules.append(F.when(raw.isNull(), f"{field.name}_missing"))
    if field.max_length is not None:
        rules.append(F.when(F.length(parsed) > field.max_length, f"{field.name}_too_long"))
    # PostgreSQL cannot store the character NUL, and no text needs it.
    if field.type.typeName() == "string":
        rules.append(F.when(F.contains(parsed, F.lit("\0")), f"{field.name}_has_nul"))
    return rules
