"""A warehouse for a test: publish rows without Spark, ask questions as a client in another time zone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import psycopg2
import pyarrow as pa
from pyspark.sql import DataFrame
from sqlglot import exp

from jobs.errors import UserAnalyticsError
from jobs.warehouse.base import Load
from jobs.warehouse.bigquery_load import Connection, Scratch, Stage, _upload_task
from jobs.warehouse.declarations import tables
from jobs.warehouse.postgres_copy import copy_task


def query(at: Any, text: str, *arguments: Any, schema: str = "analytics") -> list[tuple[Any, ...]]:
    """The rows of a query, or none, as a client in New York gets them. at: a URL, or a connection."""
    connection = psycopg2.connect(at) if isinstance(at, str) else at
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SET TIME ZONE 'America/New_York'; SET search_path TO {schema}")
            cursor.execute(text, arguments or None)
            return cursor.fetchall() if cursor.description else []
    finally:
        if isinstance(at, str):
            connection.close()


def arrow_rows(name: str, rows: Sequence[tuple[Any, ...]], whole: bool = True) -> DataFrame:
    """Rows of a declared table for `copy_without_spark`, in place of a DataFrame."""
    columns = [*tables()[name].column_names, *(() if whole else ("_deleted",))]
    fields = [pa.field(c.name, arrow_type(c.type)) for c in tables()[name].columns]
    schema = pa.schema([*fields, *([] if whole else [pa.field("_deleted", pa.bool_())])])
    return cast(
        DataFrame, pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows], schema=schema)
    )


def arrow_type(kind: exp.DataType) -> pa.DataType:
    """The type that Spark's Arrow batches have for a declared one."""
    match kind.this:
        case exp.DataType.Type.ARRAY:
            return pa.list_(arrow_type(kind.expressions[0]))
        case exp.DataType.Type.STRUCT:
            return pa.struct([(m.name, arrow_type(m.args["kind"])) for m in kind.expressions])
        case exp.DataType.Type.DECIMAL:
            return pa.decimal128(*(int(size.name) for size in kind.expressions))
    simple = {
        "BIGINT": pa.int64(),
        "BOOLEAN": pa.bool_(),
        "DATE": pa.date32(),
        "DOUBLE": pa.float64(),
        "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
    }
    return simple.get(kind.this.value, pa.string())


def copy_without_spark(load: Load, url: str, schema: str, name: str) -> int:
    """In place of `copy_rows`: the task that a Spark executor would run, in this process, on `arrow_rows`."""
    rows: Any = load.rows
    names = [*load.table.column_names, *(() if load.whole else ("_deleted",))]
    for number, column in enumerate(load.table.columns):
        if column.is_json:
            texts = [None if v is None else json.dumps(v) for v in rows[column.name].to_pylist()]
            rows = rows.set_column(number, column.name, pa.array(texts, pa.string()))
    task = copy_task(load, url, schema, name)
    results = [r for batch in task(rows.select(names).to_batches()) for r in batch.to_pylist()]
    assert not results[0]["error"], results
    return int(results[0]["copied"])


def load_without_spark(rows: Any, stage: Stage, connection: Connection, scratch: Scratch | None) -> int:
    """In place of BigQuery's `load_rows`: the task that a Spark executor would run, in this process."""
    results = [r for batch in _upload_task(stage, connection)(rows.to_batches()) for r in batch.to_pylist()]
    if results[0]["error"]:
        raise UserAnalyticsError(results[0]["error"])
    return int(results[0]["loaded"])


def time_key(at: datetime, number: int) -> str:
    """A UUID that begins with an instant, as `time_ordered_id` makes them."""
    millis = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    digits = f"{millis % 2**48:012x}"
    return f"{digits[:8]}-{digits[8:]}-8000-8000-{number:012d}"


def months_without_spark(load: Load) -> dict[date, int]:
    """In place of `rows_by_month`, on `arrow_rows`."""
    partitioning, rows = load.table.partitioning, cast(Any, load.rows)
    assert partitioning
    return Counter(instant.date().replace(day=1) for instant in rows[partitioning.column].to_pylist())
