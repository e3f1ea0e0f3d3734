"""A publication to PostgreSQL.

Rows come from Spark's tasks by COPY (`postgres_copy.py`). A whole table is loaded into a new one beside the old,
without keys; keys come after the rows, because one pass over all rows is far cheaper than a look-up per row (10 million
facts: 16 s instead of 128 s). Changes are loaded into an unlogged table and merged.
Large facts have partitions by month (`partitions.py`): a month that is new, or of which much changed, is made anew in
the same way. What readers see changes in one transaction, together with the checks and the published versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from typing import Any

import psycopg2
from psycopg2 import sql

from jobs.console import log
from jobs.errors import CheckFailed, ConfigurationError, UserAnalyticsError
from jobs.warehouse.base import ROW_COUNT, Check, Load, Plan, Published, number_text
from jobs.warehouse.declarations import Column, Table, View, tables, views
from jobs.warehouse.partitions import CHANGES_TABLE, NEW_TABLE, Months, months_of_whole, rows_by_month
from jobs.warehouse.postgres_catalog import Right, added, close, grant, rights, view_options
from jobs.warehouse.postgres_connection import connected, only_value
from jobs.warehouse.postgres_copy import copy_rows
from jobs.warehouse.postgres_sql import (
    Statements,
    column_definition,
    constraints,
    foreign_key_name,
    key_names,
)

STATES = "_published"


class PostgresPublication:
    """See `jobs.warehouse.base.Publication`."""

    def __init__(self, connection: Any, url: str, schema: str) -> None:
        self.connection = connection
        self.url = url
        self.schema = schema
        self.statements = Statements(schema)

    @property
    def published(self) -> Mapping[str, Published]:
        with self.connection.cursor() as cursor:
            cursor.execute(
                # A table that somebody dropped is not published, whatever its row says.
                sql.SQL(
                    "SELECT table_name, delta_table_id, delta_version, relkind = 'p', published_at FROM {} "
                    "JOIN pg_class ON relname = table_name "
                    "WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p')"
                ).format(self._name(STATES)),
                (self.schema,),
            )
            states = {name: Published(*state) for name, *state in cursor.fetchall()}
        self.connection.commit()
        return states

    def plan(self, load: Load) -> Plan:
        """See `jobs.warehouse.base.Warehouse.plan`."""
        copy = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(self._name(_staged(load)))
        with self.connection.cursor() as cursor:
            strategy, statements = (self._plan_whole if load.whole else self._plan_changes)(
                cursor, load, copy
            )
        return Plan(strategy, tuple(statement.as_string(self.connection) for statement in statements))

    def _plan_whole(
        self, cursor: Any, load: Load, copy: sql.Composable
    ) -> tuple[str, Iterable[sql.Composable]]:
        table, new = load.table, _staged(load)
        create = self._create_whole(cursor, load)
        by_month = " by month" if len(create) > 1 else ""
        if table.name in self._present(cursor) and (kept := self._added(cursor, table, views().values())):
            statements = [
                *create,
                copy,
                *self.statements.keys(table, new),
                *self.statements.replacement(table),
            ]
            return f"new table{by_month}, its rows moved, for the sake of {', '.join(kept)}", statements
        foreign_keys = [self.statements.foreign_key(table, key) for key in table.foreign_keys]
        statements = [
            *create,
            copy,
            *self.statements.keys(table, new),
            self.statements.rename(new, table.name),
            *foreign_keys,
        ]
        return f"new table{by_month}, keyed after its rows, swapped in", statements

    def _plan_changes(
        self, cursor: Any, load: Load, copy: sql.Composable
    ) -> tuple[str, Iterable[sql.Composable]]:
        table, months = load.table, self._months(cursor, load.table)
        chosen = months.to_build(rows_by_month(load), load.only_merge) if months.is_partitioned() else []
        built = [statement for month in chosen for statement in self._build_month(cursor, months, month)]
        exchanged = [statement for month in chosen for statement in months.exchange(month)]
        strategy = ", ".join(["merge", *(f"{month:%Y-%m} made anew" for month in chosen)])
        return strategy, [
            copy,
            *built,
            self.statements.merge(table),
            *exchanged,
            self.statements.delete(table),
        ]

    def new_columns(self, loads: Sequence[Load]) -> Mapping[str, Sequence[Column]]:
        published = self.published
        with self.connection.cursor() as cursor:
            found = {}
            for load in loads:
                if load.table.name not in published:
                    self._require_ours(cursor, load.table)
                if not load.whole:
                    self._create_changes(cursor, load.table)
                    staged, advice = _staged(load), self._made_anew(load.table)
                    found[load.table.name] = self._missing(cursor, load.table, staged, advice)
        self.connection.rollback()
        return {name: columns for name, columns in found.items() if columns}

    def commit(self, loads: Sequence[Load], views: Sequence[View]) -> list[Check]:
        try:
            with self.connection.cursor() as cursor:
                self._stage(cursor, loads)
                checks = self._switch(cursor, loads, views)
            self.connection.commit()
        except BaseException:
            # Where the connection is gone, so is the transaction; the next publication clears what was staged.
            with suppress(psycopg2.Error), self.connection.cursor() as cursor:
                self.connection.rollback()
                for load in loads:
                    self._drop_staged(cursor, load.table)
                self.connection.commit()
            raise
        return checks

    def _drop_staged(self, cursor: Any, table: Table) -> None:
        months = self._months(cursor, table)
        names = [form.format(table.name) for form in (NEW_TABLE, CHANGES_TABLE)]
        names += [NEW_TABLE.format(months.name(month)) for month in months.built()]
        cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.SQL(", ").join(map(self._name, names))))

    def _stage(self, cursor: Any, loads: Sequence[Load]) -> None:
        """Bring the rows of all loads into the server, beside the tables that readers see.

        The largest come first: a table's keys keep one core busy, and the next rows are copied meanwhile.
        """
        largest_first = sorted(loads, key=lambda load: -int(load.expected[ROW_COUNT] or 0))
        with self._another_connection() as another, ThreadPoolExecutor(1) as meanwhile:
            completed = []
            for load in largest_first:
                self._copy(cursor, load)
                completed.append(meanwhile.submit(self._complete, another, load))
            for one in completed:
                one.result()

    @contextmanager
    def _another_connection(self) -> Iterator[Any]:
        with ExitStack() as stack:
            try:
                another = stack.enter_context(connected(self.url))
            except ConfigurationError as error:
                # The settings are right: this publication was reached by them.
                raise UserAnalyticsError(f"publish: {error}") from None
            yield another

    def _copy(self, cursor: Any, load: Load) -> None:
        staged = _staged(load)
        if load.whole:
            self._drop_staged(cursor, load.table)
            for statement in self._create_whole(cursor, load):
                cursor.execute(statement)
            # A table that is published for the first time is for whom default privileges say; its partitions are not.
            itself = [staged] if load.table.name in self._present(cursor) else []
            close(cursor, self.schema, [*itself, *self._months(cursor, load.table).attached(staged)])
        else:
            self._create_changes(cursor, load.table)
        self.connection.commit()
        copied = copy_rows(load, self.url, self.schema, staged)
        log.debug("publish %s: %s rows copied", load.table.name, f"{copied:,}")

    def _complete(self, connection: Any, load: Load) -> None:
        """What the server has to do with rows that were copied, before they can be switched to."""
        staged = _staged(load)
        with connection.cursor() as cursor:
            if load.whole:
                for statement in self.statements.keys(load.table, staged):
                    cursor.execute(statement)
            cursor.execute(sql.SQL("ANALYZE {}").format(self._name(staged)))
            if not load.whole:
                self._stage_months(cursor, load)
        connection.commit()

    def _create_whole(self, cursor: Any, load: Load) -> list[sql.Composable]:
        """What makes a new table for a whole load, with its partitions if it is large."""
        table, new = load.table, NEW_TABLE.format(load.table.name)
        chosen = months_of_whole(load)
        if chosen is None:
            return [self.statements.create(table, new)]
        months = self._months(cursor, table)
        log.info("publish %s: %d months as partitions", table.name, len(chosen))
        return [self.statements.create(table, new, months.clause), *months.partitions(chosen)]

    def _stage_months(self, cursor: Any, load: Load) -> None:
        """Build the months that are new or of which much changed beside those that readers see."""
        months = self._months(cursor, load.table)
        if not months.is_partitioned():
            return
        changed = months.changed()
        for month in months.to_build(changed, load.only_merge):
            name, rows = load.table.name, f"{changed[month]:,}"
            log.info("publish %s: %s made anew for %s changes", name, f"{month:%Y-%m}", rows)
            for statement in self._build_month(cursor, months, month):
                cursor.execute(statement)
            close(cursor, self.schema, [NEW_TABLE.format(months.name(month))])

    def _build_month(self, cursor: Any, months: Months, month: date) -> Iterable[sql.Composable]:
        table = months.table
        there = self._columns(cursor, table.name)
        create = self.statements.create(table, NEW_TABLE.format(months.name(month)))
        return months.build(month, create, [name for name in table.column_names if name in there])

    def _months(self, cursor: Any, table: Table) -> Months:
        return Months(cursor, self.schema, table)

    def _create_changes(self, cursor: Any, table: Table) -> None:
        self._drop_staged(cursor, table)
        columns = [*(column_definition(c) for c in table.columns), sql.SQL("_deleted boolean NOT NULL")]
        name = CHANGES_TABLE.format(table.name)
        cursor.execute(
            sql.SQL("CREATE UNLOGGED TABLE {} ({})").format(self._name(name), sql.SQL(", ").join(columns))
        )
        close(cursor, self.schema, [name])

    def _switch(self, cursor: Any, loads: Sequence[Load], views: Sequence[View]) -> list[Check]:
        """The one transaction after which readers see the new state, or none of it."""
        for load in loads:
            if not load.whole:
                self._adapt(cursor, load.table, _staged(load), self._made_anew(load.table))
        swapped = {load.table.name for load in loads if load.whole}
        there = self._present(cursor)
        affected = [
            (table, key)
            for table in tables().values()
            for key in table.foreign_keys
            if {table.name, key.table} & swapped and {table.name, key.table} <= there | swapped
        ]
        for table, key in affected:
            if table.name in there:
                cursor.execute(
                    sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
                        self._name(table.name), sql.Identifier(foreign_key_name(table, key))
                    )
                )
        for load in loads:
            if load.whole and load.table.name not in there:
                self._put_in_place(cursor, load.table)
            elif load.whole and (kept := self._added(cursor, load.table, views)):
                self._replace_rows(cursor, load.table, kept)
            elif load.whole:
                self._swap(cursor, load.table)
        for load in loads:
            if not load.whole:
                cursor.execute(self.statements.merge(load.table))
        # Rows of a new month may point at rows that were merged just now, and those of the old one at such as go.
        for load in loads:
            months = self._months(cursor, load.table)
            for month in [] if load.whole else months.built():
                for statement in months.exchange(month):
                    cursor.execute(statement)
        for load in reversed(loads):
            if not load.whole:
                cursor.execute(self.statements.delete(load.table))
        for table, key in affected:
            cursor.execute(self.statements.foreign_key(table, key))
        self._create_views(cursor, views)
        for load in loads:
            leavings = [_old(load.table), _staged(load)]
            names = sql.SQL(", ").join(map(self._name, leavings))
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(names))
            if load.whole:
                for statement in self._months(cursor, load.table).settle():
                    cursor.execute(statement)
        checks = [check for load in loads for check in self._checks(cursor, load)]
        if not all(check.passed for check in checks):
            raise CheckFailed(checks)
        for load in loads:
            cursor.execute(
                sql.SQL(
                    "INSERT INTO {} (table_name, delta_table_id, delta_version) VALUES (%s, %s, %s) ON CONFLICT "
                    "(table_name) DO UPDATE SET delta_table_id = excluded.delta_table_id, "
                    "delta_version = excluded.delta_version, published_at = now()"
                ).format(self._name(STATES)),
                (load.table.name, load.state.table_id, load.state.version),
            )
        return checks

    def _present(self, cursor: Any, kinds: str = "rp") -> set[str]:
        """The names of the tables of the schema; those of other kinds of relations as PostgreSQL abbreviates them."""
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind::text = ANY(%s)",
            (self.schema, list(kinds)),
        )
        return {name for (name,) in cursor.fetchall()}

    def _made_anew(self, table: Table) -> str:
        return f"To have the table made anew from its mart, delete its row in {self.schema}.{STATES} and publish again"

    def _adapt(self, cursor: Any, table: Table, staged: str, advice: str) -> None:
        """Add the nullable columns that were declared since the table was made, and bring comments up to date."""
        name = self._name(table.name)
        for column in self._missing(cursor, table, staged, advice):
            cursor.execute(sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(name, column_definition(column)))
            log.info("publish %s: column %s added", table.name, column.name)
        comments = self._comments(cursor, table)
        if comments.get(None, "") != table.comment:
            cursor.execute(self.statements.table_comment(table.name, table))
        for column in table.columns:
            if comments.get(column.name, "") != column.comment:
                cursor.execute(self.statements.column_comment(table.name, column))

    def _comments(self, cursor: Any, table: Table) -> dict[str | None, str]:
        """Column → comment; the table's own has no column's name."""
        cursor.execute(
            "SELECT attname, description FROM pg_description LEFT JOIN pg_attribute ON attrelid = objoid AND "
            "attnum = objsubid AND attnum > 0 WHERE classoid = 'pg_class'::regclass AND objoid = %s::regclass",
            (self._name(table.name).as_string(cursor),),
        )
        return dict(cursor.fetchall())

    def _require_ours(self, cursor: Any, table: Table) -> None:
        """Stop before a table is replaced that somebody else made: `users` in the schema of another program.

        One whose row in _published is gone, for it to be loaded whole, has comments that it was made with.
        """
        if table.name not in self._present(cursor):
            return
        declared: dict[str | None, str] = {
            None: table.comment,
            **{column.name: column.comment for column in table.columns},
        }
        if not self._comments(cursor, table).items() & declared.items():
            raise UserAnalyticsError(
                f"publish {table.name}: schema {self.schema} has a table of that name which no publication made. "
                "Choose another WAREHOUSE_SCHEMA, or rename the table or drop it, and publish again"
            )

    def _missing(self, cursor: Any, table: Table, staged: str, advice: str) -> list[Column]:
        """The declared columns that may be null and are not there; any other difference stops, with advice.

        staged: a table that has all of them.
        """
        there = self._columns(cursor, table.name)
        declared = self._columns(cursor, staged)
        declared.pop("_deleted", None)
        missing = [c for c in table.columns if c.name not in there and c.nullable]
        there |= {column.name: declared[column.name] for column in missing}
        differences = [
            f"column {name} is {there.get(name, 'missing')}, declared as {declared.get(name, 'nothing')}"
            for name in {**declared, **there}
            if there.get(name) != declared.get(name)
        ]
        # Rows are merged by it; what else is missing, the checks find.
        key = f"{table.name}_pkey"
        if key not in self._primary_keys(cursor, table.name):
            differences.append(f"key {key} is missing")
        if differences:
            raise UserAnalyticsError(
                f"publish {table.name}: {'; '.join(differences)}. Only new columns that may be null are added on their "
                f"own. {advice}"
            )
        return missing

    def _columns(self, cursor: Any, name: str) -> dict[str, str]:
        """Column → type, with NOT NULL where it is so."""
        cursor.execute(
            "SELECT attname, format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END "
            "FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (self._name(name).as_string(cursor),),
        )
        return dict(cursor.fetchall())

    def _primary_keys(self, cursor: Any, name: str) -> set[str]:
        """The name of a table's primary key; nothing where it has none."""
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'",
            (self._name(name).as_string(cursor),),
        )
        return {constraint for (constraint,) in cursor.fetchall()}

    def _added(self, cursor: Any, table: Table, views: Iterable[View]) -> list[str]:
        keys = [name for each in tables().values() for name in key_names(each)]
        return added(cursor, self.schema, self._name(table.name), tables(), keys, views)

    def _swap(self, cursor: Any, table: Table) -> None:
        granted = rights(cursor, self._name(table.name))
        cursor.execute(self.statements.rename(table.name, _old(table)))
        # Constraint and index names live in the schema: make room for those of the new table.
        for name, _ in constraints(table):
            cursor.execute(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
                    self._name(_old(table)), sql.Identifier(name)
                )
            )
        self._put_in_place(cursor, table)
        grant(cursor, self._name(table.name), granted, table.column_names)

    def _put_in_place(self, cursor: Any, table: Table) -> None:
        """Take `_new_` off the names of a new table and its keys."""
        cursor.execute(self.statements.rename(NEW_TABLE.format(table.name), table.name))
        for name, _ in constraints(table):
            cursor.execute(
                sql.SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}").format(
                    self._name(table.name), sql.Identifier(NEW_TABLE.format(name)), sql.Identifier(name)
                )
            )

    def _replace_rows(self, cursor: Any, table: Table, kept: Sequence[str]) -> None:
        """Bring the rows of a new table into the old one, which stays for the sake of what others added to it."""
        added = ", ".join(kept)
        log.info(
            "publish %s: its rows are replaced, not the table, which takes longer: it has %s",
            table.name,
            added,
        )
        self._adapt(
            cursor,
            table,
            NEW_TABLE.format(table.name),
            f"The table would have to be made anew, which its additions do not allow: {added}. Remove them, publish, "
            "and make them again",
        )
        for statement in self.statements.replacement(table):
            cursor.execute(statement)

    def _checks(self, cursor: Any, load: Load) -> list[Check]:
        """Counts and sums against the mart. Uniqueness and foreign keys are constraints, which hold by now."""
        wanted = list(load.expected)
        expressions = [
            sql.SQL("count(*)")
            if name == ROW_COUNT
            else sql.SQL("sum({})").format(sql.Identifier(name[4:-1]))
            for name in wanted
        ]
        cursor.execute(
            sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(expressions), self._name(load.table.name))
        )
        found = cursor.fetchone()
        checks = [
            Check(load.table.name, name, number_text(load.expected[name]), number_text(value))
            for name, value in zip(wanted, found, strict=True)
        ]
        keys = key_names(load.table)
        cursor.execute(
            "SELECT count(*) FROM pg_constraint WHERE conrelid = %s::regclass AND conname = ANY(%s::name[]) AND "
            "convalidated",
            (self._name(load.table.name).as_string(cursor), keys),
        )
        checks.append(Check(load.table.name, "enforced keys", str(len(keys)), str(only_value(cursor))))
        return checks

    def _create_views(self, cursor: Any, views: Sequence[View]) -> None:
        """Make or replace the views. Replacing keeps the grants; where columns changed, a view is made anew with them.

        Views that stand on such a one are made anew, too: they follow it in the sequence.
        """
        cursor.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(self.schema)))
        # Whose rights a view reads with (security_invoker) is one of its options, which replacing would reset.
        options = view_options(cursor, self.schema)
        granted: dict[str, list[Right]] = {}
        for number, view in enumerate(views):
            head = sql.SQL("VIEW {}{} AS ").format(self._name(view.name), options.get(view.name, sql.SQL("")))
            definition = head + sql.SQL(view.sql("postgres"))
            cursor.execute("SAVEPOINT view")
            try:
                cursor.execute(sql.SQL("CREATE OR REPLACE ") + definition)
            except psycopg2.errors.InvalidTableDefinition:
                cursor.execute("ROLLBACK TO SAVEPOINT view")
                anew = [view.name]
                for other in views[number + 1 :]:
                    if not other.reads.isdisjoint(anew):
                        anew.append(other.name)
                there = self._present(cursor, "v") & set(anew)
                granted |= {name: rights(cursor, self._name(name)) for name in there}
                names = sql.SQL(", ").join(map(self._name, anew))
                cursor.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(names))
                cursor.execute(sql.SQL("CREATE ") + definition)
            cursor.execute(
                sql.SQL("COMMENT ON VIEW {} IS {}").format(self._name(view.name), sql.Literal(view.comment))
            )
        close(cursor, self.schema, list(granted))
        for name, those in granted.items():
            grant(cursor, self._name(name), those, self._columns(cursor, name))

    def _name(self, name: str) -> sql.Identifier:
        return self.statements.name(name)


def _staged(load: Load) -> str:
    return (NEW_TABLE if load.whole else CHANGES_TABLE).format(load.table.name)


def _old(table: Table) -> str:
    return f"_old_{table.name}"
