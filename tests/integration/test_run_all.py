"""`run`: everything with one command, on small files; what it prints, records and publishes, and how it ends."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession

from jobs.build_purchases import build_purchases
from jobs.cli import main
from jobs.feeds.purchases import PURCHASES
from jobs.lake.staging import stage
from jobs.publish import publish
from jobs.spark import QUICK_START
from jobs.upload_files import upload
from jobs.warehouse.postgres import PostgresWarehouse
from tests.lakes import Lake
from tests.warehouses import query

pytestmark = [pytest.mark.spark, pytest.mark.integration]

LOGS = [
    {"user_id": 1, "action_type": "login", "timestamp": "2024-05-01T08:00:00", "metadata": {"device": "iOS"}},
    {"user_id": 1, "action_type": "view", "timestamp": "2024-05-01T08:01:00Z", "metadata": {}},
    {
        "user_id": 2,
        "action_type": "login",
        "timestamp": "2024-05-01T09:00:00+02:00",
        "metadata": {"location": "Oslo"},
    },
    {
        "user_id": "2",
        "action_type": "login",
        "timestamp": "2024-05-01T07:00:00",
        "metadata": {"location": "Oslo"},
    },
    {"user_id": 3, "action_type": "login", "timestamp": "2024-02-30T07:00:00", "metadata": {}},
]
PURCHASES_CSV = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,WHITE CANDLE,6,12/1/2010 8:26,2.55,17850.0,United Kingdom
536366,22633,HAND WARMER,2,12/1/2010 8:28,1.85,13047,United Kingdom
C53637,85123A,WHITE CANDLE,-1,12/2/2010 9:00,2.55,17850.0,United Kingdom
"""
FACTS = "SELECT count(*) FROM fact_user_actions"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ask(
    spark: SparkSession, tmp_lake: str, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[tuple[Any, ...]]]:
    """Point the command at a lake and a warehouse of the test's own; gives a way to query the latter."""
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    monkeypatch.setenv("WAREHOUSE_URL", warehouse_url)
    return lambda text: query(warehouse_url, text)


def json_lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_run_after_run(
    ask: Callable[[str], list[tuple[Any, ...]]],
    tmp_path: Path,
    tmp_lake: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    (data / "purchases").mkdir()
    (data / "logs" / "day1.jsonl").write_text(json_lines(*LOGS))
    (data / "purchases" / "december.csv").write_text(PURCHASES_CSV)

    # One feed alone: the other's files are there, but are not read.
    assert main(["run", "--data", str(data), "--feeds", "logs"]) == 0
    printed = capsys.readouterr().out
    assert ask(FACTS) == [(3,)]
    assert "user_purchase" not in printed

    # All feeds. Of the logs nothing is new.
    assert main(["run"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for expected in (
        "feed files refused read accepted duplicate rejected",
        "purchases 1 0 3 3 0 0",
        "fact_user_actions 3",
        "user_purchase 3",
        "top_5_customers_by_amount_spent_view",
        "1 17850 12.7500 2 2 13047 3.7000 1",
        "daily_activity_view",
        "2024-05-01 login iOS 1 1",
        "Seconds per step",
        "build star schema",
        f"Lake: {tmp_lake}",
        "Warehouse: postgresql://analytics:***@",
        "make psql",
    ):
        assert expected in printed, expected
    marts = "SELECT table_name, delta_version, published_at FROM _published WHERE table_name !~ '^etl_' ORDER BY 1"
    before = ask(marts)

    # Nothing new: it says so, and no mart is touched; the run itself is recorded.
    assert main(["run"]) == 0
    printed = capsys.readouterr().out
    assert "nothing new: every file was staged before, nothing was added" in printed
    assert ask(marts) == before
    assert ask(
        "SELECT command, outcome, file_count, records_read, accepted, duplicates, rejected, failed_checks "
        "FROM run_history_view ORDER BY started_at"
    ) == [
        ("run", "done", 1, 5, 3, 1, 1, 0),
        ("run", "done", 1, 3, 3, 0, 0, 0),
        ("run", "done", 0, 0, 0, 0, 0, 0),
    ]
    assert ask("SELECT count(*), count(*) FILTER (WHERE passed), count(DISTINCT run_id) FROM etl_checks") == [
        (n := ask("SELECT count(*) FROM etl_checks")[0][0], n, 2)
    ]
    assert ask("SELECT DISTINCT outcome FROM etl_steps") == [("done",)]

    # A file that cannot be read is refused; what came with it is published, and the exit code tells.
    raw = Path(tmp_lake) / "raw" / "logs"
    (raw / "broken.json").write_text('[{"user_id": 9, "action_type": "login"')
    (raw / "day2.jsonl").write_text(json_lines({**LOGS[0], "timestamp": "2024-05-02T08:00:00"}))
    assert main(["run"]) == 3
    assert "refused: raw/logs/broken.json" in capsys.readouterr().out
    assert ask(FACTS) == [(4,)]
    assert ask("SELECT path, status FROM feed_files_view WHERE feed = 'logs' ORDER BY path") == [
        ("raw/logs/broken.json", "refused"),
        ("raw/logs/day1.jsonl", "staged"),
        ("raw/logs/day2.jsonl", "staged"),
    ]
    assert ask("SELECT outcome, refused_files FROM run_history_view LIMIT 1") == [("refused", 1)]

    # Too much is rejected: nothing is staged, built or published.
    (raw / "broken.json").unlink()
    (raw / "day3.jsonl").write_text(json_lines({**LOGS[0], "timestamp": "2024-05-03T08:00:00"}, LOGS[4]))
    before = ask("SELECT * FROM _published ORDER BY 1")
    assert main(["run", "--max-rejected", "0.4"]) == 3
    assert "1 of 2 records would be rejected (50.0%)" in capsys.readouterr().err
    assert ask("SELECT * FROM _published ORDER BY 1") == before
    # With more allowed it goes on, and the run that stopped is in the history.
    assert main(["run", "--max-rejected", "0.5"]) == 0
    assert ask(FACTS) == [(5,)]
    assert [o for (o,) in ask("SELECT outcome FROM run_history_view LIMIT 2")] == ["done", "refused"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--feeds", "logs,nonsense"], "nonsense: choose from logs, purchases, reviews, users"),
        (["run", "--mapping", "users"], "users: write FEED=FILE"),
        (["run", "--max-rejected", "2"], "2 is not between 0 and 1"),
        (["run", "--sample", "--data", "x"], "not allowed with"),
        (["run", "--samp"], "unrecognized arguments"),
        (["publish", "now"], "unrecognized arguments"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.shared_data
@pytest.mark.usefixtures("compiled")
def test_online_retail(
    spark: SparkSession, tmp_lake: str, warehouse_url: str, shared_data: Path, tmp_path: Path
) -> None:
    """Real invoices, whose truth is known, all the way into PostgreSQL."""
    lake = Lake(spark, tmp_lake, warehouse_url)
    run = lake.run()

    def bring(file: Path, replace: bool = False) -> list[int]:
        upload(run.store, "purchases", [file], replace=replace)
        result = stage(run, PURCHASES)
        build_purchases(run)
        checks = publish(run, PostgresWarehouse(warehouse_url, "analytics"), ["user_purchase"])
        assert all(check.passed for check in checks)
        return [result.total(name) for name in ("records_read", "accepted", "duplicates", "rejected")]

    truth = (541_908, 135_080, 25_899, Decimal("9747732.934"))
    figures = (
        "SELECT count(*), count(*) FILTER (WHERE is_guest), count(DISTINCT invoice_number), "
        "sum(quantity * unit_price) FROM user_purchase"
    )
    assert bring(shared_data / "OnlineRetail.csv.gz") == [541_908, 541_908, 0, 0]
    assert query(warehouse_url, figures) == [truth]
    assert query(warehouse_url, "SELECT count(*) FROM customer_amount_spent_view") == [(4_372,)]
    assert query(
        warehouse_url,
        "SELECT customer_id, round(amount_spent, 2)::text FROM top_5_customers_by_amount_spent_view",
    ) == [
        ("14646", "279489.02"),
        ("18102", "256438.49"),
        ("17450", "187482.17"),
        ("14911", "132572.62"),
        ("12415", "123725.45"),
    ]
    # Exact repeats stay rows: a customer may buy the same twice.
    line = "invoice_number, stock_code, detail, quantity, invoice_date, unit_price, customer_id, country"
    assert query(warehouse_url, f"SELECT count(*) - count(DISTINCT ({line})) FROM user_purchase") == [
        (5_268,)
    ]
    version = lake.mart("user_purchase").version()

    # The same lines under another name add nothing.
    content = gzip.decompress((shared_data / "OnlineRetail.csv.gz").read_bytes())
    again = tmp_path / "again.csv"
    again.write_bytes(content)
    assert bring(again) == [541_908, 0, 541_908, 0]
    assert lake.mart("user_purchase").version() == version
    (Path(tmp_lake) / "raw" / "purchases" / "again.csv").unlink()

    # A correction under the same name: the last line was wrong.
    lines = content.splitlines(keepends=True)
    corrected = tmp_path / "OnlineRetail.csv.gz"
    with gzip.open(corrected, "wb", compresslevel=1) as out:
        out.writelines([*lines[:-1], b"999999,22138,BAKING SET,1,12/9/2011 12:50,5.25,12680,France\n"])
    bring(corrected, replace=True)
    assert query(
        warehouse_url, "SELECT count(*), count(*) FILTER (WHERE invoice_number = '999999') FROM user_purchase"
    ) == [(541_908, 1)]


def test_spark_submit_on_an_object_store_gives_the_same(
    minio: Any,
    make_database: Callable[[], str],
    tmp_path: Path,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    (data / "logs" / "day1.jsonl").write_text(json_lines(*LOGS))
    local, remote = make_database(), make_database()
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    monkeypatch.setenv("WAREHOUSE_URL", local)
    assert main(["run", "--data", str(data), "--feeds", "logs"]) == 0

    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))},
        **minio.environment(),
        "LAKE_URI": f"s3a://{minio.make_bucket()}/lake",
        "WAREHOUSE_URL": remote,
        "SPARK_SUBMIT_OPTS": QUICK_START,
    }
    # Each job alone is submitted by the DAG's run (tests/airflow/test_dag_run.py).
    submit = str(Path(sys.executable).with_name("spark-submit"))
    session = ["--master", "local[2]", "--driver-memory", "1g"]
    done = subprocess.run(
        [submit, *session, "jobs/run_all.py", "--data", str(data), "--feeds", "logs"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert minio.secret_key not in done.stderr + done.stdout
    # Spark's own log is in a file.
    assert " INFO " not in done.stderr
    for table in ("dim_users", "dim_actions", "dim_devices", "dim_locations", "fact_user_actions"):
        rows = query(remote, f"SELECT * FROM {table} ORDER BY 1")
        assert rows == query(local, f"SELECT * FROM {table} ORDER BY 1")
        assert rows


def test_sigterm_stops_the_embedded_server(tmp_path: Path) -> None:
    program = """
        import sys, time
        import jobs.open_psql as job
        from jobs.cli import COMMANDS, main
        from jobs.context import job_main
        from jobs.settings import Settings
        from jobs.warehouse import open_warehouse

        def body():
            with open_warehouse(Settings.from_env()):
                print("running", flush=True)
                time.sleep(60)

        job.main = lambda _: job_main(body)
        sys.exit(main(["psql"]))
    """
    environment = {**os.environ, "WAREHOUSE_URL": f"embedded:{tmp_path / 'warehouse'}"}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    server = int((tmp_path / "warehouse" / "data" / "postmaster.pid").read_text().splitlines()[0])
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().endswith("stopped; run it again to go on")
    assert "Traceback" not in errors
    assert not psutil.pid_exists(server) or psutil.Process(server).status() == psutil.STATUS_ZOMBIE


def test_what_begins_after_ctrl_c_does_not_keep_the_process(tmp_path: Path) -> None:
    """A thread that was between two of Spark's jobs went on to the next one, for as long as that takes."""
    program = """
        import sys, time
        from jobs.context import job_main, open_run
        from jobs.settings import Settings
        from jobs.spark import some_at_once

        def body():
            with open_run("test", Settings.from_env()) as run:
                def work(_):
                    spark = run.spark
                    print("running", flush=True)
                    time.sleep(2)
                    spark.range(10**15).selectExpr("sum(id % 7)").collect()

                some_at_once(work, [1])

        sys.exit(job_main(body))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "LAKE_URI": str(tmp_path / "lake"), "LOG_FOLDER": str(tmp_path)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.strip().endswith("stopped; run it again to go on")
    assert "Traceback" not in errors


def test_java_that_is_killed_is_said_in_one_line(tmp_path: Path) -> None:
    """So it ends where the machine has no memory left."""
    program = """
        import os, signal, sys
        from jobs.context import job_main, open_run
        from jobs.runs import recorded
        from jobs.settings import Settings
        from jobs.spark import jvm_pid

        def body():
            with open_run("test", Settings.from_env()) as run, recorded(run), run.step("count"):
                os.kill(jvm_pid(run.spark), signal.SIGKILL)
                run.spark.range(3).count()

        sys.exit(job_main(body))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "LAKE_URI": str(tmp_path / "lake"), "LOG_FOLDER": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "error: Spark's Java process ended" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
