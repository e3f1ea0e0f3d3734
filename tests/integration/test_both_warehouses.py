"""One declaration, two warehouses: every table and view has the same columns, types and rows in both."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlglot import exp

import jobs.warehouse.bigquery as bigquery_module
from jobs.reconcile import keyed_measures
from jobs.warehouse import postgres_publication
from jobs.warehouse.base import Load, Measures, Published, Warehouse, number_text
from jobs.warehouse.bigquery import BigQueryWarehouse
from jobs.warehouse.declarations import Table, tables, views
from jobs.warehouse.postgres import PostgresWarehouse
from tests.bigquery_emulator import BigQueryEmulator
from tests.warehouses import arrow_rows, copy_without_spark, load_without_spark, query

pytestmark = pytest.mark.integration

ROWS = 12
BEGIN = datetime(2024, 5, 31, 22, 30, 0, 123456, tzinfo=UTC)
# Neutral name of a type ← PostgreSQL's, BigQuery's.
POSTGRES = {
    "ARRAY": "nested",
    "bigint": "integer",
    "boolean": "boolean",
    "date": "date",
    "double precision": "float",
    "jsonb": "nested",
    "numeric": "decimal",
    "text": "text",
    "character varying": "text",
    "timestamp with time zone": "instant",
    "uuid": "text",
}
BIGQUERY = {
    "INTEGER": "integer",
    "INT64": "integer",
    "BOOLEAN": "boolean",
    "BOOL": "boolean",
    "DATE": "date",
    "FLOAT": "float",
    "FLOAT64": "float",
    "RECORD": "nested",
    "NUMERIC": "decimal",
    "STRING": "text",
    "TIMESTAMP": "instant",
}


def rows(table: Table) -> list[tuple[Any, ...]]:
    """Rows of any table. Keys and their references meet; other columns repeat values, and are null where they may."""
    keys = {*table.primary_key, *(name for unique in table.unique for name in unique)}
    references = {name for key in table.foreign_keys for name in key.columns}

    def value(number: int, name: str, kind: exp.DataType, nullable: bool) -> Any:
        if nullable and number % 4 == 3:
            return None
        step = number if name in keys else number % 5 if name in references else number % 3
        match kind.this.value:
            case "BIGINT":
                return step
            case "DECIMAL":
                return Decimal(step * 7 - 3) / 8
            case "DOUBLE":
                return step / 4
            case "BOOLEAN":
                return step == 1
            case "DATE":
                return date(2024, 5, 1) + timedelta(days=step)
            case "TIMESTAMPTZ":
                return BEGIN + timedelta(hours=step)
            case "UUID":
                return f"00000000-0000-8000-8000-{step:012d}"
            case "ARRAY":
                return [value(n, "", kind.expressions[0], False) for n in range(step)]
            case "STRUCT":
                return {m.name: value(number, "", m.args["kind"], False) for m in kind.expressions}
        return f"é '{step}'"

    return [tuple(value(n, c.name, c.type, c.nullable) for c in table.columns) for n in range(ROWS)]


def publish(warehouse: Warehouse) -> None:
    loads = [
        Load(table, arrow_rows(name, rows(table)), True, Published(name, 1), {"row_count": ROWS})
        for name, table in tables().items()
    ]
    with warehouse.publishing() as publication:
        assert publication.published == {}
        assert all(check.passed for check in publication.commit(loads, list(views().values())))


class Postgres:
    def __init__(self, url: str) -> None:
        self.url = url
        publish(PostgresWarehouse(url, "analytics"))

    def columns(self, name: str) -> dict[str, str]:
        found = query(
            self.url,
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'analytics' "
            "AND table_name = %s ORDER BY ordinal_position",
            name,
        )
        return {column: POSTGRES[kind] for column, kind in found}

    def comments(self, name: str) -> dict[str, str]:
        return dict(
            query(
                self.url,
                "SELECT column_name, col_description(%s::regclass, ordinal_position) FROM information_schema.columns "
                "WHERE table_schema = 'analytics' AND table_name = %s",
                name,
                name,
            )
        )

    def content(self, name: str) -> list[tuple[Any, ...]]:
        return query(self.url, f"SELECT * FROM {name}")


class BigQuery:
    def __init__(self, emulator: BigQueryEmulator) -> None:
        self.warehouse = BigQueryWarehouse(emulator.new_dataset_url(), emulator.connection)
        self.client = emulator.connection.client()
        publish(self.warehouse)

    def _rows(self, name: str) -> Any:
        return self.client.query_and_wait(f"SELECT * FROM {self.warehouse._name(name)}")

    def columns(self, name: str) -> dict[str, str]:
        return {
            field.name: "nested" if field.mode == "REPEATED" else BIGQUERY[field.field_type]
            for field in self._rows(name).schema
        }

    def comments(self, name: str) -> dict[str, str]:
        schema = self.client.get_table(self.warehouse.dataset.table(name)).schema
        return {field.name: field.description for field in schema}

    def content(self, name: str) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self._rows(name)]


@pytest.fixture(scope="module")
def both(postgres: str, bigquery: BigQueryEmulator) -> tuple[Postgres, BigQuery]:
    """The two warehouses, with the same rows of all tables published to either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_publication, "copy_rows", copy_without_spark)
        patch.setattr(bigquery_module, "load_rows", load_without_spark)
        return Postgres(postgres), BigQuery(bigquery)


def comparable(found: list[tuple[Any, ...]]) -> list[str]:
    """Rows in an order and form of their own: floats to 12 digits, nested values as JSON, numbers without scale."""

    def plain(value: Any) -> str:
        match value:
            case bool() | None:
                return str(value)
            case int() | Decimal():
                return f"{Decimal(value).normalize():f}"
            case float():
                return f"{value:.12g}"
            case datetime():
                return value.astimezone(UTC).isoformat()
            case list() | dict():
                return json.dumps(value, sort_keys=True)
        return str(value)

    return sorted(" | ".join(map(plain, row)) for row in found)


@pytest.mark.parametrize("name", tables())
def test_a_table(both: tuple[Postgres, BigQuery], name: str) -> None:
    first, second = both
    assert list(first.columns(name)) == list(tables()[name].column_names)
    assert first.columns(name) == second.columns(name)
    assert (
        first.comments(name) == second.comments(name) == {c.name: c.comment for c in tables()[name].columns}
    )
    assert (
        comparable(first.content(name))
        == comparable(second.content(name))
        == comparable(rows(tables()[name]))
    )


@pytest.mark.spark
def test_lake_and_warehouses_measure_the_same_rows_alike(
    both: tuple[Postgres, BigQuery], spark: SparkSession
) -> None:
    expected = {
        name: keyed_measures(
            table, spark.createDataFrame(arrow_rows(name, rows(table)), table.spark_schema())
        )
        for name, table in tables().items()
    }
    first, second = both
    for warehouse in (PostgresWarehouse(first.url, "analytics"), second.warehouse):
        found = warehouse.measures(list(tables().values()))
        assert {n: texts(m) for n, m in found.items()} == {n: texts(m) for n, m in expected.items()}


def texts(measures: Measures) -> dict[str, str | None]:
    return {name: number_text(value) for name, value in measures.items()}


@pytest.mark.parametrize("name", views())
def test_a_view(both: tuple[Postgres, BigQuery], name: str) -> None:
    first, second = both
    assert first.columns(name) == second.columns(name)
    found = comparable(first.content(name))
    assert found == comparable(second.content(name))
    assert found, "the rows above should give the view something to show"


def test_rows_are_found_by_a_text_anywhere_and_by_an_id_in_its_column(
    both: tuple[Postgres, BigQuery],
) -> None:
    first, second = both
    for warehouse in (PostgresWarehouse(first.url, "analytics"), second.warehouse):

        def found(texts: list[str], ids: dict[str, list[str]], warehouse: Warehouse = warehouse) -> list[str]:
            rows = warehouse.rows_naming(tables()["customer_orders"], texts, ids)
            return sorted(json.loads(row)["order_id"] for row in rows)

        # Order 3 is the only one that says 3; orders 1, 4 and 10 are customer 1's, whose order 7 names nobody.
        assert found(["é '3'"], {}) == ["é '3'"]
        assert found([], {"customer_id": ["é '1'"]}) == ["é '1'", "é '10'", "é '4'"]
        assert found(["é '3'"], {"customer_id": ["é '1'", "x"]}) == ["é '1'", "é '10'", "é '3'", "é '4'"]
        assert found([], {"customer_id": ["x' OR '1' = '1"]}) == []
