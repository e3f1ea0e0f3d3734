"""Rows into PostgreSQL by binary COPY: from Spark's tasks, several at once; few rows from this process.

Binary, because the server then takes numbers, times and UUIDs as they are instead of reading texts: of facts, it needs
a third of the processor time that CSV costs it (docs/decisions/publishing.md). ADBC's driver turns Arrow batches into
PostgreSQL's format. What Arrow has no type for is brought into the bytes that the server expects: a UUID's 16, and
JSON after the number of its format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import Error as AdbcError
from adbc_driver_postgresql import dbapi
from psycopg2.extensions import make_dsn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from sqlglot import exp

from jobs.errors import UserAnalyticsError
from jobs.spark import if_few, session_settings
from jobs.warehouse.base import Load
from jobs.warehouse.declarations import Column, Table

# 10,000 of them are 64 MB.
NARROW_BYTES = 6_400
NO_LIMIT_OF_BYTES = {"spark.sql.execution.arrow.maxBytesPerBatch": str(2**31 - 1)}
NO_UUID = "0" * 32
JSON_FORMAT = b"\x01"
Encoder = Callable[[pa.Array], pa.Array]


def copy_rows(load: Load, url: str, schema: str, name: str) -> int:
    """COPY a load's rows into a table of the schema, in one transaction for each of Spark's tasks.

    Gives the number of rows. Raises UserAnalyticsError with what the server said, or naming the column of a value that
    PostgreSQL cannot store.
    """
    copy = copy_task(load, url, schema, name)
    rows = _rows_to_copy(load)
    if isinstance(rows, pa.Table):
        results = [result for batch in copy(rows.to_batches()) for result in batch.to_pylist()]
    else:
        with session_settings(rows.sparkSession, batch_settings(load.table)):
            results = rows.mapInArrow(copy, "copied long, error string").collect()
    for result in results:
        if result["error"]:
            raise UserAnalyticsError(f"publish {load.table.name}: {result['error']}")
    return sum(result["copied"] for result in results)


def batch_settings(table: Table) -> dict[str, str]:
    """Settings for Arrow's batches: no limit of bytes, where their 10,000 records cannot become large.

    To keep to one, Spark adds up the batch's bytes at every row, which takes as long as all else that it does here.
    """
    widths = [column.max_bytes for column in table.columns]
    narrow = None not in widths and sum(filter(None, widths)) <= NARROW_BYTES
    return NO_LIMIT_OF_BYTES if narrow else {}


def _rows_to_copy(load: Load) -> DataFrame | pa.Table:
    """The rows to be copied; themselves where they are few: starting Python beside Spark's tasks takes seconds."""
    nested = {column.name for column in load.table.columns if column.is_json}
    names = [*load.table.column_names, *(() if load.whole else ("_deleted",))]
    if isinstance(load.rows, pa.Table):
        return load.rows.select(names)
    rows = load.rows.select(*(F.to_json(n).alias(n) if n in nested else F.col(n) for n in names))
    few = if_few(rows)
    return rows if few is None else few


def copy_task(
    load: Load, url: str, schema: str, name: str
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a Spark task does with its Arrow batches: COPY them in one transaction; one that fails leaves nothing.

    It gives the number of rows, or the error: raised here, it would reach the user in a stack trace.
    """
    encoders = {column.name: encoder for column in load.table.columns if (encoder := _encoder(column))}

    def copy(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        stream, reason = _EncodedBatches(batches, encoders), None
        try:
            first = next(stream, None)
            if first is not None:
                _ingest(
                    url, schema, name, pa.RecordBatchReader.from_batches(first.schema, chain([first], stream))
                )
        except (AdbcError, _NotStorable) as error:
            # What the stream raises while ADBC reads it comes back as an error of ADBC's.
            reason = " ".join(str(stream.error or error).split())
        yield pa.RecordBatch.from_pydict(
            {
                "copied": pa.array([0 if reason else stream.rows], pa.int64()),
                "error": pa.array([reason], pa.string()),
            }
        )

    return copy


def _ingest(url: str, schema: str, name: str, batches: pa.RecordBatchReader) -> None:
    # ADBC sends texts as UTF-8 whatever the connection says.
    address = make_dsn(url, application_name="user-analytics copy", client_encoding="UTF8")
    with closing(dbapi.connect(address)) as connection, closing(connection.cursor()) as cursor:
        cursor.adbc_ingest(name, batches, mode="append", db_schema_name=schema)
        connection.commit()


class _NotStorable(ValueError):
    """A value that PostgreSQL has no place for."""


class _EncodedBatches(Iterator[pa.RecordBatch]):
    """Batches as ADBC is to send them. rows: how many were given so far; error: why there are no more."""

    def __init__(self, batches: Iterable[pa.RecordBatch], encoders: Mapping[str, Encoder]) -> None:
        self.batches = (batch for batch in batches if batch.num_rows)
        self.encoders = encoders
        self.rows = 0
        self.error: _NotStorable | None = None

    def __next__(self) -> pa.RecordBatch:
        batch = next(self.batches)
        try:
            encoded = self._encoded(batch)
        except _NotStorable as error:
            self.error = error
            raise
        self.rows += batch.num_rows
        return encoded

    def _encoded(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            _require_no_nul(name, column)
            encode = self.encoders.get(name)
            columns.append(encode(column) if encode else column)
        return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _require_no_nul(name: str, column: pa.Array) -> None:
    texts = column.flatten() if pa.types.is_list(column.type) else column
    if not pa.types.is_string(texts.type):
        return
    # Of the bytes of all texts at once, which may be more than the column's own: it takes a fortieth of the time.
    _, _, octets = texts.buffers()
    if octets and b"\0" in octets.to_pybytes() and pc.any(pc.match_substring(texts, "\0")).as_py():
        raise _NotStorable(f"column {name}: PostgreSQL cannot store the character NUL (\\u0000)")


def _encoder(column: Column) -> Encoder | None:
    if column.type.is_type(exp.DataType.Type.UUID):
        return _uuid_bytes
    return _json_bytes if column.is_json else None


def _uuid_bytes(texts: pa.Array) -> pa.Array:
    """UUIDs as text → their 16 bytes, nulls kept."""
    digits = pc.replace_substring(texts.fill_null(NO_UUID), "-", "")
    values = bytes.fromhex(digits.buffers()[2].to_pybytes().decode())
    whole = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(texts), [None, pa.py_buffer(values)])
    return pc.if_else(texts.is_valid(), whole, pa.scalar(None, pa.binary(16)))


def _json_bytes(texts: pa.Array) -> pa.Array:
    """JSON as text → the bytes of `jsonb` in PostgreSQL's binary format, nulls kept."""
    return pc.binary_join_element_wise(JSON_FORMAT, texts.cast(pa.binary()), b"")
