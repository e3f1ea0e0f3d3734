"""No secret and no personal value in what a run writes for operators: output, logs, report, run tables, processes."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pyarrow.parquet as pq
import pytest

from jobs.lake.raw import MAX_CHARS_PER_COLUMN
from tests.services import ObjectStore
from tests.warehouses import query

pytestmark = [pytest.mark.spark, pytest.mark.integration]
ROOT = Path(__file__).resolve().parents[2]

# Every personal value below has one of these in it: names, addresses, passwords; hashes; IP addresses.
MARKS = ("zqx", "feedface", "203.0.113.201")
HASH = "feedface" * 4
USER = "id,first_name,last_name,email,gender,ip_address,created_at,updated_at,password,status\n"
CUSTOMER = "customer_id,name,email,age,city,registration_date\n"
FILES = {
    "users/accepted.csv": f"{USER}1,Zqxann,Zqxlee,zqx1@example.org,f,203.0.113.201,2024-01-01,,{HASH},active\n",
    # A password as it is, an unreadable address, a warning's value, and a record with too few columns.
    "users/rejected.csv": (
        f"{USER}2,Zqxbob,Zqxroe,zqx 2,m,203.0.113.201,someday,,zqxpassword,odd\n"
        f"3,Zqxeve,Zqxdoe,zqx3@example.org,f,203.0.113.201,2024-01-01,,{HASH},odd\n"
        f"4,Zqxcut,zqx4@example.org,{HASH}\n"
    ),
    # Without a header, a record stands in its place.
    "users/refused.csv": f"5,Zqxdan,Zqxpoe,zqx5@example.org,m,203.0.113.201,2024-01-01,,{HASH},active\n",
    "events/all.csv": (
        "id,timestamp,email,country,uri,action,tags\n"
        "1,2024-03-01T10:00:00,zqx1@example.org,Peru,/a,view,x\n"
        "2,someday,zqx1@example.org,Peru,/a,view,x\n"
        '3,2024-03-01T10:00:00,"zqx1@example.org\n'
    ),
    "events/refused.csv": "4,2024-03-01T10:00:00,zqx4@example.org,zqx4@example.org,/a,view,x\n",
    "customers/all.csv": (
        f"{CUSTOMER}1,Zqxann Lee,zqx1@example.org,30,Oslo,2020-01-01\n"
        "2,Zqxbob Roe,zqx1@example.org,40,Oslo,2020-01-01\n"
        "3,Zqxeve Doe,zqx3@example.org,207,Oslo,someday\n"
    ),
    "customers/refused.csv": "4,Zqxdan Poe,Zqxdan Poe,zqx4@example.org,30,Oslo,2020-01-01\n",
    # Too long for the parser, which gives up with a message that quotes it.
    "customers/too-long.csv.gz": f"{CUSTOMER}5,{'Zqx' * (MAX_CHARS_PER_COLUMN // 3 + 1)},,,,2020-01-01\n",
}


def text_of(name: str, content: bytes) -> str:
    """A file as text; Parquet with its values, its statistics and its metadata."""
    found = content.decode("latin-1")
    if name.endswith(".parquet"):
        file = pq.ParquetFile(io.BytesIO(content))
        found += f"{file.read().to_pylist()} {file.schema_arrow.metadata}"
    return found.lower()


def command_lines(leader: int) -> Iterator[str]:
    """Of all processes of a session."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                yield "\n".join(process.cmdline())
        except (OSError, psutil.Error):
            continue


def test_no_secret_and_no_personal_value_is_written(
    tmp_path: Path, minio: ObjectStore, warehouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bucket = minio.make_bucket()
    password = urlsplit(warehouse_url).password
    assert password
    # The access key's id is no secret, the rest is.
    secrets = [*MARKS, password.lower(), minio.secret_key.lower()]
    for name, text in FILES.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())

    written: dict[str, str] = {}
    commands: set[str] = set()
    with (tmp_path / "stdout").open("wb") as out, (tmp_path / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jobs", "run", "--data", str(tmp_path / "data")),
                *("--feeds", "users,events,customers", "--max-rejected", "1"),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                **minio.environment(),
                "LAKE_URI": f"s3a://{bucket}/lake",
                "WAREHOUSE_URL": warehouse_url,
                "SPARK_MASTER": "local[2]",
                "SPARK_DRIVER_MEMORY": "1g",
                "LOG_FOLDER": str(tmp_path / "logs"),
                "LOG_FORMAT": "json",
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                commands |= set(command_lines(process.pid))
                try:
                    process.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
    for name in ("stdout", "stderr"):
        written[name] = (tmp_path / name).read_text().lower()
    # The refused files.
    assert process.returncode == 3, written["stderr"][-3000:]
    for file in (tmp_path / "logs").rglob("*"):
        written[f"logs/{file.name}"] = file.read_text().lower()
    for number, command in enumerate(sorted(commands)):
        written[f"command {number}"] = command.lower()
    for table in ("etl_runs", "etl_steps", "etl_files", "etl_checks"):
        written[f"warehouse {table}"] = str(query(warehouse_url, f"SELECT * FROM {table}")).lower()
    # The server's own log.
    for file in tmp_path_factory.getbasetemp().glob("warehouse*/**/*.log"):
        written[file.name] = file.read_text().lower()

    kept = []
    client = minio.client()
    for item in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in item.get("Contents", ()):
            content = client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
            path = entry["Key"].removeprefix("lake/")
            text = text_of(path, content)
            # The data itself, which these marks have to be in, or this would find nothing anywhere.
            if path.startswith(("raw/", "staging/", "marts/")) and "/_ingested_files/" not in path:
                kept.append(text)
            else:
                written[path] = text

    assert {name: mark for name, text in written.items() for mark in secrets if mark in text} == {}
    # What was searched is what there is to be searched, and the data that it is about came through.
    assert all(any(mark in text for text in kept) for mark in MARKS)
    assert "zqxpassword" not in "".join(t for t in kept if USER not in t)
    for part in ("runs/etl_steps/", "runs/etl_checks/", "staging/_ingested_files/", "results/reports/"):
        assert any(path.startswith(part) for path in written), part
    assert any("java" in command for command in commands)
    assert "univocity" in written["logs/spark.log"]
    for message in (
        "raw/users/refused.csv: missing column: email (as email); the header has 10 columns",
        "raw/events/refused.csv: the header has an unknown name more than once",
        "raw/customers/refused.csv: the header has an unknown name more than once",
        "raw/customers/too-long.csv.gz: cannot be read to its end: ",
    ):
        assert message in written["stderr"], message
