"""JSON texts to fields. An object is taken apart level by level; what the feed does not know is kept as JSON.

Only records that hold something unknown are parsed a second time, into a map: a struct with the known names is
parsed in a quarter of the time.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.feeds.mapping import SourceNames


def pair_of(text: Column, kind: T.DataType) -> Column:
    """JSON text → array of the value, of that type, and a null; `first_of_pair` takes the value out again.

    Alone, what follows a value would be passed over in silence; as the first of two elements, it makes them malformed.
    The two steps have to be columns of their own, or Spark parses the text twice.
    """
    return F.from_json(F.concat(F.lit("["), text, F.lit(",null]")), T.ArrayType(kind))


def first_of_pair(pair: Column) -> Column:
    """The value; null when the text was of another type, malformed, or followed by anything."""
    return F.when(F.size(pair) == 2, pair[0])


def json_records(records: DataFrame, names: SourceNames) -> DataFrame:
    """`value`, the text of one JSON object, and `_address` → fields.

    names: field → the names that may fill it; a dotted one leads into nested objects. Gives each field as string;
    `_extra` string, unknown members as JSON with dotted names; `_record` string, the text; `_problem` string, why the
    text could not be taken apart: invalid_utf8, malformed_json, <object>_not_an_object, repeated_name; `_address`.
    Grain: one row per text.
    """
    levels = _levels(names)
    frame = records
    problem = F.when(~F.is_valid_utf8("value"), "invalid_utf8")
    for level, members in levels.items():
        text = _value(level) if level else F.col("value")
        kind = T.StructType([T.StructField(member, T.StringType()) for member in members])
        frame = frame.withColumns(
            {
                _object(level): F.from_json(text, kind) if level else pair_of(text, kind),
                _keys(level): F.json_object_keys(text),
            }
        )
        keys = F.col(_keys(level))
        known = F.array(*(F.lit(member) for member in members))
        all_known = F.coalesce(F.size(F.array_intersect(keys, known)) == F.size(keys), F.lit(True))
        frame = frame.withColumn(_all_known(level), all_known)
        if level:
            problem = problem.when(text.isNotNull() & keys.isNull(), f"{level}_not_an_object")
        else:
            frame = frame.withColumn(_object(level), first_of_pair(F.col(_object(level))))
            problem = problem.when(keys.isNull() | F.col(_object(level)).isNull(), "malformed_json")
        # Of a name that comes twice in an object, one value would be lost.
        problem = problem.when(~F.col(_all_known(level)) & _repeats(keys), "repeated_name")
    frame = frame.withColumn("_problem", problem)
    for level, members in levels.items():
        text = _value(level) if level else F.col("value")
        has_unknown = F.col("_problem").isNull() & ~F.col(_all_known(level))
        frame = frame.withColumn(_extra(level), F.when(has_unknown, _unknown(level, text, members)))
    fields = [F.coalesce(*(_value(s) for s in sources)).alias(field) for field, sources in names.items()]
    anything = reduce(lambda a, b: a | b, (F.col(_extra(level)).isNotNull() for level in levels))
    merged = F.concat(F.lit("{"), F.concat_ws(",", *(F.col(_extra(level)) for level in levels)), F.lit("}"))
    return frame.select(
        *fields,
        F.when(anything, merged).alias("_extra"),
        F.make_valid_utf8("value").alias("_record"),
        "_problem",
        "_address",
    )


def _levels(names: SourceNames) -> dict[str, list[str]]:
    """Every object that is looked into, the outermost ("") first → the names that are looked up in it."""
    levels: dict[str, list[str]] = {"": []}
    for path in sorted(source for sources in names.values() for source in sources):
        parts = path.split(".")
        for depth in range(len(parts)):
            members = levels.setdefault(".".join(parts[:depth]), [])
            if parts[depth] not in members:
                members.append(parts[depth])
    return dict(sorted(levels.items(), key=lambda item: item[0].count(".") + bool(item[0])))


def _value(path: str) -> Column:
    level, _, name = path.rpartition(".")
    return F.col(_object(level)).getField(name)


def _object(level: str) -> str:
    return f"_object_{level.replace('.', '_')}"


def _keys(level: str) -> str:
    return f"_keys_{level.replace('.', '_')}"


def _extra(level: str) -> str:
    return f"_extra_{level.replace('.', '_')}"


def _all_known(level: str) -> str:
    return f"_all_known_{level.replace('.', '_')}"


def _repeats(keys: Column) -> Column:
    return F.size(keys) > F.size(F.array_distinct(keys))


def _unknown(level: str, text: Column, members: list[str]) -> Column:
    """The members that are not among the known, as JSON without its braces."""
    entries = F.map_filter(F.from_json(text, "map<string,string>"), lambda name, _: ~name.isin(members))
    if level:
        entries = F.transform_keys(entries, lambda name, _: F.concat(F.lit(f"{level}."), name))
    return F.regexp_replace(F.to_json(entries), r"^\{|\}$", "")
