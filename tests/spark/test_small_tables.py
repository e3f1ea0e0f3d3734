"""Tables that are read and added to without Spark: the same ones to Spark, and nothing that is not new starts it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from jobs.context import RunContext
from jobs.errors import UserAnalyticsError
from jobs.lake.objects import LocalStore
from jobs.lake.quarantine import count_rejected, quarantine_table, sample_rejected
from jobs.lake.tables import LakeTable
from jobs.plan_run import plan_run
from jobs.quality.report import collect_report
from jobs.run_all import run_all
from jobs.show_status import status
from jobs.spark import local_rows
from jobs.warehouse.postgres import PostgresWarehouse
from tests.lakes import Lake, deliver, vacuum
from tests.warehouses import query

pytestmark = pytest.mark.spark

AT = datetime(2024, 5, 31, 22, 30, 0, 123456, tzinfo=UTC)
SCHEMA = T.StructType.fromJson(
    {
        "type": "struct",
        "fields": [
            {"name": name, "type": kind, "nullable": True, "metadata": {}}
            for name, kind in (
                ("name", "string"),
                ("number", "long"),
                ("at", "timestamp"),
                ("seconds", "double"),
                ("passed", "boolean"),
                ("words", {"type": "array", "elementType": "string", "containsNull": True}),
            )
        ],
    }
)
ROWS = [
    ("é 'quoted' \\ \n", 2**62, AT, 0.1, True, ["a", None, ""]),
    ("", -1, AT + timedelta(microseconds=1), None, False, []),
    (None, None, None, None, None, None),
]


def plain(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((tuple(row.values()) for row in rows), key=repr)


@pytest.fixture
def table(spark: SparkSession, tmp_path: Path) -> LakeTable:
    """An empty table; its lake's folder has a name that not every library takes as it is."""
    lake = Lake(spark, tmp_path / "a lake, 100% ü #1")
    return LakeTable(lake, f"{lake.folder}/runs/some", SCHEMA, comment="Some rows.", looked_up_by=("number",))


def test_what_either_writes_the_other_reads(table: LakeTable) -> None:
    assert not table.exists()
    table.ensure().add(ROWS[:2])
    table.append(local_rows(table.spark, ROWS[2:], SCHEMA))
    table.add(ROWS[:1])

    wanted = sorted([*ROWS, ROWS[0]], key=repr)
    assert plain(table.few_rows().to_pylist()) == wanted
    of_spark = [
        {**row.asDict(), "at": row["at"] and row["at"].astimezone(UTC)} for row in table.read().collect()
    ]
    assert plain(of_spark) == wanted
    assert (table.few_count(), table.version()) == (4, 3)
    assert table.query("SELECT count(number) AS n FROM t WHERE name = ''") == [{"n": 1}]
    # delta-rs has written a checkpoint by then.
    for _ in range(8):
        table.add(ROWS[:1])
    assert list((Path(table.uri) / "_delta_log").glob("*.checkpoint.parquet"))
    assert table.read().count() == table.few_count() == 12
    described = table.spark.sql(f"DESCRIBE DETAIL delta.`{table.uri}`").collect()[0]
    assert described.description == "Some rows."
    assert described.properties["delta.dataSkippingStatsColumns"] == "number"


def test_columns_that_were_declared_later_are_null_in_earlier_rows(table: LakeTable) -> None:
    first = T.StructType(SCHEMA.fields[:2])
    earlier = LakeTable(table.lake, table.uri, first)
    earlier.ensure().add([("a", 1)])
    assert not table.is_declared()
    assert table.few_rows().to_pylist()[0] == dict.fromkeys(SCHEMA.names) | {"name": "a", "number": 1}
    table.ensure().add(ROWS[:1])
    assert table.is_declared()
    assert [row["seconds"] for row in table.few_rows().to_pylist()] in ([None, 0.1], [0.1, None])
    assert table.read().where("seconds IS NULL").count() == 1


def test_what_was_added_since_a_version(table: LakeTable) -> None:
    table.ensure().add(ROWS[:1])
    table.add(ROWS[1:2])
    table.append(local_rows(table.spark, ROWS[2:], SCHEMA))

    def added(after: int, until: int) -> list[Any] | None:
        found = table.few_added(after, until)
        return None if found is None else sorted(found["number"].to_pylist(), key=repr)

    assert added(0, 3) == sorted([2**62, -1, None], key=repr)
    assert added(1, 2) == [-1]
    # Files that were put together bring no rows.
    table.spark.sql(f"OPTIMIZE delta.`{table.uri}`")
    assert table.version() == 4
    assert added(2, 4) == [None]
    # A row that was changed, and a history that is gone, are for Spark.
    table.merge(
        local_rows(table.spark, [("new", -1)], "name string, number long"),
        "s.number = t.number",
        lambda merge: merge.whenMatchedUpdate(set={"name": "s.name"}),
    )
    assert added(3, 4) == []
    assert added(4, 5) is None
    vacuum(table.spark, table.uri)
    assert added(0, 3) is None


def test_marks_are_read_from_commits_and_checkpoints(table: LakeTable) -> None:
    store = LocalStore(Path(table.lake.settings.lake_uri))
    table.ensure()
    for number in range(1, 13):
        table.append(local_rows(table.spark, ROWS[:1], SCHEMA), f"source {number % 3}", number)
    found = table.transactions(store)
    assert {source: version for source, (version, _) in found.items()} == {
        "source 0": 12,
        "source 1": 10,
        "source 2": 11,
    }
    assert found == table._transactions()
    assert {source: table.applied(source) for source in (*found, "other")} == {
        **{source: version for source, (version, _) in found.items()},
        "other": None,
    }
    # A checkpoint that is not one file of this form: Delta's own library is asked.
    assert table.transactions(WithoutCheckpoints(store.root)) == found


class WithoutCheckpoints(LocalStore):
    def fetch(self, path: str) -> tuple[bytes, str] | None:
        return None if path.endswith(".parquet") else super().fetch(path)


def test_data_that_cannot_be_read_are_an_error_that_names_the_table(table: LakeTable) -> None:
    table.ensure().add(ROWS)
    (file,) = Path(table.uri).glob("*.parquet")
    file.unlink()
    for look in (table.few_rows, lambda: table.query("SELECT number FROM t")):
        with pytest.raises(UserAnalyticsError, match=rf"runs/some: cannot be read: .*{file.name}"):
            look()


def without_spark(lake: Lake) -> RunContext:
    def fail() -> SparkSession:
        pytest.fail("Spark was started")

    store = LocalStore(lake.folder)
    return RunContext(fail, lake.settings, store, run_id=lake.run().run_id, command="again")


@pytest.mark.integration
def test_where_nothing_is_new_nothing_starts_spark(
    spark: SparkSession, tmp_path: Path, warehouse_url: str
) -> None:
    lake, warehouse = Lake(spark, tmp_path, warehouse_url), PostgresWarehouse(warehouse_url, "analytics")
    deliver(tmp_path, 1)
    feeds = dict.fromkeys(("logs", "reviews"))
    for folder in (tmp_path / "raw").iterdir():
        if folder.name not in feeds:
            shutil.rmtree(folder)
    first = lake.run("first")
    results = run_all(first, warehouse, feeds, 1.0)
    assert all(result.total("records_read") for result in results)

    again = without_spark(lake)
    assert not any(result.entries for result in run_all(again, warehouse, feeds, 1.0))
    assert not again.has_spark
    # The run is in the run tables all the same, and in the warehouse.
    assert query(warehouse_url, "SELECT command, outcome FROM etl_runs ORDER BY started_at") == [
        ("first", "done"),
        ("again", "done"),
    ]
    steps = query(warehouse_url, "SELECT count(*) FROM etl_steps WHERE run_id = %s", again.run_id)
    assert steps == [(len(again.steps),)]

    # Nor do the commands that only look.
    run = without_spark(lake)
    plan = plan_run(run, warehouse)
    assert not plan.files
    assert not plan.tables
    assert {build.what for build in plan.builds} == {"up to date", "nothing staged yet"}
    shown = status(run)
    assert [row["command"] for row in shown.runs] == ["again", "first"]
    assert {mart.versions_waiting for mart in shown.marts} == {0, None}
    table = quarantine_table(run)
    rejected = count_rejected(table)
    total = sum(result.total("rejected") for result in results)
    assert sum(count.records for count in rejected) == total > 0
    assert sample_rejected(table, rejected, 1) == sample_rejected(table, rejected, 1)
    assert collect_report(run, first.run_id).name == first.run_id
