"""The one interface that every warehouse has, and what is handed over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from pyspark.sql import DataFrame

from jobs.warehouse.declarations import Table, View


@dataclass(frozen=True)
class Published:
    """Which state of a mart the warehouse holds: the Delta table's identity and version."""

    table_id: str
    version: int


@dataclass(frozen=True)
class Load:
    """New content of one table.

    rows: the table's columns; for changes also `_deleted` boolean, one row per primary key.
    whole: rows are the whole table rather than changes. state: what the warehouse holds afterwards.
    expected: what the mart says of itself, by check name: `row_count`, `sum(<measure>)`.
    """

    table: Table
    rows: DataFrame
    whole: bool
    state: Published
    expected: Mapping[str, Decimal | int | None]


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


class Publication(Protocol):
    """A publication under way: nobody else publishes to the same schema meanwhile."""

    @property
    def published(self) -> Mapping[str, Published]:
        """What the warehouse holds, by table."""

    def commit(self, loads: Sequence[Load], views: Sequence[View]) -> list[Check]:
        """Load all tables, check them, note their states and make the views, in one transaction.

        Raises CheckFailed, with everything rolled back, when a check fails.
        """


class Warehouse(Protocol):
    """Where the results are published."""

    def check(self) -> None:
        """Raise ConfigurationError if the warehouse cannot be reached with these settings."""

    def publishing(self) -> AbstractContextManager[Publication]:
        """Begin a publication; a second one waits until it ends."""

    def query(self, name: str, limit: int) -> tuple[list[str], list[tuple[object, ...]]]:
        """The first rows of a table or view: column names and rows."""

    def counts(self, names: Sequence[str]) -> dict[str, int]:
        """The number of rows of each table."""
