"""Publication to BigQuery, against an emulator: load jobs, one transaction, published versions.

What the emulator gets wrong (repeated job ids, REQUIRED, clustering, bytes) is in tests/unit/test_bigquery_requests.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession

import jobs.warehouse.bigquery as bigquery_module
from jobs.errors import CheckFailed, ConfigurationError, UserAnalyticsError
from jobs.warehouse.base import Check, Load, Published
from jobs.warehouse.bigquery import BigQueryWarehouse
from jobs.warehouse.bigquery_load import Scratch
from jobs.warehouse.bigquery_script import measures_query
from jobs.warehouse.declarations import tables, views
from tests.bigquery_emulator import BigQueryEmulator
from tests.shops import EAST, NORTH, SHOPS, SOUTH, Publisher, sale_id
from tests.warehouses import arrow_rows, load_without_spark

pytestmark = pytest.mark.integration

SALES = """CREATE TABLE sales (
  sale_id UUID NOT NULL COMMENT 'Key of the sale',
  shop_key BIGINT NOT NULL COMMENT 'Where',
  amount DECIMAL(18, 4) COMMENT 'How much',
  note VARCHAR(1000) COMMENT 'Free text',
  sold_at TIMESTAMPTZ NOT NULL COMMENT 'When',
  is_return BOOLEAN COMMENT 'Brought back',
  ratio DOUBLE COMMENT 'A number',
  parts ARRAY<STRUCT<term: STRING, weight: DOUBLE>> NOT NULL COMMENT 'Parts of it',
  PRIMARY KEY (sale_id),
  FOREIGN KEY (shop_key) REFERENCES shops (shop_key)
) COMMENT = 'Sales. Grain: one row per sale'
PARTITION BY DATE_TRUNC('MONTH', sold_at)
CLUSTER BY (shop_key);
"""
SHOP_VIEW = """-- Grain: one row per shop with sales.
SELECT shops.name, SUM(sales.amount) AS amount
FROM sales
INNER JOIN shops ON shops.shop_key = sales.shop_key
GROUP BY shops.name
"""
MAY, JUNE = datetime(2024, 5, 31, 23, 59, 59, 999999, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)


def sale(
    number: int, shop: int, amount: str | None, note: str | None = None, at: datetime = MAY
) -> tuple[Any, ...]:
    value = Decimal(amount) if amount is not None else None
    return (sale_id(number), shop, value, note, at, False, 0.5, [{"term": "part", "weight": 0.25}])


class Shop(Publisher):
    """A dataset of BigQuery and what is published to it."""

    def __init__(self, emulator: BigQueryEmulator, url: str | None = None) -> None:
        self.emulator = emulator
        self.url = url or emulator.new_dataset_url()
        self.warehouse = BigQueryWarehouse(self.url, emulator.connection)
        self.client = emulator.connection.client()
        self.views = [views()["shop_view"]]

    def frame(self, name: str, rows: Sequence[tuple[Any, ...]], whole: bool) -> Any:
        return arrow_rows(name, rows, whole)

    def commit(self, *loads: Load) -> list[Check]:
        with self.warehouse.publishing() as publication:
            assert publication.published is not None
            return publication.commit(loads, self.views)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Rows of a query with tables named `{shops}`."""
        dataset = f"{self.warehouse.dataset.project}.{self.warehouse.dataset.dataset_id}"
        names = {name: f"`{dataset}.{name}`" for name in ("shops", "sales", "shop_view", "_published")}
        return [tuple(row.values()) for row in self.client.query_and_wait(text.format(**names))]

    def content(self) -> dict[str, Any]:
        return {
            "relations": sorted(t.table_id for t in self.client.list_tables(self.warehouse.dataset)),
            "shops": self.query("SELECT * FROM {shops} ORDER BY 1"),
            "sales": self.query("SELECT * FROM {sales} ORDER BY 1"),
            "view": self.query("SELECT * FROM {shop_view} ORDER BY 1") if self.views else [],
            "published": self.query(
                "SELECT table_name, delta_table_id, delta_version FROM {_published} ORDER BY 1"
            ),
        }


@pytest.fixture(autouse=True)
def shop_declarations(declare: Callable[..., None]) -> Callable[..., None]:
    declare("shops", lambda _: SHOPS)
    declare("sales", lambda _: SALES)
    declare("shop_view", lambda _: SHOP_VIEW, folder="views")
    return declare


@pytest.fixture
def shop(bigquery: BigQueryEmulator, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(bigquery_module, "load_rows", load_without_spark)
    return Shop(bigquery)


def test_first_publication_makes_what_is_declared(shop: Shop) -> None:
    shop.warehouse.check()
    assert shop.warehouse.published() == {}
    with pytest.raises(ConfigurationError, match="shops: there is no such table or view; publish first"):
        shop.warehouse.query("shops", 1)
    checks = shop.whole(sales=[sale(1, 1, "10.50"), sale(2, 2, "0.25")])
    assert {(c.table, c.name, c.found) for c in checks} == {
        ("shops", "row_count", "2"),
        ("shops", "primary key (shop_key) repeated", "0"),
        ("shops", "unique (name) repeated", "0"),
        ("sales", "row_count", "2"),
        ("sales", "sum(amount)", "10.75"),
        ("sales", "primary key (sale_id) repeated", "0"),
        ("sales", "foreign key (shop_key) dangling", "0"),
    }
    assert all(check.passed for check in checks)
    assert shop.content() == {
        "relations": ["_published", "sales", "shop_view", "shops"],
        "shops": [NORTH, SOUTH],
        "sales": [sale(1, 1, "10.50"), sale(2, 2, "0.25")],
        "view": [("North", Decimal("10.5")), ("South", Decimal("0.25"))],
        "published": [("sales", "table-sales", 1), ("shops", "table-shops", 1)],
    }
    sales = shop.client.get_table(shop.warehouse.dataset.table("sales"))
    assert sales.description == "Sales. Grain: one row per sale"
    assert sales.labels == {"managed_by": "user-analytics"}
    assert {f.name: f.description for f in sales.schema}["amount"] == "How much"
    assert sales.time_partitioning.type_ == "MONTH"
    assert sales.time_partitioning.field == "sold_at"
    assert sales.clustering_fields == ["shop_key"]
    view = shop.client.get_table(shop.warehouse.dataset.table("shop_view"))
    assert view.description == "Grain: one row per shop with sales."
    assert shop.warehouse.counts(["shops", "sales"]) == {"shops": 2, "sales": 2}
    assert shop.warehouse.query("shops", 1)[0] == ["shop_key", "name"]
    shop.warehouse.check()


def test_changes_are_merged(shop: Shop) -> None:
    shop.whole(sales=[sale(1, 1, "10.50"), sale(2, 2, "0.25")])
    assert all(check.passed for check in shop.commit(*shop.changes(sale, JUNE)))
    content = shop.content()
    assert content["shops"] == [NORTH, EAST]
    assert content["sales"] == [sale(1, 1, "11.00"), sale(3, 3, "5.25", at=JUNE)]
    assert content["published"] == [("sales", "table-sales", 2), ("shops", "table-shops", 2)]
    assert content["relations"] == ["_published", "sales", "shop_view", "shops"]


def test_a_failing_check_rolls_everything_back_and_can_be_mended(shop: Shop) -> None:
    shop.whole(sales=[sale(1, 1, "10.50")])
    before = shop.content()
    for wrong, message in (
        (
            shop.load("sales", [(*sale(2, 1, "1"), False)], False, 2, amount="11.51"),
            r"sum\(amount\) is 11.5, the mart has 11.51",
        ),
        (
            shop.load("sales", [(*sale(2, 9, "1"), False)], False, 2, amount="11.5"),
            r"foreign key \(shop_key\) dangling is 1",
        ),
    ):
        shop.version = 2
        shops = shop.load("shops", [(*EAST, False)], False, 3)
        with pytest.raises(CheckFailed, match=f"nothing was published.* sales: {message}"):
            shop.commit(shops, wrong)
        assert shop.content() == before
    with pytest.raises(CheckFailed, match=r"shops: unique \(name\) repeated is 1, the mart has 0"):
        shop.commit(shop.load("shops", [NORTH, (2, "North")], True, 2))
    assert shop.content() == before
    shop.version = 2
    shop.commit(shops, shop.load("sales", [(*sale(2, 3, "1"), False)], False, 2, amount="11.5"))
    assert shop.content()["sales"] == [sale(1, 1, "10.50"), sale(2, 3, "1.00")]


NOTES = [
    None, "", " ", "NULL", "\\N", "a\n\\.\nb", 'say "hi"', "back\\slash \\t", "comma, semicolon; tab\t.",
    "line\nbreak\r\nand\rreturn", "don't; DROP TABLE sales; --", "München 東京 עברית", "👩‍👩‍👧 𝄞 \U0010fffd",
    "\u0001\u007f\u0085\u2028\ufeff", "e\u0301 is not \u00e9",
]  # fmt: skip


def test_values_arrive_as_they_are(shop: Shop) -> None:
    amounts = ["0.0001", "-0.0001", "99999999999999.9999", "-99999999999999.9999"]
    times = [datetime(1, 1, 1, tzinfo=UTC), MAY, datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]
    sales = [sale(n, 1, None, note) for n, note in enumerate(NOTES)]
    sales += [sale(100 + n, 1, amount) for n, amount in enumerate(amounts)]
    sales += [sale(200 + n, 1, None, at=at) for n, at in enumerate(times)]
    sales += [(*sale(300, 1, None)[:-2], 5e-324, [])]
    shop.whole(sales=sales)
    assert shop.content()["sales"] == sales


def test_a_sum_of_integers_may_be_larger_than_any_of_them(
    shop: Shop, shop_declarations: Callable[..., None]
) -> None:
    shop_declarations("shops", lambda text: text.replace("  PRIMARY KEY", "  pieces BIGINT,\n  PRIMARY KEY"))
    shop.views, largest = [], 2**63 - 1
    shops, total = [(*NORTH, largest), (*SOUTH, largest)], 2 * largest
    checks = shop.commit(shop.load("shops", shops, True, 2, pieces=str(total)))
    assert ("sum(pieces)", str(total)) in [(check.name, check.found) for check in checks]
    assert shop.warehouse.measures([tables()["shops"]])["shops"]["sum(pieces)"] == total
    assert shop.query("SELECT * FROM {shops} ORDER BY 1") == shops
    # The emulator gives a sum that BigQuery refuses to.
    assert "SUM(CAST(`pieces` AS BIGNUMERIC))" in measures_query(tables()["shops"], "shops")


def test_a_new_column_is_added_in_place_and_anything_else_stops(
    shop: Shop, shop_declarations: Callable[..., None]
) -> None:
    shop.whole()
    shop_declarations(
        "shops",
        lambda text: text.replace("  PRIMARY KEY", "  city VARCHAR(50) COMMENT 'Place',\n  PRIMARY KEY"),
    )
    shop.version = 2
    load = shop.load("shops", [(3, "East", "Lyon", False)], False, 3)
    with shop.warehouse.publishing() as publication:
        assert {t: [c.name for c in columns] for t, columns in publication.new_columns([load]).items()} == {
            "shops": ["city"]
        }
    shop.commit(load)
    with shop.warehouse.publishing() as publication:
        assert publication.new_columns([load]) == {}
    before = shop.content()
    assert before["shops"] == [(*NORTH, None), (*SOUTH, None), (*EAST, "Lyon")]
    assert shop.client.get_table(shop.warehouse.dataset.table("shops")).schema[2].description == "Place"
    for old, new, message in (
        ("city VARCHAR", "town VARCHAR", "column city is STRING.*, declared as nothing"),
        ("city VARCHAR(50)", "city BIGINT", "column city is STRING.*, declared as INT64"),
        ("  PRIMARY", "  land VARCHAR(50) NOT NULL,\n  PRIMARY", "column land is missing, declared as"),
    ):
        shop_declarations("shops", lambda text, old=old, new=new: text.replace(old, new))
        shop.version = 3
        with pytest.raises(
            UserAnalyticsError, match=f"publish shops: .*{message}.*drop shops and publish again"
        ):
            shop.commit(shop.load("shops", [], True, 0))
        assert shop.content() == before
        shop_declarations("shops", lambda text, old=old, new=new: text.replace(new, old))


def test_a_table_that_was_dropped_is_made_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise UserAnalyticsError("no load today")

    shop.whole(sales=[sale(1, 1, "10.50")])
    shop.client.delete_table(shop.warehouse.dataset.table("sales"))
    assert list(shop.warehouse.published()) == ["shops"]
    # The mart is the same; the first publication makes the table and dies at its rows.
    sales = shop.load("sales", [sale(1, 1, "10.50")], True, 1, amount="10.50")
    with monkeypatch.context() as patch:
        patch.setattr(bigquery_module, "load_rows", refuse)
        with pytest.raises(UserAnalyticsError, match="no load today"):
            shop.commit(sales)
    assert shop.content()["sales"] == []
    assert list(shop.warehouse.published()) == ["shops"]
    shop.commit(sales)
    assert shop.content()["sales"] == [sale(1, 1, "10.50")]
    assert sorted(shop.warehouse.published()) == ["sales", "shops"]


def test_a_view_is_changed_in_place(shop: Shop, shop_declarations: Callable[..., None]) -> None:
    shop.whole(sales=[sale(1, 1, "10.50")])
    shop_declarations("shop_view", lambda text: text.replace("AS amount", "AS total"), folder="views")
    shop.views = [views()["shop_view"]]
    shop.commit(shop.load("shops", [(*NORTH, False)], False, 2))
    assert shop.warehouse.query("shop_view", 1)[0] == ["name", "total"]


# -- what may go wrong -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """killed(n): the process ends after the n-th answer of BigQuery from now on."""
    from google.cloud._http import JSONConnection

    original = JSONConnection.api_request
    left = [0]

    def api_request(self: Any, *arguments: Any, **options: Any) -> Any:
        answer = original(self, *arguments, **options)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return answer

    def set_fuse(number: int) -> None:
        left[0] = number

    monkeypatch.setattr(JSONConnection, "api_request", api_request)
    return set_fuse


def test_killed_after_any_answer_and_run_again(
    bigquery: BigQueryEmulator, shop: Shop, killed: Callable[[int], None]
) -> None:
    def prepared() -> Shop:
        prepared = Shop(bigquery)
        prepared.views = []
        prepared.whole(sales=[sale(1, 1, "10.50"), sale(2, 2, "0.25")])
        return prepared

    def rows(shop: Shop) -> dict[str, Any]:
        # Stage tables may stay behind for a day.
        return {name: value for name, value in shop.content().items() if name != "relations"}

    clean = prepared()
    before = rows(clean)
    clean.commit(*clean.changes(sale, JUNE))
    wanted, number = rows(clean), 0
    while True:
        number += 1
        other = prepared()
        killed(number)
        try:
            other.commit(*other.changes(sale, JUNE))
        except Killed:
            pass
        else:
            break
        finally:
            killed(0)
        # A second script beside the first would be the same job for BigQuery; the emulator would run both.
        while any(True for _ in other.client.list_jobs(state_filter="running")):
            time.sleep(0.01)
        assert rows(other) in (before, wanted), f"killed after answer {number}"
        if other.warehouse.published()["sales"].version == 1:
            other.version = 1
            other.commit(*other.changes(sale, JUNE))
        assert rows(other) == wanted, f"killed after answer {number}"
    assert number > 12


def test_a_commit_whose_answer_is_lost_is_recognised(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.whole(sales=[sale(1, 1, "10.50"), sale(2, 2, "0.25")])
    original = bigquery_module.run_once

    def lose_the_answer(*arguments: Any) -> Any:
        original(*arguments)
        raise ConnectionError("connection reset") from None

    from requests.exceptions import ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(bigquery_module, "run_once", lose_the_answer)
        shop.commit(*shop.changes(sale, JUNE))
    assert shop.content()["shops"] == [NORTH, EAST]
    assert shop.content()["published"] == [("sales", "table-sales", 2), ("shops", "table-shops", 2)]


def test_two_publications_at_once_end_as_one(shop: Shop, bigquery: BigQueryEmulator) -> None:
    shop.whole(sales=[sale(1, 1, "10.50"), sale(2, 2, "0.25")])
    other = Shop(bigquery, shop.url)
    other.version = 1
    with shop.warehouse.publishing() as first, other.warehouse.publishing() as second:
        assert first.published == second.published
        # Both read the same state; one comes first, the other finds its work done.
        assert len(first.commit(shop.changes(sale, JUNE), [])) == 7
        assert second.commit(other.changes(sale, JUNE), []) == []
        wanted = shop.content()
        assert wanted["sales"] == [sale(1, 1, "11.00"), sale(3, 3, "5.25", at=JUNE)]
        # From the state that it still has in mind, a publication of something else does nothing.
        other.version = 7
        with pytest.raises(UserAnalyticsError, match=r"another publication came between.*publish again"):
            second.commit([other.load("shops", [(9, "West", False)], False, 3)], [])
    assert shop.content() == wanted


# -- the ways of the rows ----------------------------------------------------------------------------------------------


@pytest.mark.spark
@pytest.mark.parametrize("way", ["uploaded by the tasks", "read from gs://"])
def test_rows_of_a_data_frame(spark: SparkSession, bigquery: BigQueryEmulator, way: str) -> None:
    shop = Shop(bigquery)
    if way == "read from gs://":
        folder = bigquery.gcs_folder / "bucket" / "stages"
        shop.warehouse.scratch = Scratch(str(folder), "gs://bucket/stages")
    sales = [sale(n, 1, "1.25", NOTES[n % len(NOTES)], at=JUNE) for n in range(40)]
    shop.version = 1
    schema = tables()["sales"].spark_schema()
    shop.commit(
        Load(
            tables()["shops"],
            spark.createDataFrame([NORTH], tables()["shops"].spark_schema()),
            True,
            Published("a", 1),
            {"row_count": 1},
        ),
        Load(
            tables()["sales"],
            spark.createDataFrame(sales, schema).repartition(3),
            True,
            Published("b", 1),
            {"row_count": 40, "sum(amount)": 50},
        ),
    )
    assert shop.content()["sales"] == sales
    if way == "read from gs://":
        assert list(folder.iterdir()) == []
