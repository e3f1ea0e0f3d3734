"""Tables that are read and added to without Spark: the same ones to Spark, and nothing that is not new starts it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_schema

from jobs.context import RunContext
from jobs.errors import UserAnalyticsError
from jobs.lake.objects import LocalStore
from jobs.lake.quarantine import count_rejected, quarantine_table, sample_rejected
from jobs.lake.tables import GONE, LakeTable
from jobs.plan_run import plan_run
from jobs.quality.report import collect_report
from jobs.run_all import run_all
from jobs.show_status import status
from jobs.spark import if_few, local_rows, rows_in_plan, session_settings
from jobs.warehouse.postgres import PostgresWarehouse
from tests.lakes import Lake, all_rows_are_many, deliver, vacuum
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


def of_spark(rows: DataFrame) -> list[tuple[Any, ...]]:
    return plain([{**row.asDict(), "at": row["at"] and row["at"].astimezone(UTC)} for row in rows.collect()])


def writers(table: LakeTable) -> list[str]:
    """Which program made each version, oldest first."""
    commits = sorted((Path(table.uri) / "_delta_log").glob("*.json"))
    infos = (json.loads(line) for commit in commits for line in commit.read_text().splitlines())
    return [
        i["commitInfo"].get("engineInfo") or i["commitInfo"]["clientVersion"]
        for i in infos
        if "commitInfo" in i
    ]


@pytest.fixture
def table(spark: SparkSession, tmp_path: Path) -> LakeTable:
    """An empty table; its lake's folder has a name that not every library takes as it is."""
    lake = Lake(spark, tmp_path / "a lake, 100% ü #1")
    return LakeTable(lake, f"{lake.folder}/runs/some", SCHEMA, comment="Some rows.", looked_up_by=("number",))


def test_what_either_writes_the_other_reads(table: LakeTable) -> None:
    assert not table.exists()
    table.ensure().add(ROWS[:2])
    with all_rows_are_many():
        table.append(local_rows(table.spark, ROWS[2:], SCHEMA))
        assert writers(table)[-1].startswith("Apache-Spark")
    table.append(local_rows(table.spark, ROWS[:1], SCHEMA))
    assert writers(table)[-1].startswith("delta-rs")

    wanted = sorted([*ROWS, ROWS[0]], key=repr)
    assert plain(table.few_rows().to_pylist()) == wanted
    assert of_spark(table.read()) == wanted
    with all_rows_are_many():
        assert of_spark(table.read()) == wanted
    assert (table.few_count(), table.version()) == (4, 3)
    assert table.query("SELECT count(number) AS n FROM t WHERE name = ''") == [{"n": 1}]
    # delta-rs has written a checkpoint by then.
    for _ in range(8):
        table.add(ROWS[:1])
    assert list((Path(table.uri) / "_delta_log").glob("*.checkpoint.parquet"))
    with all_rows_are_many():
        assert table.read().count() == table.few_count() == 12
    described = table.spark.sql(f"DESCRIBE DETAIL delta.`{table.uri}`").collect()[0]
    assert described.description == "Some rows."
    assert described.properties["delta.dataSkippingStatsColumns"] == "number"


FAR = [datetime(1, 1, 1, tzinfo=UTC), AT, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]


def written_by_spark(table: LakeTable, instants: list[datetime]) -> LakeTable:
    with all_rows_are_many():
        table.ensure().append(
            local_rows(table.spark, [("", 1, at, None, None, None) for at in instants], SCHEMA)
        )
    assert writers(table)[-1].startswith("Apache-Spark")
    return table


def test_instants_of_all_years_are_the_same_either_way(table: LakeTable) -> None:
    written_by_spark(table, FAR)
    files = Path(table.uri).glob("*.parquet")
    assert {pq.ParquetFile(file).schema.column(2).physical_type for file in files} == {"INT64"}
    added = table.few_added(0, 1)
    assert added is not None
    assert sorted(added["at"].to_pylist()) == FAR
    assert sorted(table.few_rows()["at"].to_pylist()) == FAR
    table.add([("", 2, at, None, None, None) for at in FAR])
    with all_rows_are_many():
        assert sorted(table.read().where("number = 2").toArrow()["at"].to_pylist()) == FAR


def test_instants_of_all_years_are_right_where_spark_wrote_them_by_default(table: LakeTable) -> None:
    with session_settings(table.spark, {"spark.sql.parquet.outputTimestampType": "INT96"}):
        written_by_spark(table, FAR)
    assert sorted(table.few_rows()["at"].to_pylist()) == FAR
    assert table.query("SELECT max(at) AS last FROM t") == [{"last": FAR[-1]}]


def of_arrow(rows: pa.Table) -> list[str]:
    columns = sorted(rows.column_names)
    return sorted(map(repr, rows.select(columns).to_pylist()))


def test_the_extremes_of_every_type_are_the_same_either_way(spark: SparkSession, tmp_path: Path) -> None:
    words = T.ArrayType(
        T.StructType([T.StructField("term", T.StringType()), T.StructField("n", T.IntegerType())])
    )
    # The calendar of Java's older classes has no such day.
    october = datetime(1582, 10, 10, tzinfo=UTC)
    types: dict[str, tuple[T.DataType, list[Any]]] = {
        "text": (T.StringType(), ["", " \u00a0", "a\r\nb\t'\"\\", "\U0001f600 e\u0301 \u2028", "NULL"]),
        "int": (T.IntegerType(), [0, -1, 2**31 - 1, -(2**31)]),
        "double": (T.DoubleType(), [0.1, -0.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan")]),
        "day": (T.DateType(), [date(1, 1, 1), october.date(), date(1969, 12, 31), date(9999, 12, 31)]),
        "at": (T.TimestampType(), [*FAR, october, datetime(1899, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]),
        "amount": (T.DecimalType(18, 4), [Decimal("99999999999999.9999"), Decimal("-0.0001"), Decimal(0)]),
        "total": (T.DecimalType(28, 4), [Decimal("-999999999999999999999999.9999"), Decimal("0.0001")]),
        "tags": (T.ArrayType(T.StringType()), [[], [None], ["", None, "\u00e9"]]),
        "words": (words, [[], [None], [{"term": "", "n": None}, {"term": None, "n": 1}]]),
    }
    schema = T.StructType(
        [T.StructField("id", T.LongType()), *(T.StructField(n, k) for n, (k, _) in types.items())]
    )
    table = LakeTable(Lake(spark, tmp_path / "lake"), f"{tmp_path}/lake/runs/some", schema).ensure()

    def rows(ids: range) -> list[tuple[Any, ...]]:
        # Lists of different lengths, each with a null at its end, so that they meet in ever other ways.
        return [(i, *([*v, None][i % (len(v) + 1)] for _, v in types.values())) for i in ids]

    with all_rows_are_many():
        table.append(local_rows(spark, rows(range(50)), schema))
    table.append(local_rows(spark, rows(range(50, 60)), schema))
    changed = local_rows(spark, [(i - 1, *values) for i, *values in rows(range(41, 71))], schema)
    table.merge(
        changed,
        "s.id = t.id",
        lambda merge: (
            merge.whenMatchedDelete("s.id % 7 = 0").whenMatchedUpdateAll().whenNotMatchedInsertAll()
        ),
    )
    few, few_changes = table.read(), table.changes(0, 3, ["id"])[0]
    with all_rows_are_many():
        assert few.count() == 60 - 3 + 10
        assert of_arrow(few.toArrow()) == of_arrow(table.read().toArrow()) == of_arrow(table.few_rows())
        assert of_arrow(few_changes.toArrow()) == of_arrow(table.changes(0, 3, ["id"])[0].toArrow())


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


@pytest.mark.parametrize(
    ("name", "told"), [("marts/some", True), ("staging/some", True), ("runs/some", False)]
)
def test_who_declares_a_column_later_is_told_how_to_fill_it(
    table: LakeTable,
    name: str,
    told: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = table.lake.settings.lake_path(*name.split("/"))
    LakeTable(table.lake, uri, T.StructType(SCHEMA.fields[:-1])).ensure().add([ROWS[0][:-1]])
    for _ in range(2):
        LakeTable(table.lake, uri, SCHEMA).ensure()
    message = (
        f"{name}: column {SCHEMA.names[-1]} added, empty in the rows that are there; "
        f"`user-analytics reset {name}` and a run make them anew"
    )
    assert caplog.messages == [message] * told


def test_rows_are_few_up_to_a_number_and_a_size(
    table: LakeTable, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.spark.FEW_ROWS", 3)
    assert if_few(spark.range(3)).num_rows == 3  # type: ignore[union-attr]
    assert if_few(spark.range(4)) is None
    # Of a join, Spark expects as many rows as there are pairs.
    monkeypatch.setattr("jobs.spark.FEW_BYTES", 100)
    joined = spark.range(3).join(spark.range(3), "id")
    assert if_few(joined) is None
    assert if_few(joined, bound=spark.range(3)).num_rows == 3  # type: ignore[union-attr]
    # What turns out to be larger than was expected.
    assert if_few(spark.range(3).selectExpr("repeat('x', 100) AS text")) is None
    # In a file, a text that comes again and again takes no place.
    monkeypatch.setattr("jobs.spark.FEW_ROWS", 100)
    monkeypatch.setattr("jobs.spark.FEW_BYTES", 20_000)
    table.ensure().add([("x" * 1000, *ROWS[0][1:])] * 10)
    assert table.read().inputFiles() == []
    table.add([("x" * 1000, *ROWS[0][1:])] * 90)
    assert sum(file.stat().st_size for file in Path(table.uri).glob("*.parquet")) < 20_000
    assert len(table.read().inputFiles()) == 2
    assert table.read().count() == 100


@pytest.mark.parametrize("way", [nullcontext, all_rows_are_many])
def test_a_version_of_a_source_is_applied_once(
    table: LakeTable, way: Callable[[], AbstractContextManager[None]]
) -> None:
    table.ensure()
    with way():
        rows = local_rows(table.spark, ROWS[:1], SCHEMA)
        for _ in range(2):
            table.append(rows, "logs:1", 3)
            assert table.read().count() == 1
        # Delta would skip what is made from a version before as well, and say nothing.
        for write in (
            lambda: table.append(rows, "logs:1", 2),
            lambda: table.overwrite(rows, "logs:1", 2),
            lambda: table.merge(rows, "false", lambda m: m.whenNotMatchedInsertAll(), "logs:1", 2),
        ):
            with pytest.raises(UserAnalyticsError, match=r"from version 3 of logs, of which only 2 are"):
                write()
        assert table.read().count() == 1
    assert table.applied("logs:1") == 3
    table.append(local_rows(table.spark, ROWS[:1], SCHEMA), "logs:1", 4)
    assert (table.few_count(), table.applied("logs:1")) == (2, 4)


def test_a_missing_value_where_one_has_to_be_adds_nothing_and_no_row_is_quoted(table: LakeTable) -> None:
    named = T.StructType([T.StructField("name", T.StringType()), T.StructField("key", T.LongType(), False)])
    keyed = replace(table, schema=named, looked_up_by=("key",)).ensure()
    rows = local_rows(table.spark, [("ann", 1), ("bob", None)], "name string, key long")
    with pytest.raises(UserAnalyticsError, match=r"rows cannot be added: .*failed validation") as error:
        keyed.append(rows)
    assert "bob" not in str(error.value)
    assert keyed.version() == 0


def test_what_changed_is_the_same_either_way(table: LakeTable) -> None:
    def changes(after: int, until: int) -> tuple[bool, list[tuple[Any, ...]]]:
        rows, only_inserts = table.changes(after, until, ("number",))
        return only_inserts, plain([row.asDict() for row in rows.drop("at").collect()])

    table.ensure().add(ROWS[:2])
    table.add(ROWS[2:])
    table.merge(
        local_rows(
            table.spark, [("new", -1, False), ("", 2**62, True)], "name string, number long, gone boolean"
        ),
        "s.number = t.number",
        lambda merge: merge.whenMatchedDelete("s.gone").whenMatchedUpdate(set={"name": "s.name"}),
    )
    table.overwrite(local_rows(table.spark, ROWS[:1], SCHEMA), "source", 1)
    for after, until in ((0, 1), (0, 2), (2, 3), (0, 3), (3, 4), (0, 4)):
        few = changes(after, until)
        with all_rows_are_many():
            assert changes(after, until) == few
    assert few[0] is False
    # A file that is gone is missed by either.
    vacuum(table.spark, table.uri)
    for way in (nullcontext(), all_rows_are_many()):
        with way, pytest.raises(GONE):
            changes(2, 3)


def test_a_commit_that_changes_nothing_hides_none_before_it(table: LakeTable) -> None:
    table.ensure().add(ROWS[:2])
    renamed, same = (
        local_rows(table.spark, [(name, -1)], "name string, number long") for name in ("new", "same")
    )
    table.merge(renamed, "s.number = t.number", lambda merge: merge.whenMatchedUpdate(set={"name": "s.name"}))
    table.overwrite(local_rows(table.spark, ROWS[:1], SCHEMA), "source", 1)
    # It writes the file anew, as it was.
    table.merge(
        same,
        "s.number = t.number",
        lambda merge: merge.whenNotMatchedBySourceDelete("t.name = 'nobody'"),
    )
    # A build follows its source up to the version that it found, whatever was committed since.
    for until in (3, 4):
        rows, _ = table.changes(2, until, ("number",))
        assert sorted((row.number, row._deleted) for row in rows.collect()) == [(-1, True), (2**62, False)]


@pytest.mark.parametrize("chunks", [[2, 0, 1], [0, 0, 3], [1, 0, 0, 2], [3, 0], [0], []])
def test_all_rows_become_a_part_of_the_plan_whatever_their_chunks(
    spark: SparkSession, chunks: list[int]
) -> None:
    """Of a commit that is left out of what changed, a chunk without rows stays, between others or not, by chance."""
    schema = T.StructType.fromDDL("number long, words array<string>")
    rows = [{"number": n, "words": [f"w{n}"]} for n in range(3)]
    arrow, pieces, first = to_arrow_schema(schema), [], 0
    for size in chunks:
        pieces.append(pa.RecordBatch.from_pylist(rows[first : first + size], schema=arrow))
        first += size
    found = rows_in_plan(spark, pa.Table.from_batches(pieces, schema=arrow), schema)
    assert [row.asDict() for row in found.orderBy("number").collect()] == rows[: sum(chunks)]
    without = pa.table([pa.chunked_array([], field.type) for field in arrow], schema=arrow)
    assert rows_in_plan(spark, without, schema).collect() == []


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
    # A note of no bytes, as a power failure leaves it; Delta looks for the checkpoint without it.
    (Path(table.uri) / "_delta_log" / "_last_checkpoint").write_bytes(b"")
    assert table.transactions(store) == found


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
