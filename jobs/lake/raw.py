"""Raw files to records: one row per record as it was delivered, every field still a text.

`inspect` looks at the first bytes of a file on the driver and decides how it is read, or refuses it; `read` builds
one DataFrame over any number of inspected files.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256
from urllib.parse import unquote

from botocore.exceptions import BotoCoreError, ClientError
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.errors import FileRefused
from jobs.feeds.declaration import Feed, RawFormat
from jobs.feeds.mapping import SourceNames, declared_sources
from jobs.lake.objects import ObjectStore, RawFile
from jobs.spark import local_rows
from jobs.transforms.json_arrays import array_elements, array_problem
from jobs.transforms.json_records import json_records

PEEK_BYTES = 64 * 1024
# An array is split in memory by the one task that reads it; JSON lines have no such limit.
MAX_ARRAY_BYTES = 512 * 1024 * 1024
MAX_CHARS_PER_COLUMN = 10_000_000
NO_LIMIT = -1
MAX_COLUMNS, MANY_COLUMNS = 20_480, 1_000_000
# In a path that Spark loads, these would be patterns; in a file's name they are letters.
GLOB_CHARACTER = re.compile(r"[][{}*?\\]")
SECRET_NAME = re.compile(r"passw|passphrase|pwd|secret|token|credential", re.IGNORECASE)
MASK = "***"
# How files begin that are no text, whatever they are called; of Parquet, with the byte that comes next in each.
UNREAD_FORMS = {
    b"PK\x03\x04": "an Excel workbook or another ZIP archive; deliver its content as text",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls); save it as CSV in UTF-8",
    b"PAR1\x15": "Parquet; deliver it as text",
    b"BZh91AY": "packed by bzip2; deliver it plain or as .gz",
    b"\xfd7zXZ": "packed by xz; deliver it plain or as .gz",
    b"\x28\xb5\x2f\xfd": "packed by zstd; deliver it plain or as .gz",
    b"7z\xbc\xaf": "packed by 7-Zip; deliver it plain or as .gz",
}
FORM_BYTES = max(map(len, UNREAD_FORMS))
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
COMPRESSED = (".bz2", ".deflate", ".zst", ".zip", ".xz", ".lz4", ".snappy", ".7z", ".tar")


@dataclass(frozen=True)
class InspectedFile:
    """A raw file and how it is to be read.

    header: a CSV file's column names; empty for JSON. line_end: of a CSV file whose header ends otherwise; where it is
    None, Spark takes the first end that it sees for that of all lines.
    """

    file: RawFile
    layout: str  # json_lines, json_array, csv
    names: SourceNames
    header: tuple[str, ...] = ()
    line_end: str | None = None

    @property
    def file_id(self) -> int:
        return file_id(self.file.path)


def file_id(path: str) -> int:
    """A 64-bit number that stands for a file's path, the same in every lake that holds the path."""
    return int.from_bytes(sha256(path.encode()).digest()[:8], "big", signed=True)


def is_compressed(path: str) -> bool:
    """Whether a file's name tells of a compression that is not read; as for Hadoop, in letters of either case."""
    return path.lower().endswith(COMPRESSED)


def unread_form(head: bytes) -> str | None:
    """Why a file that begins so, decompressed, is not the text that its name says; None where it may be."""
    if head.startswith(b"\x1f\x8b"):
        return "holds gzip data; its name must end in .gz, and be compressed only once"
    # Without a mark, too: no header and no JSON begins with a NUL, or has one behind its first character.
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:2]:
        return "the file is UTF-16; deliver it as UTF-8"
    return next(
        (f"the file is {form}" for begin, form in UNREAD_FORMS.items() if head.startswith(begin)), None
    )


def inspect(store: ObjectStore, feed: Feed, names: SourceNames, file: RawFile) -> InspectedFile:
    """Decide how a file is read from its first bytes.

    Raises FileRefused, saying what was found and what was expected, for an empty file, an unreadable beginning, a
    header without a required column or with a name twice, and content that is not the feed's format. Of a feed with
    personal fields, the message quotes no text of the file but names that the feed knows.
    """
    if is_compressed(file.path):
        raise FileRefused(f"{file.path}: this compression is not read; deliver it plain or as .gz")
    head, whole = first_bytes(store, file)
    if not head.removeprefix(codecs.BOM_UTF8).strip():
        raise FileRefused(f"{file.path}: the file is empty")
    if feed.format is RawFormat.CSV:
        header = _header(feed, names, file, head, whole)
        return InspectedFile(file, "csv", names, header, _other_line_end(feed, head))
    first = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if first == b"[":
        if file.size > MAX_ARRAY_BYTES:
            raise FileRefused(
                f"{file.path}: a JSON array of {file.size:,} bytes; arrays are read up to {MAX_ARRAY_BYTES:,} bytes, "
                "deliver JSON lines (one object a line) instead"
            )
        return InspectedFile(file, "json_array", names)
    return InspectedFile(file, "json_lines", names)


def first_bytes(store: ObjectStore, file: RawFile) -> tuple[bytes, bool]:
    """The file's beginning, decompressed, and whether that is all of it."""
    try:
        with store.open(file.path) as stream:
            if file.path.endswith(".gz"):
                with gzip.open(stream) as plain:
                    head = plain.read(PEEK_BYTES)
            else:
                head = stream.read(PEEK_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        if file.size == 0:
            raise FileRefused(f"{file.path}: the file is empty") from None
        raise FileRefused(f"{file.path}: not a readable gzip file ({error})") from None
    except BotoCoreError:
        raise  # the store's fault, though some of these are OSErrors, too: the next run may find the file in order
    except (OSError, ClientError) as error:
        if isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            raise  # as above
        raise FileRefused(f"{file.path}: cannot be opened ({error})") from None
    if unread := unread_form(head):
        raise FileRefused(f"{file.path}: {unread}")
    return head, len(head) < PEEK_BYTES


def _header(feed: Feed, names: SourceNames, file: RawFile, head: bytes, whole: bool) -> tuple[str, ...]:
    # As records are read: each byte is a letter until the cells are cut, so that no byte elsewhere changes a name.
    text = head.removeprefix(codecs.BOM_UTF8).decode("latin-1")
    lines = io.StringIO(text, newline="")
    # Spark, too, passes over empty lines, but takes a line of blanks or commas for the header.
    row = next(([_as_written(cell) for cell in r] for r in csv.reader(lines) if r), [])
    if not whole and lines.tell() == len(text):
        # Where it is cut, a name could pass for another one, and every record would have too many columns.
        raise FileRefused(
            f"{file.path}: the header is longer than {PEEK_BYTES:,} bytes, or has an open quote; leave columns out, or "
            "shorten their names"
        )
    header = tuple(cell.strip() for cell in row)
    # A file without a header has a record in its place, which may say something about a person.
    known = {source.lower() for sources in names.values() for source in sources}
    shown = (
        f"the header has {len(header)} columns"
        if feed.has_personal
        else f"the header is {', '.join(header) or '(blank)'}"
    )
    repeated = sorted({name for name in header if [h.lower() for h in header].count(name.lower()) > 1})
    if repeated:
        quoted = [repr(name) for name in repeated if not feed.has_personal or name.lower() in known]
        raise FileRefused(
            f"{file.path}: the header has {', '.join(quoted) or 'an unknown name'} more than once"
        )
    found = columns_by_field(feed, names, header)
    for field, columns in found.items():
        if len(columns) > 1:
            both = " and ".join(repr(header[i]) for i in columns)
            raise FileRefused(
                f"{file.path}: the columns {both} both stand for {field}; keep one, or map them"
            )
    missing = [f.name for f in feed.fields if f.required and not found[f.name]]
    if missing:
        wanted = "; ".join(f"{name} (as {' or '.join(names[name])})" for name in missing)
        raise FileRefused(
            f"{file.path}: missing column: {wanted}{_other_separator(feed, names, row, missing)}; {shown}"
        )
    return header


def _other_line_end(feed: Feed, head: bytes) -> str | None:
    """A line feed where a CSV file's header ends in a carriage return, too, and no record after it does.

    So it is where a program wrote the header and another one the records. Spark would take all of them for one. A first
    line without the header's number of values is none of its own: where lines end as the header does, a line feed is a
    part of the value that it stands in.
    """
    if not feed.multi_line:
        return None
    lines = io.StringIO(head.decode("latin-1"), newline="")
    # The values of each record and where it ends; empty lines are none.
    records = ((len(record), lines.tell()) for record in csv.reader(lines) if record)
    (width, begin), (found, end) = next(records, (0, 0)), next(records, (0, 0))
    text = lines.getvalue()
    is_other = text[:begin].endswith("\r\n") and text[:end].endswith("\n") and "\r\n" not in text[begin:]
    return "\n" if is_other and found == width else None


def _as_written(cell: str) -> str:
    """A header's cell, cut as Latin-1: in UTF-8, or in Latin-1 where it is no UTF-8."""
    try:
        return cell.encode("latin-1").decode()
    except UnicodeDecodeError:
        return cell


def _other_separator(feed: Feed, names: SourceNames, row: Sequence[str], missing: Sequence[str]) -> str:
    """What to say where a missing column is there once a header is cut as many spreadsheets write it."""
    for mark, called in SEPARATORS.items():
        found = columns_by_field(feed, names, [cell.strip(' "') for cell in ",".join(row).split(mark)])
        if any(found[name] for name in missing):
            return (
                f"; {called} stand between its columns, deliver it with commas there, and points in numbers"
            )
    return ""


def columns_by_field(feed: Feed, names: SourceNames, header: Sequence[str]) -> dict[str, list[int]]:
    """Field → positions in the header of the columns that fill it; letter case does not matter.

    A name that a mapping gives a field goes before those that are declared for it, as in JSON.
    """
    declared = declared_sources(feed)
    places: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(header):
        places[name.lower()].append(i)
    found = {}
    for field, sources in names.items():
        there = [source for source in sources if source.lower() in places]
        # In their declared order they are no mapping's: which of two is meant, nobody said.
        is_mapped = sources != tuple(source for source in declared[field] if source in sources)
        if there and is_mapped and (there[0] not in declared[field] or there[0] == sources[0]):
            there = there[:1]
        found[field] = sorted({i for source in there for i in places[source.lower()]})
    return found


def read(spark: SparkSession, lake_uri: str, feed: Feed, files: Sequence[InspectedFile]) -> DataFrame:
    """Read inspected files lazily.

    Gives one row per record: each field of the feed as string; `_extra` string, unknown columns as JSON;
    `_record` string, the record as it came (a CSV record as JSON of its columns), without its secrets; `_problem`
    string, the reason why it could not be taken apart, or null; `_file_id` bigint; `_delivered_at` timestamp.
    """
    groups: dict[tuple[object, ...], list[InspectedFile]] = defaultdict(list)
    for file in files:
        groups[file.layout, file.header, file.line_end, *file.names.items()].append(file)
    readers = {"csv": _csv, "json_lines": _json_lines, "json_array": _json_array}
    frames = [
        _with_file(
            spark,
            lake_uri,
            readers[group[0].layout](spark, _paths(lake_uri, group), feed, group[0]),
            group,
        )
        for group in groups.values()
    ]
    return reduce(DataFrame.unionByName, frames)


def broken_arrays(spark: SparkSession, lake_uri: str, files: Sequence[InspectedFile]) -> dict[RawFile, str]:
    """Why a JSON array file cannot be taken apart, for those that cannot: cut off at the end, or of other bytes.

    files: arrays only. Where one of them cannot even be decompressed, none is named: who reads them has to ask each.
    """
    by_path = {file.file.path: file.file for file in files}
    whole = spark.read.text(_paths(lake_uri, files), wholetext=True)
    found = whole.select(array_problem(F.col("value")).alias("problem"), _address())
    broken = found.where("problem IS NOT NULL").select(_path_in_lake(lake_uri).alias("path"), "problem")
    try:
        rows = broken.collect()
    except (PySparkException, Py4JJavaError):
        return {}
    return {by_path[row.path]: f"{row.path}: {row.problem}" for row in rows}


def _paths(lake_uri: str, files: Sequence[InspectedFile]) -> list[str]:
    return [f"{lake_uri}/{GLOB_CHARACTER.sub(_escaped, f.file.path)}" for f in files]


def _escaped(character: re.Match[str]) -> str:
    return "\\" + character.group()


def _with_file(
    spark: SparkSession, lake_uri: str, frame: DataFrame, files: Sequence[InspectedFile]
) -> DataFrame:
    if len(files) == 1:
        # Every record is this one's, so nothing is looked up and no address is carried along.
        placing = {"_file_id": F.lit(files[0].file_id), "_delivered_at": F.lit(files[0].file.modified_at)}
        return frame.withColumns(placing).drop("_address")
    by_path = {file.file.path: file for file in files}
    rows = []
    for address in frame.inputFiles():
        # The first of them: a folder of the raw zone may be called as the lake is.
        file = by_path[unquote(address).partition(f"{lake_uri}/")[2]]
        # Hadoop writes a local address with one slash or with three.
        for spelling in {address, address.replace("file:///", "file:/")}:
            rows.append((spelling, file.file_id, file.file.modified_at))
    known = local_rows(spark, rows, "_address string, _file_id bigint, _delivered_at timestamp")
    placed = frame.join(F.broadcast(known), "_address", "left")
    # Were an address ever spelt in a way that is not foreseen, the job must stop rather than lose the records.
    lost = F.raise_error(F.concat(F.lit("a record of no file: "), "_address"))
    return placed.withColumn("_file_id", F.coalesce("_file_id", lost.cast("bigint"))).drop("_address")


def _address() -> Column:
    """Which file a row is read from, as Spark spells it."""
    return F.col("_metadata.file_path").alias("_address")


def _path_in_lake(lake_uri: str) -> Column:
    """Spark's address of a file, `_address` → its path in the lake. Addresses are percent-encoded, `+` is a plus."""
    address = F.when(
        F.contains("_address", F.lit("%")), F.url_decode(F.replace("_address", F.lit("+"), F.lit("%2B")))
    ).otherwise(F.col("_address"))
    root = f"{lake_uri}/"
    return F.substr(address, F.locate(root, address) + F.lit(len(root)))


def _json_lines(spark: SparkSession, paths: list[str], feed: Feed, like: InspectedFile) -> DataFrame:
    lines = spark.read.text(paths).select("value", _address())
    return json_records(lines.where(F.ltrim("value", F.lit(" \t\r")) != ""), like.names)


def _json_array(spark: SparkSession, paths: list[str], feed: Feed, like: InspectedFile) -> DataFrame:
    whole = spark.read.text(paths, wholetext=True)
    return json_records(array_elements(whole.select("value", _address())), like.names)


def _csv(spark: SparkSession, paths: list[str], feed: Feed, like: InspectedFile) -> DataFrame:
    names, header = like.names, like.header
    cells = [f"_c{i}" for i in range(len(header))]
    schema = T.StructType([T.StructField(name, T.StringType()) for name in [*cells, "_corrupt"]])
    raw = spark.read.csv(
        paths,
        schema=schema,
        header=True,
        multiLine=feed.multi_line,
        lineSep=like.line_end,
        quote='"',
        escape='"',
        # Every byte is a character of Latin-1, so the bytes survive and can be checked as UTF-8 below;
        # read as UTF-8, broken bytes would be replaced and the original lost.
        encoding="ISO-8859-1",
        mode="PERMISSIVE",
        columnNameOfCorruptRecord="_corrupt",
        # Beyond these the parser fails, with a message that quotes the record; jobs/log4j2.properties leaves it out.
        maxCharsPerColumn=NO_LIMIT if feed.secrets else MAX_CHARS_PER_COLUMN,
        maxColumns=MANY_COLUMNS if feed.secrets else MAX_COLUMNS,
    )
    frame = raw.select(
        *(F.encode(name, "ISO-8859-1").cast("string").alias(name) for name in [*cells, "_corrupt"]),
        _address(),
    )
    found = columns_by_field(feed, names, header)
    dropped = {field.name for field in feed.fields if field.dropped}
    fields = [
        (
            F.col(cells[found[field][0]])
            if found[field] and field not in dropped
            else F.lit(None).cast("string")
        ).alias(field)
        for field in names
    ]
    unknown = [i for i in range(len(header)) if not any(i in columns for columns in found.values())]
    secret = {i for name in feed.secrets for i in found[name]}
    if feed.secrets:
        # Under a name that nobody declared, a secret may come, too.
        known = {source.lower() for name in feed.secrets for source in names[name]}
        secret |= {i for i in unknown if SECRET_NAME.search(header[i]) or header[i].lower() in known}
    kept = [F.when(F.col(c).isNotNull(), MASK) if i in secret else F.col(c) for i, c in enumerate(cells)]
    extra = F.lit(None).cast("string")
    if unknown:
        anything = F.coalesce(*(F.col(cells[i]) for i in unknown)).isNotNull()
        extra = F.when(anything, F.to_json(F.struct(*(kept[i].alias(header[i]) for i in unknown))))
    # Of all cells at once: a tree of as many conditions as columns is deeper than Spark's planner can go. A line break
    # between two joins no broken letter of one with the other.
    valid = F.is_valid_utf8(F.concat_ws("\n", *cells))
    as_json = F.to_json(
        F.struct(*(F.make_valid_utf8(cell).alias(name) for cell, name in zip(kept, header, strict=True))),
        {"ignoreNullFields": "false"},
    )
    corrupt = F.make_valid_utf8("_corrupt")
    if feed.secrets:
        corrupt = F.when(F.col("_corrupt").isNotNull(), _withheld(feed))
    return frame.select(
        *fields,
        extra.alias("_extra"),
        F.coalesce(corrupt, as_json).alias("_record"),
        F.when(_has_open_quote("_corrupt"), "unclosed_quote")
        .when(F.col("_corrupt").isNotNull(), "wrong_number_of_columns")
        .when(~valid, "invalid_utf8")
        .when(F.greatest(F.lit(False), *map(_swallowed_lines, cells)), "unclosed_quote")
        .alias("_problem"),
        "_address",
    )


def _withheld(feed: Feed) -> Column:
    """What stands for a record that could not be taken apart, so that nobody knows where in it a secret is."""
    length = F.length("_corrupt").cast("string")
    return F.concat(F.lit(f"withheld, it may hold {' or '.join(feed.secrets)}: "), length, F.lit(" bytes"))


def _swallowed_lines(cell: str) -> Column:
    """Whether a quote was opened and not closed before the next value's: Spark leaves such a quote in its place."""
    return F.coalesce(F.startswith(cell, F.lit('"')), F.lit(False)) & _has_open_quote(cell)


def _has_open_quote(text: str) -> Column:
    """Whether a text runs on over lines with one quote left open."""
    quotes = F.length(text) - F.length(F.replace(F.col(text), F.lit('"')))
    return F.coalesce(F.contains(F.col(text), F.lit("\n")) & (quotes % 2 == 1), F.lit(False))
