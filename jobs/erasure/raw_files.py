"""Raw files without the records of a person. All other bytes stay as they are.

Files are read record by record, so that memory stays small; a JSON array is held as a whole, as staging does.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

from jobs.erasure.person import Person
from jobs.feeds.declaration import Feed, RawFormat
from jobs.feeds.mapping import SourceNames

PIECE_BYTES = 1024 * 1024
# No address and no identifier is longer; a piece that is searched begins with so much of the one before.
OVERLAP = 1024
BOM = "\ufeff"
UTF8, ESCAPED = "utf-8", "surrogateescape"


@dataclass
class Cut:
    """What was left out of a file, and how many records stay."""

    removed: int = 0
    kept: int = 0


def opened(stream: IO[bytes], path: str) -> IO[bytes]:
    """The bytes of a file, unpacked."""
    return cast(IO[bytes], gzip.open(stream)) if path.endswith(".gz") else stream


def may_name(person: Person, stream: IO[bytes]) -> bool:
    """Whether an address or an identifier of the person stands anywhere in a stream."""
    before = ""
    while piece := stream.read(PIECE_BYTES):
        text = before + piece.decode(UTF8, ESCAPED)
        if person.may_be_in(text):
            return True
        before = text[-OVERLAP:]
    return False


def cut(
    person: Person, feed: Feed, names: SourceNames, stream: IO[bytes], out: IO[bytes] | None = None
) -> Cut:
    """Copy a file of a feed to out, if given, without the person's records."""
    found = Cut()
    if feed.format is RawFormat.CSV:
        pieces = _csv(person, feed, names, stream, found)
    else:
        pieces = _json(person, feed, names, stream, found)
    for piece in pieces:
        if out is not None:
            out.write(piece)
    return found


def _csv(person: Person, feed: Feed, names: SourceNames, stream: IO[bytes], found: Cut) -> Iterator[bytes]:
    header: list[str] | None = None
    for record in _csv_records(stream, feed.multi_line):
        text = record.decode(UTF8, ESCAPED)
        cells = _cells(text.removeprefix(BOM) if header is None else text)
        if header is None and cells:
            # A file without a header has a record in its place.
            if person.is_named_in(text):
                found.removed += 1
                continue
            header = cells
            yield record
        elif not cells:
            yield record
        elif len(cells) == len(header or []) or record.count(b"\n") <= 1:
            yield from _unless_owned(person, feed, names, header or [], record, found)
        else:
            # A quote that was left open made one record of many lines.
            for line in record.splitlines(keepends=True):
                yield from _unless_owned(person, feed, names, header or [], line, found)


def _unless_owned(
    person: Person, feed: Feed, names: SourceNames, header: list[str], record: bytes, found: Cut
) -> Iterator[bytes]:
    text = record.decode(UTF8, ESCAPED)
    if person.owns_cells(feed, names, header, _cells(text), text):
        found.removed += 1
    else:
        found.kept += 1
        yield record


def _csv_records(stream: IO[bytes], multi_line: bool) -> Iterator[bytes]:
    """The records of a CSV file with their line ends; a line break inside quotes ends none."""
    waiting: list[bytes] = []
    quotes = 0
    for line in stream:
        waiting.append(line)
        quotes += line.count(b'"')
        if not multi_line or quotes % 2 == 0:
            yield b"".join(waiting)
            waiting, quotes = [], 0
    if waiting:
        yield b"".join(waiting)


def _cells(text: str) -> list[str]:
    limit = csv.field_size_limit(len(text) + 1)
    try:
        return next((row for row in csv.reader(io.StringIO(text, newline="")) if row), [])
    except csv.Error:
        return [text]
    finally:
        csv.field_size_limit(limit)


def _json(person: Person, feed: Feed, names: SourceNames, stream: IO[bytes], found: Cut) -> Iterator[bytes]:
    first = stream.readline()
    while first and not first.strip(b"\xef\xbb\xbf \t\r\n"):
        yield first
        first = stream.readline()
    if first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield _array(person, feed, names, (first + stream.read()).decode(UTF8, ESCAPED), found)
        return
    line = first
    while line:
        text = line.decode(UTF8, ESCAPED).removeprefix(BOM)
        if text.strip() and person.owns_json(feed, names, text):
            found.removed += 1
        else:
            found.kept += bool(text.strip())
            yield line
        line = stream.readline()


def _array(person: Person, feed: Feed, names: SourceNames, text: str, found: Cut) -> bytes:
    """An array without the person's elements; one that cannot be taken apart to its end stays as it is."""
    kept: list[str] = []
    removed = 0
    decoder = json.JSONDecoder()
    position = begin = text.index("[") + 1
    try:
        while True:
            start = _after_space(text, position)
            if text[start] == "]" and not kept and not removed:
                break
            _, end = decoder.raw_decode(text, start)
            after = _after_space(text, end)
            if text[after] not in ",]":
                raise ValueError("neither a comma nor the end")
            if person.owns_json(feed, names, text[start:end]):
                removed += 1
            else:
                kept.append(text[position:end])
            position = after + 1
            if text[after] == "]":
                position = after
                break
    except (ValueError, IndexError, RecursionError):
        return text.encode(UTF8, ESCAPED)
    found.removed, found.kept = removed, len(kept)
    if not removed:
        return text.encode(UTF8, ESCAPED)
    rest = text[_before_space(text, position) :]
    return (text[:begin] + ",".join(kept) + rest).encode(UTF8, ESCAPED)


def _after_space(text: str, position: int) -> int:
    while text[position] in " \t\r\n":
        position += 1
    return position


def _before_space(text: str, position: int) -> int:
    while text[position - 1] in " \t\r\n":
        position -= 1
    return position


def packed(out: IO[bytes], path: str) -> IO[bytes]:
    """A stream that packs what is written to it, if the file's name says so."""
    return cast(IO[bytes], gzip.GzipFile("", "wb", fileobj=out)) if path.endswith(".gz") else out
