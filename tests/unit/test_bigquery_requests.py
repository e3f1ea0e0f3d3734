"""What is asked of BigQuery where the emulator does not answer as BigQuery: repeated job ids, ETags, REQUIRED, keys.

A small server records the requests and gives the answers that BigQuery's reference documents.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from google.api_core.exceptions import GoogleAPIError
from google.cloud import bigquery

from jobs.errors import ConfigurationError
from jobs.settings import Settings
from jobs.warehouse import _scratch
from jobs.warehouse.base import Load, Published
from jobs.warehouse.bigquery import BigQueryPublication, BigQueryWarehouse
from jobs.warehouse.bigquery_load import Connection, Scratch, Stage, upload_part, write_parquet
from jobs.warehouse.bigquery_schema import bigquery_table, staged_fields, view_query
from jobs.warehouse.declarations import tables, views
from tests.warehouses import arrow_rows

DATASET = bigquery.DatasetReference("my-project", "analytics")
DONE = {"status": {"state": "DONE"}, "statistics": {"load": {"outputRows": "2"}}}
FAILED = {"status": {"state": "DONE", "errorResult": {"reason": "backendError", "message": "try again"}}}


class FakeBigQuery(ThreadingHTTPServer):
    """Knows jobs by id. A new one ends as `outcomes` says, in order; a known id is answered with 409.

    Every table has these columns and this ETag; an update of an earlier one is answered with 412.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.outcomes: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.uploads: list[dict[str, Any]] = []
        self.queries: list[dict[str, Any]] = []
        self.columns: list[dict[str, Any]] = []
        self.description: str | None = None
        self.datasets: list[dict[str, Any]] = []
        self.etag = 1

    @property
    def connection(self) -> Connection:
        return Connection("my-project", "EU", f"http://127.0.0.1:{self.server_port}")


class _Handler(BaseHTTPRequestHandler):
    server: FakeBigQuery

    def do_GET(self) -> None:
        *_, kind, name = urlsplit(self.path).path.split("/")
        if kind == "tables":
            self.answer_table(name)
            return
        if kind == "datasets":
            self.answer(404, {"error": {"code": 404, "message": f"Not found: Dataset {name}"}})
            return
        self.server.requests.append(f"get {name}")
        self.answer(200, self.server.jobs[name])

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/datasets?prettyPrint=false"):
            self.server.datasets.append(job)
            self.answer(200, {"location": "US", **job})
            return
        if self.path.endswith("/queries?prettyPrint=false"):
            self.server.etag += 1
            (name,) = re.findall(r"ADD COLUMN IF NOT EXISTS `(\w+)` INT64$", job["query"])
            self.server.columns.append({"name": name, "type": "INT64", "mode": "NULLABLE"})
            self.answer(200, {"jobComplete": True, "schema": {"fields": []}})
            return
        name = job["jobReference"]["jobId"]
        if not self.path.startswith("/upload"):
            self.server.queries.append(job["configuration"])
            bytes_read = {"query": {"totalBytesProcessed": "1048576"}}
            self.answer(200, {**job, "status": {"state": "DONE"}, "statistics": bytes_read})
            return
        # The beginning of a resumable upload names the job, a PUT brings the file.
        self.server.requests.append(f"load {name}")
        if name in self.server.jobs:
            self.answer(409, {"error": {"code": 409, "message": f"Already Exists: Job {name}"}})
            return
        self.server.uploads.append(job)
        self.send_response(200)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/upload/{name}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.rsplit("/", 1)[1]
        reference = {"projectId": "my-project", "jobId": name, "location": "EU"}
        configuration = self.server.uploads[-1]["configuration"]
        job = {"jobReference": reference, "configuration": configuration, **self.server.outcomes.pop(0)}
        self.server.jobs[name] = job
        self.answer(200, job)

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["If-Match"] != str(self.server.etag):
            self.answer(412, {"error": {"code": 412, "message": "Precondition check failed."}})
            return
        self.server.etag += 1
        self.server.columns, self.server.description = body["schema"]["fields"], body["description"]
        self.answer_table(urlsplit(self.path).path.rsplit("/", 1)[1])

    def answer_table(self, name: str) -> None:
        reference = {"projectId": "my-project", "datasetId": "analytics", "tableId": name}
        about = {"schema": {"fields": self.server.columns}, "description": self.server.description}
        self.answer(200, {"tableReference": reference, "etag": str(self.server.etag), **about})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FakeBigQuery]:
    with FakeBigQuery() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def part(*names: str) -> BytesIO:
    file = BytesIO()
    assert write_parquet([pa.RecordBatch.from_pydict({"name": list(names)})], file) == len(names)
    return file


def stage(made_at: str = "2026-11-20 10:00:00") -> Stage:
    fields = tuple(field.to_api_repr() for field in staged_fields(tables()["dim_users"], whole=False))
    return Stage("my-project.analytics._stage_dim_users", made_at, fields)


def test_a_part_is_loaded_once_however_often_it_is_sent(server: FakeBigQuery) -> None:
    server.outcomes = [DONE]
    upload_part(part("ann", "bob"), stage(), server.connection, 0)
    upload_part(part("ann", "bob"), stage(), server.connection, 0)
    (name,) = server.jobs
    assert server.requests == [f"load {name}", f"load {name}", f"get {name}"]
    # Other content, another part, another stage table of the same name: other jobs.
    server.outcomes = [DONE] * 3
    upload_part(part("ann", "eve"), stage(), server.connection, 0)
    upload_part(part("ann", "bob"), stage(), server.connection, 1)
    upload_part(part("ann", "bob"), stage("2026-11-20 11:00:00"), server.connection, 0)
    assert len(server.jobs) == 4


def test_a_part_whose_load_failed_is_sent_again_under_the_next_id(server: FakeBigQuery) -> None:
    # However often it failed before: the cause may be gone.
    server.outcomes = [FAILED] * 4 + [DONE]
    for _ in range(4):
        with pytest.raises(GoogleAPIError, match="try again"):
            upload_part(part("ann"), stage(), server.connection, 0)
    upload_part(part("ann"), stage(), server.connection, 0)
    assert [name[-2:] for name in server.jobs] == ["_1", "_2", "_3", "_4", "_5"]
    assert len({name[:-2] for name in server.jobs}) == 1


def test_the_request_of_a_load_job(server: FakeBigQuery) -> None:
    server.outcomes = [DONE]
    upload_part(part("ann"), stage(), server.connection, 0)
    (request,) = server.uploads
    assert request["jobReference"]["location"] == "EU"
    assert request["jobReference"]["jobId"].startswith("user_analytics_load_")
    assert request["configuration"]["labels"] == {"managed_by": "user-analytics", "step": "load"}
    load = request["configuration"]["load"]
    assert load["sourceFormat"] == "PARQUET"
    assert load["createDisposition"] == "CREATE_NEVER"
    assert load["writeDisposition"] == "WRITE_APPEND"
    assert load["parquetOptions"] == {"enableListInference": True}
    # Columns of Parquet files may be null; REQUIRED would be refused here, and holds when the rows are merged.
    assert load["schema"]["fields"] == [
        {"name": "user_key", "type": "INT64", "mode": "NULLABLE"},
        {"name": "user_id", "type": "STRING", "mode": "NULLABLE", "maxLength": 100},
        {"name": "_deleted", "type": "BOOL", "mode": "NULLABLE"},
    ]


def test_the_request_that_makes_a_table() -> None:
    made = bigquery_table(tables()["fact_user_actions"], DATASET).to_api_repr()
    assert made["description"] == "What users did. Grain: one row per user, instant and action"
    assert made["labels"] == {"managed_by": "user-analytics"}
    assert made["timePartitioning"] == {"type": "MONTH", "field": "timestamp"}
    assert made["clustering"] == {"fields": ["user_key", "action_key"]}
    assert made["tableConstraints"]["primaryKey"] == {"columns": ["action_event_id"]}
    assert made["tableConstraints"]["foreignKeys"][0] == {
        "name": "fact_user_actions_user_key_fkey",
        "referencedTable": {"projectId": "my-project", "datasetId": "analytics", "tableId": "dim_users"},
        "columnReferences": [{"referencingColumn": "user_key", "referencedColumn": "user_key"}],
    }
    fields = {field["name"]: field for field in made["schema"]["fields"]}
    assert fields["user_key"] == {
        "name": "user_key",
        "type": "INT64",
        "mode": "REQUIRED",
        "description": "Who",
    }
    assert fields["device_key"]["mode"] == "NULLABLE"
    price = bigquery_table(tables()["user_purchase"], DATASET).schema[5].to_api_repr()
    assert (price["type"], price["precision"], price["scale"]) == ("NUMERIC", 18, 4)
    terms = bigquery_table(tables()["movie_review"], DATASET).schema[6]
    assert (terms.field_type, terms.mode, [f.name for f in terms.fields]) == (
        "RECORD",
        "REPEATED",
        ["term", "weight"],
    )


def test_an_added_column_gets_its_comment(server: FakeBigQuery) -> None:
    table = tables()["fact_user_actions"]
    declared = [field.to_api_repr() for field in bigquery_table(table, DATASET).schema]
    server.columns = [field for field in declared if field["name"] != "device_key"]
    BigQueryPublication(server.connection, DATASET)._ensure(table)
    (added,) = [field for field in declared if field["name"] == "device_key"]
    assert added["description"]
    assert server.columns == [field for field in declared if field != added] + [added]


def test_comments_follow_their_declaration(server: FakeBigQuery) -> None:
    table = tables()["dim_users"]
    declared = [field.to_api_repr() for field in bigquery_table(table, DATASET).schema]
    server.columns, server.description = declared, "what it said in an earlier release"
    BigQueryPublication(server.connection, DATASET)._ensure(table)
    assert (server.columns, server.description, server.etag) == (declared, table.comment, 2)
    server.columns = [{**field, "description": "something else"} for field in declared]
    BigQueryPublication(server.connection, DATASET)._ensure(table)
    assert (server.columns, server.description, server.etag) == (declared, table.comment, 3)
    BigQueryPublication(server.connection, DATASET)._ensure(table)
    assert server.etag == 3, "nothing differs, nothing is sent"


@pytest.mark.parametrize("location", ["EU", None])
def test_a_dataset_is_made_where_it_should_be_or_where_bigquery_likes(
    server: FakeBigQuery, location: str | None
) -> None:
    connection = replace(server.connection, location=location)
    with BigQueryWarehouse("bigquery://my-project/analytics", connection).publishing() as publication:
        assert publication.connection.location == (location or "US")
    (asked,) = server.datasets
    # A null is no location: the emulator refuses it.
    assert asked.get("location", "not asked for") == (location or "not asked for")


def test_a_plan_asks_for_the_bytes_and_runs_nothing(server: FakeBigQuery) -> None:
    warehouse = BigQueryWarehouse("bigquery://my-project/analytics", server.connection)
    server.columns = [f.to_api_repr() for f in bigquery_table(tables()["dim_users"], DATASET).schema]
    rows = arrow_rows("dim_users", [], whole=False)
    plan = warehouse.plan(Load(tables()["dim_users"], rows, False, Published("a", 2), {"row_count": 1}))
    assert plan.bytes == 1048576
    (query,) = server.queries
    assert query["dryRun"] is True
    # No stage table is there yet: a query for no rows stands for it.
    assert query["query"]["query"].startswith(
        "MERGE `my-project`.`analytics`.`dim_users` AS t USING (SELECT CAST(NULL AS INT64) AS `user_key`, "
        "CAST(NULL AS STRING) AS `user_id`, CAST(NULL AS BOOL) AS `_deleted` LIMIT 0) AS s ON"
    )
    assert plan.statements[0].startswith(
        "MERGE `my-project`.`analytics`.`dim_users` AS t USING `my-project`.`analytics`.`_stage_dim_users` AS s ON"
    )


def test_a_plan_asks_for_the_bytes_of_columns_that_are_there(server: FakeBigQuery) -> None:
    declared = bigquery_table(tables()["users"], DATASET).schema
    server.columns = [field.to_api_repr() for field in declared if field.name != "isp_name"]
    warehouse = BigQueryWarehouse("bigquery://my-project/analytics", server.connection)
    for whole in (True, False):
        rows = arrow_rows("users", [], whole)
        plan = warehouse.plan(Load(tables()["users"], rows, whole, Published("a", 2), {"row_count": 1}))
        assert "`isp_name`" in "".join(plan.statements)
    assert [query["query"]["query"].split()[0] for query in server.queries] == ["DELETE", "INSERT", "MERGE"]
    assert "isp_name" not in str(server.queries)


def test_views_name_their_tables_in_full() -> None:
    query = view_query(views()["top_5_customers_by_amount_spent_view"], DATASET)
    assert "FROM `my-project`.`analytics`.`customer_amount_spent_view`" in query


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"GOOGLE_APPLICATION_CREDENTIALS": "/no/such/key.json"}, "File /no/such/key.json was not found"),
        ({"BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:1"}, "Connection refused"),
    ],
    ids=["no key file", "nobody there"],
)
def test_settings_that_do_not_work_end_in_one_line(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message) as caught:
        BigQueryWarehouse("bigquery://my-project/analytics").check()
    assert str(caught.value).startswith("WAREHOUSE_URL=bigquery://my-project/analytics: BigQuery: ")
    assert "\n" not in str(caught.value)


def test_the_address() -> None:
    settings = Settings.from_env({"WAREHOUSE_URL": "bigquery://my-project/analytics"})
    assert settings.warehouse_url == "bigquery://my-project/analytics"
    for wrong in ("bigquery://my-project", "bigquery://my-project/a-b", "bigquery:my-project/analytics"):
        with pytest.raises(ConfigurationError, match="expected bigquery://project/dataset"):
            Settings.from_env({"WAREHOUSE_URL": wrong})


@pytest.mark.parametrize(
    ("lake", "endpoint", "expected"),
    [
        (
            "s3a://bucket/lake",
            "https://storage.googleapis.com",
            Scratch("s3a://bucket/lake/publish", "gs://bucket/lake/publish"),
        ),
        ("s3a://bucket/lake", "http://127.0.0.1:9000", None),
        ("s3a://bucket/lake", None, None),
        ("/var/lake", "https://storage.googleapis.com", None),
    ],
)
def test_a_lake_on_google_cloud_storage_is_read_from_there(
    lake: str, endpoint: str | None, expected: Scratch | None
) -> None:
    settings = Settings(lake, "bigquery://my-project/analytics", s3_endpoint=endpoint)
    assert _scratch(settings) == expected
