"""The stack as a newcomer has it: make up, make trigger, look at the result, break it, make down.

Everything happens in a clone of its own, with names and ports of its own, beside a stack that may be running.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from jobs.generate_samples import manifest
from scripts.stack import Api

ROOT = Path(__file__).resolve().parents[2]
DAG = "/api/v2/dags/user_analytics"
PORTS = ("AIRFLOW_PORT", "SPARK_UI_PORT", "MINIO_PORT", "MINIO_CONSOLE_PORT", "POSTGRES_PORT")
TABLES = ("dim_users", "dim_actions", "dim_devices", "dim_locations", "fact_user_actions", "user_purchase")


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Stack:
    """A clone of this checkout, and its stack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.environment = {
            **os.environ,
            **{name: str(port) for name, port in self.ports.items()},
            "COMPOSE_PROJECT_NAME": "user-analytics-test",
        }

    def make(self, *arguments: str) -> float:
        """Run make, its output shown; the seconds it took."""
        began = time.monotonic()
        subprocess.run(["make", *arguments], cwd=self.folder, env=self.environment, check=True)
        return time.monotonic() - began

    def compose(self, *arguments: str, check: bool = True) -> str:
        command = ["docker", "compose", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def settings(self) -> dict[str, str]:
        lines = (self.folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    def warehouse(self, text: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.ports["POSTGRES_PORT"],
            user="analytics",
            password=self.settings()["WAREHOUSE_PASSWORD"],
            dbname="warehouse",
            options="-c search_path=analytics",
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall()
        finally:
            connection.close()

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of the tables that hold data rather than the record of runs."""
        return {name: self.warehouse(f"SELECT * FROM {name} ORDER BY 1, 2") for name in TABLES}

    def api(self) -> Api:
        """Airflow's REST interface, as `make trigger` uses it."""
        return Api(
            f"http://localhost:{self.ports['AIRFLOW_PORT']}", self.settings()["AIRFLOW_ADMIN_PASSWORD"]
        )

    def memory(self) -> str:
        lines = self.docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines()
        return "\n".join(sorted(line for line in lines if line.startswith("user-analytics-test")))

    def docker(self, *arguments: str) -> str:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack") / "user-analytics"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    stack = Stack(folder)
    try:
        print(f"\nmake up: {stack.make('up'):.0f} s")
        yield stack
    finally:
        stack.make("down", "VOLUMES=yes")
    assert (
        stack.docker(
            "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=user-analytics-test"
        )
        == ""
    )


def test_up_is_healthy_and_open_on_this_machine_only(stack: Stack) -> None:
    services = [json.loads(line) for line in stack.compose("ps", "--format", "json").splitlines()]
    assert {service["Health"] for service in services} == {"healthy"}
    assert len(services) == 9
    published = [port for service in services for port in service["Publishers"] if port["PublishedPort"]]
    assert {port["URL"] for port in published} == {"127.0.0.1"}
    assert {port["PublishedPort"] for port in published} == set(stack.ports.values())
    assert (stack.folder / ".env").stat().st_mode & 0o077 == 0
    print(stack.memory())


def test_no_default_password_opens_anything(stack: Stack) -> None:
    for user in ("postgres", "analytics", "airflow", "retail"):
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(
                host="127.0.0.1",
                port=stack.ports["POSTGRES_PORT"],
                user=user,
                password=user,
                dbname="postgres",
            )


def test_trigger_fills_the_warehouse_and_a_second_run_changes_nothing(stack: Stack) -> None:
    print(f"\nmake trigger: {stack.make('trigger'):.0f} s")
    known = manifest()["feeds"]
    assert stack.warehouse("SELECT count(*) FROM fact_user_actions") == [(known["logs"]["accepted"],)]
    assert stack.warehouse("SELECT count(*) FROM movie_review") == [(known["reviews"]["accepted"],)]
    assert (
        stack.warehouse("SELECT count(*), sum(quantity * unit_price)::text FROM user_purchase")[0][0]
        == (known["purchases"]["accepted"])
    )
    top = stack.warehouse(
        "SELECT customer_id, amount_spent FROM top_5_customers_by_amount_spent_view ORDER BY customer_rank"
    )
    assert [(customer, f"{amount:.3f}") for customer, amount in top] == [
        (str(customer), amount) for customer, amount in known["purchases"]["facts"]["top_5_customers"]
    ]
    print(stack.memory())
    before = stack.content()
    print(f"\nmake trigger, nothing new: {stack.make('trigger'):.0f} s")
    assert stack.content() == before


def test_a_driver_a_worker_and_the_scheduler_killed_in_one_run(stack: Stack) -> None:
    """All marts are made anew meanwhile; the tables end as they were."""
    before = stack.content()
    api = stack.api()
    run = api("POST", f"{DAG}/dagRuns", {"logical_date": None, "conf": {"full_refresh": True}})["dag_run_id"]

    def states() -> dict[str, str]:
        found = api("GET", f"{DAG}/dagRuns/{run}/taskInstances?limit=100")["task_instances"]
        return {task["task_id"]: task["state"] for task in found}

    def wait_for(task: str, *wanted: str, seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while (state := states().get(task)) not in wanted:
            assert time.monotonic() < deadline, (task, state)
            time.sleep(1)

    def try_again_now(task: str) -> None:
        """Clear a task instead of waiting for its retry in five minutes."""
        body = {"dry_run": False, "dag_run_id": run, "task_ids": [task], "only_failed": False}
        api("POST", f"{DAG}/clearTaskInstances", body)

    # A driver, by SIGKILL.
    wait_for("marts.build_star_schema", "running")
    time.sleep(10)
    stack.compose("exec", "-T", "airflow-scheduler", "pkill", "-KILL", "-f", "jobs/build_star_schema.py")
    wait_for("marts.build_star_schema", "up_for_retry")
    try_again_now("marts.build_star_schema")

    # A worker with its executors; Compose starts another.
    wait_for("marts.build_star_schema", "running")
    time.sleep(10)
    stack.compose("exec", "-T", "--index", "1", "spark-worker", "pkill", "-KILL", "java")
    wait_for("marts.build_star_schema", "success")

    # The scheduler, and with it the driver that it runs.
    wait_for("publish", "running")
    time.sleep(10)
    stack.compose("exec", "-T", "airflow-scheduler", "pkill", "-KILL", "-f", "airflow scheduler")
    wait_for("publish", "up_for_retry", "success")
    if states()["publish"] != "success":
        try_again_now("publish")
    wait_for("publish", "success")
    deadline = time.monotonic() + 300
    while (state := api("GET", f"{DAG}/dagRuns/{run}")["state"]) in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(2)
    assert state == "success"
    assert stack.content() == before


def test_a_run_for_a_past_date_gives_the_same_tables(stack: Stack) -> None:
    before = stack.content()
    api = stack.api()
    run = api("POST", f"{DAG}/dagRuns", {"logical_date": "2026-01-02T00:00:00Z"})["dag_run_id"]
    deadline = time.monotonic() + 900
    while (state := api("GET", f"{DAG}/dagRuns/{run}")["state"]) in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(2)
    assert state == "success"
    assert stack.content() == before
    extracted = "SELECT count(*) > 0 FROM etl_files WHERE path LIKE 'raw/purchases/extract/2026-01-02/%'"
    assert stack.warehouse(extracted) == [(True,)]


def test_a_warm_start(stack: Stack) -> None:
    before = stack.content()
    stack.make("down")
    print(f"\nmake up, warm: {stack.make('up'):.0f} s")
    assert stack.content() == before
