"""JSON texts to fields. What the feed does not know is kept as JSON.

Arrow's reader takes thousands of texts at a time, in a third of the time that Spark's `from_json` needs for one by one
(docs/decisions/speed.md). It reads such a block as a whole or not at all: a member that it was not told of, one that
comes twice, or one that is no text ends it with an error. So what it does read holds known members only, each once,
and only texts. Of a block that it does not read, it is given the halves, and so on; the few texts that are left are
taken apart by Python's own reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from json.decoder import JSONDecoder
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.functions import arrow_udf

from jobs.feeds.mapping import SourceNames

# Fewer texts are not halved once more.
SMALLEST_BLOCK = 64
STRING_OR_SPACE = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\n\r]+')
# A JSON value from a place on, and where it ends.
SCAN: Any = getattr(JSONDecoder(), "scan_once")  # noqa: B009 - no type is declared for it


def json_records(records: DataFrame, names: SourceNames) -> DataFrame:
    """`value`, the text of one JSON object, and any other columns → fields, and the other columns.

    names: field → the names that may fill it; a dotted one leads into nested objects. Gives each field as string;
    `_extra` string, unknown members as JSON with dotted names; `_problem` string, why the text could not be taken
    apart: invalid_utf8, malformed_json, <object>_not_an_object, repeated_name; `_record` string, the text, be it valid
    UTF-8 or not. Grain: one row per text.
    """
    schema = T.StructType([T.StructField(name, T.StringType()) for name in (*names, "_extra", "_problem")])
    # Only the texts go to Python, and only what is found in them comes back. The reader's type hints say what kind of
    # function it is, which PySpark's declarations leave out.
    take_apart: Any = arrow_udf(_reader(names), schema)  # type: ignore[call-overload]
    found = take_apart("value").alias("_found")
    others = [name for name in records.columns if name != "value"]
    return records.select(found, F.col("value").alias("_record"), *others).select(
        "_found.*", "_record", *others
    )


@dataclass
class Record:
    """One text, taken apart.

    values: by dotted name, of members that are known. extra: dotted name and value of those that are not; a name with
    a dot of its own may be there twice.
    """

    values: dict[str, str | None] = field(default_factory=dict)
    extra: list[tuple[str, str | None]] = field(default_factory=list)
    problem: str | None = None


def levels_of(names: SourceNames) -> dict[str, list[str]]:
    """Every object that is looked into, the outermost ("") first → the names that are looked up in it."""
    levels: dict[str, list[str]] = {"": []}
    for path in _paths(names):
        parts = path.split(".")
        for depth in range(len(parts)):
            members = levels.setdefault(".".join(parts[:depth]), [])
            if parts[depth] not in members:
                members.append(parts[depth])
    return dict(sorted(levels.items(), key=lambda item: item[0].count(".") + bool(item[0])))


def _paths(names: SourceNames) -> list[str]:
    return sorted({source for sources in names.values() for source in sources})


def _reader(names: SourceNames) -> Callable[[pa.Array], pa.Array]:
    """What Python does with the texts of one of Spark's Arrow batches: a struct for each."""
    levels, paths = levels_of(names), _paths(names)
    # A name that is looked up both as a value and as an object is of no one type.
    kind = None if any(path in levels for path in paths) else pa.schema(list(_struct(levels, "")))

    def read(texts: pa.Array) -> pa.Array:
        parts = _parts(texts, kind, levels, paths)
        *values, extra, problem = (pa.concat_arrays(pieces) for pieces in zip(*parts, strict=True))
        found = dict(zip(paths, values, strict=True))
        fields = [pc.coalesce(*(found[source] for source in sources)) for sources in names.values()]
        return pa.StructArray.from_arrays([*fields, extra, problem], [*names, "_extra", "_problem"])

    return read


def _parts(
    texts: pa.Array, kind: pa.Schema | None, levels: Mapping[str, list[str]], paths: list[str]
) -> Iterator[list[pa.Array]]:
    """Of one part of the texts after the other: the values of each path, `_extra`, `_problem`."""
    table = read_block(texts, kind) if kind else None
    if table is not None:
        struct = table.to_struct_array().combine_chunks()
        nothing = pa.nulls(len(texts), pa.string())
        yield [*(pc.struct_field(struct, path.split(".")) for path in paths), nothing, nothing]
    elif kind is None or len(texts) <= SMALLEST_BLOCK:
        records = [read_record(text, levels, kind is None) for text in texts.cast(pa.binary()).to_pylist()]
        extras = [
            _as_json(record.extra) if record.extra and not record.problem else None for record in records
        ]
        columns = [[record.values.get(path) for record in records] for path in paths]
        columns += [extras, [record.problem for record in records]]
        yield [pa.array(column, pa.string()) for column in columns]
    else:
        half = len(texts) // 2
        yield from _parts(texts[:half], kind, levels, paths)
        yield from _parts(texts[half:], kind, levels, paths)


def read_block(texts: pa.Array, kind: pa.Schema) -> pa.Table | None:
    """The objects that the texts hold, a row for each; None where one of them is anything else."""
    # Arrow's reader takes any bytes for UTF-8, and texts that are no objects may end the process.
    if not pc.all(pc.and_(pc.starts_with(texts, "{"), pc.ends_with(texts, "}"))).as_py():
        return None
    try:
        texts.validate(full=True)
        lines = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), "\n")[0].as_buffer()
        table = pyarrow.json.read_json(
            pa.BufferReader(lines),
            pyarrow.json.ReadOptions(use_threads=False, block_size=lines.size + 1),
            pyarrow.json.ParseOptions(
                explicit_schema=kind, newlines_in_values=False, unexpected_field_behavior="error"
            ),
        )
    except pa.ArrowInvalid:
        return None
    # Two objects in one line would be two rows.
    return table if table.num_rows == len(texts) else None


class _Object(list[tuple[str, Any]]):
    """The members of a JSON object, repeated names included."""


def read_record(raw: bytes, levels: Mapping[str, list[str]], with_objects: bool = False) -> Record:
    """One text, whatever it holds. with_objects: objects that are looked into are given as values, too."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return Record(problem="invalid_utf8")
    try:
        # Numbers as they stand there.
        whole = json.loads(
            text, object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        whole = None
    if not isinstance(whole, _Object):
        return Record(problem="malformed_json")
    record, objects = Record(), {"": whole}
    ways: dict[str, tuple[int, ...]] = {}
    for level, known in levels.items():
        members = objects.get(level, _Object())
        if len({name for name, _ in members}) < len(members):
            # Of a name that comes twice, one value would be lost.
            record.problem = record.problem or "repeated_name"
        for number, (name, found) in enumerate(members):
            name, way = _storable(name), (*ways.get(level, ()), number)
            path = f"{level}.{name}" if level else name
            is_known = name in known
            if is_known and path in levels and isinstance(found, _Object):
                objects[path], ways[path] = found, way
                if not with_objects:
                    continue
            value = _text_at(text, way) if isinstance(found, list) else _text(found)
            if not is_known:
                record.extra.append((path, value))
                continue
            record.values[path] = value
            if path in levels and value is not None and not isinstance(found, _Object):
                record.problem = record.problem or f"{path}_not_an_object"
    return record


def _text(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
    return _storable(value)


def _text_at(text: str, way: Iterable[int]) -> str:
    """An object or array inside a valid JSON object as it stands there, but for white space: the same is the same text.

    way: the number of the member to go to, from the outermost object on.
    """
    begin, end = _past_space(text, 0), len(text)
    for number in way:
        begin, end = next(islice(_places(text, begin), number, None))
    return _storable(STRING_OR_SPACE.sub(r"\1", text[begin:end]))


def _places(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Where the value of each member of the object that begins there begins and ends."""
    at = _past_space(text, start + 1)
    while text[at] != "}":
        _, at = SCAN(text, at)
        begin = _past_space(text, _past_space(text, at) + 1)
        _, end = SCAN(text, begin)
        yield begin, end
        at = _past_space(text, end)
        if text[at] == ",":
            at = _past_space(text, at + 1)


def _past_space(text: str, at: int) -> int:
    while text[at] in " \t\n\r":
        at += 1
    return at


def _storable(text: str) -> str:
    """The same text; half a surrogate pair, which has no place in UTF-8, becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _as_json(members: Iterable[tuple[str, str | None]]) -> str:
    texts = (":".join(json.dumps(part, ensure_ascii=False) for part in member) for member in members)
    return "{" + ",".join(texts) + "}"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _struct(levels: Mapping[str, list[str]], level: str) -> Iterator[pa.Field]:
    for member in levels[level]:
        path = f"{level}.{member}".lstrip(".")
        yield pa.field(member, pa.struct(list(_struct(levels, path))) if path in levels else pa.string())
