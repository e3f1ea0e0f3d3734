"""What a feed declares; everything else about staging is the same for all feeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum

from pyspark.sql import Column
from pyspark.sql import types as T

from jobs.quality.rules import OF_A_RECORD, Action, Kind, Rule, misfit

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
    rules: beyond those that the fields bring; see `all_rules`.
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
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.all_rules]
        for rule in self.rules:
            if unknown := set(rule.columns) - set(self.columns):
                raise ValueError(f"{self.name}: rule {rule.name}: {', '.join(sorted(unknown))} is no field")
            types = [f.type for f in self.fields if f.name in rule.columns]
            if types and (problem := misfit(rule, types[0])):
                raise ValueError(f"{self.name}: rule {rule.name}: {problem}")
            if rule.action is Action.REJECT and set(rule.columns) & self.derived.keys():
                raise ValueError(f"{self.name}: rule {rule.name}: derived columns come after rejecting")
            if names.count(rule.name) > 1:
                raise ValueError(f"{self.name}: there are two rules {rule.name}")
            if rule.kind is Kind.FRESHNESS and rule.columns:
                raise ValueError(f"{self.name}: rule {rule.name}: a feed is as fresh as its last new file")
        if self.secrets and (self.format is not RawFormat.CSV or self.multi_line):
            raise ValueError(f"{self.name}: secrets are kept back in CSV files with one record a line only")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)

    @property
    def last_stays(self) -> bool:
        """Whether it depends on the time of delivery which of several records with one key stays."""
        return "_delivered_at" in self.prefer

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields if f.secret)

    @property
    def has_personal(self) -> bool:
        """Whether its records say something about persons."""
        return any(f.personal or f.secret for f in self.fields)

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """The rules that its fields and `expected_every` bring, and those declared."""
        found = []
        for f in self.fields:
            if f.sources:
                found.append(Rule(Kind.READABLE, (f.name,), Action.REJECT))
            if f.required:
                found.append(Rule(Kind.REQUIRED, (f.name,), Action.REJECT))
            if f.max_length is not None:
                found.append(Rule(Kind.LENGTH, (f.name,), Action.REJECT, longest=f.max_length))
        if not any(rule.kind is Kind.FRESHNESS for rule in self.rules):
            found.append(Rule(Kind.FRESHNESS, within=self.expected_every))
        return *found, *self.rules

    def rules_of_records(self, *actions: Action) -> tuple[Rule, ...]:
        """The declared rules with these actions of which every record tells whether it breaks them."""
        return tuple(r for r in self.rules if r.kind in OF_A_RECORD and r.action in actions)

    def without_secrets(self) -> Feed:
        """The same feed, its secrets dropped."""
        return replace(self, fields=tuple(replace(f, dropped=f.dropped or f.secret) for f in self.fields))
