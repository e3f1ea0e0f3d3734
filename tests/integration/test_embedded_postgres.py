"""The embedded PostgreSQL as its users meet it: runs that end well, badly, and at the same time."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest
from adbc_driver_postgresql import dbapi

from benchmarks.contenders import psql
from jobs.cli import main
from jobs.errors import ConfigurationError
from jobs.warehouse.embedded import EmbeddedPostgres

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]

# Another process that uses the server: says when it has it, and leaves when its input ends.
OTHER_RUN = """
import signal, sys
# Started from a shell's background, as CI may do, the process would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from jobs.warehouse.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start(), flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped cluster to copy: initdb takes seconds, a copy a tenth of one."""
    place = tmp_path_factory.mktemp("cluster") / "warehouse"
    with EmbeddedPostgres(place):
        pass
    return place


@pytest.fixture
def folder(tmp_path: Path, cluster: Path) -> Iterator[Path]:
    place = tmp_path / "warehouse"
    # `cp` keeps owners, which the server asks for when the tests run as root.
    subprocess.run(["cp", "-a", str(cluster), str(place)], check=True)
    yield place
    EmbeddedPostgres(place).shut_down()


@pytest.fixture
def new_folder(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "warehouse"
    yield place
    EmbeddedPostgres(place).shut_down()


def other_run(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OTHER_RUN, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def address(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline().strip()


def query(url: str, statement: str) -> object:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        connection.close()


def test_starts_and_stops_with_the_context(new_folder: Path) -> None:
    server = EmbeddedPostgres(new_folder)
    with server as url:
        assert urlsplit(url).path == "/warehouse"
        assert query(url, "SHOW server_encoding") == "UTF8"
        assert query(url, "SHOW fsync") == "on"
        assert query(url, "SHOW timezone") == "UTC"
        assert query(url, "SELECT 'ä' < 'b'") is False, "text is ordered by code point, the same everywhere"
        assert server.running_pid() is not None
    assert server.running_pid() is None
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(url)


def test_a_restart_keeps_data_and_password(folder: Path) -> None:
    with EmbeddedPostgres(folder) as url:
        query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        password = url.split(":")[2].split("@")[0]
    with EmbeddedPostgres(folder) as url:
        assert query(url, "SELECT answer FROM kept") == 42
        assert password in url


def test_secrets_are_readable_by_the_owner_only_and_not_in_arguments(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    with server as url:
        password = url.split(":")[2].split("@")[0]
        assert stat.S_IMODE(server.password_file.stat().st_mode) == 0o600
        pid = server.running_pid()
        assert pid is not None
        assert password not in " ".join(psutil.Process(pid).cmdline())
        assert password not in " ".join(server.psql_command())
        assert password not in server.log_file.read_text()
        assert not (folder / "initdb.password").exists()
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(url.replace(password, "wrong"))


def test_psql_opens_the_warehouse(tmp_path: Path) -> None:
    place = tmp_path / "a folder with 'quotes'"
    server = EmbeddedPostgres(place)
    with server:
        command = [*server.psql_command(), "-X", "-A", "-t", "-c", "SELECT current_database()"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "warehouse"


def test_the_command_psql_asks_for_no_other_password(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", f"embedded:{folder}")
    monkeypatch.setenv("WAREHOUSE_SCHEMA", "shop")
    monkeypatch.setenv("PGPASSWORD", "of another server")
    assert main(["psql", "-c", "SHOW search_path"]) == 0
    assert "shop" in capfd.readouterr().out


def test_works_where_parent_folders_are_closed_and_leaves_their_permissions(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    deep = closed / ("x" * 120) / "warehouse"
    with EmbeddedPostgres(deep) as url:
        assert query(url, "SELECT 1") == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_the_server_is_never_root(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    with server:
        pid = server.running_pid()
        assert pid is not None
        assert psutil.Process(pid).uids().effective != 0


def test_users_of_one_folder_share_the_server_and_the_last_one_stops_it(folder: Path) -> None:
    first, second = EmbeddedPostgres(folder), EmbeddedPostgres(folder)
    url = first.start()
    assert second.start() == url
    first.stop()
    assert query(url, "SELECT 1") == 1
    second.stop()
    assert second.running_pid() is None


def test_two_processes_at_once_get_the_same_server(new_folder: Path) -> None:
    runs = [other_run(new_folder) for _ in range(3)]
    urls = {address(run) for run in runs}
    assert len(urls) == 1
    assert query(urls.pop(), "SELECT 1") == 1
    for run in runs:
        run.communicate(timeout=60)
        assert run.returncode == 0
    assert EmbeddedPostgres(new_folder).running_pid() is None


def test_a_server_left_by_a_killed_run_is_taken_over_and_then_stopped(folder: Path) -> None:
    killed = other_run(folder)
    url = address(killed)
    killed.kill()
    killed.communicate()
    server = EmbeddedPostgres(folder)
    assert server.running_pid() is not None, "the server outlives the run"
    with server as again:
        assert again == url
    assert server.running_pid() is None


def test_ctrl_c_stops_the_run_and_its_server(folder: Path) -> None:
    run = other_run(folder)
    address(run)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode != 0
    assert EmbeddedPostgres(folder).running_pid() is None


def test_a_killed_server_recovers_what_was_committed(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    url = server.start()
    query(url, "CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) AS n")
    pid = server.running_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    server.stop()
    with EmbeddedPostgres(folder) as again:
        assert query(again, "SELECT count(*) FROM kept") == 1000


def test_a_stale_pid_file_whose_number_belongs_to_another_process(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        pass
    stale = folder / "data" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{folder / 'data'}\n0\n5432\n\n127.0.0.1\n\nready\n")
    with EmbeddedPostgres(folder) as url:
        assert query(url, "SELECT 1") == 1


def test_a_killed_initdb_leaves_nothing_that_stands_in_the_way(new_folder: Path) -> None:
    (new_folder / "data.new" / "base").mkdir(parents=True)
    (new_folder / "initdb.password").write_text("old")
    with EmbeddedPostgres(new_folder) as url:
        assert query(url, "SELECT 1") == 1
    assert not (new_folder / "data.new").exists()


def test_the_callers_postgres_variables_do_not_matter(
    new_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGHOST": "nowhere.invalid",
        "PGPORT": "1",
        "PGDATA": "/nowhere",
        "PGHOSTADDR": "127.0.0.2",
        "PGSSLMODE": "require",
        "PGGSSENCMODE": "require",
        "PGCHANNELBINDING": "require",
        "PGTARGETSESSIONATTRS": "standby",
        "PGOPTIONS": "-c default_transaction_read_only=on",
        "LC_ALL": "xx_YY",
    }.items():
        monkeypatch.setenv(name, value)
    server = EmbeddedPostgres(new_folder)
    with server as url:
        assert query(url, "SHOW default_transaction_read_only") == "off"
        # So does the driver that copies rows, which brings a libpq of its own, and psql.
        with closing(dbapi.connect(url)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SELECT current_setting('default_transaction_read_only')")
            assert cursor.fetchone() == ("off",)
        done = subprocess.run([*server.psql_command(), "-Atc", "SELECT 1"], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_damaged_cluster_is_an_error_with_the_end_of_the_log(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        pass
    (folder / "data" / "global" / "pg_control").unlink()
    with pytest.raises(ConfigurationError, match="did not start") as raised:
        EmbeddedPostgres(folder).start()
    assert "pg_control" in str(raised.value)


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        EmbeddedPostgres(tmp_path / "file" / "warehouse").start()


def test_no_other_address_than_the_loopback_is_listened_on(folder: Path) -> None:
    with EmbeddedPostgres(folder) as url:
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        with pytest.raises(OSError, match=r"refused|reach|assign"):
            socket.create_connection(("127.0.0.2", port), timeout=5)


def test_one_object_may_start_again_after_others_have_stopped_its_server(folder: Path) -> None:
    first, second = EmbeddedPostgres(folder), EmbeddedPostgres(folder)
    first.start()
    second.start()
    first.stop()
    second.stop()
    with second as url:
        assert first.start() == url
        first.stop()
        assert query(url, "SELECT 1") == 1


def test_the_benchmarks_copy_into_it_by_psql(folder: Path) -> None:
    with EmbeddedPostgres(folder) as url:
        psql.run(url, "CREATE TABLE public.made AS SELECT 1 AS n")
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT n FROM public.made")
            assert cursor.fetchall() == [(1,)]
