"""Three small declarations, shops, their sales and two views, published without a lake, and ways to be killed at it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

import jobs.warehouse.postgres_copy as postgres_copy
from jobs.spark import local_rows
from jobs.warehouse import postgres_connection
from jobs.warehouse.base import Check, Load, Published
from jobs.warehouse.declarations import tables, views
from jobs.warehouse.postgres import PostgresWarehouse
from tests.warehouses import query

SHOPS = """CREATE TABLE shops (
  shop_key BIGINT NOT NULL COMMENT 'Key of the shop',
  name VARCHAR(100) NOT NULL COMMENT 'The shop''s name',
  PRIMARY KEY (shop_key),
  UNIQUE (name)
) COMMENT = 'Shops. Grain: one row per shop';
"""
SALES = """CREATE TABLE sales (
  sale_id UUID NOT NULL COMMENT 'Key of the sale',
  shop_key BIGINT NOT NULL COMMENT 'Where',
  amount DECIMAL(18, 4) COMMENT 'How much',
  note VARCHAR(1000) COMMENT 'Free text',
  sold_at TIMESTAMPTZ COMMENT 'When',
  is_return BOOLEAN COMMENT 'Brought back',
  ratio DOUBLE COMMENT 'A number',
  PRIMARY KEY (sale_id),
  FOREIGN KEY (shop_key) REFERENCES shops (shop_key)
) COMMENT = 'Sales. Grain: one row per sale';
"""
SHOP_VIEW = """-- Grain: one row per shop with sales.
SELECT shops.name AS name, SUM(sales.amount) AS amount
FROM sales
INNER JOIN shops ON shops.shop_key = sales.shop_key
WHERE NOT shops.name LIKE 'Test%'
GROUP BY shops.name
"""
TOTAL_VIEW = """-- Grain: one row.
SELECT SUM(amount) AS amount
FROM shop_view
"""

NORTH, SOUTH, EAST = (1, "North"), (2, "South"), (3, "East")
MAY = datetime(2024, 5, 1, 12, tzinfo=UTC)


def sale(number: int, shop: int, amount: str | None, note: str | None = None, **more: Any) -> tuple[Any, ...]:
    at = more.get("at", MAY)
    value = Decimal(amount) if amount is not None else None
    return (sale_id(number), shop, value, note, at, more.get("is_return", False), more.get("ratio", 0.5))


def sale_id(number: int) -> str:
    return f"00000000-0000-8000-8000-{number:012d}"


def declare_shops(declare: Callable[..., None], sales: str = SALES) -> None:
    """Have these declarations in place of the project's. declare: the fixture of that name."""
    declare("shops", lambda _: SHOPS)
    declare("sales", lambda _: sales)
    declare("shop_view", lambda _: SHOP_VIEW, folder="views")
    declare("total_view", lambda _: TOTAL_VIEW, folder="views")


class Publisher(ABC):
    """Publishes shops and sales, in versions; rows stand in for the marts."""

    version = 0

    def load(
        self, name: str, rows: Sequence[tuple[Any, ...]], whole: bool, count: int, **sums: str | None
    ) -> Load:
        expected: dict[str, Decimal | int | None] = {"row_count": count}
        expected |= {f"sum({n})": None if v is None else Decimal(v) for n, v in sums.items()}
        state = Published(f"table-{name}", self.version)
        return Load(tables()[name], self.frame(name, rows, whole), whole, state, expected)

    def whole(
        self, shops: Sequence[tuple[Any, ...]] = (NORTH, SOUTH), sales: Sequence[tuple[Any, ...]] = ()
    ) -> list[Check]:
        """Publish these rows as the whole of both tables."""
        self.version += 1
        amounts = [row[2] for row in sales if row[2] is not None]
        return self.commit(
            self.load("shops", shops, True, len(shops)),
            self.load("sales", sales, True, len(sales), amount=str(sum(amounts)) if amounts else None),
        )

    def changes(self, sale: Callable[..., tuple[Any, ...]] = sale, at: datetime = MAY) -> list[Load]:
        """South closes and East opens; one sale is corrected, one is taken back, one, of that time, comes new."""
        self.version += 1
        sales = [
            (*sale(1, 1, "11.00"), False),
            (*sale(2, 2, None), True),
            (*sale(3, 3, "5.25", at=at), False),
        ]
        return [
            self.load("shops", [(*SOUTH, True), (*EAST, False)], False, 2),
            self.load("sales", sales, False, 2, amount="16.25"),
        ]

    @abstractmethod
    def frame(self, name: str, rows: Sequence[tuple[Any, ...]], whole: bool) -> DataFrame: ...

    @abstractmethod
    def commit(self, *loads: Load) -> list[Check]: ...


class Shop(Publisher):
    """A schema of PostgreSQL and what is published to it. client: a connection for all questions about it."""

    def __init__(self, spark: SparkSession, url: str, schema: str = "analytics", client: Any = None) -> None:
        self.spark, self.url, self.schema, self.client = spark, url, schema, client
        self.warehouse = PostgresWarehouse(url, schema)

    def frame(self, name: str, rows: Sequence[tuple[Any, ...]], whole: bool) -> DataFrame:
        schema = tables()[name].spark_schema()
        if not whole:
            schema = T.StructType([*schema, T.StructField("_deleted", T.BooleanType())])
        return local_rows(self.spark, rows, schema).coalesce(1)

    def commit(self, *loads: Load) -> list[Check]:
        with self.warehouse.publishing() as publication:
            return publication.commit(loads, [views()["shop_view"], views()["total_view"]])

    def query(self, text: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return query(self.client or self.url, text, *arguments, schema=self.schema)

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything in the schema: rows, published versions, constraints, views, and nothing left behind."""
        relations = self.query(
            "SELECT relname, relkind, relpersistence FROM pg_class "
            "WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p', 'v', 'i', 'I') ORDER BY 1",
            self.schema,
        )
        there = {name for name, *_ in relations}
        return {
            "relations": relations,
            "constraints": self.query(
                "SELECT conname, contype, pg_get_constraintdef(oid) FROM pg_constraint "
                "WHERE connamespace = to_regnamespace(%s) AND contype IN ('p', 'u', 'f') "
                "AND conname <> '_published_pkey' ORDER BY 1, 3, conrelid::regclass::text",
                self.schema,
            ),
            "partitions": self.query(
                "SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class "
                "WHERE relnamespace = to_regnamespace(%s) AND relispartition AND relkind = 'r' ORDER BY 1",
                self.schema,
            ),
            **{
                name: self.query(f"SELECT * FROM {name} ORDER BY 1")
                for name in ("shops", "sales", "shop_view", "total_view")
                if name in there
            },
            "published": self.query(
                "SELECT table_name, delta_table_id, delta_version FROM _published ORDER BY 1"
            )
            if "_published" in there
            else [],
        }


class Killed(BaseException):
    """Stands for the end of the process."""


class Fuse:
    """Ends the process after the n-th thing that the server did for it, be it a commit."""

    def __init__(self, left: int) -> None:
        self.left = left

    def after(self, what: Callable[..., None], *arguments: Any) -> None:
        what(*arguments)
        self.left -= 1
        if self.left == 0:
            raise Killed


def fused_connect(fuse: Fuse) -> Callable[..., Any]:
    class Cursor(psycopg2.extensions.cursor):
        def execute(self, *arguments: Any) -> None:
            fuse.after(lambda: super(Cursor, self).execute(*arguments))

    class Connection(psycopg2.extensions.connection):
        def commit(self) -> None:
            fuse.after(super().commit)

        def rollback(self) -> None:
            # A process that was killed does not roll back: the server does when the connection ends.
            if fuse.left <= 0:
                raise psycopg2.InterfaceError("killed")
            super().rollback()

    def connect(*arguments: Any, **options: Any) -> Any:
        return psycopg2.connect(*arguments, **options, connection_factory=Connection, cursor_factory=Cursor)

    return connect


class FusedModule:
    """psycopg2 as the warehouse sees it, with another `connect`."""

    def __init__(self, connect: Callable[..., Any]) -> None:
        self.connect = connect

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg2, name)


def assert_same_after_every_kill(
    spark: SparkSession,
    url: str,
    publication: Callable[[Shop], None],
    before: Callable[[Shop], None] | None,
) -> int:
    """Publish after `before`, killed after every statement in turn and run again. Gives the number of statements."""

    # Thousands of questions: connecting for each takes longer than the answers.
    client = psycopg2.connect(url)

    def prepared(schema: str) -> Shop:
        shop = Shop(spark, url, schema, client)
        if before:
            before(shop)
        return shop

    def content(shop: Shop) -> str:
        return str(shop.content()).replace(shop.schema, "schema")

    ingest = postgres_copy._ingest
    clean = prepared("clean")
    old, statements = content(clean), 0
    publication(clean)
    wanted = content(clean)
    for number in range(1, 1000):
        shop = prepared(f"killed_{number}")
        fuse = Fuse(number)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(postgres_connection, "psycopg2", FusedModule(fused_connect(fuse)))
            patch.setattr(postgres_copy, "_ingest", partial(fuse.after, ingest))
            try:
                publication(shop)
            except Killed:
                statements += 1
            else:
                break
        # What readers see is the state before or the state after.
        rows = {name: shop.content().get(name) for name in ("shops", "sales", "total_view", "published")}
        assert any(all(f"'{n}': {r}" in state for n, r in rows.items() if r) for state in (old, wanted))
        shop.version = 0
        publication(shop)
        assert content(shop) == wanted, f"killed after statement {number}"
        shop.query(f"DROP SCHEMA {shop.schema} CASCADE")
    client.close()
    return statements
