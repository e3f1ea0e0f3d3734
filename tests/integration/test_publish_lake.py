"""What is published of a lake: what changed since the version that the warehouse holds, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.errors import CheckFailed, UserAnalyticsError
from jobs.lake.marts import declared
from jobs.publish import dry_run, publish
from jobs.runs import recorded
from jobs.spark import local_rows
from jobs.warehouse.postgres import PostgresWarehouse
from tests.lakes import Lake, vacuum
from tests.warehouses import query, time_key

pytestmark = [pytest.mark.spark, pytest.mark.integration]

MART = "user_purchase"


class Shop(Lake):
    """A lake with user_purchase alone, written without staging, and its warehouse."""

    def add(self, *numbers: int, month: int = 12) -> None:
        at = datetime(2010, month, 1, tzinfo=UTC)
        rows = [
            (
                *(time_key(at, number), f"I{number}", "85123A", None, 2, Decimal("1.5")),
                *(at, f"c{number}", "France", False, False),
            )
            for number in numbers
        ]
        frame = local_rows(self.spark, rows, declared(MART).spark_schema())
        self.mart(MART).ensure().append(frame.coalesce(1))

    def publish(self, strategy: str = "auto") -> list[str]:
        """Publish; gives the checks that passed."""
        warehouse = PostgresWarehouse(self.settings.warehouse_url, "analytics")
        checks = publish(self.run(), warehouse, [MART], strategy)
        return [f"{check.name} {check.found}" for check in checks]

    def query(self, text: str) -> list[tuple[Any, ...]]:
        return query(self.settings.warehouse_url, text)

    def customers(self) -> list[str]:
        return [c for (c,) in self.query("SELECT customer_id FROM user_purchase ORDER BY customer_id")]

    def state(self) -> list[tuple[Any, ...]]:
        """What changes when anything in the warehouse is written."""
        return self.query(
            "SELECT pg_class.relname, pg_class.oid, relfilenode, pg_class.xmin::text, n_tup_ins, n_tup_upd, n_tup_del, "
            "last_analyze FROM pg_class LEFT JOIN pg_stat_all_tables ON relid = pg_class.oid "
            "WHERE relnamespace = 'analytics'::regnamespace ORDER BY 1"
        )


@pytest.fixture
def shop(spark: SparkSession, tmp_lake: str, warehouse_url: str) -> Shop:
    return Shop(spark, tmp_lake, warehouse_url)


def test_from_version_to_version(shop: Shop, declare: Callable[..., None]) -> None:
    assert shop.publish() == []  # There is no lake yet.
    shop.add(1, 2)
    sums = ["sum(quantity) 4", "sum(unit_price) 3", "enforced keys 1"]
    assert shop.publish() == ["row_count 2", *sums]
    assert shop.customers() == ["c1", "c2"]

    # Nothing new: no table is touched.
    before = shop.state()
    assert shop.publish() == []
    assert shop.state() == before

    # New, changed and deleted rows, of several versions at once; the table stays the same one.
    oid = "SELECT 'user_purchase'::regclass::oid"
    same = shop.query(oid)
    shop.add(3, 4)
    shop.spark.sql(
        f"UPDATE delta.`{shop.mart(MART).uri}` SET customer_id = 'new' WHERE customer_id IN ('c1', 'c3')"
    )
    shop.spark.sql(f"DELETE FROM delta.`{shop.mart(MART).uri}` WHERE customer_id IN ('c2', 'c4')")
    assert shop.publish() == ["row_count 2", *sums]
    assert shop.customers() == ["new", "new"]
    assert shop.query(oid) == same

    # A new column of the declaration reaches lake and warehouse with the next publication, without a new row.
    declare(
        MART,
        lambda text: text.replace("  PRIMARY KEY", "  voucher VARCHAR(20) COMMENT 'Code',\n  PRIMARY KEY"),
    )
    shop.publish()
    assert "voucher" in shop.mart(MART).read().columns
    assert shop.query("SELECT count(*), count(voucher) FROM user_purchase") == [(2, 0)]
    assert shop.query(oid) == same
    changes = shop.spark.read.format("delta").load(shop.settings.lake_path("runs", "etl_schema_changes"))
    columns = ("table_name", "column_name", "column_type")
    assert [tuple(row) for row in changes.select(*columns).collect()] == [
        ("user_purchase", "voucher", "VARCHAR(20)")
    ]
    assert shop.publish() == []


def published_and_backed_up(shop: Shop) -> Path:
    """Publish a mart of one customer, and copy it beside itself; gives where it lies."""
    shop.add(1)
    shop.publish()
    uri = Path(shop.mart(MART).uri)
    shutil.copytree(uri, uri.with_name("backup"))
    return uri


def put_back(shop: Shop, uri: Path) -> None:
    """Restore a mart from the copy beside it."""
    shutil.rmtree(uri)
    shutil.copytree(uri.with_name("backup"), uri)
    shop.spark.sparkContext._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()


def test_two_at_once_end_as_one(shop: Shop) -> None:
    shop.add(1, 2)
    with ThreadPoolExecutor(2) as pool:
        done = [future.result(60) for future in [pool.submit(shop.publish) for _ in range(2)]]
    # One published, the other had nothing left to do.
    assert sorted(map(len, done)) == [0, 4]
    assert shop.customers() == ["c1", "c2"]
    assert shop.query("SELECT delta_version FROM _published") == [(1,)]


def test_a_restored_lake_that_came_to_the_published_version_again_is_not_taken_for_it(shop: Shop) -> None:
    uri = published_and_backed_up(shop)
    shop.add(2)
    shop.publish()
    shop.query("UPDATE _published SET published_at = now() - interval '16 minutes'")
    put_back(shop, uri)

    # The same version as the published one, then a later one.
    shop.add(3)
    for later in (4, 5):
        before = shop.state()
        with pytest.raises(
            UserAnalyticsError,
            match=r"holds version \d+, the lake one .* made later.*delete all rows in _pub",
        ):
            shop.publish()
        assert shop.state() == before
        shop.add(later)
    shop.query("DELETE FROM _published")
    shop.publish()
    assert shop.customers() == ["c1", "c3", "c4", "c5"]


def test_where_changes_cannot_be_followed(shop: Shop) -> None:
    uri = published_and_backed_up(shop)

    # The files of the version in between were vacuumed: published whole.
    shop.add(2)
    shop.spark.sql(f"OPTIMIZE delta.`{uri}`")
    vacuum(shop.spark, str(uri))
    assert shop.publish()[0] == "row_count 2"
    assert shop.customers() == ["c1", "c2"]

    # The lake was put back to an older state: nothing is published, and the message says what to do.
    before = shop.state()
    put_back(shop, uri)
    with pytest.raises(
        UserAnalyticsError, match=r"holds version \d+, the lake only 1.*delete all rows in _published"
    ) as caught:
        shop.publish()
    assert caught.value.exit_code == 1
    assert shop.state() == before
    shop.query("DELETE FROM _published WHERE table_name = 'user_purchase'")
    assert shop.publish()[0] == "row_count 1"
    assert shop.customers() == ["c1"]

    # The mart was made anew: published whole, and the views stand on the new table.
    shutil.rmtree(uri)
    shop.spark.sparkContext._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    shop.add(5, 6, 7)
    assert shop.publish()[0] == "row_count 3"
    assert shop.query("SELECT count(*) FROM top_5_customers_by_amount_spent_view") == [(3,)]


def test_merged_or_replaced(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_replaced(strategy: str = "auto") -> bool:
        before = shop.query("SELECT 'user_purchase'::regclass::oid")
        shop.publish(strategy)
        return before != shop.query("SELECT 'user_purchase'::regclass::oid")

    shop.add(*range(1, 9))
    shop.publish()
    shop.add(9, 10, 11, 12)
    assert not is_replaced()  # too small a table to count
    shop.add(13)
    assert is_replaced("replace")
    assert not is_replaced("replace")  # nothing new

    monkeypatch.setattr("jobs.publish.COUNTED_FROM_ROWS", 10)
    shop.add(14)
    assert not is_replaced()
    shop.add(15, 16, 17)
    assert is_replaced()
    shop.add(18, 19, 20)
    assert not is_replaced("merge")
    assert len(shop.customers()) == 20


def test_month_by_month(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.publish.COUNTED_FROM_ROWS", 10)
    monkeypatch.setattr("jobs.warehouse.partitions.PARTITIONED_FROM_ROWS", 10)
    monkeypatch.setattr("jobs.warehouse.partitions.REBUILT_FROM_ROWS", 3)

    def files() -> dict[str, tuple[int, int]]:
        found = shop.query(
            "SELECT inhrelid::regclass::text, pg_relation_filenode(inhrelid), inhparent FROM pg_inherits "
            "WHERE inhparent = 'user_purchase'::regclass"
        )
        return {name.removeprefix("user_purchase_"): (file, table) for name, file, table in found}

    def made_anew(strategy: str = "auto") -> list[str]:
        """Publish; gives the months that are other files than before, which are those that the plan names."""
        before = files()
        warehouse = PostgresWarehouse(shop.settings.warehouse_url, "analytics")
        ((_, _, plan),) = dry_run(shop.run(), warehouse, strategy)
        shop.publish(strategy)
        anew = sorted(name for name, file in files().items() if before.get(name) != file)
        if strategy != "replace":
            names = (f", {name.replace('_', '-')} made anew" for name in anew)
            assert plan.strategy == "merge" + "".join(names)
        return anew

    shop.add(*range(1, 9), month=10)
    shop.add(*range(9, 17), month=11)
    shop.publish()
    assert list(files()) == ["2010_10", "2010_11", "other"]
    # Late rows are merged; a new month is attached; much of all changed, and still November stays.
    shop.add(17, month=11)
    shop.add(*range(18, 30), month=12)
    shop.spark.sql(f"DELETE FROM delta.`{shop.mart(MART).uri}` WHERE customer_id IN ('c1', 'c2', 'c3')")
    assert made_anew() == ["2010_10", "2010_12"]
    assert len(shop.customers()) == 26
    shop.add(*range(30, 40), month=11)
    assert made_anew("merge") == []
    shop.add(40)
    assert made_anew("replace") == ["2010_10", "2010_11", "2010_12", "other"]
    assert shop.publish() == []
    assert len(shop.customers()) == 37


def test_a_mart_that_differs_is_not_published(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.add(1)
    shop.publish()
    shop.add(2)
    before = {
        key: shop.query(f"SELECT * FROM {key}") for key in (MART, "_published", "customer_amount_spent_view")
    }
    with monkeypatch.context() as patch:
        patch.setattr("jobs.publish.lake_measures", lambda *_: {"row_count": 3, "sum(quantity)": 4})
        with pytest.raises(
            CheckFailed, match=r"nothing was published.* user_purchase: row_count is 2, the mart has 3"
        ):
            shop.publish()
    assert {key: shop.query(f"SELECT * FROM {key}") for key in before} == before
    shop.publish()
    assert shop.customers() == ["c1", "c2"]


def test_a_failed_check_is_recorded_and_the_next_run_publishes_the_record(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = PostgresWarehouse(shop.settings.warehouse_url, "analytics")
    shop.add(1)
    failing, following = shop.run(), shop.run()
    with monkeypatch.context() as patch:
        patch.setattr("jobs.publish.lake_measures", lambda *_: {"row_count": 3})
        with pytest.raises(CheckFailed), recorded(failing):
            publish(failing, warehouse)
    publish(following, warehouse)
    assert shop.query(
        "SELECT run_id, table_name, check_name, expected, found FROM etl_checks "
        "WHERE NOT passed AND rule_kind IS NULL"
    ) == [(failing.run_id, MART, "row_count", "3", "1")]


def test_rows_changed_by_hand_are_put_right_as_the_message_says(shop: Shop) -> None:
    shop.add(1, 2)
    shop.publish()
    shop.query("DELETE FROM user_purchase WHERE customer_id = 'c1'")
    shop.add(3)
    with pytest.raises(
        CheckFailed, match=r"row_count is 2, the mart has 3.* delete its row in _published and publish again"
    ):
        shop.publish()
    shop.query("DELETE FROM _published WHERE table_name = 'user_purchase'")
    shop.publish()
    assert shop.customers() == ["c1", "c2", "c3"]
