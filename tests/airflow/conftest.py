"""A real Airflow, in its own environment, with SQLite as its database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs.spark import QUICK_START, SMALL_PLANS

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / ".venv-airflow" / "bin"


@dataclass(frozen=True)
class Airflow:
    """An Airflow home, and programs run in it. connections: by id, as Airflow's JSON form has them."""

    home: Path
    environment: Mapping[str, str]
    connections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def run(self, program: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a program of Airflow's environment."""
        secrets = {f"AIRFLOW_CONN_{k.upper()}": json.dumps(v) for k, v in self.connections.items()}
        return subprocess.run(
            [str(PROGRAMS / program), *arguments],
            env={**self.environment, **secrets},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """Airflow with an empty database; installed first where that was not done yet."""
    subprocess.run([str(ROOT / "scripts" / "setup.sh"), "airflow"], check=True)
    subprocess.run([sys.executable, str(ROOT / "scripts" / "package.py")], check=True)
    home = tmp_path_factory.mktemp("airflow")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "SPARK_", "PYSPARK_", "USER_ANALYTICS_", "COV_", "PYTHON"))
    }
    started = Airflow(
        home,
        {
            **inherited,
            # Spark's programs first: Airflow's environment has a spark-submit of its own, without jars.
            "PATH": f"{Path(sys.executable).parent}:{PROGRAMS}:{os.environ['PATH']}",
            # As for small lakes: few partitions and interpreted plans.
            "SPARK_DRIVER_MEMORY": "800m",
            "SPARK_SUBMIT_OPTS": f"-XX:+UseParallelGC {QUICK_START} -Duser.timezone=UTC -Dspark.ui.enabled=false "
            + " ".join(f"-D{name}={value}" for name, value in SMALL_PLANS.items()),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "USER_ANALYTICS_INBOX": str(home / "inbox"),
        },
    )
    migrated = started.run("airflow", "db", "migrate")
    assert migrated.returncode == 0, migrated.stderr[-2000:]
    return started
