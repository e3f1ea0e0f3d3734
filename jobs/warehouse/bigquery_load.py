"""Rows of a DataFrame into a BigQuery stage table, by Parquet load jobs.

Spark's tasks upload their parts themselves, several at once. A lake on Google Cloud Storage is loaded from there: Spark
writes the Parquet files beside the tables, one job reads them.

A job's id follows from what it loads, where to, and when the stage table was made. So a job that was sent before, by a
task that is tried again or because an answer was lost, is recognised and waited for, never run twice.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet
from google.api_core.exceptions import Conflict, GoogleAPIError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from pyspark import TaskContext
from pyspark.sql import DataFrame
from requests.exceptions import RequestException

from jobs.errors import UserAnalyticsError
from jobs.lake import folders
from jobs.warehouse.bigquery_schema import LABELS

# What a call may raise that is not a mistake in the program.
ERRORS = (GoogleAPIError, GoogleAuthError, RequestException)


@dataclass(frozen=True)
class Connection:
    """How to reach BigQuery. Spark's tasks get it; credentials they find in their own environment.

    endpoint: an emulator, which is asked without credentials.
    """

    project: str
    location: str | None = None
    endpoint: str | None = None

    @classmethod
    def from_env(cls, project: str) -> Connection:
        location = os.environ.get("BIGQUERY_LOCATION", "").strip() or None
        return cls(project, location, os.environ.get("BIGQUERY_EMULATOR_HOST", "").strip() or None)

    def client(self) -> bigquery.Client:
        if self.endpoint is None:
            return bigquery.Client(self.project, location=self.location)
        return bigquery.Client(
            self.project,
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            location=self.location,
            client_options={"api_endpoint": self.endpoint},
        )


@dataclass(frozen=True)
class Scratch:
    """A folder on Google Cloud Storage, as Spark names it and as BigQuery does (`gs://…`)."""

    spark_uri: str
    gs_uri: str


@dataclass(frozen=True)
class Stage:
    """A stage table. made_at is part of the job ids: what was loaded into an earlier table of this name is gone."""

    reference: str
    made_at: str
    fields: tuple[dict[str, Any], ...]

    def job_config(self) -> bigquery.LoadJobConfig:
        parquet = bigquery.ParquetOptions()  # type: ignore[no-untyped-call]
        parquet.enable_list_inference = True
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=[bigquery.SchemaField.from_api_repr(field) for field in self.fields],
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            labels={**LABELS, "step": "load"},
        )
        config.parquet_options = parquet
        return config

    def job_id(self, *content: str) -> str:
        return "user_analytics_load_" + digest(self.reference, self.made_at, *content)


def digest(*texts: str) -> str:
    """A hash of texts that is fit for job ids, table names and labels."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def load_rows(
    rows: DataFrame | pa.Table, stage: Stage, connection: Connection, scratch: Scratch | None
) -> int:
    """Load the rows. Gives their number; raises UserAnalyticsError with what BigQuery says."""
    upload = _upload_task(stage, connection)
    if isinstance(rows, pa.Table):
        results = [result for batch in upload(rows.to_batches()) for result in batch.to_pylist()]
    elif scratch:
        return _load_from_storage(rows, stage, connection, scratch)
    else:
        results = rows.mapInArrow(upload, "loaded long, error string").collect()
    for result in results:
        if result["error"]:
            raise UserAnalyticsError(f"publish: BigQuery: {result['error']}")
    return sum(result["loaded"] for result in results)


def _load_from_storage(rows: DataFrame, stage: Stage, connection: Connection, scratch: Scratch) -> int:
    name = f"{stage.reference.rsplit('.', 1)[1]}_{digest(stage.made_at)[:8]}"
    spark, folder = rows.sparkSession, f"{scratch.spark_uri}/{name}"
    # What is sent over the network is worth a dictionary.
    options = {"compression": "snappy", "parquet.enable.dictionary": "true"}
    rows.write.mode("overwrite").options(**options).parquet(folder)
    if not any(file.endswith(".parquet") for file in folders.file_names(spark, folder)):
        return 0
    client, uri = connection.client(), f"{scratch.gs_uri}/{name}/*.parquet"

    def start(job_id: str) -> bigquery.LoadJob:
        return client.load_table_from_uri(uri, stage.reference, job_id=job_id, job_config=stage.job_config())

    try:
        return run_once(client, stage.job_id(uri), start).output_rows or 0
    finally:
        folders.remove(spark, folder)


def run_once(client: bigquery.Client, job_id: str, start: Callable[[str], Any]) -> Any:
    """Start a job under its id, or find it under way or done, and wait for it. Gives the job that succeeded.

    An attempt that failed has used its id up, and left nothing: the next one has another. One is made in each call.
    """
    for attempt in itertools.count(1):
        numbered = f"{job_id}_{attempt}"
        try:
            job = start(numbered)
        except Conflict:
            job = client.get_job(numbered)
            if job.done() and job.error_result:
                continue
        job.result()
        return job
    raise AssertionError("unreachable")


def _upload_task(stage: Stage, connection: Connection) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """What a Spark task does with its Arrow batches: write them as one Parquet file, load that by one job.

    It gives the number of rows, or the error: raised here, it would reach the user in a stack trace.
    """

    def upload(batches: Iterable[Any]) -> Iterator[Any]:
        loaded, reason = 0, None
        try:
            with tempfile.TemporaryFile() as file:
                loaded = write_parquet(batches, file)
                if loaded:
                    context = TaskContext.get()
                    upload_part(file, stage, connection, context.partitionId() if context else 0)
        except ERRORS as error:
            reason = one_line(error)
        yield pa.RecordBatch.from_pydict(
            {"loaded": pa.array([loaded], pa.int64()), "error": pa.array([reason], pa.string())}
        )

    return upload


def write_parquet(batches: Iterable[pa.RecordBatch], file: IO[bytes]) -> int:
    """Write Arrow batches as one Parquet file. Gives the number of rows; nothing is written where there are none."""
    rows, writer = 0, None
    for batch in batches:
        if batch.num_rows:
            writer = writer or pa.parquet.ParquetWriter(file, batch.schema)
            writer.write_batch(batch)
            rows += batch.num_rows
    if writer:
        writer.close()
    return rows


def upload_part(file: IO[bytes], stage: Stage, connection: Connection, part: int) -> None:
    """Load one Parquet file."""
    file.seek(0)
    content = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    client = connection.client()

    def start(job_id: str) -> bigquery.LoadJob:
        return client.load_table_from_file(
            file, stage.reference, rewind=True, job_id=job_id, job_config=stage.job_config()
        )

    run_once(client, stage.job_id(str(part), content), start)


def one_line(error: Exception) -> str:
    """The message of a Google error, in one line and without the request."""
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:1000]
