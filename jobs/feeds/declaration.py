"""What a feed declares; everything else about staging is the same for all feeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum

from pyspark.sql import Column
from pyspark.sql import types as T

Parser = Callable[[Column], Column]


class RawFormat(StrEnum):
    """How a feed's raw files are written. Either may be compressed with gzip (`.gz`)."""

    JSON = "json"  # an array of objects, or one object a line
    CSV = "csv"  # RFC 4180, with a header


@dataclass(frozen=True)
class Field:
    """One column of a feed.

    name: column in staging. type: its Spark type. parse: text → that type, null when unreadable.
    sources: the names that raw files use for it; a dotted name leads into nested JSON.
    required: a record without it is rejected as `<name>_missing`; a CSV file without the column is refused.
    max_length: longer text is rejected as `<name>_too_long`. Text that parse cannot read: `<name>_invalid`.
    secret: what was delivered never reaches quarantine, `_extra`, logs or errors; only what parse accepts is kept.
    personal: says something about one person; masked wherever records are shown as examples.
    dropped: the column is not looked at, and the field is null in every record.
    """

    name: str
    type: T.DataType
    parse: Parser
    sources: tuple[str, ...]
    required: bool = False
    max_length: int | None = None
    secret: bool = False
    personal: bool = False
    dropped: bool = False
    comment: str = ""


@dataclass(frozen=True)
class Feed:
    """A kind of raw file and how its records are read, checked, told apart and merged.

    key: the columns that identify a record (the natural key); nulls in it are a value of their own.
    prefer: SQL expressions over staging columns; of several records with one key the one stays for which these
        are greatest, in this order. What is still equal is decided by the content itself, so that neither the
        order of files nor the partitioning matters. `_delivered_at` is the file's modification time.
    derived: SQL expressions that fill a declared column from the parsed ones.
    counts_repeats: the feed has no key of its own: a record's content and its occurrence number in the file are
        the key, so a repeat within one file is a row and the same file twice adds nothing.
    multi_line: a CSV value in quotes may span lines. Where it may not, large files are read by many tasks, and a
        quote left open spoils its own line only.
    recognised_by: columns that a file must have beside the required ones to be taken for this feed by its content.
    expected_every: how often something new should come; `status` calls the feed late after that.
    """

    name: str
    format: RawFormat
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    prefer: tuple[str, ...] = ()
    counts_repeats: bool = False
    multi_line: bool = True
    recognised_by: tuple[str, ...] = ()
    derived: dict[str, str] = field(default_factory=dict)
    expected_every: timedelta = timedelta(days=1)

    def __post_init__(self) -> None:
        if self.secrets and (self.format is not RawFormat.CSV or self.multi_line):
            raise ValueError(f"{self.name}: secrets are kept back in CSV files with one record a line only")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields if f.secret)

    def without_secrets(self) -> Feed:
        """The same feed, its secrets dropped."""
        return replace(self, fields=tuple(replace(f, dropped=f.dropped or f.secret) for f in self.fields))
