"""What `etl_runs` says of a run: who, which code, which settings, and no secret."""

from __future__ import annotations

import json
import re

import pytest

from jobs.provenance import configuration, git_revision, started_by
from jobs.settings import Settings
from jobs.warehouse.declarations import tables

SECRET = "none-of-your-business"


def test_who_started_it() -> None:
    assert re.fullmatch(r"[^@\s]+@[^@\s]+", started_by({}))
    airflow = {
        "AIRFLOW_CTX_DAG_ID": "user_analytics",
        "AIRFLOW_CTX_DAG_RUN_ID": "scheduled__2024-03-01",
        "AIRFLOW_CTX_TASK_ID": "stage_logs",
    }
    assert started_by(airflow) == "airflow user_analytics/scheduled__2024-03-01/stage_logs"


def test_which_code() -> None:
    assert git_revision({"GIT_REVISION": "abc123"}) == "abc123"
    found = git_revision({})
    assert found is None or re.fullmatch(r"[0-9a-f]{12,40}(-dirty)?", found)


def test_a_revision_is_cut_to_the_room_of_its_column() -> None:
    revision = git_revision({"GIT_REVISION": "x" * 1000}) or ""
    [room] = [c.type.sql() for c in tables()["etl_runs"].columns if c.name == "git_revision"]
    assert room == f"VARCHAR({len(revision)})"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"postgresql://me:{SECRET}@db:5432/sales?sslpassword={SECRET}", "postgresql://db:5432/sales"),
        ("bigquery://project/dataset", "bigquery://project/dataset"),
        ("embedded:/data/warehouse", "embedded:/data/warehouse"),
    ],
)
def test_which_settings(address: str, shown: str) -> None:
    environment = {
        "LAKE_URI": "s3a://bucket/zone",
        "WAREHOUSE_URL": address,
        "AWS_ENDPOINT_URL_S3": "http://minio:9000",
        "AWS_ACCESS_KEY_ID": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
        "OPENLINEAGE_API_KEY": SECRET,
        "GEOLOCATION_PROVIDER": "ip-api",
    }
    text = configuration(Settings.from_env(environment), environment)
    assert SECRET not in text
    found = json.loads(text)
    assert (found["lake_uri"], found["warehouse"]) == ("s3a://bucket/zone", shown)
    assert (found["s3_endpoint"], found["geolocation_provider"]) == ("http://minio:9000", "ip-api")
    assert re.fullmatch(r"[0-9.]+", found["pyspark"])
