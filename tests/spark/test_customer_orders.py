"""customers and orders: enriched, measured, joined, analysed, learnt from."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from jobs import analyze_orders as analysis_job
from jobs.analyze_orders import analyze_orders
from jobs.build_customer_orders import build_customer_orders
from jobs.enrich_customers import enrich_customers
from jobs.errors import UserAnalyticsError
from jobs.feeds.customers import CUSTOMERS
from jobs.feeds.orders import ORDERS
from jobs.generate_customer_orders import generate_customer_orders
from jobs.lake.archive import archive
from jobs.lake.intermediates import remove_intermediates
from jobs.measure_orders import measure_orders
from jobs.models.segments import train_and_measure
from jobs.origins import origin_of
from jobs.reset_marts import reset_marts
from jobs.reset_tables import forget_feed
from jobs.train_segments import train_segments
from jobs.transforms.customers import age_group
from tests.lakes import Lake, put_back
from tests.staging import RawZone

pytestmark = pytest.mark.spark

#             id   | name | email           | age | city | registered | segment
ANN = "       c1   | Ann  | ann@example.com | 64  | Oslo | 2023-01-31 | -"
BOB = "       c2   | Bob  | -               | -   | -    | 2023-02-01 | -"
EVE = "       c3   | Eve  | eve@example.com | 17  | Bonn | 2023-03-01 | premium"
#             id   | who  | product | pieces | price   | day
LARGE = "     o1   | c1   | table   | 2      | 2499.99 | 2023-12-31"
SMALL = [f"   o1{n} | c1  | pad     | 1      | 5.005   | 2024-01-01" for n in range(3)]
FIFTH = "     o2   | c1   | pad     | 4      | 0.0012  | 2024-02-29"
MEDIUM = "    o3   | c2   | lamp    | 10     | 10      | 2024-02-29"
GUEST = "     o4   | -    | lamp    | 1      | 99.9999 | 2024-03-01"
STRANGER = "  o5   | c9   | lamp    | 1      | 500     | 2024-03-01"


def segments(lake: Lake) -> dict[str, tuple[str, bool]]:
    rows = enrich_customers(lake.run()).collect()
    return {row.customer_id: (row.customer_segment, row.is_segment_given) for row in rows}


def test_orders_and_who_made_them(spark: SparkSession, tmp_lake: str) -> None:
    lake, work = Lake(spark, tmp_lake), Path(tmp_lake) / "work"
    assert build_customer_orders(lake.run()) is False
    lake.stage(CUSTOMERS, 1, ANN, BOB, EVE)
    lake.stage(ORDERS, 1, LARGE, *SMALL, MEDIUM, GUEST, STRANGER)
    # Over 5,000 spent, but in four orders.
    assert segments(lake) == {"c1": ("Standard", False), "c2": ("Basic", False), "c3": ("Premium", True)}
    assert build_customer_orders(lake.run()) is True
    rows = lake.mart("customer_orders").read().where("order_id NOT LIKE 'o1_'").orderBy("order_id")
    metrics = rows.select(
        "order_id", "total_amount", "order_size", "order_year", "order_month", "is_customer_known"
    )
    assert [tuple(row) for row in metrics.collect()] == [
        ("o1", Decimal("4999.9800"), "Large", 2023, 12, True),
        ("o3", Decimal("100.0000"), "Medium", 2024, 2, True),
        ("o4", Decimal("99.9999"), "Small", 2024, 3, False),
        ("o5", Decimal("500.0000"), "Large", 2024, 3, False),
    ]
    people = rows.select(
        "customer_id", "customer_name", "age_group", "city", "registration_date", "customer_segment"
    )
    assert [tuple(row) for row in people.collect()] == [
        ("c1", "Ann", "55-64", "Oslo", date(2023, 1, 31), "Standard"),
        ("c2", "Bob", "unknown", None, date(2023, 2, 1), "Basic"),
        (None, None, None, None, None, None),
        ("c9", None, None, None, None, None),
    ]

    # Nothing new: the table is not touched. Intermediates stay until they are removed.
    version = lake.mart("customer_orders").version()
    assert sorted(folder.name for folder in work.iterdir()) == ["enriched_customers", "measured_orders"]
    assert remove_intermediates(lake.run()) is True
    assert remove_intermediates(lake.run()) is False
    assert not work.exists()
    assert build_customer_orders(lake.run()) is False
    assert lake.mart("customer_orders").version() == version

    # The fifth order makes Ann a Premium customer: all her orders say so, the others are left alone.
    lake.stage(ORDERS, 2, FIFTH)
    assert build_customer_orders(lake.run()) is True
    assert set(lake.values("customer_orders", "order_id")) >= {"o2", "o5"}
    assert len(lake.changed("customer_orders", version)) == 5
    assert segments(lake)["c1"] == ("Premium", False)


def test_age_groups(spark: SparkSession) -> None:
    ages = [None, 0, 17, 18, 24, 25, 34, 35, 44, 45, 54, 55, 64, 65, 130]
    frame = spark.createDataFrame([Row(n=n, age=age) for n, age in enumerate(ages)], "n int, age bigint")
    groups = [row.g for row in frame.orderBy("n").select(age_group(F.col("age")).alias("g")).collect()]
    assert groups == [
        *("unknown", "under 18", "under 18", "18-24", "18-24", "25-34", "25-34", "35-44", "35-44", "45-54"),
        *("45-54", "55-64", "55-64", "65+", "65+"),
    ]


def test_a_build_that_failed_goes_on_from_its_intermediates(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(spark, tmp_lake)
    lake.stage(ORDERS, 1, MEDIUM)
    measured = measure_orders(lake.run()).inputFiles()

    def breaks(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr("jobs.build_customer_orders.bring_to", breaks)
        with pytest.raises(OSError, match="the disk is full"):
            build_customer_orders(lake.run())
    # No customers at all: the order is kept, and what was measured before is used again.
    build_customer_orders(lake.run())
    assert measure_orders(lake.run()).inputFiles() == measured
    assert lake.values("customer_orders", "is_customer_known") == [False]


def test_orders_that_are_staged_during_a_build_are_all_in_the_next_one(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(spark, tmp_lake)
    lake.stage(CUSTOMERS, 1, ANN)
    lake.stage(ORDERS, 1, SMALL[0])

    def built() -> list[tuple[object, object]]:
        assert build_customer_orders(lake.run()) is True
        rows = lake.mart("customer_orders").read().orderBy("order_id")
        return [tuple(row) for row in rows.select("order_id", "customer_segment").collect()]

    # By another run, after this one has enriched the customers: neither their segments nor the orders know of it …
    def stage_and_measure(*arguments: Any) -> DataFrame:
        lake.stage(ORDERS, 2, LARGE)
        return measure_orders(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("jobs.build_customer_orders.measure_orders", stage_and_measure)
        assert built() == [("o10", "Basic")]
    # … nor does the table's log claim it.
    assert built() == [("o1", "Standard"), ("o10", "Standard")]

    # The same between the tasks of a DAG.
    enrich_customers(lake.run())
    lake.stage(ORDERS, 3, SMALL[1], SMALL[2], FIFTH)
    measure_orders(lake.run())
    assert built() == [(order, "Premium") for order in ("o1", "o10", "o11", "o12", "o2")]


def test_staging_that_was_restored_stops_the_build(spark: SparkSession, tmp_lake: str) -> None:
    lake = Lake(spark, tmp_lake)
    for file, order in enumerate((LARGE, MEDIUM)):
        lake.stage(ORDERS, file, order)
    build_customer_orders(lake.run())
    analyze_orders(lake.run())
    put_back(spark, lake.staged(ORDERS).uri)
    with pytest.raises(
        UserAnalyticsError,
        match=r"made from version 2 of customers and orders, of which only 1 .*reset marts/customer_orders`",
    ):
        build_customer_orders(lake.run())
    reset_marts(lake.run(), [origin_of("customer_orders")])
    assert build_customer_orders(lake.run()) is True
    assert lake.values("customer_orders", "order_id") == ["o1"]
    analyze_orders(lake.run())
    # A backup of the mart itself is one, too.
    put_back(spark, lake.mart("customer_orders").uri)
    with pytest.raises(
        UserAnalyticsError, match=r"from version 1 of customer_orders.*reset marts/order_anal"
    ):
        analyze_orders(lake.run())


def test_customers_leave_when_they_are_reset_and_their_file_is_gone(
    spark: SparkSession, tmp_lake: str
) -> None:
    lake, customers = Lake(spark, tmp_lake), RawZone(spark, tmp_lake, "customers")

    def built() -> list[object]:
        assert build_customer_orders(lake.run()) is True
        return [row.customer_name for row in lake.mart("customer_orders").read().collect()]

    # The same state at the beginning as in the end: orders only.
    lake.stage(ORDERS, 1, MEDIUM)
    assert built() == [None]
    customers.put({"a.csv": "customer_id,name,registration_date\nc2,Bob,2024-01-31\n"})
    customers.stage()
    assert built() == ["Bob"]
    (customers.folder / "a.csv").unlink()
    forget_feed(customers.run(), CUSTOMERS)
    customers.stage()
    assert built() == [None]


def test_analysis(spark: SparkSession, tmp_lake: str) -> None:
    lake = Lake(spark, tmp_lake)
    assert analyze_orders(lake.run()) is False
    lake.stage(CUSTOMERS, 1, ANN, BOB)
    lake.stage(ORDERS, 1, LARGE, MEDIUM, GUEST, STRANGER)
    build_customer_orders(lake.run())
    assert analyze_orders(lake.run()) is True

    found = json.loads((Path(tmp_lake) / "results" / "analysis_results.json").read_text())
    by_product = found.pop("by_product")
    assert found == {
        "total_revenue": 5699.9799,
        "total_orders": 4,
        "average_order_value": 1424.995,
        "unique_customers": 3,
        "orders_without_known_customer": 2,
        # Of unknown cities comes the second most; they are no city.
        "top_city": "Oslo",
        "top_product": "table",
        "by_city": {
            "Oslo": {"revenue": 4999.98, "orders": 1, "average_order_value": 4999.98, "customers": 1},
            "unknown": {"revenue": 699.9999, "orders": 3, "average_order_value": 233.3333, "customers": 2},
        },
        "by_age_group": {
            "55-64": {"revenue": 4999.98, "orders": 1, "average_order_value": 4999.98, "customers": 1},
            "unknown": {"revenue": 699.9999, "orders": 3, "average_order_value": 233.3333, "customers": 2},
        },
    }
    assert list(by_product) == ["table", "lamp"]
    rows = lake.mart("order_analysis").read().orderBy("breakdown", "revenue_rank")
    assert [tuple(row) for row in rows.select("breakdown", "value", "revenue", "revenue_rank").collect()] == [
        ("age_group", "55-64", Decimal("4999.9800"), 1),
        ("age_group", "unknown", Decimal("699.9999"), 2),
        ("all", "all", Decimal("5699.9799"), 1),
        ("city", "Oslo", Decimal("4999.9800"), 1),
        ("city", "unknown", Decimal("699.9999"), 2),
        ("product", "table", Decimal("4999.9800"), 1),
        ("product", "lamp", Decimal("699.9999"), 2),
    ]
    version = lake.mart(analysis_job.MART).version()
    assert analyze_orders(lake.run()) is False
    assert lake.mart(analysis_job.MART).version() == version


def test_bad_customers_and_orders_are_rejected_with_their_reasons(spark: SparkSession, tmp_lake: str) -> None:
    customers = RawZone(spark, tmp_lake, "customers")
    customers.put(
        {
            "a.csv": "customer_id,name,email,age,city,registration_date,customer_segment\n"
            "1,Ann,ann@example.com,17.0,Oslo,2024-01-31,BASIC\n"
            "2,Bob,bob,131,Oslo,31.01.2024,Gold\n"
            ",,,-1,,,\n",
            "b.csv": "customer_id,name,email,age,city\n",
        }
    )
    customers.stage()
    assert customers.rows("customer_id", "age", "customer_segment") == [("1", 17, "Basic")]
    assert [reasons for _, reasons, _ in customers.rejected()] == [
        ("customer_id_missing", "name_missing", "age_out_of_range", "registration_date_missing"),
        ("email_invalid", "age_out_of_range", "registration_date_invalid", "customer_segment_invalid"),
    ]
    assert "missing column: registration_date" in customers.refused()["b.csv"]
    # The file delivered last decides, whichever is read last.
    customers.put({"c.csv": "customer_id,name,registration_date\n1,Anna,2024-01-31\n"}, day=3)
    customers.put({"d.csv": "customer_id,name,registration_date\n1,Anne,2024-01-31\n"}, day=2)
    customers.stage()
    assert customers.rows("name", "age") == [("Anna", None)]

    orders = RawZone(spark, tmp_lake, "orders")
    orders.put(
        {
            "a.csv": "order_id,customer_id,product,quantity,price,order_date\n"
            "1,,lamp,1,0,2024-01-31T23:30:00\n"
            "2,7,lamp,0,-1,2024-02-30\n"
            ",7,,1.5,1.00001,\n"
            "3,7,lamp,1000001,10000001,2024-01-31\n"
        }
    )
    orders.stage()
    assert orders.rows("order_id", "customer_id", "price", "order_date") == [
        ("1", None, Decimal("0.0000"), date(2024, 1, 31))
    ]
    assert sorted(reasons for _, reasons, _ in orders.rejected()) == [
        ("order_id_missing", "product_missing", "quantity_invalid", "price_invalid", "order_date_missing"),
        ("quantity_out_of_range", "price_out_of_range"),
        ("quantity_out_of_range", "price_out_of_range", "order_date_invalid"),
    ]


def a_customer(n: int, segment: str) -> tuple[Any, ...]:
    city = {"Premium": "Oslo", "Standard": "Bonn", "Basic": "Rome"}[segment]
    return str(n), 20 + n % 60, city, date(2020 + n % 4, 1 + n % 12, 1), segment


CUSTOMER = "customer_id string, age bigint, city string, registration_date date, customer_segment string"


def test_a_forest_learns_what_there_is_to_learn_and_says_the_same_again(spark: SparkSession) -> None:
    told = [a_customer(n, ("Premium", "Standard", "Basic")[n % 3]) for n in range(300)]
    results = train_and_measure(spark.createDataFrame(told, CUSTOMER), seed=1)
    assert results is not None
    # The city tells all.
    assert results["accuracy"] == 1.0
    assert results["majority_baseline"] < 0.5
    assert next(iter(results["feature_importance"])) == "city"
    assert sum(results["feature_importance"].values()) == pytest.approx(1)
    assert results["train_samples"] + results["test_samples"] == 300
    shuffled = spark.createDataFrame(told[::-1], CUSTOMER).repartition(3)
    assert train_and_measure(shuffled, seed=1) == results

    assert train_and_measure(spark.createDataFrame([t for t in told if t[4] == "Basic"], CUSTOMER), 1) is None
    assert train_and_measure(spark.createDataFrame([], CUSTOMER), 1) is None


def test_few_customers_in_as_many_cities(spark: SparkSession) -> None:
    for number, learns in ((1, False), (12, True), (33, True)):
        told = [a_customer(n, ("Premium", "Basic")[n % 2]) for n in range(number)]
        moved = [(*who[:2], f"city {who[0]}", *who[3:]) for who in told]
        results = train_and_measure(spark.createDataFrame(moved, CUSTOMER), seed=1)
        assert (results is not None) == learns
        assert results is None or results["train_samples"] + results["test_samples"] == number


def test_that_there_is_nothing_to_learn_is_found_once(spark: SparkSession, tmp_lake: str) -> None:
    customers = RawZone(spark, tmp_lake, "customers")
    customers.put({"a.csv": "customer_id,name,registration_date\n1,Anna,2024-01-31\n"})
    customers.stage()
    assert train_segments(customers.run()) is True
    found = json.loads((Path(tmp_lake) / "results" / "model_results.json").read_text())
    assert found["problem"].startswith("too few customers")
    assert train_segments(customers.run()) is False


def test_generated_customers_and_orders_go_all_the_way(spark: SparkSession, tmp_lake: str) -> None:
    orders, customers = RawZone(spark, tmp_lake, "orders"), RawZone(spark, tmp_lake, "customers")
    assert generate_customer_orders(orders.store) is True
    assert generate_customer_orders(orders.store) is False
    staged_orders, staged_customers = orders.stage(), customers.stage()
    totals = ("records_read", "accepted", "duplicates", "rejected")
    assert [staged_orders.total(name) for name in totals] == [5080, 5000, 50, 30]
    assert [staged_customers.total(name) for name in totals] == [1019, 1000, 10, 9]
    assert customers.reasons() == {"age_out_of_range": 3, "name_missing": 3, "registration_date_invalid": 3}
    assert orders.reasons() == {"quantity_out_of_range": 10, "price_invalid": 10, "order_date_invalid": 10}
    for zone in (orders, customers):
        archive(zone.run(), zone.feed, datetime.now(UTC) + timedelta(days=1))
    assert generate_customer_orders(orders.store, seed=8) is False, "they are archived"
    assert train_segments(orders.run()) is True
    found = json.loads((Path(tmp_lake) / "results" / "model_results.json").read_text())
    assert found["accuracy"] > found["majority_baseline"] + 0.1
    assert found["seed"] == 7
    assert set(found["per_segment"]) == {"Premium", "Standard", "Basic"}
    assert train_segments(orders.run()) is False
    assert train_segments(orders.run(), seed=8) is True
