"""Records as delivered to typed columns, and the reasons why a record cannot be accepted."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.feeds.declaration import Feed, Field
from jobs.quality.rules import NOW, Action, Bound, Kind, Rule
from jobs.transforms.parsing import blank_to_null

BOOKKEEPING = ("_extra", "_file_id", "_delivered_at")


def checked(feed: Feed, records: DataFrame) -> DataFrame:
    """Parse and check every field of every record.

    In: the rows of `jobs.lake.raw.read`. Out: the feed's columns, typed; `_extra`, `_file_id`, `_delivered_at`;
    `_reasons` string, the names of all rules that the record breaks, joined by commas, empty when it is accepted;
    `_record` string, the record as it came, only where it is rejected. Grain: one row per record.
    """
    trimmed = records.withColumns({field.name: blank_to_null(F.col(field.name)) for field in feed.fields})
    # In steps, each a projection of its own: written as one expression, a field would be parsed once per rule.
    parsed = trimmed.withColumns(
        {_parsed(field): field.parse(F.col(field.name)).cast(field.type) for field in feed.fields}
    )
    declared = feed.rules_of_records(Action.REJECT)
    broken_rules = [
        reason
        for field in feed.fields
        for reason in _reasons(field, [rule for rule in declared if rule.columns == (field.name,)])
    ]
    reasons = F.coalesce("_problem", F.concat_ws(",", *broken_rules))
    judged = parsed.withColumn("_reasons", reasons)
    frame = judged.select(
        *(F.col(_parsed(field)).alias(field.name) for field in feed.fields),
        *BOOKKEEPING,
        "_reasons",
        F.when(F.col("_reasons") != "", F.make_valid_utf8("_record")).alias("_record"),
    )
    return frame.withColumns({name: F.expr(sql) for name, sql in feed.derived.items()})


def _parsed(field: Field) -> str:
    return f"_parsed_{field.name}"


def _reasons(field: Field, declared: Sequence[Rule]) -> list[Column]:
    raw, parsed = F.col(field.name), F.col(_parsed(field))
    rules = [F.when(raw.isNotNull() & parsed.isNull(), f"{field.name}_invalid")]
    if field.required:
        rules.append(F.when(raw.isNull(), f"{field.name}_missing"))
    if field.max_length is not None:
        # No text has more characters than bytes, and only its bytes are counted already.
        is_too_long = (F.octet_length(parsed) > field.max_length) & (F.length(parsed) > field.max_length)
        rules.append(F.when(is_too_long, f"{field.name}_too_long"))
    # PostgreSQL cannot store the character NUL, and no text needs it.
    if field.type.typeName() == "string":
        rules.append(F.when(F.contains(parsed, F.lit("\0")), f"{field.name}_has_nul"))
    rules += [F.when(broken(rule, parsed), rule.name) for rule in declared]
    return rules


def broken(rule: Rule, value: Column) -> Column:
    """A value → whether it breaks a rule of OF_A_RECORD; never null. What is missing breaks `required` only."""
    match rule.kind:
        case Kind.REQUIRED:
            return value.isNull()
        case Kind.PATTERN:
            breaks = ~value.rlike(rule.pattern or "")
        case Kind.SET:
            breaks = ~value.isin(*rule.values)
        case _:
            low = F.lit(False) if rule.low is None else value < _bound(rule.low)
            breaks = low if rule.high is None else low | (value > _bound(rule.high))
    return F.coalesce(breaks, F.lit(False))


def _bound(bound: Bound) -> Column:
    return F.current_timestamp() if bound == NOW else F.lit(bound)
