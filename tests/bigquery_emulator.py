"""A BigQuery for the tests: bqemulator, in an environment of its own, made on first use from pinned requirements.

It lives in the cache folder, below a name that follows from the requirements. What it gets wrong is tested at request
level, see docs/decisions/bigquery.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests

from jobs.warehouse.bigquery_load import Connection
from tests.services import ServiceMissing, _free_port, _spawn, _works, cache_folder

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements-bqemulator.txt"
START_SECONDS = 60.0
PROJECT = "test-project"


@dataclass
class BigQueryEmulator:
    """A running emulator. gcs_folder: what it reads `gs://…` from."""

    endpoint: str
    gcs_folder: Path
    stop: Callable[[], None]

    @property
    def connection(self) -> Connection:
        return Connection(PROJECT, "EU", self.endpoint)

    def new_dataset_url(self) -> str:
        """The WAREHOUSE_URL of a dataset that does not exist yet."""
        return f"bigquery://{PROJECT}/test_{uuid.uuid4().hex[:12]}"


def start_bigquery(folder: Path) -> BigQueryEmulator:
    """Start the emulator with its files in `folder`. Raises ServiceMissing with what went wrong."""
    environment = install_emulator()
    home, gcs = folder / "home", folder / "gcs"
    gcs.mkdir()
    _place_extension(environment, home)
    port = _free_port()
    command = [str(environment / "bin" / "bqemulator"), "start", "--rest-port", str(port)]
    command += ["--grpc-port", str(_free_port()), "--log-level", "warning"]
    variables = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "BQEMU_GCS_LOCAL_ROOT": str(gcs),
    }
    log = folder / "bqemulator.log"
    stop = _spawn(command, variables, log)
    endpoint = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            requests.get(f"{endpoint}/bigquery/v2/projects/{PROJECT}/datasets", timeout=5).raise_for_status()
            return BigQueryEmulator(endpoint, gcs, stop)
        except requests.RequestException as error:
            if time.monotonic() > deadline:
                stop()
                text = log.read_text(errors="replace")[-800:] if log.is_file() else ""
                raise ServiceMissing(
                    f"bqemulator was not ready after {START_SECONDS:.0f} s: {error}\n{text}"
                ) from None
            time.sleep(0.1)


def install_emulator() -> Path:
    """The virtual environment with bqemulator, made where it is missing. Raises ServiceMissing with what went wrong."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    name = hashlib.sha256(version.encode() + REQUIREMENTS.read_bytes()).hexdigest()[:12]
    target = cache_folder() / f"bqemulator-{name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # It does not work any more where its Python is gone, or its folder came from elsewhere.
        if not ((target / "complete").is_file() and _works(target / "bin" / "bqemulator")):
            print(f"\nbigquery: installing bqemulator into {target} …", file=sys.stderr, flush=True)
            shutil.rmtree(target, ignore_errors=True)
            # What a developer or an image sets for pip must not install elsewhere.
            clean = {
                n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET")
            }
            clean |= {"PIP_USER": "0"}
            pip = [
                str(target / "bin" / "python"),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]
            for command in (
                [sys.executable, "-m", "venv", str(target)],
                [*pip, "--require-hashes", "-r", str(REQUIREMENTS)],
            ):
                done = subprocess.run(
                    command, env=clean, capture_output=True, text=True, stdin=subprocess.DEVNULL
                )
                if done.returncode != 0:
                    raise ServiceMissing(f"{' '.join(command)} failed: {done.stderr.strip()[-800:]}")
            (target / "complete").touch()
    return target


def _place_extension(environment: Path, home: Path) -> None:
    """Put DuckDB's extension `spatial` where DuckDB looks, for it would download it otherwise."""
    found = list(
        environment.glob("lib/python*/site-packages/duckdb_extension_spatial/extensions/*/*.duckdb_extension")
    )
    platform = subprocess.run(
        [
            environment / "bin" / "python",
            "-c",
            "import duckdb; print(duckdb.sql('PRAGMA platform').fetchone()[0])",
        ],
        capture_output=True,
        text=True,
    ).stdout.strip()
    if not found or not platform:
        raise ServiceMissing(f"{environment}: DuckDB or its extension spatial is missing")
    folder = home / ".duckdb" / "extensions" / found[0].parent.name / platform
    folder.mkdir(parents=True)
    shutil.copy(found[0], folder)
