"""PostgreSQL in trouble: no connection left, read-only, in recovery, disk full, another encoding. One clear line, no
half publication, and the same command again does it.

Connections that break before or after COMMIT are in tests/integration/test_publish.py.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2 import sql

from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.warehouse import embedded, postgres_publication
from jobs.warehouse.base import Load, Published
from jobs.warehouse.declarations import tables
from jobs.warehouse.embedded import NOBODY, EmbeddedPostgres, binaries
from jobs.warehouse.postgres import PostgresWarehouse
from jobs.warehouse.postgres_sql import Statements
from tests.warehouses import arrow_rows, copy_without_spark, query

pytestmark = pytest.mark.integration

TABLE = "dim_users"
ONE, TWO = [(1, "ann")], [(1, "ann"), (2, "bob")]
NO_CONNECTION = r"too many clients|remaining connection slots"


@pytest.fixture(autouse=True)
def rows_without_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(load: Load, url: str, schema: str, name: str) -> int:
        try:
            return copy_without_spark(load, url, schema, name)
        except AssertionError as error:  # what a task gives back in place of a count
            raise UserAnalyticsError(f"publish {load.table.name}: {error}") from None

    monkeypatch.setattr(postgres_publication, "copy_rows", copy)


def load(rows: list[tuple[int, str]], version: int, whole: bool) -> Load:
    """These rows as the whole table, or as rows that were added or changed."""
    changed = rows if whole else [(*row, False) for row in rows]
    state, expected = Published("table", version), {"row_count": len(rows)}
    return Load(tables()[TABLE], arrow_rows(TABLE, changed, whole), whole, state, expected)


def publish(url: str, rows: list[tuple[int, str]], version: int, whole: bool = True) -> None:
    with PostgresWarehouse(url, "analytics").publishing() as publication:
        publication.commit([load(rows, version, whole)], [])


def content(url: str) -> tuple[list[tuple[int, str]], list[tuple[int]], list[tuple[str]]]:
    """Rows, published version, and tables that a publication left behind."""
    return (
        query(url, f"SELECT user_key, user_id FROM {TABLE} ORDER BY 1"),
        query(url, "SELECT delta_version FROM _published"),
        query(
            url, r"SELECT relname FROM pg_class WHERE relname LIKE '\_new\_%' OR relname LIKE '\_changes\_%'"
        ),
    )


TEXTS = [(1, "jürgen"), (2, "東京")]


@pytest.mark.parametrize("place", ["environment", "options of the address", "the address"])
def test_another_client_encoding_garbles_nothing(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    url = warehouse_url
    if place == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    elif place == "the address":
        url += "?client_encoding=LATIN1"
    else:
        url += "?options=-c%20client_encoding%3DLATIN1"
    publish(url, TEXTS, 1)
    assert PostgresWarehouse(url, "analytics").query(TABLE, 2)[1] == TEXTS
    monkeypatch.delenv("PGCLIENTENCODING", raising=False)
    assert content(warehouse_url) == (TEXTS, [(1,)], [])


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(
    make_database: Callable[..., str], encoding: str
) -> None:
    url = make_database(encoding=encoding)
    message = f"the database's encoding is {encoding}, .*ENCODING 'UTF8'"
    with pytest.raises(ConfigurationError, match=message) as error:
        publish(url, TEXTS, 1)
    assert str(urlsplit(url).password) not in str(error.value)
    (problem,) = PostgresWarehouse(url, "analytics").missing_rights()
    assert re.match(message, problem)


def test_a_role_that_quotes_all_identifiers_is_told_what_to_do(warehouse_url: str, plain_role: str) -> None:
    role = urlsplit(plain_role).username
    query(warehouse_url, f"ALTER ROLE {role} SET quote_all_identifiers = on", schema="public")
    message = "quote_all_identifiers is on, .*ALTER ROLE"
    with pytest.raises(ConfigurationError, match=message) as error:
        publish(plain_role, TEXTS, 1)
    assert ":plain@" not in str(error.value)
    (problem,) = PostgresWarehouse(plain_role, "analytics").missing_rights()
    assert re.match(message, problem)
    # What the message says to do.
    address = plain_role + problem.rpartition(" ")[2]
    publish(address, TEXTS, 1)
    query(warehouse_url, f"ALTER ROLE {role} SET quote_all_identifiers = off", schema="public")
    publish(plain_role, TEXTS, 2, whole=False)
    assert content(plain_role) == (TEXTS, [(2,)], [])


def test_sessions_that_wait_for_rows_are_not_ended_as_idle(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(warehouse_url, ONE, 1)
    copy = postgres_publication.copy_rows

    def slowly(*arguments: Any) -> int:
        time.sleep(0.5)
        return copy(*arguments)

    monkeypatch.setattr(postgres_publication, "copy_rows", slowly)
    publish(warehouse_url + "?options=-c%20idle_session_timeout%3D100", TWO, 2)
    assert content(warehouse_url) == (TWO, [(2,)], [])


@contextmanager
def all_connections_taken(url: str) -> Iterator[None]:
    """Take every connection that the server has for ordinary roles, and give them back."""
    taken = []
    try:
        with suppress(psycopg2.OperationalError):
            while True:
                taken.append(psycopg2.connect(url))
        yield
    finally:
        for connection in taken:
            connection.close()
        # The server needs a moment to notice.
        deadline = time.monotonic() + 60
        while not _has_room(url, 3):
            assert time.monotonic() < deadline


def _has_room(url: str, count: int) -> bool:
    with ExitStack() as stack:
        try:
            for _ in range(count):
                stack.enter_context(closing(psycopg2.connect(url)))
        except psycopg2.OperationalError:
            return False
    return True


@pytest.fixture
def plain_role(warehouse_url: str) -> Iterator[str]:
    """The address of the test's database for a role of its own; a superuser has connections in reserve."""
    name, parts = f"plain_{os.urandom(4).hex()}", urlsplit(warehouse_url)
    database = parts.path.strip("/")
    query(warehouse_url, f"CREATE ROLE {name} LOGIN PASSWORD 'plain'", schema="public")
    query(warehouse_url, f"GRANT ALL ON DATABASE {database} TO {name}", schema="public")
    yield f"postgresql://{name}:plain@{parts.hostname}:{parts.port}/{database}"
    query(warehouse_url, f"DROP OWNED BY {name}", schema="public")
    query(warehouse_url, f"DROP ROLE {name}", schema="public")


@pytest.mark.parametrize("whole", [True, False])
def test_no_connection_left(warehouse_url: str, plain_role: str, whole: bool) -> None:
    publish(plain_role, ONE, 1)
    before = content(plain_role)
    with (
        all_connections_taken(plain_role),
        pytest.raises(ConfigurationError, match=NO_CONNECTION) as at_first,
    ):
        publish(plain_role, TWO, 2, whole)
    assert at_first.value.exit_code == 2
    assert ":plain@" not in str(at_first.value)
    # The publication has its connection, the one that builds keys gets none.
    with (
        pytest.raises(UserAnalyticsError, match=NO_CONNECTION) as later,
        PostgresWarehouse(plain_role, "analytics").publishing() as publication,
        all_connections_taken(plain_role),
    ):
        publication.commit([load(TWO, 2, whole)], [])
    assert later.value.exit_code == 1
    assert ":plain@" not in str(later.value)
    # Both have theirs, the task that copies gets none.
    role = urlsplit(plain_role).username
    limit = f"ALTER ROLE {role} CONNECTION LIMIT"
    # The server needs a moment to notice that the earlier ones are gone.
    deadline = time.monotonic() + 60
    while query(warehouse_url, f"SELECT pid FROM pg_stat_activity WHERE usename = '{role}'"):
        assert time.monotonic() < deadline
    query(warehouse_url, f"{limit} 2", schema="public")
    with (
        pytest.raises(UserAnalyticsError, match="too many connections for role") as later,
        PostgresWarehouse(plain_role, "analytics").publishing() as publication,
    ):
        publication.commit([load(TWO, 2, whole)], [])
    assert later.value.exit_code == 1
    query(warehouse_url, f"{limit} -1", schema="public")
    assert content(plain_role) == before
    publish(plain_role, TWO, 2, whole)
    assert content(plain_role) == (TWO, [(2,)], [])


@contextmanager
def stopped_once(url: str, condition: str) -> Iterator[None]:
    """This process is asked to stop once a statement of the database is as said; the statement has to end by that."""
    busy = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
    ended = []

    def is_so(expected: bool) -> bool:
        deadline = time.monotonic() + 30
        while bool(query(url, busy)) != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        return time.monotonic() < deadline

    def stop_it() -> None:
        if is_so(True):
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append(is_so(False))
            query(url, busy.replace("pid", "pg_terminate_backend(pid)", 1))

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        stopping = threading.Thread(target=stop_it)
        stopping.start()
        with pytest.raises(KeyboardInterrupt):
            yield
        stopping.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended == [True]


def test_a_statement_that_waits_can_be_stopped(warehouse_url: str) -> None:
    publish(warehouse_url, ONE, 1)
    with closing(psycopg2.connect(warehouse_url)) as reader, reader.cursor() as cursor:
        cursor.execute(f"SELECT * FROM analytics.{TABLE}")
        # It cannot be swapped while somebody reads it.
        with stopped_once(warehouse_url, "wait_event_type = 'Lock'"):
            publish(warehouse_url, TWO, 2)
    # The one that was stopped had time to clear away what it had staged.
    assert content(warehouse_url) == (ONE, [(1,)], [])
    publish(warehouse_url, TWO, 2)
    assert content(warehouse_url) == (TWO, [(2,)], [])


def test_building_keys_can_be_stopped(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(warehouse_url, ONE, 1)
    with monkeypatch.context() as patch, stopped_once(warehouse_url, "wait_event = 'PgSleep'"):
        patch.setattr(Statements, "keys", lambda *_: [sql.SQL("SELECT pg_sleep(60)")])
        publish(warehouse_url, TWO, 2)
    assert content(warehouse_url) == (ONE, [(1,)], [])
    publish(warehouse_url, TWO, 2)
    assert content(warehouse_url) == (TWO, [(2,)], [])


def test_a_database_that_became_read_only(warehouse_url: str) -> None:
    publish(warehouse_url, ONE, 1)
    before = content(warehouse_url)
    database = urlsplit(warehouse_url).path.strip("/")
    setting = f"ALTER DATABASE {database} SET default_transaction_read_only"
    query(warehouse_url, f"{setting} = on")
    with pytest.raises(UserAnalyticsError, match="read-only transaction") as error:
        publish(warehouse_url, TWO, 2)
    assert error.value.exit_code == 1
    assert PostgresWarehouse(warehouse_url, "analytics").missing_rights() == [
        "the server takes no changes: it is a standby, in recovery, or read-only"
    ]
    query(warehouse_url, f"SET TRANSACTION READ WRITE; {setting} = off", schema="public")
    assert content(warehouse_url) == before
    publish(warehouse_url, TWO, 2)
    assert content(warehouse_url) == (TWO, [(2,)], [])


@contextmanager
def standby(server: EmbeddedPostgres, port: int, hot: bool) -> Iterator[None]:
    """The stopped server's cluster as one that waits for a primary, which may be asked questions or not."""
    log = server.folder / "standby.log"
    settings = {**embedded.SETTINGS, "port": str(port), "hot_standby": "on" if hot else "off"}
    command = [*server._as_server(server.data), str(binaries() / "postgres"), "-D", str(server.data)]
    command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=embedded._environment(), start_new_session=True
        )
    ready = b"ready to accept read-only connections" if hot else b"entering standby mode"
    try:
        deadline = time.monotonic() + 60
        while ready not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_a_server_in_recovery(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a standby can follow.
    monkeypatch.setitem(embedded.SETTINGS, "wal_level", "replica")
    server = EmbeddedPostgres(tmp_path_factory.mktemp("standby"))
    with server as url:
        publish(url, ONE, 1)
        before, port = content(url), urlsplit(url).port
        assert port
    mark = server.data / "standby.signal"
    mark.touch()
    if os.geteuid() == 0:
        os.chown(mark, NOBODY, NOBODY)
    with standby(server, port, hot=False):
        with pytest.raises(
            ConfigurationError, match=r"not (yet )?accepting connections|starting up"
        ) as error:
            publish(url, TWO, 2)
        assert error.value.exit_code == 2
    with standby(server, port, hot=True):
        with pytest.raises(UserAnalyticsError, match=r"read-only transaction|during recovery") as error:
            publish(url, TWO, 2)
        assert error.value.exit_code == 1
        assert content(url) == before
        # It takes over: the same command goes through.
        assert query(url, "SELECT pg_promote()") == [(True,)]
        publish(url, TWO, 2)
        assert content(url) == (TWO, [(2,)], [])


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A file system of 8 MB, and a function that gives it another size."""
    folder = tmp_path_factory.mktemp("small-disk")

    def mount(size: str, *more: str) -> None:
        options = ",".join((f"size={size}", *more))
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True
        )

    try:
        mount("8m", f"uid={NOBODY}", f"gid={NOBODY}", "mode=700")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk: only root may mount one, and not in every container ({error})")
    yield folder, lambda size: mount(size, "remount")
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("whole", [True, False])
def test_disk_full(warehouse_url: str, small_disk: tuple[Path, Callable[[str], None]], whole: bool) -> None:
    folder, resize = small_disk
    database, space = urlsplit(warehouse_url).path.strip("/"), f"small_{os.urandom(4).hex()}"
    with closing(psycopg2.connect(warehouse_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE TABLESPACE {space} LOCATION '{folder}'")
        cursor.execute(f"ALTER DATABASE {database} SET default_tablespace = {space}")
    many = [(n, f"user {n:090d}") for n in range(50_000)]
    try:
        publish(warehouse_url, ONE, 1)
        before = content(warehouse_url)
        with pytest.raises(UserAnalyticsError, match="No space left on device") as error:
            publish(warehouse_url, many, 2, whole)
        assert error.value.exit_code == 1
        assert content(warehouse_url) == before
        resize("256m")
        publish(warehouse_url, many, 2, whole)
        rows, version, left = content(warehouse_url)
        assert (len(rows), version, left) == (len(many), [(2,)], [])
    finally:
        with closing(psycopg2.connect(warehouse_url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("DROP SCHEMA analytics CASCADE")
            cursor.execute(f"DROP TABLESPACE {space}")
