"""What Delta tables say in their logs, and the rows of small ones, without Spark: by delta-rs, the package deltalake.

Spark moves the data. But it takes seconds to start, and half a second to read five rows or to add them, where delta-rs
takes hundredths; most of what a run asks is whether there is anything to do (docs/decisions/small-tables.md).
"""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import boto3
import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_schema

from jobs.lake.objects import ObjectStore
from jobs.settings import Settings

# As Spark's sessions have it: marts and the warehouse follow every table through its change data feed.
FOLLOWED = {
    "delta.enableChangeDataFeed": "true",
    # Spark's default; that of delta-rs is ten times as many files to be read.
    "delta.checkpointInterval": "10",
}

# What a change data feed says of a row: what became of it, and in which version.
CHANGE, COMMIT = "_change_type", "_commit_version"
CHANGES = (T.StructField(CHANGE, T.StringType()), T.StructField(COMMIT, T.LongType()))


def open_log(uri: str, settings: Settings, version: int | None = None) -> DeltaTable | None:
    """The table at an address, None when there is none. version: as it was then; by default as it is now.

    Raises DeltaError for a log that cannot be read.
    """
    try:
        return DeltaTable(uri, version, storage_options=storage_options(settings))
    except TableNotFoundError:
        return None


def create(
    uri: str,
    settings: Settings,
    schema: T.StructType,
    comment: str,
    partitioned_by: tuple[str, ...],
    properties: dict[str, str | None],
) -> None:
    """Make an empty table, unless one is there."""
    DeltaTable.create(
        uri,
        deltalake.Schema.from_json(schema.json()),
        mode="ignore",
        partition_by=list(partitioned_by),
        description=comment,
        configuration={**FOLLOWED, **properties},
        storage_options=storage_options(settings),
    )


def add_columns(table: DeltaTable, columns: list[T.StructField]) -> None:
    """Add columns behind those that are there, in one commit."""
    added = deltalake.Schema.from_json(T.StructType(columns).json())
    table.alter.add_columns(list(added.fields))


def spark_schema(table: DeltaTable) -> T.StructType:
    """The table's columns; Delta notes them as Spark writes its schemas."""
    return T.StructType.fromJson(json.loads(table.schema().to_json()))


def all_rows(table: DeltaTable, schema: T.StructType) -> pa.Table:
    """The rows of a table that is small; columns and types are those of schema."""
    return _as_declared(query(table, "SELECT * FROM t"), schema)


def query(table: DeltaTable, text: str) -> pa.Table:
    """The answer, of few rows, to a query in SQL over a table, which is known as `t` there."""
    # Not `to_pyarrow_table`: with it the process may abort at its end.
    asked = QueryBuilder()
    # Spark wrote instants as INT96 by default, read as nanoseconds by default, which end with the year 2262.
    _read(asked.execute("SET datafusion.execution.parquet.coerce_int96 = 'us'"))
    return _read(asked.register("t", table).execute(text))


def _read(stream: Any) -> pa.Table:
    # By pyarrow, because the stream's own `read_all` keeps Python's lock: a store that does not answer would stop all
    # threads, also those that tell others that our locks are alive.
    return pa.RecordBatchReader.from_stream(stream).read_all()


def added_rows(table: DeltaTable, schema: T.StructType, after: int, until: int) -> pa.Table | None:
    """The rows that came in the versions after..until, `after` excluded; None where there was more than additions."""
    found = changed_rows(table, schema, after, until)
    return None if set(pc.unique(found[CHANGE]).to_pylist()) - {"insert"} else found.select(schema.names)


def changed_rows(table: DeltaTable, schema: T.StructType, after: int, until: int) -> pa.Table:
    """What became of rows in the versions after..until, `after` excluded: the columns of schema, CHANGE and COMMIT."""
    found = _read(table.load_cdf(starting_version=after + 1, ending_version=until))
    # Of a commit that wrote rows anew as they were, each comes and goes.
    goes = "delete" in pc.unique(found[CHANGE]).to_pylist()
    same = _versions_that_changed_nothing(table) if goes else []
    return _as_declared(found, T.StructType([*schema, *CHANGES])).filter(~pc.field(COMMIT).isin(same))


def _versions_that_changed_nothing(table: DeltaTable) -> list[int]:
    # delta-rs lists the commits from the newest one on, but numbers them from the version on that the table was opened
    # at. What a commit itself read is noted in it; a lock per table sees to it that none comes between.
    commits = (commit for commit in table.history() if _changed_nothing(commit))
    return [int(commit["readVersion"]) + 1 for commit in commits]


def _changed_nothing(commit: dict[str, Any]) -> bool:
    # Such a MERGE may write files anew, whose rows delta-rs takes for new ones; Spark passes over them, too.
    changed = commit.get("operationMetrics", {})
    kinds = ("Inserted", "Updated", "Deleted")
    return commit["operation"] == "MERGE" and not any(
        int(changed.get(f"numTargetRows{kind}", 1)) for kind in kinds
    )


def size(table: DeltaTable) -> tuple[float, int]:
    """The number of rows, infinite where files do not say it, and of bytes of a table."""
    return _size(_files(table))


def size_of_changes(versions: Iterable[DeltaTable]) -> tuple[float, int]:
    """The number of rows and bytes of the files that came or went between versions, given one after the other."""
    rows, size_bytes, before = 0.0, 0, None
    for files in map(_files, versions):
        if before is not None:
            more = _size(dict(files.items() ^ before.items()))
            rows, size_bytes = rows + more[0], size_bytes + more[1]
        before = files
    return rows, size_bytes


def _files(table: DeltaTable) -> dict[str, tuple[float, int]]:
    found = pa.table(table.get_add_actions(flatten=True))
    columns = (found[name].to_pylist() for name in ("path", "num_records", "size_bytes"))
    return {
        path: (math.inf if rows is None else rows, size) for path, rows, size in zip(*columns, strict=True)
    }


def _size(files: Mapping[str, tuple[float, int]]) -> tuple[float, int]:
    return sum(rows for rows, _ in files.values()), sum(size for _, size in files.values())


def _as_declared(rows: pa.Table, schema: T.StructType) -> pa.Table:
    wanted = to_arrow_schema(schema)
    # A table of an earlier version has not all columns yet.
    columns = [
        rows[f.name].cast(f.type) if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type)
        for f in wanted
    ]
    return pa.Table.from_arrays(columns, schema=wanted)


def as_arrow(schema: T.StructType, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows, values in the order of the schema, as Arrow has them."""
    wanted = to_arrow_schema(schema)
    columns = [pa.array(values, f.type) for f, values in zip(wanted, zip(*rows, strict=True), strict=True)]
    return pa.Table.from_arrays(columns, schema=wanted)


def append(table: DeltaTable, rows: pa.Table, source: str | None = None, version: int | None = None) -> None:
    """Add rows in one commit. With a source and version, the commit happens once, as Spark has it."""
    marks = []
    if source is not None and version is not None:
        applied = table.transaction_version(source)
        if applied is not None and applied >= version:
            return
        marks = [Transaction(source, version, int(datetime.now(UTC).timestamp() * 1000))]
    write_deltalake(table, rows, mode="append", commit_properties=CommitProperties(app_transactions=marks))


def transactions(
    store: ObjectStore, folder: str, version: int
) -> dict[str, tuple[int, datetime | None]] | None:
    """For every source that a commit of a table named: the version of it that was applied last, and when.

    folder: the table's path in the lake; version: its newest. Of these delta-rs tells only those that are asked for by
    name, so its log is read as the protocol has it: a checkpoint, if there is one, and the commits after it. None where
    the checkpoint has another form than Delta gives it by default, or the note of it is damaged.
    """
    log, first = f"{folder}/_delta_log", 0
    found: list[dict[str, Any]] = []
    if last := store.fetch(f"{log}/_last_checkpoint"):
        try:
            first = json.loads(last[0])["version"]
        except ValueError:
            return None
        checkpoint = store.fetch(f"{log}/{first:020d}.checkpoint.parquet")
        if checkpoint is None:
            return None
        noted = pq.read_table(io.BytesIO(checkpoint[0]), columns=["txn"])["txn"]
        found += [txn for txn in noted.to_pylist() if txn]
        first += 1
    for number in range(first, version + 1):
        commit = store.fetch(f"{log}/{number:020d}.json")
        if commit is None:
            return None
        actions = map(json.loads, filter(None, commit[0].splitlines()))
        found += [action["txn"] for action in actions if "txn" in action]
    return {
        txn["appId"]: (
            txn["version"],
            datetime.fromtimestamp(at / 1000, UTC) if (at := txn.get("lastUpdated")) else None,
        )
        for txn in found
    }


def storage_options(settings: Settings) -> dict[str, str] | None:
    """How delta-rs gets at the lake: as whom boto3 does, which the raw files are read with."""
    if settings.lake_is_local:
        return None
    key, secret, token = _keys(settings)
    options = {
        "aws_region": settings.s3_region,
        "aws_endpoint": settings.s3_endpoint,
        "aws_access_key_id": key,
        "aws_secret_access_key": secret,
        "aws_session_token": token,
        "aws_allow_http": "true" if (settings.s3_endpoint or "").startswith("http://") else None,
        # Buckets of MinIO and its like are paths, not host names.
        "aws_virtual_hosted_style_request": None if settings.s3_endpoint is None else "false",
        # A wrong address should fail in seconds, and a short fault be lived through.
        "connect_timeout": "5s",
        "retry_timeout": "30s",
    }
    return {name: value for name, value in options.items() if value is not None}


def _keys(settings: Settings) -> tuple[str | None, str | None, str | None]:
    if settings.s3_access_key:
        return settings.s3_access_key, settings.s3_secret_key, settings.s3_session_token
    # Those of a profile or a machine's role expire, and are renewed by boto3 where need be.
    found = _session().get_credentials()
    if found is None:
        return None, None, None
    keys = found.get_frozen_credentials()
    return keys.access_key, keys.secret_key, keys.token


@functools.cache
def _session() -> boto3.Session:
    return boto3.Session()
