"""A large table by month: partitions of PostgreSQL over a key that begins with the time.

PostgreSQL wants the primary key to hold what a table is partitioned by. Facts have keys that begin with their instant
(`jobs.transforms.keys.time_ordered_id`), and UUIDs are ordered by their bytes: the rows of a month are those whose key
is between two UUIDs. So the key itself is what the table is partitioned by, and stays the primary key as declared.

Months of the years 1970 to 8919 have partitions. 48 bits of milliseconds begin anew after 8,919 years: an instant
before 1970 may have the bits of one after 8919. Such rows, and all others whose month has no partition, are in a
default one: no row is ever refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg2 import sql
from pyspark.sql import functions as F

from jobs.warehouse.base import REPLACED_FROM_SHARE, ROW_COUNT, Load
from jobs.warehouse.declarations import Table, tables
from jobs.warehouse.postgres_catalog import added

NEW_TABLE = "_new_{}"
CHANGES_TABLE = "_changes_{}"
OTHER_MONTHS = "other"

# A table with fewer rows is loaded and read as quickly in one piece.
PARTITIONED_FROM_ROWS = 1_000_000
# A month of which fewer rows changed is merged, whatever its size: that takes about a second.
REBUILT_FROM_ROWS = 100_000
# Every partition costs locks, of which a server has some thousands; 20 years are enough for dates that are no mistakes.
MONTHS_AT_MOST = 240
EPOCH, END = date(1970, 1, 1), date(8920, 1, 1)


def may_be_partitioned(table: Table) -> bool:
    """Whether the key decides a row's month, and no other key stands against partitions."""
    is_referenced = any(key.table == table.name for other in tables().values() for key in other.foreign_keys)
    return table.key_begins_with_time and not table.unique and not is_referenced


def first_uuid(month: date) -> str:
    """The smallest UUID that begins with the first instant of a month."""
    digits = f"{(month - EPOCH).days * 86_400_000:012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def following(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def rows_by_month(load: Load) -> dict[date, int]:
    """The number of a load's rows in each month."""
    partitioning = load.table.partitioning
    if partitioning is None:
        return {}
    month = F.trunc(F.to_date(partitioning.column), "month")
    return {row.month: row["count"] for row in load.frame.groupBy(month.alias("month")).count().collect()}


def months_of_whole(load: Load) -> list[date] | None:
    """The months for which a table that is loaded whole gets partitions; None where it gets no partitions at all."""
    if not may_be_partitioned(load.table) or int(load.expected[ROW_COUNT] or 0) < PARTITIONED_FROM_ROWS:
        return None
    return sorted(month for month in rows_by_month(load) if EPOCH <= month < END)[-MONTHS_AT_MOST:]


@dataclass(frozen=True)
class Months:
    """The partitions of one table of a schema, which is asked over a cursor."""

    cursor: Any
    schema: str
    table: Table

    # -- a table loaded whole ------------------------------------------------------------------------------------------

    @property
    def clause(self) -> sql.Composable:
        """What makes CREATE TABLE one of a table with partitions."""
        return self._sql(" PARTITION BY RANGE ({})", self._key)

    def partitions(self, months: Iterable[date]) -> Iterator[sql.Composable]:
        """Make the partitions of the new table."""
        table = _new(self.table.name)
        for month in months:
            yield self._sql(
                "CREATE TABLE {} PARTITION OF {} {}", _new(self.name(month)), table, _bounds(month)
            )
        yield self._sql("CREATE TABLE {} PARTITION OF {} DEFAULT", _new(self._others), table)

    def settle(self) -> Iterator[sql.Composable]:
        """Give the partitions of a table that was swapped in their names, once those of the old table are gone."""
        for name in sorted(self.attached()):
            if name.startswith(_new("")):
                yield from self._rename(name.removeprefix(_new("")))

    # -- changes -------------------------------------------------------------------------------------------------------

    def is_partitioned(self) -> bool:
        """Whether the published table has partitions; asked only where it may have."""
        if not may_be_partitioned(self.table):
            return False
        name = self._name(self.table.name).as_string(self.cursor)
        self.cursor.execute("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%s)", (name,))
        return bool(self.cursor.fetchone() == (True,))

    def changed(self) -> dict[date, int]:
        """The number of staged changes in each month, by their keys."""
        millis = self._sql("('x' || left(replace({}::text, '-', ''), 12))::bit(48)::bigint", self._key)
        self.cursor.execute(
            self._sql(
                "SELECT date_trunc('month', to_timestamp({} / 1000) AT TIME ZONE 'UTC')::date, count(*) FROM {} "
                "WHERE {} < {} GROUP BY 1",
                *(millis, self._changes, self._key, _first_uuid(END)),
            )
        )
        return dict(self.cursor.fetchall())

    def to_build(self, changed: Mapping[date, int], only_merge: bool) -> list[date]:
        """The months that are made anew: those without a partition, and those of which much changed.

        One to which others added something, a view or an index, stays.
        """
        attached, chosen = self.attached(), []
        room = MONTHS_AT_MOST - len(attached)
        for month, rows in sorted(changed.items()):
            if self.name(month) in attached:
                if not only_merge and self._is_mostly_changed(month, rows) and not self._added(month):
                    chosen.append(month)
            elif EPOCH <= month < END and room > 0 and not self._is_among_others(month):
                chosen.append(month)
                room -= 1
        return chosen

    def build(self, month: date, create: sql.Composable, columns: Iterable[str]) -> Iterator[sql.Composable]:
        """Make a month beside the published one, from what changed and what stays; take that off the changes.

        create: makes the table. columns: those that the published table has.
        """
        name, within = self.name(month), self._within(month)
        yield create
        yield self._sql(
            "INSERT INTO {0} ({1}) SELECT {1} FROM {2} WHERE NOT _deleted AND {3}",
            *(_new(name), identifiers(self.table.column_names), self._changes, within),
        )
        if name in self.attached():
            yield self._sql(
                "INSERT INTO {0} ({1}) SELECT {1} FROM {2} AS t "
                "WHERE NOT EXISTS (SELECT FROM {3} AS s WHERE s.{4} = t.{4})",
                *(_new(name), identifiers(columns), name, self._changes, self._key),
            )
        yield self._sql("DELETE FROM {} WHERE {}", self._changes, within)
        # The check says what the partition's bounds will say, so that attaching it reads no row.
        yield self._sql(
            "ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY ({}), ADD CONSTRAINT {} CHECK ({})",
            *(_new(name), sql.Identifier(_new(_index(name))), self._key, _check(name), within),
        )
        yield from self._checks_of_others(_new(name))
        yield self._sql("ANALYZE {}", _new(name))

    def built(self) -> list[date]:
        """The months that were made and are not yet in their place."""
        if not may_be_partitioned(self.table):
            return []
        self.cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (self.schema,))
        form = re.compile(re.escape(_new(self.table.name)) + r"_(\d{4})_(\d{2})")
        found = (form.fullmatch(name) for (name,) in self.cursor.fetchall())
        return sorted(date(int(match[1]), int(match[2]), 1) for match in found if match)

    def exchange(self, month: date) -> Iterator[sql.Composable]:
        """Put a month that was made in the place of the published one."""
        name = self.name(month)
        # A table of that name that is no partition is somebody else's.
        if name in self.attached():
            yield self._sql("DROP TABLE {}", name)
        yield from self._rename(name)
        yield self._sql("ALTER TABLE {} ATTACH PARTITION {} {}", self.table.name, name, _bounds(month))
        yield self._sql("ALTER TABLE {} DROP CONSTRAINT {}", name, _check(name))

    def name(self, month: date) -> str:
        return f"{self.table.name}_{month:%Y_%m}"

    def attached(self, name: str | None = None) -> set[str]:
        """The names of the partitions of a table, the published one where no other is named."""
        if not may_be_partitioned(self.table):
            return set()
        self.cursor.execute(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
            "WHERE inhparent = to_regclass(%s)",
            (self._name(name or self.table.name).as_string(self.cursor),),
        )
        return {name for (name,) in self.cursor.fetchall()}

    def _checks_of_others(self, name: str) -> Iterator[sql.Composable]:
        """Give a table the checks that others put on the published one, without which it cannot be attached."""
        self.cursor.execute(
            "SELECT conname, pg_get_expr(conbin, conrelid) FROM pg_constraint "
            "WHERE conrelid = to_regclass(%s) AND contype = 'c' ORDER BY 1",
            (self._name(self.table.name).as_string(self.cursor),),
        )
        for constraint, condition in self.cursor.fetchall():
            yield self._sql(
                "ALTER TABLE {} ADD CONSTRAINT {} CHECK ({})",
                *(name, sql.Identifier(constraint), sql.SQL(condition)),
            )

    def _is_mostly_changed(self, month: date, rows: int) -> bool:
        if rows < REBUILT_FROM_ROWS:
            return False
        self.cursor.execute(self._sql("SELECT count(*) FROM {}", self.name(month)))
        return bool(rows > self.cursor.fetchone()[0] * REPLACED_FROM_SHARE)

    def _added(self, month: date) -> list[str]:
        return added(self.cursor, self.schema, self._name(self.name(month)))

    def _is_among_others(self, month: date) -> bool:
        """Whether the default partition has rows of a month: it can then have no partition of its own."""
        self.cursor.execute(
            self._sql("SELECT EXISTS (SELECT FROM {} WHERE {})", self._others, self._within(month))
        )
        return bool(self.cursor.fetchone()[0])

    def _within(self, month: date) -> sql.Composable:
        bounds = (_first_uuid(month), _first_uuid(following(month)))
        return self._sql("{0} >= {1} AND {0} < {2}", self._key, *bounds)

    def _rename(self, name: str) -> Iterator[sql.Composable]:
        """Take `_new_` off the names of a partition and its index."""
        yield self._sql("ALTER TABLE {} RENAME TO {}", _new(name), sql.Identifier(name))
        yield self._sql("ALTER INDEX {} RENAME TO {}", _new(_index(name)), sql.Identifier(_index(name)))

    @property
    def _key(self) -> sql.Composable:
        return sql.Identifier(*self.table.primary_key)

    @property
    def _changes(self) -> str:
        return CHANGES_TABLE.format(self.table.name)

    @property
    def _others(self) -> str:
        return f"{self.table.name}_{OTHER_MONTHS}"

    def _sql(self, text: str, *parts: str | sql.Composable) -> sql.Composed:
        """A statement; a part that is text is the name of a table of the schema."""
        return sql.SQL(text).format(*(self._name(p) if isinstance(p, str) else p for p in parts))

    def _name(self, name: str) -> sql.Identifier:
        return sql.Identifier(self.schema, name)


def _new(name: str) -> str:
    return NEW_TABLE.format(name)


def _index(partition: str) -> str:
    return f"{partition}_pkey"


def _check(partition: str) -> sql.Composable:
    return sql.Identifier(f"{partition}_bounds")


def _first_uuid(month: date) -> sql.Composable:
    return sql.Literal(first_uuid(month))


def _bounds(month: date) -> sql.Composable:
    bounds = (_first_uuid(month), _first_uuid(following(month)))
    return sql.SQL("FOR VALUES FROM ({}) TO ({})").format(*bounds)


def identifiers(names: Iterable[str]) -> sql.Composable:
    """Names as a list of identifiers."""
    return sql.SQL(", ").join(map(sql.Identifier, names))
