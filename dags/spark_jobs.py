"""How the DAGs submit a job: where the project is, and what a driver gets from Airflow's connections.

Secrets go from the connections to the driver's environment when the task runs: never into arguments, rendered
fields or XCom. With `deploy-mode: cluster` the driver runs elsewhere and inherits nothing; give it the same variables
there (docs/operations.md).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)
from airflow.sdk.log import mask_secret

PROJECT = Path(os.environ.get("USER_ANALYTICS_HOME") or Path(__file__).resolve().parents[1])
ARCHIVE = PROJECT / "dist" / "user-analytics.zip"

SPARK, LAKE, SOURCE = "spark_default", "minio_conn", "purchases_source"
WAREHOUSE, BIGQUERY = "warehouse", "google_cloud_default"

# What of a connection's extra belongs to the address; the rest is for Airflow's own hook, as `cursor` is.
LIBPQ_OPTIONS = {
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "channel_binding", "gssencmode", "options"),
    *("connect_timeout", "tcp_user_timeout", "target_session_attrs"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
}

# Data refused: trying again changes nothing. Wrong settings, 2, may be a service that is down, which passes.
FINAL_EXIT_CODE = 3


class SparkJobOperator(SparkSubmitOperator):
    """Submit one of the project's jobs, with the connections' settings in the driver's environment.

    job: file in jobs/. arguments: templates; those that render to nothing are left out.
    feeds: the task is skipped unless one of them is among the run's parameter `feeds`; empty for all runs.
    only_with: the task is skipped unless this parameter of the run is true.
    needs_files: the task is skipped while this folder holds no file, or hidden ones only.
    source: the job reads the database of `purchases_source`; the task is skipped where there is no such connection.
    """

    def __init__(
        self,
        *,
        job: str,
        arguments: Sequence[str] = (),
        feeds: Sequence[str] = (),
        only_with: str | None = None,
        needs_files: str | None = None,
        source: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            application=str(PROJECT / "jobs" / job),
            application_args=list(arguments),
            py_files=str(ARCHIVE),
            name=kwargs.get("task_id", job),
            conn_id=SPARK,
            **kwargs,
        )
        self.feeds = tuple(feeds)
        self.only_with = only_with
        self.needs_files = needs_files
        self.source = source

    def execute(self, context: Mapping[str, Any]) -> None:
        params = context["params"]
        if self.feeds and not set(self.feeds) & set(params.get("feeds", self.feeds)):
            raise AirflowSkipException(f"not among the feeds of this run: {', '.join(self.feeds)}")
        if self.only_with and not params[self.only_with]:
            raise AirflowSkipException(f"{self.only_with} is not set")
        if self.needs_files and not has_files(self.needs_files):
            raise AirflowSkipException(f"{self.needs_files}: no files")
        self.application_args = [argument for argument in self.application_args or [] if argument]
        with driver_environment(params.get("warehouse", WAREHOUSE), self.source):
            try:
                super().execute(context)
            except AirflowException as error:
                code = re.search(r"Error code is: (\d+)", str(error))
                if code and int(code[1]) == FINAL_EXIT_CODE:
                    raise AirflowFailException(str(error)) from None
                raise


def has_files(folder: str) -> bool:
    """Whether there is something below a folder, if it is there, that `upload` would not leave out as hidden.

    Raises OSError for what may not be looked into, and for a file in the folder's place: skipped, nobody would notice.
    """

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    def shown(names: list[str]) -> list[str]:
        return [name for name in names if not name.startswith(("_", ".")) and not name.endswith("._COPYING_")]

    for place, folders, files in os.walk(folder, onerror=failed):
        folders[:] = shown(folders)
        if any(Path(place, name).is_file() for name in shown(files)):
            return True
    return False


@contextmanager
def driver_environment(warehouse: str, source: bool) -> Iterator[None]:
    """Set the jobs' variables from the connections for the time of the block; spark-submit inherits them.

    Where a connection is not declared, the worker's own variables stay as they are; a warehouse other than the default
    one has to be declared.
    """
    with ExitStack() as stack:
        variables: dict[str, str] = {}
        if lake := _connection(LAKE):
            variables |= _lake(lake)
        if target := _connection(warehouse):
            variables |= (
                _bigquery(target, stack) if _is_bigquery(target) else {"WAREHOUSE_URL": _postgres(target)}
            )
        elif warehouse != WAREHOUSE:
            raise AirflowFailException(
                f"the parameter warehouse names {warehouse}: there is no such connection"
            )
        if source:
            found = _connection(SOURCE)
            if not found:
                raise AirflowSkipException(f"there is no connection {SOURCE}")
            variables["SOURCE_URL"] = _postgres(found)
        before = dict(os.environ)
        if variables.get("AWS_ACCESS_KEY_ID"):
            # The worker's token would not be that of the connection's keys.
            os.environ.pop("AWS_SESSION_TOKEN", None)
        os.environ.update(variables)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _connection(name: str) -> Connection | None:
    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None


def _is_bigquery(connection: Connection) -> bool:
    return connection.conn_type == "google_cloud_platform"


def _lake(connection: Connection) -> dict[str, str]:
    extra = connection.extra_dejson
    found = {
        "LAKE_URI": extra.get("lake_uri"),
        "AWS_ENDPOINT_URL_S3": extra.get("endpoint_url"),
        "AWS_REGION": extra.get("region_name"),
        "AWS_ACCESS_KEY_ID": connection.login,
        "AWS_SECRET_ACCESS_KEY": connection.password,
        "AWS_SESSION_TOKEN": extra.get("aws_session_token"),
    }
    return {name: value for name, value in found.items() if value}


def _postgres(connection: Connection) -> str:
    for field, value in (("host", connection.host), ("schema, the database,", connection.schema)):
        if not value:
            raise AirflowFailException(f"connection {connection.conn_id}: its {field} is missing")
    password = quote(connection.password or "", safe="")
    if password:
        # The form in which it stands in the address is not the one that Airflow masks on its own.
        mask_secret(password)
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    known = {name: value for name, value in connection.extra_dejson.items() if name in LIBPQ_OPTIONS}
    options = urlencode(known, quote_via=quote)
    return (
        f"postgresql://{quote(connection.login or '', safe='')}:{password}@{host}:{connection.port or 5432}"
        f"/{quote(connection.schema, safe='')}" + (f"?{options}" if options else "")
    )


def _bigquery(connection: Connection, stack: ExitStack) -> dict[str, str]:
    extra = connection.extra_dejson
    if not extra.get("project"):
        raise AirflowFailException(f"connection {connection.conn_id}: its extra must name the project")
    variables = {"WAREHOUSE_URL": f"bigquery://{extra['project']}/{extra.get('dataset', 'analytics')}"}
    if extra.get("key_path"):
        variables["GOOGLE_APPLICATION_CREDENTIALS"] = extra["key_path"]
    elif key := extra.get("keyfile_dict"):
        # The client library reads a file; this one only its owner can read, and it goes with the job.
        file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="user-analytics-"))) / "key.json"
        file.write_text(key if isinstance(key, str) else json.dumps(key))
        variables["GOOGLE_APPLICATION_CREDENTIALS"] = str(file)
    return variables
