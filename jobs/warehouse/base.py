"""The one interface that every warehouse has, and what is handed over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Protocol

import pyarrow as pa
from pyspark.sql import DataFrame

from jobs.warehouse.declarations import Column, Table, View

# What a table is measured by, besides `sum(<measure>)`. The hash is the sum, over all rows, of the first 60 bits of the
# MD5 of the primary key's columns as text, separated, times as microseconds since 1970: every engine can compute it, in
# any order of the rows.
ROW_COUNT, KEY_HASH = "row_count", "hash of the keys"
KEY_SEPARATOR = "\u001f"
Measures = Mapping[str, Decimal | int | None]

# Of 10 million facts, one that is merged pays for its look-ups and index entries what eight pay that are loaded before
# the keys are made (128 s and 16 s): what changed more than this is made anew.
REPLACED_FROM_SHARE = 1 / 8


@dataclass(frozen=True)
class Published:
    """Which state of a mart the warehouse holds: the Delta table's identity and version.

    by_month: the table has monthly partitions, so that changes make at most months anew, never the whole.
    at: when it was published, by the warehouse's clock; None where it is yet to be.
    """

    table_id: str
    version: int
    by_month: bool = field(default=False, compare=False)
    at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Load:
    """New content of one table.

    rows: the table's columns; for changes also `_deleted` boolean, one row per primary key. Few rows may be at hand in
    this process, as an Arrow table.
    whole: rows are the whole table rather than changes. state: what the warehouse holds afterwards.
    expected: what the mart says of itself, by check name: `row_count`, `sum(<measure>)`.
    only_merge: no month of a table with monthly partitions is made anew, however much of it changed.
    """

    table: Table
    rows: DataFrame | pa.Table
    whole: bool
    state: Published
    expected: Mapping[str, Decimal | int | None]
    only_merge: bool = False

    @property
    def frame(self) -> DataFrame:
        """The rows, for what only Spark does with them."""
        if not isinstance(self.rows, DataFrame):
            raise TypeError(f"the rows of {self.table.name} are few, and not Spark's")
        return self.rows


@dataclass(frozen=True)
class Check:
    """The result of one post-load check."""

    table: str
    name: str
    expected: str | None
    found: str | None

    @property
    def passed(self) -> bool:
        return self.expected == self.found


@dataclass(frozen=True)
class Plan:
    """How a load would be done: in a word, and with which statements.

    bytes: what the statements would read, where that is what the warehouse bills.
    """

    strategy: str
    statements: tuple[str, ...]
    bytes: int | None = None


class Publication(Protocol):
    """A publication under way, made from what `published` shows. Of two at once, one comes first, whole."""

    @property
    def published(self) -> Mapping[str, Published]:
        """What the warehouse holds, by table."""

    def new_columns(self, loads: Sequence[Load]) -> Mapping[str, Sequence[Column]]:
        """The columns that `commit` will add to tables that are there, by table.

        Raises UserAnalyticsError when a table differs in any other way, and would have to be made anew.
        """

    def commit(self, loads: Sequence[Load], views: Sequence[View]) -> list[Check]:
        """Load all tables, check them, note their states and make the views, in one transaction.

        Raises CheckFailed, with everything rolled back, when a check fails.
        """


class Warehouse(Protocol):
    """Where the results are published."""

    def check(self) -> None:
        """Raise ConfigurationError if the warehouse cannot be reached with these settings."""

    def missing_rights(self) -> list[str]:
        """What a publication could not do with these settings, in words, as far as that can be seen beforehand."""

    def published(self) -> Mapping[str, Published]:
        """What the warehouse holds, by table; nothing where nothing was published yet. Writes nothing."""

    def plan(self, load: Load) -> Plan:
        """How a publication would do this load now. Writes nothing."""

    def publishing(self) -> AbstractContextManager[Publication]:
        """Begin a publication."""

    def query(
        self, name: str, limit: int, seconds: float | None = None
    ) -> tuple[list[str], list[tuple[object, ...]]]:
        """The first rows of a table or view: column names and rows.

        seconds: how long PostgreSQL may take; BigQuery, which is billed for what it began, is waited for.
        Raises ConfigurationError when it was not published yet, QueryTooSlow when it took longer.
        """

    def measures(self, tables: Sequence[Table]) -> dict[str, Measures]:
        """Count, sums of the measures and hash of the keys of each table, computed in the warehouse.

        A measure that was declared since the table was published has no sum.
        """

    def counts(self, names: Sequence[str]) -> dict[str, int]:
        """The number of rows of each table."""

    def rows_naming(self, table: Table, texts: Sequence[str], ids: Mapping[str, Sequence[str]]) -> list[str]:
        """The rows, as JSON, in which one of the texts (lower case) stands anywhere, or a column has one of its ids.

        ids: by column, all of which the table has.
        """


def number_text(value: Decimal | int | None) -> str | None:
    """The same text for the same number, whatever its scale."""
    if value is None:
        return None
    text = f"{Decimal(value):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
