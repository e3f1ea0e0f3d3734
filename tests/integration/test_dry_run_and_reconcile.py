"""What a publication would do, and whether warehouse and lake agree: on PostgreSQL and on BigQuery."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.cli import main
from jobs.dry_run import print_plans
from jobs.errors import UserAnalyticsError
from jobs.lake.marts import declared
from jobs.publish import dry_run, publish
from jobs.reconcile import print_comparisons, reconcile
from jobs.spark import local_rows
from jobs.warehouse.base import Warehouse
from jobs.warehouse.bigquery import BigQueryWarehouse
from jobs.warehouse.postgres import PostgresWarehouse
from tests.bigquery_emulator import BigQueryEmulator
from tests.lakes import Lake, vacuum
from tests.warehouses import query

pytestmark = [pytest.mark.spark, pytest.mark.integration]

MART = "user_purchase"
NOTHING = "nothing new: no table would be touched\n"


class Shop(Lake):
    """A lake with user_purchase alone, and its warehouse."""

    warehouse: Warehouse
    execute: Callable[[str], Any]

    def add(self, *numbers: int, quantity: int = 2) -> None:
        rows = [
            (
                *(
                    f"00000000-0000-8000-8000-{number:012d}",
                    f"I{number}",
                    "85123A",
                    None,
                    quantity,
                    Decimal("1.5"),
                ),
                *(datetime(2010, 12, 1, tzinfo=UTC), f"c{number}", "France", False, False),
            )
            for number in numbers
        ]
        frame = local_rows(self.spark, rows, declared(MART).spark_schema())
        self.mart(MART).ensure().append(frame.coalesce(1))

    def change(self, text: str) -> None:
        self.spark.sql(text.format(mart=f"delta.`{self.mart(MART).uri}`"))

    def publish(self) -> None:
        publish(self.run(), self.warehouse, [MART])

    def plan(self) -> dict[str, tuple[str, int, int, int]]:
        return {
            load.table.name: (plan.strategy.split()[0], changes.inserts, changes.updates, changes.deletes)
            for load, changes, plan in dry_run(self.run(), self.warehouse)
        }

    def differences(self) -> dict[str, list[str]]:
        return {c.table: c.differences for c in reconcile(self.run(), self.warehouse)}


@pytest.fixture(params=["postgres", "bigquery"])
def shop(request: pytest.FixtureRequest, spark: SparkSession, tmp_lake: str) -> Shop:
    if request.param == "postgres":
        url: str = request.getfixturevalue("warehouse_url")
        shop = Shop(spark, tmp_lake, url)
        shop.warehouse = PostgresWarehouse(url, "analytics")
        shop.execute = lambda text: query(url, text.format(mart=MART, states="_published"))
    else:
        emulator: BigQueryEmulator = request.getfixturevalue("bigquery")
        warehouse = BigQueryWarehouse(emulator.new_dataset_url(), emulator.connection)
        shop = Shop(spark, tmp_lake, warehouse.url)
        shop.warehouse = warehouse
        names = {
            name: warehouse._name(table) for name, table in {"mart": MART, "states": "_published"}.items()
        }
        client = emulator.connection.client()
        shop.execute = lambda text: client.query_and_wait(text.format(**names))
    return shop


def test_from_the_first_publication_to_a_difference(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing is there yet, and asking for it makes nothing.
    shop.add(1, 2, 3)
    whole = "replace" if "bigquery" in shop.settings.warehouse_url else "new"
    assert shop.plan() == {MART: (whole, 3, 0, 0)}
    assert shop.warehouse.published() == {}
    assert shop.differences() == {MART: ["not in the warehouse"]}
    shop.publish()
    assert shop.plan() == {}
    assert shop.differences() == {MART: []}

    # Rows that come, change, go, and come and go between two publications.
    shop.add(4, 5)
    shop.change("UPDATE {mart} SET quantity = 7 WHERE customer_id = 'c1'")
    shop.change("DELETE FROM {mart} WHERE customer_id IN ('c2', 'c5')")
    before = shop.warehouse.published()
    assert shop.plan() == {MART: ("merge", 1, 1, 1)}
    print_plans(dry_run(shop.run(), shop.warehouse))
    printed = capsys.readouterr().out
    assert MART in printed
    assert "-- user_purchase: merge" in printed
    assert ("MERGE" if whole == "replace" else "ON CONFLICT") in printed
    assert shop.warehouse.published() == before
    # What was not published yet is no difference.
    assert shop.differences() == {MART: []}
    shop.publish()
    assert shop.differences() == {MART: []}

    # Somebody changed the warehouse by hand.
    shop.execute("UPDATE {mart} SET quantity = 8 WHERE customer_id = 'c1'")
    assert shop.differences() == {MART: ["sum(quantity) is 12, the lake has 11"]}
    shop.execute("UPDATE {mart} SET quantity = 7 WHERE customer_id = 'c1'")
    shop.execute(
        "UPDATE {mart} SET purchase_line_id = '00000000-0000-8000-8000-000000000099' WHERE customer_id = 'c3'"
    )
    (difference,) = shop.differences()[MART]
    assert difference.startswith("hash of the keys is ")
    capsys.readouterr()
    print_comparisons(reconcile(shop.run(), shop.warehouse))
    assert difference in capsys.readouterr().out
    # The row of the published version deleted, the table is published whole: the two agree again.
    shop.execute("DELETE FROM {states} WHERE table_name = 'user_purchase'")
    shop.publish()
    assert shop.differences() == {MART: []}


def test_a_version_that_changes_no_row(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.add(1)
    shop.add(2)
    shop.publish()
    shop.change("OPTIMIZE {mart}")
    assert shop.plan() == {MART: ("merge", 0, 0, 0)}
    print_plans(dry_run(shop.run(), shop.warehouse))
    assert "CAST('' AS" not in capsys.readouterr().out
    shop.publish()
    assert shop.plan() == {}


@pytest.mark.parametrize("strategy", ["merge", "replace"])
def test_a_declared_column_that_is_not_published_yet(
    shop: Shop, declare: Callable[..., None], strategy: str
) -> None:
    shop.add(1, 2)
    shop.publish()
    declare(MART, lambda text: text.replace("  PRIMARY KEY", "  points BIGINT COMMENT 'New',\n  PRIMARY KEY"))
    # The mart does not have it either.
    assert shop.differences() == {MART: []}
    shop.mart(MART).ensure()
    shop.change("UPDATE {mart} SET points = 5 WHERE customer_id = 'c1'")
    ((load, _, plan),) = dry_run(shop.run(), shop.warehouse, strategy)
    assert load.whole == (strategy == "replace")
    assert "points" in "".join(plan.statements)
    assert shop.differences() == {MART: []}
    shop.publish()
    assert shop.differences()[MART] == []
    shop.execute("UPDATE {mart} SET points = 6 WHERE customer_id = 'c1'")
    assert shop.differences()[MART] == ["sum(points) is 6, the lake has 5"]


def test_a_mart_that_was_made_anew_is_not_published_yet(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.add(1, 2)
    shop.publish()
    shutil.rmtree(shop.mart(MART).uri)
    shop.spark.sparkContext._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    shop.add(3, 4, 5)
    assert shop.differences() == {MART: []}
    print_comparisons(reconcile(shop.run(), shop.warehouse))
    assert "made anew; version 1 is not published yet" in capsys.readouterr().out
    shop.publish()
    print_comparisons(reconcile(shop.run(), shop.warehouse))
    assert capsys.readouterr().out.split()[-1] == "same"


def test_a_published_version_that_was_vacuumed_is_no_difference(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.add(1)
    shop.add(2)
    shop.publish()
    shop.change("OPTIMIZE {mart}")
    vacuum(shop.spark, shop.mart(MART).uri)
    print_comparisons(reconcile(shop.run(), shop.warehouse))
    assert "same; version 5 is not published yet" in capsys.readouterr().out
    # The lake went on: what the warehouse should hold cannot be told any more.
    shop.change("DELETE FROM {mart} WHERE customer_id = 'c2'")
    vacuum(shop.spark, shop.mart(MART).uri)
    assert shop.differences() == {MART: []}
    print_comparisons(reconcile(shop.run(), shop.warehouse))
    assert "nothing can be compared; version " in capsys.readouterr().out
    shop.publish()
    shop.execute("UPDATE {mart} SET quantity = 8 WHERE customer_id = 'c1'")
    assert shop.differences() == {MART: ["sum(quantity) is 8, the lake has 2"]}


def test_a_warehouse_ahead_of_its_lake_stops_with_what_to_do(shop: Shop) -> None:
    shop.add(1)
    shop.publish()
    shop.execute("UPDATE {states} SET delta_version = 99 WHERE table_name = 'user_purchase'")
    for action in (shop.publish, shop.plan):
        with pytest.raises(
            UserAnalyticsError,
            match=r"holds version 99, the lake only 1.*delete all rows in _published",
        ):
            action()
    shop.execute("DELETE FROM {states} WHERE table_name = 'user_purchase'")
    shop.publish()
    assert shop.warehouse.published()[MART].version == 1
    assert shop.warehouse.counts([MART]) == {MART: 1}


def test_the_commands(shop: Shop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LAKE_URI", shop.settings.lake_uri)
    monkeypatch.setenv("WAREHOUSE_URL", shop.settings.warehouse_url)
    if isinstance(shop.warehouse, BigQueryWarehouse):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", str(shop.warehouse.connection.endpoint))
    shop.add(1)
    assert main(["publish", "--dry-run"]) == 0
    assert MART in capfd.readouterr().out
    assert main(["publish"]) == 0
    assert main(["reconcile"]) == 0
    assert "same" in capfd.readouterr().out
    shop.execute("DELETE FROM {mart} WHERE customer_id = 'c1'")
    assert main(["reconcile"]) == 1
    output, errors = capfd.readouterr()
    assert "row_count is 0, the lake has 1" in output
    assert "error: reconcile: user_purchase: the warehouse differs from the lake" in errors
