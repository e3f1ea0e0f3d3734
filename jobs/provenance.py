"""Who started a run, with which revision of the code and which settings: what `etl_runs` says of it. No secrets."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jobs.resources import project_root
from jobs.settings import Settings, without_credentials

AIRFLOW = ("AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_DAG_RUN_ID", "AIRFLOW_CTX_TASK_ID")
# Beside those of Settings: what changes what a run does. None of them can hold a secret.
NAMED = ("GEOLOCATION_PROVIDER", "LOG_FORMAT")
# What the column of `etl_runs` has room for.
LONGEST_REVISION = 100
PACKAGES = ("pyspark", "delta-spark")


def started_by(environ: Mapping[str, str] | None = None) -> str:
    """User and host, or, in a task of Airflow, its DAG, DAG run and task."""
    env = os.environ if environ is None else environ
    names = [env.get(name, "").strip() for name in AIRFLOW]
    if names[0]:
        return "airflow " + "/".join(name for name in names if name)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def git_revision(environ: Mapping[str, str] | None = None) -> str | None:
    """GIT_REVISION where an image sets it, else what git says of the code's folder; None where it knows nothing."""
    env = os.environ if environ is None else environ
    return env.get("GIT_REVISION", "").strip()[:LONGEST_REVISION] or _described(project_root())


@cache
def _described(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def configuration(settings: Settings, environ: Mapping[str, str] | None = None) -> str:
    """The settings of a run and the versions under it, as JSON. Addresses are without user, password and options."""
    env = os.environ if environ is None else environ
    known: dict[str, object] = {
        "lake_uri": settings.lake_uri,
        "warehouse": without_credentials(settings.warehouse_url),
        "schema": settings.schema,
        "s3_endpoint": settings.s3_endpoint,
        "s3_region": None if settings.lake_is_local else settings.s3_region,
        "spark_master": settings.spark_master,
        "driver_memory": settings.driver_memory,
        "secret_columns": "drop" if settings.drop_secrets else "keep",
        "lock_wait_seconds": settings.lock_wait_seconds,
        **{name.lower(): env.get(name, "").strip() or None for name in NAMED},
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }
    return json.dumps({name: value for name, value in known.items() if value is not None}, sort_keys=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
