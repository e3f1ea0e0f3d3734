"""OpenLineage events: of a whole run into a file, over HTTP, with nobody there, and none without being asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.column_lineage import columns_of_view
from jobs.context import RunContext
from jobs.datasets import Dataset
from jobs.errors import UserAnalyticsError
from jobs.feeds import FEEDS
from jobs.lake.staging import stage
from jobs.lineage_events import LineageEvents, is_on, standard_name
from jobs.run_all import build_and_publish
from jobs.runs import recorded, run_table
from jobs.settings import Settings
from jobs.warehouse.declarations import tables, views
from jobs.warehouse.postgres import PostgresWarehouse
from tests.lakes import Lake
from tests.openlineage_model import errors
from tests.records import event, json_lines
from tests.warehouses import query

pytestmark = [pytest.mark.spark, pytest.mark.integration]

Event = dict[str, Any]
PARENT = "0190c7a1-0000-7000-8000-000000000001"
# What no column of staging decides.
CONSTANT = {
    "movie_review": {"model_name", "model_version", "scored_at"},
    "users": {
        *("location_status", "latitude", "longitude", "country", "region", "city", "timezone", "isp_name")
    },
    "order_analysis": {"breakdown", "order_count"},
    "customer_orders": {"is_customer_known"},
}


def fill(lake: Lake) -> None:
    """A few records of every feed: logs as a raw file, the others as though they had been staged."""
    raw = lake.folder / "raw" / "logs"
    raw.mkdir(parents=True)
    (raw / "day.jsonl").write_text(json_lines(event("ann"), event("bob", device="Android"), event("", x=1)))
    for feed, line in {
        "purchases": "536365 | 85123A | LANTERN | 6 | 12/1/2010 8:26 | 2.55 | 17850 | Norway",
        "reviews": "17850 | A wonderful film. | 1",
        "users": "1 | Ann | Lee | ann@example.org | female | 8.8.8.8 | 2024-01-01T09:00:00Z"
        " | 2024-03-01T00:00:00Z | 5f4dcc3b5aa765d61d8327deb882cf99 | active"
        " | 2024-03-01T00:00:00Z | 2024-03-02T00:00:00Z | abc",
        "events": "1 | 2024-03-01T10:00:00Z | ann@example.org | Norway | /home | view | a",
        "customers": "C1 | Ann Lee | ann@example.org | 34 | Oslo | 2024-01-01 | Premium",
        "orders": "O1 | C1 | Lamp | 2 | 10.50 | 2024-02-01",
    }.items():
        lake.stage(FEEDS[feed], 1, line)


def read(file: Path) -> list[Event]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def by_name(datasets: list[Event], root: str) -> dict[str, Event]:
    """Datasets by their name within the lake, or in the warehouse."""
    return {d["name"].removeprefix(f"{root}/").rsplit(".analytics.")[-1]: d for d in datasets}


def sources(dataset: Event) -> dict[str, set[str]]:
    """Of each column, what it is made from, as table.column."""
    fields = dataset["facets"]["columnLineage"]["fields"]
    return {
        name: {f"{source['name'].rsplit('/', 1)[-1]}.{source['field']}" for source in field["inputFields"]}
        for name, field in fields.items()
    }


def test_a_run_tells_what_it_read_and_wrote(
    spark: SparkSession,
    tmp_path: Path,
    warehouse_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "events.jsonl"
    for name, value in {
        "OPENLINEAGE__TRANSPORT__TYPE": "file",
        "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": str(file),
        "OPENLINEAGE__TRANSPORT__APPEND": "true",
        "OPENLINEAGE_PARENT_ID": f"airflow/user_analytics.run/{PARENT}",
        "AIRFLOW_CTX_DAG_ID": "user_analytics",
        "AIRFLOW_CTX_DAG_RUN_ID": "manual__1",
        "AIRFLOW_CTX_TASK_ID": "run",
        "GIT_REVISION": "abc123",
    }.items():
        monkeypatch.setenv(name, value)
    secret = "pass-word-that-nobody-sees"
    address = f"postgresql://someone:{secret}@{warehouse_url.split('@')[1]}"
    lake = Lake(spark, tmp_path / "lake", address)
    fill(lake)
    run = lake.run("run")
    warehouse = PostgresWarehouse(warehouse_url, "analytics")
    with recorded(run):
        with run.step("stage logs"):
            stage(run, FEEDS["logs"], max_rejected_share=1.0)
        build_and_publish(run, warehouse)

    events = read(file)
    assert [problem for e in events for problem in errors(e)] == []
    assert secret not in file.read_text()
    first, last = events[0], events[-1]
    assert (first["eventType"], last["eventType"]) == ("START", "COMPLETE")
    assert first["run"]["runId"].replace("-", "") == last["run"]["runId"].replace("-", "") == run.run_id
    assert first["run"]["facets"]["parent"]["run"]["runId"] == PARENT
    steps = {e["job"]["name"]: e for e in events[1:-1] if e["eventType"] == "COMPLETE"}
    started = [e["job"]["name"] for e in events[1:-1] if e["eventType"] == "START"]
    # Marts are built two at once.
    assert sorted(started) == sorted(steps) == sorted(f"run.{s.name.replace(' ', '_')}" for s in run.steps)
    assert {e["run"]["facets"]["parent"]["run"]["runId"] for e in steps.values()} == {first["run"]["runId"]}
    assert {e["run"]["facets"]["parent"]["root"]["run"]["runId"] for e in steps.values()} == {PARENT}

    root = str(lake.folder)
    staged = steps["run.stage_logs"]
    (raw,) = staged["inputs"]
    assert (raw["namespace"], raw["name"]) == ("file", f"{root}/raw/logs")
    counted = raw["inputFacets"]["inputStatistics"]
    assert (counted["rowCount"], counted["fileCount"]) == (3, 1)
    outputs = by_name(staged["outputs"], root)
    assert {n: d["outputFacets"].get("outputStatistics", {}).get("rowCount") for n, d in outputs.items()} == {
        "staging/logs": 2,
        "staging/_quarantine": 1,
        "staging/_ingested_files": None,
    }
    assert outputs["staging/logs"]["facets"]["version"]["datasetVersion"] == "1"

    star = steps["run.build_star_schema"]
    assert by_name(star["inputs"], root).keys() == {"staging/logs"}
    facts = by_name(star["outputs"], root)["marts/fact_user_actions"]
    assert [f["name"] for f in facts["facets"]["schema"]["fields"]] == list(
        tables()["fact_user_actions"].column_names
    )
    assert sources(facts) == {
        "action_event_id": {"logs.timestamp", "logs._key_hi", "logs._key_lo"},
        "user_key": {"logs.user_id"},
        "action_key": {"logs.action_type"},
        "device_key": {"logs.device"},
        "location_key": {"logs.location"},
        "timestamp": {"logs.timestamp"},
    }
    made = {name: d for e in events[1:-1] for name, d in by_name(e.get("outputs", []), root).items()}
    marts = {name.removeprefix("marts/"): d for name, d in made.items() if name.startswith("marts/")}
    assert marts.keys() == {n for n in tables() if not n.startswith("etl_")}
    for name, mart in marts.items():
        found = sources(mart)
        assert found.keys() == set(tables()[name].column_names), name
        assert {column for column, of in found.items() if not of} == CONSTANT.get(name, set()), name
    # Through the intermediates, down to staging.
    assert sources(marts["customer_orders"])["customer_segment"] == {"enriched_customers.customer_segment"}
    assert sources(made["work/enriched_customers"])["customer_segment"] == {
        *("customers.customer_segment", "orders.price", "orders.quantity")
    }
    assert sources(marts["order_analysis"])["revenue"] == {"customer_orders.total_amount"}

    published = by_name(steps["run.publish"]["outputs"], root)
    assert published["users"]["facets"]["version"]["datasetVersion"] == str(lake.mart("users").version())
    assert published["users"]["outputFacets"]["outputStatistics"]["rowCount"] == 1
    assert published.keys() >= {*marts, "users_by_country_view", "customer_segments_view"}
    assert by_name(last["outputs"], root).keys() == made.keys()

    # The run tables say the same, in the lake and, one publication later, in the warehouse.
    (row,) = run_table(lake, "etl_runs").read().collect()
    assert (row.started_by, row.git_revision) == ("airflow user_analytics/manual__1/run", "abc123")
    configuration = json.loads(row.configuration)
    assert configuration["lake_uri"] == root
    assert "@" not in configuration["warehouse"]
    assert secret not in row.configuration
    described = {r.name: r for r in run_table(lake, "etl_steps").read().collect()}
    assert json.loads(described["stage logs"].inputs) == [{"dataset": "raw/logs", "rows": 3, "files": 1}]
    assert json.loads(described["analyze orders"].outputs) == [
        {"dataset": "results/analysis_results.json", "rows": 4},
        {"dataset": "marts/order_analysis", "version": 1},
    ]
    assert {"dataset": "users", "in": "warehouse", "version": 1, "rows": 1} in json.loads(
        described["publish"].outputs
    )
    assert query(warehouse_url, "SELECT count(*) FROM users") == [(1,)]


def test_views_say_where_their_columns_come_from() -> None:
    found = {name: columns_of_view(view) for name, view in views().items()}
    top = found["top_5_customers_by_amount_spent_view"]["amount_spent"]
    assert [(s.dataset, s.column, s.how) for s in top] == [
        ("customer_amount_spent_view", "amount_spent", "IDENTITY")
    ]
    spent = found["customer_amount_spent_view"]["amount_spent"]
    assert {(s.dataset, s.column, s.how) for s in spent} == {
        ("user_purchase", "quantity", "AGGREGATION"),
        ("user_purchase", "unit_price", "AGGREGATION"),
    }
    known = {n: set(t.column_names) for n, t in tables().items()}
    known |= {n: set(v.query.named_selects) for n, v in views().items()}
    for columns in found.values():
        assert all(s.column in known[s.dataset] for of in columns.values() for s in of)


@contextmanager
def receiver(answer: bool = True) -> Iterator[tuple[str, list[Event]]]:
    """An HTTP server; gives its address and what it was sent. One that does not answer keeps the caller waiting."""
    received: list[Event] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if not answer:
                over.wait()
                return
            self.send_response(201)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def two_steps(run: RunContext) -> None:
    """A run of a step that is done and one that fails."""
    events = LineageEvents(run)
    run.listener = events
    with run.step("first step"):
        run.note_read(Dataset("raw/logs", rows=2, files=1))
        run.note_written(Dataset("staging/logs", version=3, rows=2))
    with pytest.raises(UserAnalyticsError), run.step("second step"):
        raise UserAnalyticsError("the disk is full")
    events.close(done=False)


def test_over_http(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as (address, received):
        monkeypatch.setenv("OPENLINEAGE_URL", address)
        monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "of a test")
        two_steps(Lake(spark, tmp_path / "lake").run("stage logs"))
    assert [problem for e in received for problem in errors(e)] == []
    assert [(e["eventType"], e["job"]["namespace"], e["job"]["name"]) for e in received] == [
        ("START", "of a test", "stage_logs"),
        ("START", "of a test", "stage_logs.first_step"),
        ("COMPLETE", "of a test", "stage_logs.first_step"),
        ("START", "of a test", "stage_logs.second_step"),
        ("FAIL", "of a test", "stage_logs.second_step"),
        ("FAIL", "of a test", "stage_logs"),
    ]
    messages = [e["run"]["facets"].get("errorMessage", {}).get("message") for e in received]
    assert messages == [*[None] * 4, *["UserAnalyticsError: the disk is full"] * 2]


def test_nobody_there_costs_one_warning(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobs.lineage_events.TIMEOUT_SECONDS", 0.2)
    run = Lake(spark, tmp_path / "lake").run()
    with socket.create_server(("127.0.0.1", 0)) as unused:
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with receiver(answer=False) as (silent, received):
        for address in (closed, silent):
            monkeypatch.setenv("OPENLINEAGE_URL", address)
            run.steps.clear()
            caplog.clear()
            two_steps(run)
            warnings = [r for r in caplog.records if r.levelname == "WARNING"]
            assert [r.message.split(":")[0] for r in warnings] == ["lineage events"]
    # One try, no more after it.
    assert len(received) == 1


def test_steps_at_once_keep_apart(spark: SparkSession, tmp_path: Path) -> None:
    run = Lake(spark, tmp_path / "lake").run()
    both = threading.Barrier(2)

    def step(name: str) -> None:
        with run.step(f"stage {name}"):
            both.wait(60)
            run.note_read(Dataset(f"raw/{name}"))
            both.wait(60)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(step, ("logs", "users")))
    run.note_read(Dataset("raw/of no step"))
    assert {s.name: [d.name for d in s.inputs.values()] for s in run.steps} == {
        "stage logs": ["raw/logs"],
        "stage users": ["raw/users"],
    }
    assert sorted(s.number for s in run.steps) == [1, 2]


def test_nothing_is_sent_unless_asked(spark: SparkSession, tmp_path: Path) -> None:
    assert not is_on({})
    assert not is_on({"OPENLINEAGE_URL": "http://here", "OPENLINEAGE_DISABLED": "true"})
    assert is_on({"OPENLINEAGE_URL": "http://here"})
    assert is_on({"OPENLINEAGE_CONFIG": "openlineage.yml"})
    assert is_on({"OPENLINEAGE__TRANSPORT__TYPE": "file"})
    run = Lake(spark, tmp_path / "lake").run()
    with recorded(run), run.step("a step"):
        assert run.listener is None


@pytest.mark.parametrize(
    ("lake", "warehouse", "of_lake", "of_warehouse"),
    [
        (
            "/data/lake",
            "postgresql://me:secret@db.example.org:6543/sales?sslmode=require",
            ("file", "/data/lake/staging/logs"),
            ("postgres://db.example.org:6543", "sales.analytics.users"),
        ),
        (
            "s3a://bucket/zone",
            "postgresql://me@db/sales",
            ("s3://bucket", "zone/staging/logs"),
            ("postgres://db:5432", "sales.analytics.users"),
        ),
        (
            "s3a://bucket",
            "bigquery://project/dataset",
            ("s3://bucket", "staging/logs"),
            ("bigquery", "project.dataset.users"),
        ),
        (
            "/data/lake",
            "embedded:/data/warehouse",
            ("file", "/data/lake/staging/logs"),
            ("embedded:/data/warehouse", "analytics.users"),
        ),
    ],
)
def test_names_of_datasets(
    lake: str, warehouse: str, of_lake: tuple[str, str], of_warehouse: tuple[str, str]
) -> None:
    settings = Settings(lake_uri=lake, warehouse_url=warehouse)
    assert standard_name("staging/logs", False, settings) == of_lake
    assert standard_name("users", True, settings) == of_warehouse
