"""JSON texts to fields. What the feed does not know is kept as JSON.

Most records hold known members only, each once, none of them null. One pass over the text reads them and proves it by
counting. The others are taken apart level by level, in up to three passes, which takes four times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add, or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.feeds.mapping import SourceNames

REST = "_rest"
# What Spark's reader lets pass and `json_object_keys` does not.
STRICT = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "false"}


def pair_of(text: Column, kind: T.DataType, options: dict[str, str] | None = None) -> Column:
    """JSON text → array of the value, of that type, and a null; `first_of_pair` takes the value out again.

    Alone, what follows a value would be passed over in silence; as the first of two elements, it makes them malformed.
    The two steps have to be columns of their own, or Spark parses the text twice.
    """
    return F.from_json(F.concat(F.lit("["), text, F.lit(",null]")), T.ArrayType(kind), options)


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
    frame = _read_whole(records, names, levels)
    problem = F.when(~F.is_valid_utf8("value"), "invalid_utf8")
    for level, members in levels.items():
        text = _value(level) if level else F.col(REST)
        kind = T.StructType([T.StructField(member, T.StringType()) for member in members])
        frame = frame.withColumns(
            {
                _object(level): F.from_json(text, kind) if level else pair_of(text, kind, STRICT),
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
            malformed = F.col(REST).isNotNull() & (keys.isNull() | F.col(_object(level)).isNull())
            problem = problem.when(malformed, "malformed_json")
        # Of a name that comes twice in an object, one value would be lost.
        problem = problem.when(~F.col(_all_known(level)) & _repeats(keys), "repeated_name")
    frame = frame.withColumn("_problem", problem)
    for level, members in levels.items():
        text = _value(level) if level else F.col(REST)
        has_unknown = F.col("_problem").isNull() & ~F.col(_all_known(level))
        frame = frame.withColumn(_extra(level), F.when(has_unknown, _unknown(level, text, members)))
    fields = [
        F.coalesce(*(value for source in sources for value in (_whole(source), _value(source)))).alias(field)
        for field, sources in names.items()
    ]
    anything = reduce(lambda a, b: a | b, (F.col(_extra(level)).isNotNull() for level in levels))
    merged = F.concat(F.lit("{"), F.concat_ws(",", *(F.col(_extra(level)) for level in levels)), F.lit("}"))
    return frame.select(
        *fields,
        F.when(anything, merged).alias("_extra"),
        F.make_valid_utf8("value").alias("_record"),
        "_problem",
        "_address",
    )


def _read_whole(records: DataFrame, names: SourceNames, levels: dict[str, list[str]]) -> DataFrame:
    """Add `_whole`, the known members of a record that holds nothing else, and `_rest`, the text of any other record.

    Every member of a JSON text shows as `":`, provided that no quote is followed by white space. So where these are as
    many as the values that were found under known names, no member is unknown, null or repeated.
    """
    value = F.col("value")
    if any(path in levels for sources in names.values() for path in sources):
        # A name is looked up both as a value and as an object.
        return records.withColumns({"_whole": F.lit(None), REST: value})
    kind = _nested(levels, "")
    frame = records.withColumn("_pair", pair_of(value, kind, STRICT))
    frame = frame.withColumn("_whole", first_of_pair(F.col("_pair")))
    markers = F.octet_length("value") - F.octet_length(F.replace(value, F.lit('":')))
    found = reduce(add, (F.col(f"_whole.{path}").isNotNull().cast("int") for path in _paths(kind)))
    # Inside of strings, JSON has no tabs and line ends as they are.
    spaced = reduce(or_, (F.contains(value, F.lit(text)) for text in ('" ', "\t", "\r", "\n")))
    proven = F.col("_whole").isNotNull() & (markers == 2 * found) & ~spaced
    frame = frame.withColumn("_proven", F.coalesce(proven, F.lit(False)))
    return frame.withColumns(
        {"_whole": F.when(F.col("_proven"), F.col("_whole")), REST: F.when(~F.col("_proven"), value)}
    )


def _nested(levels: dict[str, list[str]], level: str) -> T.StructType:
    paths = {member: f"{level}.{member}".lstrip(".") for member in levels[level]}
    return T.StructType(
        [
            T.StructField(member, _nested(levels, path) if path in levels else T.StringType())
            for member, path in paths.items()
        ]
    )


def _paths(kind: T.StructType, prefix: str = "") -> Iterator[str]:
    for field in kind:
        yield f"{prefix}{field.name}"
        if isinstance(field.dataType, T.StructType):
            yield from _paths(field.dataType, f"{prefix}{field.name}.")


def _whole(path: str) -> Column:
    return F.col(f"_whole.{path}")


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
