"""Real services for the tests: an object store that speaks S3.

The embedded PostgreSQL needs no code here: the tests use `jobs.warehouse.embedded`, as users do.

The first way that this machine offers is taken:
1. a `minio` on PATH, in ~/go/bin, or in the cache;
2. MinIO built from its Go module into the cache (2-4 minutes, once);
3. MinIO in a container, where a Docker engine answers;
4. moto's server. It makes the same calls work, but accepts any key, so that tests of wrong keys
   look at `ObjectStore.checks_keys`.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

MINIO_MODULE = "github.com/minio/minio@latest"
MINIO_IMAGE = "minio/minio"
START_SECONDS = 60.0


class ServiceMissing(Exception):
    """No way to have the service on this machine; the test that asks for it fails with this."""


@dataclass
class ObjectStore:
    """A running S3 server with keys of its own."""

    kind: str
    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    checks_keys: bool = True
    _stop: Callable[[], None] = field(default=lambda: None, repr=False)

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, connect_timeout=2, retries={"max_attempts": 0}),
        )

    def make_bucket(self, prefix: str = "test") -> str:
        """A new, empty bucket; its name."""
        name = f"{prefix}-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def environment(self) -> dict[str, str]:
        """The variables that point jobs at this store."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
        }

    def stop(self) -> None:
        self._stop()


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "user-analytics"


def _works(program: Path) -> bool:
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([program, "--version"], capture_output=True, timeout=30).returncode == 0
    return False


def _minio_binary() -> Path | None:
    found = shutil.which("minio")
    candidates = [Path(found)] if found else []
    candidates += [Path.home() / "go" / "bin" / "minio", cache_folder() / "bin" / "minio"]
    return next((program for program in candidates if program.is_file() and _works(program)), None)


def _go() -> str | None:
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")


def docker_program() -> str | None:
    """The program `docker`, where it is and reaches an engine."""
    docker = shutil.which("docker")
    with suppress(OSError, subprocess.TimeoutExpired):
        if docker and subprocess.run([docker, "info"], capture_output=True, timeout=10).returncode == 0:
            return docker
    return None


@cache
def object_store_plan() -> tuple[str, str]:
    """Which way will be taken, and a sentence about it for the head of the report. Starts nothing."""
    if binary := _minio_binary():
        return "binary", f"MinIO ({binary})"
    if go := _go():
        return "go", f"MinIO, built with {go} on first use (2-4 minutes)"
    if docker_program():
        return "container", f"MinIO in a container ({MINIO_IMAGE})"
    return "moto", "moto's server (no MinIO, Go or Docker here); it does not check keys"


def start_object_store(folder: Path) -> ObjectStore:
    """Start the store with its data in `folder`; where a way fails, say so and take the next."""
    ways: dict[str, Callable[[Path], ObjectStore]] = {
        "binary": _start_binary,
        "go": _start_built,
        "container": _start_container,
        "moto": _start_moto,
    }
    failures = []
    for name in list(ways)[list(ways).index(object_store_plan()[0]) :]:
        try:
            return ways[name](folder)
        except ServiceMissing as error:
            failures.append(f"{name}: {error}")
            print(f"object store: {failures[-1]}", file=sys.stderr, flush=True)
    raise ServiceMissing("no object store could be started:\n  " + "\n  ".join(failures))


# -- the ways ------------------------------------------------------------------------------------------


def _start_binary(folder: Path) -> ObjectStore:
    binary = _minio_binary()
    if binary is None:
        raise ServiceMissing("no minio program on PATH, in ~/go/bin or in the cache")
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    port, console = _free_port(), _free_port()
    environment = {
        **_clean_environment(),
        "MINIO_ROOT_USER": access_key,
        "MINIO_ROOT_PASSWORD": secret_key,
        "MINIO_UPDATE": "off",
        "MINIO_BROWSER": "off",
    }
    command = [str(binary), "server", "--quiet", "--address", f"127.0.0.1:{port}"]
    command += ["--console-address", f"127.0.0.1:{console}", str(folder / "minio")]
    stop = _spawn(command, environment, folder / "minio.log")
    store = ObjectStore("MinIO", f"http://127.0.0.1:{port}", access_key, secret_key, _stop=stop)
    return _ready(store, folder / "minio.log")


def _start_built(folder: Path) -> ObjectStore:
    build_minio(folder / "go.log")
    return _start_binary(folder)


def build_minio(log: Path) -> None:
    """Build MinIO into the cache, where there is none yet. Raises ServiceMissing with what went wrong."""
    go = _go()
    if go is None:
        raise ServiceMissing("no go program")
    target = cache_folder() / "bin"
    target.mkdir(parents=True, exist_ok=True)
    # Tests run in several processes; one of them builds.
    with (cache_folder() / "minio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _minio_binary():
            _build(go, target, log)


def _build(go: str, target: Path, log: Path) -> None:
    print(f"\nobject store: building {MINIO_MODULE} into {target} …", file=sys.stderr, flush=True)
    environment = {**os.environ, "GOBIN": str(target), "GOTOOLCHAIN": "auto", "CGO_ENABLED": "0"}
    environment.setdefault("HOME", str(cache_folder()))
    with log.open("wb") as output:
        build = subprocess.Popen(
            [go, "install", MINIO_MODULE],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        began = time.monotonic()
        try:
            while True:
                try:
                    build.wait(15)
                    break
                except subprocess.TimeoutExpired:
                    seconds = time.monotonic() - began
                    if seconds > 1200:
                        raise ServiceMissing("the build took more than 20 minutes") from None
                    print(f"object store: building, {seconds:.0f} s …", file=sys.stderr, flush=True)
        finally:
            if build.poll() is None:
                build.kill()
                build.wait()
    if build.returncode != 0:
        raise ServiceMissing("the build failed: " + log.read_text(errors="replace")[-500:].strip())


def _start_container(folder: Path) -> ObjectStore:
    docker = docker_program()
    if docker is None:
        raise ServiceMissing("no Docker engine answers")
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    name = f"user-analytics-test-{uuid.uuid4().hex[:8]}"
    # The keys go through the environment: arguments can be read by every user of the machine.
    environment = {**os.environ, "MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key}
    command = [docker, "run", "--rm", "--detach", "--name", name, "--publish", "127.0.0.1::9000"]
    command += ["--env", "MINIO_ROOT_USER", "--env", "MINIO_ROOT_PASSWORD", MINIO_IMAGE, "server", "/data"]
    started = subprocess.run(command, env=environment, capture_output=True, text=True)
    if started.returncode != 0:
        raise ServiceMissing(f"docker run {MINIO_IMAGE} failed: {started.stderr.strip()[-300:]}")

    def stop() -> None:
        subprocess.run([docker, "rm", "--force", name], capture_output=True)

    port = subprocess.run([docker, "port", name, "9000/tcp"], capture_output=True, text=True)
    if port.returncode != 0:
        stop()
        raise ServiceMissing(f"the container did not publish its port: {port.stderr.strip()[-300:]}")
    address = port.stdout.split()[0]
    store = ObjectStore("MinIO in a container", f"http://{address}", access_key, secret_key, _stop=stop)
    return _ready(store, folder / "minio.log")


def _start_moto(folder: Path) -> ObjectStore:
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    stop = _spawn(command, _clean_environment(), folder / "moto.log")
    store = ObjectStore(
        "moto's server",
        f"http://127.0.0.1:{port}",
        # It takes any; a word of common use would be found where tests look for leaked secrets.
        secrets.token_hex(10),
        secrets.token_hex(20),
        checks_keys=False,
        _stop=stop,
    )
    return _ready(store, folder / "moto.log")


# -- helpers -------------------------------------------------------------------------------------------


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MINIO_"))}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _spawn(command: list[str], environment: dict[str, str], log: Path) -> Callable[[], None]:
    """Start a server in a session of its own, so that Ctrl-C reaches pytest only, which then stops it."""
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise ServiceMissing(f"{command[0]} does not start: {error}") from None

    def stop() -> None:
        for request in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, request)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
                return

    return stop


def _ready(store: ObjectStore, log: Path) -> ObjectStore:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            store.client().list_buckets()
            return store
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                store.stop()
                text = log.read_text(errors="replace")[-500:] if log.is_file() else ""
                raise ServiceMissing(
                    f"{store.kind} was not ready after {START_SECONDS:.0f} s: {error}\n{text}"
                ) from None
            time.sleep(0.1)
