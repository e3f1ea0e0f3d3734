"""House rules for DAGs, read from what a real Airflow makes of them."""

from __future__ import annotations

import importlib
import importlib.util
import json
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest

import jobs.runs
from jobs.build_events import month_name
from jobs.feeds import FEEDS
from jobs.maintain_lake import LEAST_KEEP_DAYS, MOST_KEEP_DAYS
from jobs.run_all import MARTS
from jobs.warehouse.declarations import tables

from .conftest import ROOT, Airflow

pytestmark = pytest.mark.integration

JOBS = ROOT / "jobs"
SECRETS = {
    "MINIO_ROOT_PASSWORD": "minio-s3cret",
    "WAREHOUSE_PASSWORD": "w/hse:s3cret",
    "SOURCE_PASSWORD": "src-s3cret",
}


@pytest.fixture(scope="module")
def stack_connections() -> dict[str, Any]:
    """The connections that the stack's one-shot declares."""
    file = ROOT / "containers" / "airflow" / "initialise.py"
    spec = importlib.util.spec_from_file_location("initialise", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.env = {**SECRETS, "MINIO_ROOT_USER": "admin", "LAKE_BUCKET": "user-analytics"}
    found: dict[str, Any] = module.connections()
    return found


@pytest.fixture(scope="module")
def described(
    airflow: Airflow, stack_connections: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("described") / "dags.json"
    there = Airflow(airflow.home, airflow.environment, stack_connections)
    done = there.run(
        "python",
        str(Path(__file__).with_name("describe_dags.py")),
        str(ROOT / "dags"),
        str(output),
        "month=2024-03",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(output.read_text())
    return found


@pytest.fixture(scope="module")
def jobs_tasks(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task that submits a job, by DAG and id."""
    return {
        f"{dag_id}.{task_id}": task
        for dag_id, dag in described["dags"].items()
        for task_id, task in dag["tasks"].items()
        if task["type"] == "SparkJobOperator"
    }


def test_dags_import_without_errors_and_without_slow_top_level_code(described: dict[str, Any]) -> None:
    assert described["errors"] == {}
    assert set(described["dags"]) == {"user_analytics", "user_analytics_maintenance"}
    assert described["slow"] == []


def test_every_dag_is_documented_and_runs_one_at_a_time_without_catching_up(
    described: dict[str, Any],
) -> None:
    for name, dag in described["dags"].items():
        assert dag["doc"], name
        assert "user-analytics" in dag["tags"], name
        assert (dag["catchup"], dag["max_active_runs"]) == (False, 1), name
    assert described["dags"]["user_analytics"]["schedule"] == "@daily"


def test_every_job_is_retried_later_and_has_a_timeout(jobs_tasks: dict[str, dict[str, Any]]) -> None:
    for name, task in jobs_tasks.items():
        assert task["retries"] >= 2, name
        assert task["retry_minutes"] == 5, name
        assert task["timeout"], name


def test_every_application_exists_and_takes_its_arguments(
    jobs_tasks: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(jobs_tasks) > 10
    for name, task in jobs_tasks.items():
        file = Path(task["application"])
        assert file.is_file(), name
        assert file.parent == JOBS, name
        job = importlib.import_module(f"jobs.{file.stem}")
        # main() parses its arguments and hands the rest over: here, to nobody.
        ran: list[object] = []
        for module in (job, jobs.runs):
            monkeypatch.setattr(
                module, "job_main", lambda body, ran=ran: ran.append(body) or 0, raising=False
            )
        assert job.main(task["arguments"]) == 0, name
        assert len(ran) == 1, name


def test_a_month_is_handed_to_the_job_that_takes_one(jobs_tasks: dict[str, dict[str, Any]]) -> None:
    assert jobs_tasks["user_analytics.marts.build_events"]["arguments"] == ["--month=2024-03"]


# Says for each (DAG, parameter, value) whether a run with it could be asked for.
PARAMETERS = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk.exceptions import ParamValidationError
folder = Path(sys.argv[1])
dags = BundleDagBag(bundle_path=folder, dag_folder=folder, bundle_name="dags").dags
taken = []
for dag_id, name, value in json.loads(sys.argv[2]):
    try:
        dags[dag_id].params.get_param(name).resolve(value)
        taken.append(True)
    except ParamValidationError:
        taken.append(False)
Path(sys.argv[3]).write_text(json.dumps(taken))
"""


def test_parameters_are_those_that_the_jobs_take(airflow: Airflow, tmp_path: Path) -> None:
    months = ["2024-03", "2024-12", "2024-13", "2024-00", "2024-3", "2024-03\n", "٢٠٢٤-03", ""]
    days = [LEAST_KEEP_DAYS - 1, LEAST_KEEP_DAYS, MOST_KEEP_DAYS, MOST_KEEP_DAYS + 1]
    asked = [
        *(("user_analytics", "month", month) for month in months),
        *(("user_analytics_maintenance", "keep_days", number) for number in days),
    ]
    output = tmp_path / "taken.json"
    done = airflow.run("python", "-c", PARAMETERS, str(ROOT / "dags"), json.dumps(asked), str(output))
    assert done.returncode == 0, done.stderr[-3000:]

    def is_month(text: str) -> bool:
        try:
            return bool(month_name(text))
        except ArgumentTypeError:
            return False

    taken = [*map(is_month, months), False, True, True, False]
    assert json.loads(output.read_text()) == taken
    assert taken[:3] == [True, True, False]


def all_before(name: str, tasks: dict[str, Any]) -> set[str]:
    """The tasks that a task waits for, directly or through others."""
    direct = set(tasks[name]["upstream"])
    return direct.union(*(all_before(other, tasks) for other in direct))


def test_every_feed_is_staged_and_every_mart_built_before_publishing(described: dict[str, Any]) -> None:
    dag = described["dags"]["user_analytics"]
    tasks = dag["tasks"]
    assert dag["params"]["feeds"] == list(FEEDS)
    for feed in FEEDS:
        assert tasks[f"{feed}.stage"]["arguments"] == [feed]
        assert f"{feed}.upload" in tasks[f"{feed}.stage"]["upstream"]
    marts = {name: task for name, task in tasks.items() if name.startswith("marts.")}
    built = {Path(task["application"]).stem for task in marts.values()}
    builds = [build for chain in MARTS for build in chain.values()]
    assert {build.__module__.rsplit(".", 1)[-1] for build in builds} <= built
    for name, task in marts.items():
        needed = {"reset_marts", *(f"{feed}.stage" for feed in task["feeds"])}
        assert needed <= all_before(name, tasks), name
    assert tasks["reset_marts"]["arguments"] == [f"--feeds={','.join(FEEDS)}"]
    assert tasks["publish"]["upstream"] == sorted(marts)
    assert tasks["dashboards"]["upstream"] == ["publish"]
    assert tasks["report"]["upstream"] == ["publish"]
    assert tasks["report"]["arguments"] == ["--since", "2026-11-19T00:00:00+00:00"]


def test_a_failure_anywhere_fails_the_run(described: dict[str, Any]) -> None:
    tasks = dict(described["dags"]["user_analytics"]["tasks"])
    watcher = tasks.pop("failed_tasks")
    assert watcher["upstream"] == sorted(tasks)
    assert watcher["trigger_rule"] == "one_failed"
    assert watcher["retries"] == 0


def test_every_published_table_is_an_asset(described: dict[str, Any]) -> None:
    publish = described["dags"]["user_analytics"]["tasks"]["publish"]
    assert publish["assets"] == sorted(f"user_analytics.{name}" for name in tables())


def test_every_connection_is_declared_and_none_of_its_secrets_is_rendered(
    described: dict[str, Any], stack_connections: dict[str, Any]
) -> None:
    source = "\n".join(file.read_text() for file in (ROOT / "dags").glob("*.py"))
    used = {"spark_default", "minio_conn", "warehouse", "purchases_source", "google_cloud_default"}
    assert all(f'"{name}"' in source for name in used)
    # BigQuery's is for those who have a project; see docs/operations.md.
    assert used - set(stack_connections) == {"google_cloud_default"}
    for dag in described["dags"].values():
        for name, task in dag["tasks"].items():
            assert not [secret for secret in SECRETS.values() if secret in task["rendered"]], name
