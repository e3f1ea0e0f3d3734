"""A warehouse for a test: publish rows without Spark, ask questions as a client in another time zone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import psycopg2
import pyarrow as pa
from pyspark.sql import DataFrame

import jobs.warehouse.postgres as postgres_module
from jobs.warehouse.base import Load
from jobs.warehouse.declarations import tables


def query(url: str, text: str, *arguments: Any, schema: str = "analytics") -> list[tuple[Any, ...]]:
    """The rows of a query, or none, as a client in New York gets them."""
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'America/New_York'")
            cursor.execute(f"SET search_path TO {schema}")
            cursor.execute(text, arguments or None)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def arrow_rows(name: str, rows: Sequence[tuple[Any, ...]], whole: bool = True) -> DataFrame:
    """Rows of a declared table for `copy_without_spark`, in place of a DataFrame."""
    columns = [*tables()[name].column_names, *(() if whole else ("_deleted",))]
    return cast(DataFrame, pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows]))


def copy_without_spark(load: Load, url: str, target: str) -> int:
    """In place of `_copy`: the task that a Spark executor would run, in this process, on `arrow_rows`."""
    rows: Any = load.rows
    names = [*load.table.column_names, *(() if load.whole else ("_deleted",))]
    task = postgres_module._copy_task(url, target)
    results = [r for batch in task(rows.select(names).to_batches()) for r in batch.to_pylist()]
    assert not results[0]["error"], results
    return int(results[0]["copied"])
