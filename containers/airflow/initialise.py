"""The one-shot of the stack: Airflow's database, log-in and connections, the lake's bucket, sample data on first use.

Runs at every start and changes nothing that is there, except that connections are set again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

import boto3
import psycopg2
from psycopg2.extras import execute_values

from jobs.generate_samples import make_samples

AIRFLOW = "/opt/airflow-venv/bin/airflow"
INBOX = Path("/opt/user-analytics/var/inbox")
MINIO = "http://minio:9000"
env = os.environ

SOURCE_TABLE = """
    CREATE SCHEMA IF NOT EXISTS retail;
    CREATE TABLE retail.user_purchase (
        invoice_number varchar(10), stock_code varchar(20), detail varchar(1000), quantity int, invoice_date timestamp,
        unit_price numeric(8, 3), customer_id int, country varchar(20));
"""


def connections() -> dict[str, dict[str, object]]:
    """The connections that the DAGs use; docs/operations.md explains each."""
    postgres = {"conn_type": "postgres", "host": "postgres", "port": 5432}
    return {
        "spark_default": {"conn_type": "spark", "host": "spark://spark-master", "port": 7077},
        "minio_conn": {
            "conn_type": "aws",
            "login": env["MINIO_ROOT_USER"],
            "password": env["MINIO_ROOT_PASSWORD"],
            "extra": {
                "endpoint_url": MINIO,
                "region_name": "us-east-1",
                "lake_uri": f"s3a://{env['LAKE_BUCKET']}",
            },
        },
        "warehouse": postgres
        | {"login": "analytics", "password": env["WAREHOUSE_PASSWORD"], "schema": "warehouse"},
        "purchases_source": postgres
        | {"login": "retail", "password": env["SOURCE_PASSWORD"], "schema": "source"},
    }


def prepare_airflow() -> None:
    subprocess.run([AIRFLOW, "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
    passwords = Path(env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    passwords.write_text(json.dumps({"admin": env["AIRFLOW_ADMIN_PASSWORD"]}))
    passwords.chmod(0o600)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(connections(), file)
        file.flush()
        command = [AIRFLOW, "connections", "import", "--overwrite", file.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def prepare_bucket() -> None:
    store = boto3.client(
        "s3",
        endpoint_url=MINIO,
        region_name="us-east-1",
        aws_access_key_id=env["MINIO_ROOT_USER"],
        aws_secret_access_key=env["MINIO_ROOT_PASSWORD"],
    )
    with suppress(store.exceptions.BucketAlreadyOwnedByYou):
        store.create_bucket(Bucket=env["LAKE_BUCKET"])


def prepare_samples() -> None:
    """Sample files into the inbox, except the second month of purchases, which goes into the source database."""
    source = psycopg2.connect(
        host="postgres", dbname="source", user="retail", password=env["SOURCE_PASSWORD"], connect_timeout=10
    )
    with source, source.cursor() as cursor:
        cursor.execute("SELECT to_regclass('retail.user_purchase')")
        if cursor.fetchone() != (None,):
            return
        for feed in make_samples():
            for file in feed.files:
                if file.name == "retail-2011-01.csv":
                    cursor.execute(SOURCE_TABLE)
                    execute_values(
                        cursor, "INSERT INTO retail.user_purchase VALUES %s", list(purchases(file.content))
                    )
                else:
                    (INBOX / feed.name).mkdir(parents=True, exist_ok=True)
                    (INBOX / feed.name / file.name).write_bytes(file.content)


def purchases(content: bytes) -> Iterator[tuple[object, ...]]:
    """The lines of a sample file that fit the table's types; the others are its dirt."""
    for row in csv.DictReader(io.StringIO(content.decode(), newline="")):
        with suppress(ValueError, TypeError, InvalidOperation):
            price, customer = Decimal(row["unit_price"]), row["customer_id"]
            if row["invoice_number"] and price.is_finite():
                yield (
                    row["invoice_number"],
                    row["stock_code"],
                    row["detail"],
                    int(row["quantity"]),
                    datetime.fromisoformat(row["invoice_date"]),
                    price,
                    int(float(customer)) if customer else None,
                    row["country"],
                )


if __name__ == "__main__":
    prepare_bucket()
    if env["SAMPLE_DATA"] == "yes":
        prepare_samples()
    prepare_airflow()
