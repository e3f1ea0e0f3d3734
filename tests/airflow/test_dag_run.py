"""The whole DAG, run by Airflow with local Spark, a real object store and a real PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from jobs.feeds import FEEDS
from jobs.generate_samples import manifest, write_samples
from tests.warehouses import query

from .conftest import Airflow

pytestmark = pytest.mark.integration

SCALE = 0.01
SOURCE = """
    CREATE SCHEMA retail;
    CREATE TABLE retail.user_purchase (
        invoice_number varchar(10), stock_code varchar(20), detail varchar(1000), quantity int, invoice_date timestamp,
        unit_price numeric(8, 3), customer_id int, country varchar(20));
    INSERT INTO retail.user_purchase VALUES ('990001', 'LAMP', 'from the database', 2, '2026-11-18', 2.5, 17850, 'UK');
"""


def connection(url: str) -> dict[str, Any]:
    """Airflow's connection to a PostgreSQL."""
    address = urlsplit(url)
    return {
        "conn_type": "postgres",
        "host": address.hostname,
        "port": address.port,
        "login": address.username,
        "password": address.password,
        "schema": address.path.strip("/"),
    }


def test_a_run_from_files_and_a_database_to_the_views(
    airflow: Airflow, minio: Any, make_database: Callable[[], str]
) -> None:
    warehouse, source = make_database(), make_database()
    with psycopg2.connect(source) as database, database.cursor() as cursor:
        cursor.execute(SOURCE)
    write_samples(airflow.home / "inbox", scale=SCALE)
    known = manifest(scale=SCALE)["feeds"]
    stack = Airflow(
        airflow.home,
        airflow.environment,
        {
            "spark_default": {"conn_type": "spark", "host": "local[2]", "extra": {"deploy-mode": "client"}},
            "minio_conn": {
                "conn_type": "aws",
                "login": minio.access_key,
                "password": minio.secret_key,
                "extra": {
                    "endpoint_url": minio.endpoint,
                    "region_name": minio.region,
                    "lake_uri": f"s3a://{minio.make_bucket()}",
                },
            },
            "warehouse": connection(warehouse),
            "purchases_source": connection(source),
        },
    )

    done = stack.run("airflow", "dags", "test", "user_analytics", "2026-11-19", timeout=1800)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]

    # Airflow's own record: every task succeeded, except those that this run had no use for.
    states = dict(
        sqlite3.connect(airflow.home / "airflow.db")
        .execute("SELECT task_id, state FROM task_instance")
        .fetchall()
    )
    assert {task: state for task, state in states.items() if state != "success"} == {
        "reset_marts": "skipped",
        "failed_tasks": "skipped",
    }
    for family in FEEDS:
        assert {f"{family}.upload", f"{family}.stage"} <= states.keys()

    # Everything that was delivered arrived, by the numbers that the samples are known by, and one extracted row.
    delivered = {feed: known[feed]["records"] + (feed == "purchases") for feed in FEEDS}
    read = dict(query(warehouse, "SELECT feed, sum(records_read) FROM etl_files GROUP BY feed"))
    assert read == delivered
    for table, feed, extracted in (
        ("fact_user_actions", "logs", 0),
        ("user_purchase", "purchases", 1),
        ("movie_review", "reviews", 0),
        ("users_history", "users", 0),
        ("events", "events", 0),
        ("customer_orders", "orders", 0),
    ):
        rows = query(warehouse, f"SELECT count(*) FROM {table}")
        assert rows == [(known[feed]["accepted"] + extracted,)], table
    accepted = "SELECT sum(accepted) FROM etl_files WHERE path LIKE 'raw/purchases/extract/2026-11-19/%'"
    assert query(warehouse, accepted) == [(1,)]
    assert query(warehouse, "SELECT count(*) FROM etl_checks WHERE NOT passed AND action IS NULL") == [(0,)]
    assert query(warehouse, "SELECT count(*) FROM daily_activity_view")[0][0] > 0

    # No secret in Airflow's database (rendered fields, XCom), its logs, or what it printed.
    secrets = [minio.secret_key, urlsplit(warehouse).password, urlsplit(source).password]
    written = [
        path.read_bytes() for path in airflow.home.rglob("*") if path.is_file() and "inbox" not in path.parts
    ]
    for secret in filter(None, secrets):
        assert not [content for content in written if secret.encode() in content]
        assert secret not in done.stdout + done.stderr
    assert "one of these views of the schema analytics" in done.stdout
