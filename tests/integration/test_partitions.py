"""Large facts by month in PostgreSQL: what is late or new touches its month and no other.

The sales of tests/shops.py, with a key that begins with their time, and limits so low that a few rows are many.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import jobs.warehouse.partitions as partitions_module
from jobs.errors import CheckFailed, UserAnalyticsError
from jobs.transforms.keys import time_ordered_id
from jobs.warehouse import postgres_publication
from jobs.warehouse.base import Load
from jobs.warehouse.declarations import tables
from jobs.warehouse.partitions import END, EPOCH, first_uuid, following, may_be_partitioned
from tests.shops import (
    EAST,
    NORTH,
    SALES,
    SOUTH,
    Shop,
    assert_same_after_every_kill,
    declare_shops,
    sale,
)
from tests.warehouses import arrow_rows, copy_without_spark, months_without_spark, time_key

pytestmark = [pytest.mark.spark, pytest.mark.integration]

Row = tuple[Any, ...]
JANUARY, FEBRUARY, MARCH = (datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3))
LAST_INSTANT = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
MONTHS = ["sales_2024_01", "sales_2024_02"]


def sold(at: datetime, number: int, shop: int = 1, amount: str = "1.00") -> Row:
    """A sale whose key begins with its time."""
    return (time_key(at, number), *sale(number, shop, amount, at=at)[1:])


def days(month: datetime, first: int, last: int, **more: Any) -> list[Row]:
    """A sale a day."""
    return [sold(month.replace(day=day, hour=12), day, **more) for day in range(first, last + 1)]


@pytest.fixture(autouse=True)
def small_limits(declare: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    partitioned = SALES.replace("sold_at TIMESTAMPTZ", "sold_at TIMESTAMPTZ NOT NULL").replace(
        "per sale';", "per sale'\nPARTITION BY DATE_TRUNC('MONTH', sold_at);"
    )
    declare_shops(declare, partitioned)
    monkeypatch.setattr(partitions_module, "PARTITIONED_FROM_ROWS", 10)
    monkeypatch.setattr(partitions_module, "REBUILT_FROM_ROWS", 3)
    monkeypatch.setattr(partitions_module, "rows_by_month", months_without_spark)
    monkeypatch.setattr(postgres_publication, "rows_by_month", months_without_spark)
    monkeypatch.setattr(postgres_publication, "copy_rows", copy_without_spark)
    monkeypatch.setattr(Shop, "frame", lambda _, name, rows, whole: arrow_rows(name, rows, whole))


@pytest.fixture
def shop(spark: SparkSession, warehouse_url: str) -> Shop:
    """January and February, ten sales each."""
    shop = Shop(spark, warehouse_url)
    first(shop)
    return shop


def first(shop: Shop) -> None:
    shop.whole(sales=[*days(JANUARY, 1, 10), *days(FEBRUARY, 1, 10)])


def change(
    shop: Shop,
    *sales: Row,
    gone: list[Row] | None = None,
    shops: list[Row] | None = None,
    merge: bool = False,
) -> None:
    """Publish sales that are new or changed or gone; shops: all of them, in a new table."""
    load = changed(shop, *sales, gone=gone, merge=merge)
    loads = [load] if shops is None else [shop.load("shops", shops, True, len(shops)), load]
    assert all(check.passed for check in shop.commit(*loads))


def changed(shop: Shop, *sales: Row, gone: list[Row] | None = None, merge: bool = False) -> Load:
    shop.version += 1
    there = dict(shop.query("SELECT sale_id::text, amount FROM sales"))
    there |= {row[0]: row[2] for row in sales}
    for row in gone or []:
        there.pop(row[0], None)
    rows = [*((*row, False) for row in sales), *((*row, True) for row in gone or [])]
    amount = str(sum(there.values())) if there else None
    return replace(shop.load("sales", rows, False, len(there), amount=amount), only_merge=merge)


def rows_in(shop: Shop) -> dict[str, int]:
    """Partition → its rows."""
    return dict(shop.query("SELECT tableoid::regclass::text, count(*) FROM sales GROUP BY 1"))


def files(shop: Shop) -> dict[str, tuple[int, int]]:
    """Table → what is another after it was made anew."""
    found = shop.query(
        "SELECT relname, oid, relfilenode FROM pg_class WHERE relnamespace = 'analytics'::regnamespace "
        "AND relkind IN ('r', 'p') AND relname LIKE 'sales%'"
    )
    return {name: (oid, file) for name, oid, file in found}


def made_anew(shop: Shop, before: dict[str, tuple[int, int]]) -> list[str]:
    return sorted(name for name, file in files(shop).items() if before.get(name) != file)


def test_the_first_publication_has_partitions_and_all_declared_keys(shop: Shop) -> None:
    assert rows_in(shop) == dict.fromkeys(MONTHS, 10)
    content = shop.content()
    assert content["partitions"] == [
        (
            "sales_2024_01",
            "FOR VALUES FROM ('018cc251-f400-0000-0000-000000000000') TO ('018d61f7-1800-0000-0000-000000000000')",
        ),
        (
            "sales_2024_02",
            "FOR VALUES FROM ('018d61f7-1800-0000-0000-000000000000') TO ('018df74f-8400-0000-0000-000000000000')",
        ),
        ("sales_other", "DEFAULT"),
    ]
    foreign = ("sales_shop_key_fkey", "f", "FOREIGN KEY (shop_key) REFERENCES shops(shop_key)")
    assert content["constraints"] == [
        *(
            (f"{name}_pkey", "p", "PRIMARY KEY (sale_id)")
            for name in [*MONTHS, "sales_other", "sales"]
            if name != "sales"
        ),
        ("sales_pkey", "p", "PRIMARY KEY (sale_id)"),
        *[foreign] * 4,
        ("shops_name_key", "u", "UNIQUE (name)"),
        ("shops_pkey", "p", "PRIMARY KEY (shop_key)"),
    ]
    assert shop.query(
        "SELECT bool_and(convalidated) FROM pg_constraint WHERE conrelid = 'sales'::regclass"
    ) == [(True,)]
    assert shop.query("SELECT obj_description('sales'::regclass)") == [("Sales. Grain: one row per sale",)]
    # The keys stand against what breaks them, in the right words.
    again = days(JANUARY, 1, 10)
    with pytest.raises(UserAnalyticsError, match="could not create unique index"):
        shop.whole(sales=[*again, again[0]])
    with pytest.raises(UserAnalyticsError, match=r"foreign key.*shop_key\)=\(9\)"):
        change(shop, sold(JANUARY, 20, shop=9))
    assert shop.content() == content


def test_a_small_table_has_no_partitions_until_it_is_loaded_whole_and_large(
    spark: SparkSession, warehouse_url: str
) -> None:
    shop = Shop(spark, warehouse_url)
    shop.whole(sales=days(JANUARY, 1, 9))
    change(shop, *days(JANUARY, 10, 20), *days(FEBRUARY, 1, 10))
    assert rows_in(shop) == {"sales": 30}
    assert not shop.warehouse.published()["sales"].by_month
    first(shop)
    assert rows_in(shop) == dict.fromkeys(MONTHS, 10)
    assert shop.warehouse.published()["sales"].by_month
    # And back, with nothing left of the partitions.
    shop.whole(sales=days(JANUARY, 1, 9))
    assert rows_in(shop) == {"sales": 9}
    assert list(files(shop)) == ["sales"]


def test_a_late_row_touches_its_month_only(shop: Shop) -> None:
    before = files(shop)
    february = "SELECT sale_id, xmin::text FROM sales_2024_02 ORDER BY 1"
    untouched = shop.query(february)
    change(shop, sold(JANUARY, 20), sold(JANUARY.replace(day=3, hour=12), 3, amount="5.00"))
    assert made_anew(shop, before) == []
    assert rows_in(shop) == {"sales_2024_01": 11, "sales_2024_02": 10}
    assert shop.query(february) == untouched
    assert shop.query("SELECT amount FROM total_view") == [(Decimal("25.0000"),)]


def test_a_month_that_is_new_is_attached(shop: Shop) -> None:
    before = files(shop)
    change(shop, *days(MARCH, 1, 2), sold(JANUARY, 20))
    assert made_anew(shop, before) == ["sales_2024_03"]
    assert rows_in(shop) == {"sales_2024_01": 11, "sales_2024_02": 10, "sales_2024_03": 2}
    # Nothing is checked twice: what stood for the bounds until they were there is gone.
    assert shop.query("SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid > 16384") == []


def test_a_month_mostly_changed_is_exchanged_and_the_others_stay(shop: Shop) -> None:
    before = files(shop)
    january = days(JANUARY, 1, 10)
    # Of January three of ten sales change, one goes, and two come; February has one late row.
    change(
        shop,
        *days(JANUARY, 1, 3, amount="3.00"),
        *days(JANUARY, 20, 21),
        sold(FEBRUARY, 20),
        gone=[january[9]],
    )
    assert made_anew(shop, before) == ["sales_2024_01"]
    assert rows_in(shop) == {"sales_2024_01": 11, "sales_2024_02": 11}
    expected = [*days(JANUARY, 1, 3, amount="3.00"), *days(JANUARY, 4, 9), *days(JANUARY, 20, 21)]
    assert shop.query("SELECT sale_id::text, amount FROM sales_2024_01 ORDER BY 1") == [
        (r[0], r[2]) for r in expected
    ]
    content = shop.content()
    assert [name for name, *_ in content["relations"] if "_new" in name or "_changes" in name] == []
    assert content["constraints"].count(("sales_2024_01_pkey", "p", "PRIMARY KEY (sale_id)")) == 1
    # Again, and then anew as a whole: no name stands in the way.
    change(shop, *days(JANUARY, 1, 5, amount="4.00"))
    assert made_anew(shop, before) == ["sales_2024_01"]
    first(shop)
    first(shop)
    assert rows_in(shop) == dict.fromkeys(MONTHS, 10)


def test_what_is_deleted_is_gone_from_merged_and_from_exchanged_months(shop: Shop) -> None:
    before = files(shop)
    january, february = days(JANUARY, 1, 10), days(FEBRUARY, 1, 10)
    # A sale of March came and went between two publications.
    change(shop, gone=[january[0], *february[2:], *days(MARCH, 1, 1)])
    assert rows_in(shop) == {"sales_2024_01": 9, "sales_2024_02": 2}
    assert made_anew(shop, before) == ["sales_2024_02", "sales_2024_03"]
    change(shop, gone=[*january[1:], *february[:2]])
    assert rows_in(shop) == {}


def test_merging_can_be_forced(shop: Shop) -> None:
    before = files(shop)
    change(shop, *days(JANUARY, 1, 10, amount="3.00"), sold(MARCH, 1), merge=True)
    # A month that was not there has nothing to be merged with.
    assert made_anew(shop, before) == ["sales_2024_03"]
    assert rows_in(shop) == {"sales_2024_01": 10, "sales_2024_02": 10, "sales_2024_03": 1}


def test_instants_without_a_month_of_their_own(spark: SparkSession, warehouse_url: str) -> None:
    shop = Shop(spark, warehouse_url)
    odd = [
        sold(datetime(1, 1, 1, tzinfo=UTC), 1),
        sold(datetime(1080, 6, 1, tzinfo=UTC), 1),
        sold(datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), 1),
        sold(LAST_INSTANT, 1),
    ]
    shop.whole(sales=[*odd[:2], *days(JANUARY, 1, 10)])
    assert rows_in(shop) == {"sales_2024_01": 10, "sales_other": 2}
    change(
        shop, *odd[2:], sold(datetime(1970, 1, 1, tzinfo=UTC), 1), sold(datetime(8919, 12, 31, tzinfo=UTC), 1)
    )
    assert rows_in(shop) == {"sales_1970_01": 1, "sales_2024_01": 10, "sales_8919_12": 1, "sales_other": 4}
    change(shop, (*odd[0][:2], Decimal("7.00"), *odd[0][3:]), gone=odd[1:])
    assert rows_in(shop) == {"sales_1970_01": 1, "sales_2024_01": 10, "sales_8919_12": 1, "sales_other": 1}


def test_more_months_than_a_server_has_locks_for(
    spark: SparkSession, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions_module, "MONTHS_AT_MOST", 2)
    shop = Shop(spark, warehouse_url)
    shop.whole(sales=[*days(JANUARY, 1, 10), *days(FEBRUARY, 1, 10), *days(MARCH, 1, 10)])
    assert rows_in(shop) == {"sales_2024_02": 10, "sales_2024_03": 10, "sales_other": 10}
    # Rows that are among the others stay there, also when there would be room for their month.
    change(shop, *days(JANUARY, 11, 15), *days(MARCH.replace(month=4), 1, 5))
    assert rows_in(shop)["sales_other"] == 20
    monkeypatch.setattr(partitions_module, "MONTHS_AT_MOST", 10)
    change(shop, *days(JANUARY, 16, 20), *days(MARCH.replace(month=5), 1, 5))
    assert rows_in(shop) == {"sales_2024_02": 10, "sales_2024_03": 10, "sales_2024_05": 5, "sales_other": 25}


def test_a_referenced_table_is_swapped_at_the_same_time(shop: Shop) -> None:
    before = files(shop)
    east = days(JANUARY, 1, 8, shop=3)
    change(shop, *east, sold(MARCH, 1, shop=3), shops=[NORTH, EAST])
    assert made_anew(shop, before) == ["sales_2024_01", "sales_2024_03"]
    assert shop.query("SELECT name, amount FROM shop_view ORDER BY 1") == [
        ("East", Decimal(9)),
        ("North", Decimal(12)),
    ]
    # What is left of the old month does not hold the shop that it named.
    sales = changed(shop, *days(JANUARY, 1, 8), gone=[sold(MARCH, 1)])
    shop.commit(shop.load("shops", [(*EAST, True), (*SOUTH, False)], False, 2), sales)
    assert shop.query("SELECT name, amount FROM shop_view") == [("North", Decimal(20))]
    keys = shop.content()["constraints"]
    assert keys.count(("sales_shop_key_fkey", "f", "FOREIGN KEY (shop_key) REFERENCES shops(shop_key)")) == 5


def test_a_new_column_reaches_months_old_and_new(shop: Shop, declare: Callable[..., None]) -> None:
    declare(
        "sales", lambda text: text.replace("  PRIMARY", "  voucher VARCHAR(20) COMMENT 'Code',\n  PRIMARY")
    )
    assert [column.name for column in tables()["sales"].columns][-1] == "voucher"
    load = changed(shop, *((*row, "V") for row in (*days(JANUARY, 1, 4), *days(MARCH, 1, 1))))
    with shop.warehouse.publishing() as publication:
        assert list(publication.new_columns([load])) == ["sales"]
    shop.commit(load)
    assert shop.query(
        "SELECT tableoid::regclass::text, count(*), count(voucher) FROM sales GROUP BY 1 ORDER BY 1"
    ) == [
        ("sales_2024_01", 10, 4),
        ("sales_2024_02", 10, 0),
        ("sales_2024_03", 1, 1),
    ]


def test_a_failing_check_leaves_the_months_as_they_were(shop: Shop) -> None:
    before, content = files(shop), shop.content()
    load = changed(shop, *days(JANUARY, 1, 8, amount="2.00"), sold(MARCH, 1))
    with pytest.raises(CheckFailed, match="row_count is 21, the mart has 22"):
        shop.commit(replace(load, expected={"row_count": 22}))
    assert (files(shop), shop.content()) == (before, content)


def test_readers_see_a_month_before_or_after_and_nothing_between(shop: Shop) -> None:
    ended, seen = threading.Event(), set()

    def read() -> None:
        while not ended.is_set():
            seen.update(shop.query("SELECT count(*), sum(amount) FROM sales"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(10):
            change(shop, *days(JANUARY, 1, 10, amount="1.00" if number % 2 else "3.00"))
    finally:
        ended.set()
        reader.join()
    assert seen == {(20, Decimal(20)), (20, Decimal(40))}


def test_grants_hold_and_partitions_are_nobodys(shop: Shop) -> None:
    role = f"reader_{shop.url.rsplit('_', 1)[1]}"
    shop.query(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA analytics TO {role}; GRANT SELECT ON sales TO {role}; "
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA analytics GRANT SELECT ON TABLES TO {role}"
    )
    try:
        change(shop, *days(JANUARY, 1, 8, amount="2.00"), sold(MARCH, 1))
        first(shop)
        assert shop.query(f"SET ROLE {role}; SELECT count(*) FROM sales") == [(20,)]
        readable = (
            "SELECT relname FROM pg_class WHERE relnamespace = 'analytics'::regnamespace AND relkind IN ('r', 'p') "
            f"AND has_table_privilege('{role}', oid, 'SELECT')"
        )
        assert shop.query(readable) == [("sales",)]
        # The default is for the table, when that is new.
        shop.query("DROP TABLE sales CASCADE")
        first(shop)
        assert shop.query(readable) == [("sales",)]
    finally:
        shop.query(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_what_others_added_stays(shop: Shop) -> None:
    # A view over all months hinders none of them from being made anew.
    shop.query("CREATE SCHEMA mine; CREATE VIEW mine.v AS SELECT sum(amount) FROM sales")
    before = files(shop)
    change(shop, *days(JANUARY, 1, 8, amount="2.00"))
    assert made_anew(shop, before) == ["sales_2024_01"]
    # But the table cannot be swapped below it.
    shop.whole(sales=[*days(JANUARY, 1, 4), *days(FEBRUARY, 5, 20), *days(MARCH, 1, 1)])
    assert made_anew(shop, before) == ["sales_2024_01"]
    assert rows_in(shop) == {"sales_2024_01": 4, "sales_2024_02": 16, "sales_other": 1}
    assert shop.query("SELECT * FROM mine.v") == [(Decimal(21),)]
    # A month that somebody indexed is merged, another one is not.
    shop.query("CREATE INDEX mine ON sales_2024_01 (amount)")
    before = files(shop)
    change(shop, *days(JANUARY, 1, 4, amount="2.00"), *days(FEBRUARY, 5, 20, amount="2.00"))
    assert made_anew(shop, before) == ["sales_2024_02"]
    assert rows_in(shop) == {"sales_2024_01": 4, "sales_2024_02": 16, "sales_other": 1}
    assert shop.query("SELECT * FROM mine.v") == [(Decimal(41),)]


def test_a_table_that_is_called_as_a_month_is_nobody_elses_to_drop(shop: Shop) -> None:
    shop.query("CREATE TABLE sales_2024_03 AS SELECT 'theirs' AS note")
    before = shop.content()
    with pytest.raises(UserAnalyticsError, match=r'relation "sales_2024_03" already exists'):
        change(shop, sold(MARCH, 1))
    assert shop.content() == before
    assert shop.query("SELECT * FROM sales_2024_03") == [("theirs",)]
    shop.query("ALTER TABLE sales_2024_03 RENAME TO mine")
    change(shop, sold(MARCH, 1))
    assert rows_in(shop)["sales_2024_03"] == 1


def test_checks_of_others_are_on_a_month_that_is_new(shop: Shop) -> None:
    shop.query(
        "ALTER TABLE sales ADD CONSTRAINT priced CHECK (amount < 100 AND note IS DISTINCT FROM '{%s}'); "
        "ALTER TABLE sales ADD CONSTRAINT later CHECK (amount <> 7) NOT VALID"
    )
    change(shop, sold(MARCH, 1))
    assert rows_in(shop) == {**dict.fromkeys(MONTHS, 10), "sales_2024_03": 1}
    checks = "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'sales_2024_03'::regclass"
    assert shop.query(checks + " ORDER BY 1") == [("later",), ("priced",)]


def test_what_would_be_done_is_told_and_not_done(shop: Shop) -> None:
    before = shop.content()
    plan = shop.warehouse.plan(changed(shop, *days(JANUARY, 1, 8), sold(MARCH, 1), sold(FEBRUARY, 20)))
    assert plan.strategy == "merge, 2024-01 made anew, 2024-03 made anew"
    text = "\n".join(plan.statements)
    for part in (
        "ON CONFLICT",
        'ATTACH PARTITION "analytics"."sales_2024_03" FOR VALUES FROM',
        "DELETE FROM",
    ):
        assert part in text
    whole = shop.load("sales", [*days(JANUARY, 1, 10), *days(MARCH, 1, 10)], True, 20)
    plan = shop.warehouse.plan(whole)
    assert plan.strategy == "new table by month, keyed after its rows, swapped in"
    assert 'PARTITION BY RANGE ("sale_id")' in plan.statements[0]
    assert shop.content() == before


# -- crashes -----------------------------------------------------------------------------------------------------------


def merged_and_exchanged(shop: Shop) -> None:
    """January is mostly changed, February has a late row, March is new, and South's place takes East."""
    shop.version = 2
    kept = [*days(JANUARY, 9, 10), *days(FEBRUARY, 1, 10)]
    sales = [*days(JANUARY, 1, 7, shop=3, amount="2.00"), sold(FEBRUARY, 20), *days(MARCH, 1, 2)]
    rows = [*((*row, False) for row in sales), (*days(JANUARY, 8, 8)[0], True)]
    amount = str(sum(row[2] for row in [*kept, *sales]))
    shop.commit(
        shop.load("shops", [(*SOUTH, True), (*EAST, False)], False, 2),
        shop.load("sales", rows, False, len(kept) + len(sales), amount=amount),
    )


def anew(shop: Shop) -> None:
    shop.version = 1
    shop.whole(shops=[NORTH, EAST], sales=[*days(FEBRUARY, 1, 10, shop=3), *days(MARCH, 1, 10)])


@pytest.mark.parametrize("publication", [first, merged_and_exchanged, anew])
def test_killed_after_any_statement_and_run_again(
    spark: SparkSession, warehouse_url: str, publication: Callable[[Shop], None]
) -> None:
    before = None if publication is first else first
    assert assert_same_after_every_kill(spark, warehouse_url, publication, before) > 40


# -- months and keys ---------------------------------------------------------------------------------------------------


def test_which_tables_may_have_partitions(declare: Callable[..., None]) -> None:
    assert {name for name, table in tables().items() if may_be_partitioned(table)} == {
        "fact_user_actions",
        "user_purchase",
        "sales",
    }


def test_the_keys_of_a_month_are_between_its_bounds(spark: SparkSession) -> None:
    def keys(at: datetime) -> set[str]:
        rows = spark.createDataFrame([(at, 0, 0), (at, -1, -1)], "at timestamp, hi long, lo long")
        key = time_ordered_id(F.col("at"), F.col("hi"), F.col("lo"))
        return {row.key for row in rows.select(key.alias("key")).collect()}

    for month in (EPOCH, date(2024, 2, 1), date(2023, 12, 1), date(8919, 12, 1)):
        begin = datetime(month.year, month.month, 1, tzinfo=UTC)
        after = following(month)
        end = datetime(after.year, after.month, 1, tzinfo=UTC) - timedelta(microseconds=1)
        for key in keys(begin) | keys(end):
            assert first_uuid(month) <= key < first_uuid(after)
    for at in (datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), LAST_INSTANT):
        assert all(key >= first_uuid(END) for key in keys(at))
