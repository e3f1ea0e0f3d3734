"""FOLDER OUTPUT [PARAMETER=VALUE]: write what Airflow makes of a folder's DAGs, as JSON. For Airflow's Python."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.dag_processing.dagbag import BundleDagBag

MOMENT = datetime(2026, 11, 19, tzinfo=UTC)
# What makes importing a file slow, or depend on something that may be away. Airflow imports every file again and again.
SLOW_EVENTS = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "time.sleep"}
SLOW_MODULES = {"boto3", "deltalake", "jobs", "numpy", "pandas", "pyarrow", "pyspark"}


def describe_task(task: Any, params: dict[str, Any]) -> dict[str, Any]:
    """One task, its templates rendered as for a run of 2026-11-19."""
    run = SimpleNamespace(logical_date=MOMENT, run_after=MOMENT, start_date=MOMENT, run_id="scheduled")
    task.render_template_fields({"dag_run": run, "params": params, "ti": None})
    rendered = {name: getattr(task, name) for name in task.template_fields}
    return {
        "type": type(task).__name__,
        "application": rendered.get("application"),
        "arguments": [argument for argument in rendered.get("application_args") or [] if argument],
        "py_files": rendered.get("py_files"),
        "rendered": json.dumps(rendered, default=str),
        "feeds": list(getattr(task, "feeds", ())),
        "upstream": sorted(task.upstream_task_ids),
        "retries": task.retries,
        "retry_minutes": task.retry_delay.total_seconds() / 60,
        "backoff": bool(task.retry_exponential_backoff),
        "timeout": bool(task.execution_timeout),
        "trigger_rule": task.trigger_rule.value,
        "assets": sorted(asset.name for asset in task.outlets),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    slow: list[str] = []
    listening = [True]

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event in SLOW_EVENTS:
            slow.append(f"{event} {arguments[-1]}")

    sys.addaudithook(heard)
    before = set(sys.modules)
    bag = BundleDagBag(bundle_path=folder, dag_folder=folder, bundle_name="dags")
    listening.clear()
    slow += sorted(SLOW_MODULES & (sys.modules.keys() - before))
    dags = {}
    for dag in bag.dags.values():
        params = {name: param.value for name, param in dag.params.items()}
        chosen = params | dict(pair.split("=") for pair in sys.argv[3:] if pair.split("=")[0] in params)
        dags[dag.dag_id] = {
            "doc": dag.doc_md,
            "tags": sorted(dag.tags),
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "schedule": dag.schedule,
            "params": params,
            "tasks": {task.task_id: describe_task(task, chosen) for task in dag.tasks},
        }
    found = {"errors": bag.import_errors, "slow": slow, "dags": dags}
    # Airflow logs to standard output.
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
