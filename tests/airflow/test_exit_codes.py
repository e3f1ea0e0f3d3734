"""Which exit codes of a job Airflow, and the example for Kubernetes, take as final."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT, Airflow

pytestmark = pytest.mark.integration

# Submits a job that ends with each exit code; says as what each comes to Airflow.
PROGRAM = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from airflow.sdk.exceptions import AirflowException
from spark_jobs import SparkJobOperator
found = {}
for code in (0, 1, 2, 3):
    os.environ["EXIT_CODE"] = str(code)
    try:
        SparkJobOperator(task_id="stage", job="stage_feed.py").execute({"params": {}})
        found[code] = None
    except AirflowException as error:
        found[code] = type(error).__name__
Path(sys.argv[2]).write_text(json.dumps(found))
"""


def test_only_refused_data_is_final(airflow: Airflow, tmp_path: Path) -> None:
    submit = tmp_path / "spark-submit"
    submit.write_text("#!/bin/sh\nexit $EXIT_CODE\n")
    submit.chmod(0o755)
    spark: dict[str, Any] = {"conn_type": "spark", "host": "local[1]", "extra": {"deploy-mode": "client"}}
    path = {"PATH": f"{tmp_path}:{airflow.environment['PATH']}"}
    there = Airflow(airflow.home, {**airflow.environment, **path}, {"spark_default": spark})
    output = tmp_path / "found.json"
    done = there.run("python", "-c", PROGRAM, str(ROOT / "dags"), str(output))
    assert done.returncode == 0, done.stderr
    # An outage is told as a wrong setting, 2: it is tried again.
    assert json.loads(output.read_text()) == {
        "0": None,
        "1": "AirflowException",
        "2": "AirflowException",
        "3": "AirflowFailException",
    }


def test_kubernetes_takes_the_same_as_final() -> None:
    (cron_job,) = [
        found
        for found in yaml.safe_load_all((ROOT / "docs" / "examples" / "kubernetes.yaml").read_text())
        if found["kind"] == "CronJob"
    ]
    (rule,) = cron_job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [3])
