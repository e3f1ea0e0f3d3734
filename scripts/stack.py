"""The stack's daily work, on the machine that runs it; `make up` and `make trigger` call this.

    scripts/stack.py settings            write what .env lacks: passwords and keys, made at random
    scripts/stack.py addresses           print where the stack's pages and ports are, and how to log in
    scripts/stack.py trigger [DAG_ID]    start a run, follow it to its end; exit code 0 when it succeeded

Standard library only: this runs with any Python 3.11, before anything is installed.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import sys
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / ".env"
DEFAULT_DAG = "user_analytics"
RUN_SECONDS = 3600
POLL_SECONDS = 2.0
# How long the scheduler takes to notice that a DAG is no longer paused.
UNPAUSE_SECONDS = 20.0

GENERATED = {
    "MINIO_ROOT_USER": lambda: f"lake-{secrets.token_hex(4)}",
    "MINIO_ROOT_PASSWORD": lambda: secrets.token_urlsafe(24),
    "POSTGRES_PASSWORD": lambda: secrets.token_urlsafe(24),
    "WAREHOUSE_PASSWORD": lambda: secrets.token_urlsafe(24),
    "SOURCE_PASSWORD": lambda: secrets.token_urlsafe(24),
    "AIRFLOW_DATABASE_PASSWORD": lambda: secrets.token_urlsafe(24),
    "AIRFLOW_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(12),
    "AIRFLOW_FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "AIRFLOW_JWT_SECRET": lambda: secrets.token_urlsafe(48),
    "AIRFLOW_SECRET_KEY": lambda: secrets.token_urlsafe(32),
}


def unquoted(value: str) -> str:
    """A value of .env as Compose and shells take it: without the quotes around it, and the comment behind it."""
    if quoted := re.fullmatch(r"""(['"])(.*?)\1(\s+#.*)?""", value.strip()):
        return quoted[2]
    return re.split(r"\s#", value, maxsplit=1)[0].strip()


def settings() -> dict[str, str]:
    """What .env sets; the environment goes first, as it does for Compose."""
    found = {}
    for line in SETTINGS.read_text().splitlines() if SETTINGS.is_file() else []:
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            found[name.strip().removeprefix("export ").lstrip()] = unquoted(value)
    return found | {
        name: value for name, value in os.environ.items() if name in found or name.endswith("_PORT")
    }


def write_settings() -> int:
    """Append what is missing, so that nothing that was set is lost."""
    there = settings()
    missing = {name: make() for name, make in GENERATED.items() if not there.get(name)}
    if missing:
        before = SETTINGS.read_text() if SETTINGS.is_file() else ""
        if before and not before.endswith("\n"):
            before += "\n"
        SETTINGS.touch(mode=0o600)
        SETTINGS.chmod(0o600)
        lines = "".join(f"{name}={value}\n" for name, value in missing.items())
        SETTINGS.write_text(f"{before}# Made by `make up`: secrets of the stack on this machine\n{lines}")
        print(f".env: {len(missing)} passwords and keys made")
    return 0


def print_addresses() -> int:
    """Where everything is."""
    there = settings()

    def port(name: str, default: int) -> str:
        return there.get(name) or str(default)

    print(
        f"""
Airflow     http://localhost:{port("AIRFLOW_PORT", 8080)}   admin / AIRFLOW_ADMIN_PASSWORD in .env
Spark       http://localhost:{port("SPARK_UI_PORT", 8081)}
MinIO       http://localhost:{port("MINIO_CONSOLE_PORT", 9001)}   MINIO_ROOT_USER / MINIO_ROOT_PASSWORD in .env
warehouse   postgresql://analytics@localhost:{port("POSTGRES_PORT", 5432)}/warehouse   WAREHOUSE_PASSWORD in .env

make trigger runs the DAG {DEFAULT_DAG}; make down stops everything and keeps the data."""
    )
    return 0


class Api:
    """Airflow's REST interface."""

    def __init__(self, address: str, password: str) -> None:
        self.address = address
        self.token = ""
        self.token = self("POST", "/auth/token", {"username": "admin", "password": password})["access_token"]

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - always http, on this machine
            self.address + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)


def trigger(dag_id: str) -> int:
    """Start a run and say what becomes of its tasks; what Airflow has begun goes on without this command."""
    try:
        return _follow(dag_id)
    # No answer, one that breaks off, or one of another program at this port.
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        print(
            f"Airflow does not answer as expected ({str(error).strip()}); is the stack up? make up",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("stopped; a run that was started goes on", file=sys.stderr)
        return 130


def _follow(dag_id: str) -> int:
    there = settings()
    api = Api(
        f"http://localhost:{there.get('AIRFLOW_PORT') or '8080'}", there.get("AIRFLOW_ADMIN_PASSWORD", "")
    )
    run = _first_scheduled_run(api, dag_id) or api(
        "POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None}
    )
    here = f"/api/v2/dags/{dag_id}/dagRuns/{run['dag_run_id']}"
    print(f"{run['dag_run_id']}: {api.address}/dags/{dag_id}/runs/{run['dag_run_id']}")
    said: dict[str, str] = {}
    began = time.monotonic()
    while time.monotonic() - began < RUN_SECONDS:
        for task in api("GET", f"{here}/taskInstances?limit=1000")["task_instances"]:
            state = task["state"] or "waiting"
            if (
                state != "waiting"
                and said.get(task["task_id"]) != state
                and state not in ("scheduled", "queued")
            ):
                seconds = f" ({task['duration']:.0f} s)" if task["duration"] and state != "running" else ""
                print(f"{time.monotonic() - began:5.0f} s  {task['task_id']}: {state}{seconds}", flush=True)
                said[task["task_id"]] = state
        state = api("GET", here)["state"]
        if state in ("success", "failed"):
            print(f"{time.monotonic() - began:5.0f} s  {state}")
            return int(state != "success")
        time.sleep(POLL_SECONDS)
    print(f"still {state} after {RUN_SECONDS} s; it goes on without this command", file=sys.stderr)
    return 1


def _first_scheduled_run(api: Api, dag_id: str) -> Any:
    """The run that the scheduler starts by itself when a daily DAG is unpaused; None if it does not.

    One run at a time is allowed: another one would only wait for it, and find nothing new.
    """
    if not api("GET", f"/api/v2/dags/{dag_id}")["is_paused"]:
        return None
    api("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})
    deadline = time.monotonic() + UNPAUSE_SECONDS
    while time.monotonic() < deadline:
        if runs := api("GET", f"/api/v2/dags/{dag_id}/dagRuns?state=queued&state=running")["dag_runs"]:
            return runs[0]
        time.sleep(POLL_SECONDS)
    return None


def main(arguments: list[str]) -> int:
    """Run one of the commands above."""
    try:
        match arguments:
            case ["settings"]:
                return write_settings()
            case ["addresses"]:
                return print_addresses()
            case ["trigger", *dag] if len(dag) < 2:
                return trigger(dag[0] if dag else DEFAULT_DAG)
    # Another user's, as `sudo make up` leaves one, or not UTF-8.
    except (OSError, UnicodeDecodeError) as error:
        print(f"{SETTINGS} cannot be used: {error}", file=sys.stderr)
        return 2
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
