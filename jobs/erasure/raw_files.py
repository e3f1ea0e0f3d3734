"""Raw files without the records of a person. All other bytes stay as they are.

Files are read record by record, so that memory stays small; a JSON array is held as a whole, as staging does.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, cast

from jobs.erasure.person import Person
from jobs.feeds.declaration import Feed, RawFormat
from jobs.feeds.mapping import SourceNames
from jobs.lake.objects import ObjectStore
from jobs.lake.raw import FORM_BYTES, columns_by_field, is_compressed, unread_form

PIECE_BYTES = 1024 * 1024
# No address and no identifier is longer, be it escaped; a piece that is searched begins with so much of the one before.
OVERLAP = 16 * 1024
BOM = "\ufeff"
UTF8, ESCAPED = "utf-8", "surrogateescape"
LINE_BREAK = re.compile(r"[\r\n]")
# A value as it stands in a CSV record; what follows a closing quote still belongs to it.
CELL = re.compile(r'"[^"]*(?:""[^"]*)*(?:"[^,]*)?|[^,]+')


@dataclass
class Cut:
    """What was left out of a file, and how many records stay."""

    removed: int = 0
    kept: int = 0


def opened(stream: IO[bytes], path: str) -> IO[bytes]:
    """The bytes of a file, unpacked."""
    return cast(IO[bytes], gzip.open(stream)) if path.endswith(".gz") else stream


def unread(store: ObjectStore, path: str) -> str | None:
    """Why staging does not read a file, whatever is in it: nobody can be found in it or be cut out of it."""
    if is_compressed(path):
        return "this compression is not read"
    with store.open(path) as stream, opened(stream, path) as plain:
        return unread_form(plain.read(FORM_BYTES))


def may_name(person: Person, stream: IO[bytes]) -> bool:
    """Whether an address or an identifier of the person stands anywhere in a stream."""
    before = ""
    for piece in codecs.iterdecode(iter(lambda: stream.read(PIECE_BYTES), b""), UTF8, ESCAPED):
        text = before + piece
        if person.may_be_in(text):
            return True
        before = text[-OVERLAP:]
    return False


def cut(
    person: Person, feed: Feed, names: SourceNames, stream: IO[bytes], out: IO[bytes] | None = None
) -> Cut:
    """Copy a file of a feed to out, if given, without the person's records."""
    found = Cut()
    is_csv = feed.format is RawFormat.CSV
    lines = _lines(stream, spanned=is_csv and feed.multi_line)
    for piece in (_csv if is_csv else _json)(person, feed, names, lines, found):
        if out is not None:
            out.write(piece.encode(UTF8, ESCAPED))
    return found


def _lines(stream: IO[bytes], spanned: bool) -> Iterator[str]:
    """The lines of a file with their ends, cut where Spark cuts them.

    A carriage return alone ends a line, too. In a CSV file whose values may span lines, all end as the first one.
    """
    lines = io.TextIOWrapper(stream, UTF8, ESCAPED, newline="")
    first = next(lines, "")
    ends = (first[len(first.rstrip("\r\n")) :], "\r\n") if spanned else ("\n", "\r")
    line = ""
    for part in chain([first], lines):
        line += part
        if line.endswith(ends):
            yield line
            line = ""
    if line:
        yield line


def _csv(person: Person, feed: Feed, names: SourceNames, lines: Iterator[str], found: Cut) -> Iterator[str]:
    known = {source.lower() for sources in names.values() for source in sources}
    wanted = {column: names[column] for column in person.feed_ids(feed)}
    header: list[str] | None = None
    places: dict[str, list[int]] = {}
    for record, cells in _csv_records(lines, feed.multi_line):
        if header is None and cells:
            header = [cell.strip().lower() for cell in cells]
            is_header = not known.isdisjoint(header) and not person.is_named_in(record)
            # A file without a header has a record in its place; what its columns are is not known.
            header = header if is_header else []
            places = columns_by_field(feed, wanted, header)
            if is_header:
                yield record
                continue
        if cells and person.owns_cells(places, len(header or ()), cells, record):
            found.removed += 1
        else:
            found.kept += bool(cells)
            yield record


def _csv_records(lines: Iterator[str], multi_line: bool) -> Iterator[tuple[str, list[str]]]:
    """The records of a CSV file as they stand there, and their cells; an empty line has none.

    They are those that Spark finds. One of several lines that staging rejects, since a quote was left open or since it
    has not the header's number of cells, may hold many people's records: it comes in as small parts as it can.
    """
    # A quote that is left open may take in the rest of the file.
    csv.field_size_limit(sys.maxsize)
    if not multi_line:
        yield from ((line, _cells(line)) for line in lines)
        return
    width = 0
    for record, cells in _joined(lines):
        width = width or len(cells)
        if _is_one_line(record) or (len(cells) == width and _is_well_quoted(record)):
            yield record, cells
            continue
        for part, part_cells in _joined(io.StringIO(record, newline="")):
            if _is_one_line(part) or _is_well_quoted(part):
                yield part, part_cells
            else:
                yield from ((line, _cells(line)) for line in io.StringIO(part, newline=""))


def _joined(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Lines, those that a value in quotes spans in one, and their cells; only at a value's beginning a quote opens."""
    taken: list[str] = []

    def take() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield _one_end(line)

    for cells in csv.reader(take()):
        yield "".join(taken), cells
        taken.clear()


def _cells(line: str) -> list[str]:
    return next(csv.reader([_one_end(line)]), [])


def _one_end(line: str) -> str:
    """A line for Python's CSV reader, to which every line break is an end, and a BOM a part of a value."""
    return LINE_BREAK.sub(" ", line.removeprefix(BOM).rstrip("\r\n")) + "\n"


def _is_one_line(record: str) -> bool:
    return not LINE_BREAK.search(record.rstrip("\r\n"))


def _is_well_quoted(record: str) -> bool:
    """Whether every value in quotes that spans lines has an even number of them, without which staging rejects it."""
    cells = (found[0] for found in CELL.finditer(record.rstrip("\r\n")))
    return all(cell.count('"') % 2 == 0 for cell in cells if cell[:1] == '"' and LINE_BREAK.search(cell))


def _json(person: Person, feed: Feed, names: SourceNames, lines: Iterator[str], found: Cut) -> Iterator[str]:
    is_first = True
    for line in lines:
        text = line.removeprefix(BOM).strip()
        if is_first and text.startswith("["):
            yield _array(person, feed, names, line + "".join(lines), found)
            return
        is_first = is_first and not text
        if text and person.owns_json(feed, names, text):
            found.removed += 1
        else:
            found.kept += bool(text)
            yield line


def _array(person: Person, feed: Feed, names: SourceNames, text: str, found: Cut) -> str:
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
        return text
    found.removed, found.kept = removed, len(kept)
    if not removed:
        return text
    rest = text[_before_space(text, position) :]
    return text[:begin] + ",".join(kept) + rest


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
