"""What a job's driver gets from Airflow's connections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn

from jobs.settings import Settings, without_password

from .conftest import ROOT, Airflow

pytestmark = pytest.mark.integration

# Prints, for each pair (connection of the warehouse, whether the source is read), the variables that were set.
PROGRAM = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from airflow.sdk.exceptions import AirflowException
from spark_jobs import driver_environment
found = []
for warehouse, source in json.loads(sys.argv[2]):
    before = dict(os.environ)
    try:
        with driver_environment(warehouse, source):
            new = {name: value for name, value in os.environ.items() if before.get(name) != value}
            new |= {name: None for name in before.keys() - os.environ.keys()}
            key = Path(new.get("GOOGLE_APPLICATION_CREDENTIALS", ""))
            found.append({**new, "key": key.read_text() if key.is_file() and key.name == "key.json" else None})
    except AirflowException as error:
        found.append({"error": str(error)})
    assert dict(os.environ) == before
    assert not (key.name == "key.json" and key.exists())
Path(sys.argv[3]).write_text(json.dumps(found))
"""
LAKE = {
    "conn_type": "aws",
    "login": "key",
    "password": "s3cret",
    "extra": {"endpoint_url": "http://minio:9000", "region_name": "eu-west-1", "lake_uri": "s3a://lake"},
}
POSTGRES = {
    "conn_type": "postgres",
    "host": "db.example.com",
    "login": "ana@lytics",
    "password": "p@ss/w:rd?#",
    "schema": "warehouse",
    "extra": {"sslmode": "require"},
}
GOOGLE = {
    "conn_type": "google_cloud_platform",
    "extra": {"project": "my-project", "key_path": "/keys/key.json"},
}


def environments(
    airflow: Airflow, folder: Path, connections: dict[str, Any], *cases: tuple[str, bool]
) -> list[dict[str, Any]]:
    there = Airflow(airflow.home, airflow.environment, connections)
    output = folder / "found.json"
    done = there.run("python", "-c", PROGRAM, str(ROOT / "dags"), json.dumps(cases), str(output))
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(output.read_text())
    return found


def test_the_connections_type_decides_between_postgres_and_bigquery(airflow: Airflow, tmp_path: Path) -> None:
    key = {"type": "service_account", "private_key": "s3cret"}
    connections = {
        "minio_conn": LAKE,
        "warehouse": POSTGRES,
        "google_cloud_default": GOOGLE,
        "google_with_key": {
            **GOOGLE,
            "extra": {"project": "p", "dataset": "shop", "keyfile_dict": json.dumps(key)},
        },
        "purchases_source": {**POSTGRES, "port": 6543, "extra": {}},
    }
    on_postgres, on_bigquery, with_key, with_source = environments(
        airflow,
        tmp_path,
        connections,
        ("warehouse", False),
        ("google_cloud_default", False),
        ("google_with_key", False),
        ("warehouse", True),
    )
    lake = {
        "LAKE_URI": "s3a://lake",
        "AWS_ENDPOINT_URL_S3": "http://minio:9000",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
    }
    assert lake.items() <= on_postgres.items()
    assert lake.items() <= on_bigquery.items()
    url = "postgresql://ana%40lytics:p%40ss%2Fw%3Ard%3F%23@db.example.com:5432/warehouse?sslmode=require"
    assert on_postgres["WAREHOUSE_URL"] == url
    # The jobs read it as it is meant.
    settings = Settings.from_env(
        {name: value for name, value in on_postgres.items() if isinstance(value, str)}
    )
    assert "p%40ss" not in without_password(settings.warehouse_url)
    assert "SOURCE_URL" not in on_postgres

    assert on_bigquery["WAREHOUSE_URL"] == "bigquery://my-project/analytics"
    assert on_bigquery["GOOGLE_APPLICATION_CREDENTIALS"] == "/keys/key.json"
    assert with_key["WAREHOUSE_URL"] == "bigquery://p/shop"
    assert json.loads(with_key["key"]) == key
    assert with_source["SOURCE_URL"].endswith("@db.example.com:6543/warehouse")


def test_without_connections_the_workers_own_variables_hold(airflow: Airflow, tmp_path: Path) -> None:
    nothing, no_source, no_project, not_there = environments(
        airflow,
        tmp_path,
        {"google_cloud_default": {"conn_type": "google_cloud_platform"}},
        ("warehouse", False),
        ("warehouse", True),
        ("google_cloud_default", False),
        ("google_elsewhere", False),
    )
    assert nothing == {"key": None}
    assert no_source == {"error": "there is no connection purchases_source"}
    # The run asked for it: what the worker has instead must not take its place.
    assert not_there == {
        "error": "the parameter warehouse names google_elsewhere: there is no such connection"
    }
    assert no_project == {"error": "connection google_cloud_default: its extra must name the project"}


def test_a_token_of_the_worker_does_not_go_with_the_connections_keys(
    airflow: Airflow, tmp_path: Path
) -> None:
    """The store refuses keys with the token of others; without keys, the worker's own hold with their token."""
    worker = {"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own", "AWS_SESSION_TOKEN": "of own"}
    there = Airflow(airflow.home, {**airflow.environment, **worker})
    own = {name: value for name, value in LAKE.items() if name not in ("login", "password")}
    with_token = {**LAKE, "extra": {**LAKE["extra"], "aws_session_token": "its own"}}
    found = [
        environments(there, tmp_path, {"minio_conn": lake}, ("warehouse", False))[0]
        for lake in (LAKE, own, with_token)
    ]
    assert found[0]["AWS_ACCESS_KEY_ID"] == "key"
    assert found[0]["AWS_SESSION_TOKEN"] is None
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"} & found[1].keys()
    assert found[2]["AWS_SESSION_TOKEN"] == "its own"


def test_the_address_of_a_postgres(airflow: Airflow, tmp_path: Path) -> None:
    # What libpq does not know, as options of Airflow's hook, would make it refuse the address.
    extra = {
        "connect_timeout": 10,
        "options": "-c statement_timeout=0",
        "cursor": "dictcursor",
    }
    found = environments(
        airflow,
        tmp_path,
        {
            "ipv6": {**POSTGRES, "host": "2001:db8::1", "extra": extra},
            "no_host": {**POSTGRES, "host": None},
            "no_database": {**POSTGRES, "schema": None},
        },
        ("ipv6", False),
        ("no_host", False),
        ("no_database", False),
    )
    url = found[0].pop("WAREHOUSE_URL")
    assert parse_dsn(url) == {
        "user": "ana@lytics",
        "password": "p@ss/w:rd?#",
        "host": "2001:db8::1",
        "port": "5432",
        "dbname": "warehouse",
        "connect_timeout": "10",
        "options": "-c statement_timeout=0",
    }
    assert found[1:] == [
        {"error": "connection no_host: its host is missing"},
        {"error": "connection no_database: its schema, the database, is missing"},
    ]
