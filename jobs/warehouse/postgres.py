"""PostgreSQL as the warehouse: what is asked of it. Publishing is in `postgres_publication.py`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql

from jobs.console import log
from jobs.errors import ConfigurationError, QueryTooSlow, TableLocked
from jobs.lake.locks import POLL_SECONDS
from jobs.settings import without_password
from jobs.warehouse.base import KEY_HASH, KEY_SEPARATOR, ROW_COUNT, Load, Measures, Plan, Published
from jobs.warehouse.declarations import Table, tables, views
from jobs.warehouse.postgres_connection import (
    connected,
    encoding_problem,
    one_line,
    only_value,
    quoting_problem,
    told,
)
from jobs.warehouse.postgres_publication import STATES, PostgresPublication

OLDEST_VERSION = 120_000


class PostgresWarehouse:
    """A schema of a PostgreSQL database, version 12 or later."""

    def __init__(self, url: str, schema: str, lock_wait_seconds: float = 600.0) -> None:
        self.url = url
        self.schema = schema
        self.lock_wait_seconds = lock_wait_seconds

    def check(self) -> None:
        with connected(self.url):
            pass

    @told("look up rights")
    def missing_rights(self) -> list[str]:
        problems = []
        with connected(self.url) as connection, connection.cursor() as cursor:
            if connection.server_version < OLDEST_VERSION:
                problems.append("the server is older than PostgreSQL 12")
            if problem := encoding_problem(connection) or quoting_problem(cursor):
                problems.append(problem)
            cursor.execute("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean")
            if only_value(cursor):
                problems.append("the server takes no changes: it is a standby, in recovery, or read-only")
            cursor.execute("SELECT to_regnamespace(%s) IS NULL", (self.schema,))
            if only_value(cursor):
                cursor.execute("SELECT has_database_privilege(current_database(), 'CREATE')")
                if not only_value(cursor):
                    problems.append(f"there is no schema {self.schema}, and this role may not make it")
                return problems
            for right in ("USAGE", "CREATE"):
                cursor.execute("SELECT has_schema_privilege(%s, %s)", (self.schema, right))
                if not only_value(cursor):
                    problems.append(f"this role lacks {right} on schema {self.schema}")
            cursor.execute(
                "SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class WHERE relnamespace = "
                "to_regnamespace(%s) AND relname = ANY(%s) AND NOT pg_has_role(relowner, 'USAGE')",
                (self.schema, [STATES, *tables(), *views()]),
            )
            if others := only_value(cursor):
                problems.append(f"this role does not own {others}, and could not replace them")
        return problems

    @contextmanager
    def publishing(self) -> Iterator[PostgresPublication]:
        with told("publish"), connected(self.url) as connection:
            with connection.cursor() as cursor:
                if problem := encoding_problem(connection) or quoting_problem(cursor):
                    raise ConfigurationError(f"WAREHOUSE_URL={without_password(self.url)}: {problem}")
                self._take_turn(cursor)
                cursor.execute("SELECT to_regnamespace(%s) IS NULL", (self.schema,))
                # IF NOT EXISTS would ask for the right to make schemas even where there is nothing to make.
                if only_value(cursor):
                    cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
                cursor.execute(
                    sql.SQL(
                        "CREATE TABLE IF NOT EXISTS {} (table_name text PRIMARY KEY, delta_table_id text NOT NULL, "
                        "delta_version bigint NOT NULL, published_at timestamptz NOT NULL DEFAULT now())"
                    ).format(sql.Identifier(self.schema, STATES))
                )
            connection.commit()
            yield PostgresPublication(connection, self.url, self.schema)

    def _take_turn(self, cursor: Any) -> None:
        """Take the lock of the schema, which the server gives back when the connection ends."""
        lock = int.from_bytes(hashlib.sha256(self.schema.encode()).digest()[:8], "big", signed=True)
        deadline = time.monotonic() + self.lock_wait_seconds
        said = False
        # Rather than waiting in the server, which would neither end with the time nor with Ctrl-C.
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (lock,))
            is_taken = only_value(cursor)
            cursor.connection.commit()
            if is_taken:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise TableLocked(
                    f"publish: another publication to {self.schema} was not done after "
                    f"{self.lock_wait_seconds:.0f} s; nothing was published. Run again when it is, or wait longer with "
                    "LOCK_WAIT_SECONDS"
                )
            if not said:
                log.info(
                    "publish: waiting for another publication to %s to end, up to %.0f s",
                    *(self.schema, self.lock_wait_seconds),
                )
                said = True
            time.sleep(min(POLL_SECONDS, left))

    @told("look up what is published")
    def published(self) -> Mapping[str, Published]:
        with connected(self.url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s)", (f"{self.schema}.{STATES}",))
            if only_value(cursor) is None:
                return {}
            return PostgresPublication(connection, self.url, self.schema).published

    @told("plan")
    def plan(self, load: Load) -> Plan:
        with connected(self.url) as connection:
            return PostgresPublication(connection, self.url, self.schema).plan(load)

    @told("query")
    def query(
        self, name: str, limit: int, seconds: float | None = None
    ) -> tuple[list[str], list[tuple[object, ...]]]:
        with connected(self.url) as connection, connection.cursor() as cursor:
            first = sql.SQL("SELECT * FROM {} LIMIT {}")
            try:
                if seconds is not None:
                    cursor.execute("SET LOCAL statement_timeout = %s", (int(seconds * 1000),))
                cursor.execute(first.format(sql.Identifier(self.schema, name), sql.Literal(limit)))
            except psycopg2.errors.UndefinedTable:
                raise ConfigurationError(
                    f"{name}: not in schema {self.schema} yet; `user-analytics run` builds and publishes it"
                ) from None
            except psycopg2.errors.QueryCanceled as error:
                raise QueryTooSlow(f"{name}: PostgreSQL: {one_line(error)}") from None
            return [column.name for column in cursor.description], cursor.fetchall()

    @told("count")
    def counts(self, names: Sequence[str]) -> dict[str, int]:
        with connected(self.url) as connection, connection.cursor() as cursor:
            counted = {}
            for name in names:
                cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(self.schema, name)))
                counted[name] = int(only_value(cursor))
            return counted

    @told("search")
    def rows_naming(self, table: Table, texts: Sequence[str], ids: Mapping[str, Sequence[str]]) -> list[str]:
        conditions: list[sql.Composable] = [
            sql.SQL("strpos(lower(to_jsonb(x)::text), {}) > 0").format(sql.Literal(text)) for text in texts
        ]
        conditions += [
            sql.SQL("{}::text = ANY ({})").format(sql.Identifier(column), sql.Literal(list(values)))
            for column, values in ids.items()
        ]
        if not conditions:
            return []
        select = sql.SQL("SELECT to_jsonb(x)::text FROM {} AS x WHERE {}")
        with connected(self.url) as connection, connection.cursor() as cursor:
            name = sql.Identifier(self.schema, table.name)
            cursor.execute(select.format(name, sql.SQL(" OR ").join(conditions)))
            return [text for (text,) in cursor.fetchall()]

    @told("measure")
    def measures(self, tables: Sequence[Table]) -> dict[str, Measures]:
        with connected(self.url) as connection, connection.cursor() as cursor:
            there = PostgresPublication(connection, self.url, self.schema)
            return {t.name: self._measure(cursor, t.among(there._columns(cursor, t.name))) for t in tables}

    def _measure(self, cursor: Any, table: Table) -> Measures:
        # Before PostgreSQL 14, `extract` gives doubles: exact for seconds, and for the microseconds of a minute.
        time = sql.SQL(
            "(extract(epoch FROM date_trunc('second', {0}))::bigint * 1000000"
            " + extract(microseconds FROM {0})::bigint % 1000000)::text"
        )
        key = sql.SQL(", ").join(
            (time if c.is_time else sql.SQL("{}::text")).format(sql.Identifier(c.name))
            for c in table.key_columns
        )
        hashed = sql.SQL("sum(('x' || left(md5(concat_ws({}, {})), 15))::bit(60)::bigint)").format(
            sql.Literal(KEY_SEPARATOR), key
        )
        sums = [sql.SQL("sum({})").format(sql.Identifier(name)) for name in table.measures]
        values = sql.SQL(", ").join([sql.SQL("count(*)"), *sums, hashed])
        cursor.execute(sql.SQL("SELECT {} FROM {}").format(values, sql.Identifier(self.schema, table.name)))
        names = [ROW_COUNT, *(f"sum({name})" for name in table.measures), KEY_HASH]
        return dict(zip(names, cursor.fetchone(), strict=True))
