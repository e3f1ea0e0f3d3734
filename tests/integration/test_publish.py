"""Publication to PostgreSQL: declared keys, faithful values, changes only, and all of it or nothing.

These tests hand rows straight to the warehouse, without a lake, over three small declarations: shops, their sales, and
a view. tests/integration/test_publish_lake.py is about what is new in a lake.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from pyspark.sql import SparkSession

from jobs.errors import CheckFailed, TableLocked, UserAnalyticsError
from jobs.warehouse import postgres_connection, postgres_publication
from jobs.warehouse.base import Load, Published
from jobs.warehouse.declarations import tables
from jobs.warehouse.postgres import PostgresWarehouse
from tests.shops import (
    EAST,
    NORTH,
    SOUTH,
    FusedModule,
    Shop,
    assert_same_after_every_kill,
    declare_shops,
    sale,
    sale_id,
)
from tests.warehouses import arrow_rows, copy_without_spark

pytestmark = [pytest.mark.spark, pytest.mark.integration]


@pytest.fixture(autouse=True)
def shop_declarations(declare: Callable[..., None]) -> Callable[..., None]:
    declare_shops(declare)
    return declare


@pytest.fixture
def shop(spark: SparkSession, warehouse_url: str) -> Shop:
    return Shop(spark, warehouse_url)


@pytest.fixture(params=[10_000, 2, -1], ids=["few rows", "few rows, many changes", "many rows"])
def few_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are copied by this process, others by Spark's tasks."""
    monkeypatch.setattr("jobs.spark.FEW_ROWS", request.param)


def test_first_publication_makes_what_is_declared(shop: Shop) -> None:
    checks = shop.whole(sales=[sale(1, 1, "10.50"), sale(2, 2, "0.25")])
    assert {(c.table, c.name, c.found) for c in checks} == {
        ("shops", "row_count", "2"),
        ("shops", "enforced keys", "2"),
        ("sales", "row_count", "2"),
        ("sales", "sum(amount)", "10.75"),
        ("sales", "enforced keys", "2"),
    }
    assert all(check.passed for check in checks)
    assert shop.content()["constraints"] == [
        ("sales_pkey", "p", "PRIMARY KEY (sale_id)"),
        ("sales_shop_key_fkey", "f", "FOREIGN KEY (shop_key) REFERENCES shops(shop_key)"),
        ("shops_name_key", "u", "UNIQUE (name)"),
        ("shops_pkey", "p", "PRIMARY KEY (shop_key)"),
    ]
    # Tables, their indexes and views; nothing else is left behind, and no table may be lost in a crash.
    assert shop.content()["relations"] == [
        ("_published", "r", "p"),
        ("_published_pkey", "i", "p"),
        ("sales", "r", "p"),
        ("sales_pkey", "i", "p"),
        ("shop_view", "v", "p"),
        ("shops", "r", "p"),
        ("shops_name_key", "i", "p"),
        ("shops_pkey", "i", "p"),
        ("total_view", "v", "p"),
    ]
    assert shop.query(
        "SELECT column_name, data_type, is_nullable, col_description('sales'::regclass, ordinal_position) "
        "FROM information_schema.columns WHERE table_name = 'sales' ORDER BY ordinal_position"
    ) == [
        ("sale_id", "uuid", "NO", "Key of the sale"),
        ("shop_key", "bigint", "NO", "Where"),
        ("amount", "numeric", "YES", "How much"),
        ("note", "character varying", "YES", "Free text"),
        ("sold_at", "timestamp with time zone", "YES", "When"),
        ("is_return", "boolean", "YES", "Brought back"),
        ("ratio", "double precision", "YES", "A number"),
    ]
    assert shop.query(
        "SELECT obj_description('shops'::regclass), obj_description('shop_view'::regclass)"
    ) == [("Shops. Grain: one row per shop", "Grain: one row per shop with sales.")]
    assert shop.query("SELECT * FROM shop_view ORDER BY name") == [
        ("North", Decimal("10.5000")),
        ("South", Decimal("0.2500")),
    ]


NOTES = [
    None,
    "",
    " ",
    "NULL",
    "\\N",
    "\\.",
    "a\n\\.\nb",
    'say "hi", she said',
    '"',
    "back\\slash \\t \\n",
    "comma, semicolon; tab\t.",
    "line\nbreak\r\nand\rreturn",
    "don't; DROP TABLE sales; --",
    "München 東京 Ελλάδα עברית",
    "👩‍👩‍👧 𝄞 \U0010fffd",
    "\u0001\u007f\u0085\u2028\ufeff",
    "e\u0301 is not \u00e9",
]


@pytest.mark.usefixtures("few_rows")
def test_values_arrive_as_they_are(shop: Shop) -> None:
    sales = [sale(n, 1, None, note) for n, note in enumerate(NOTES)]
    # The whole of Unicode except NUL and the surrogates, which are no characters.
    points = [c for c in range(1, 0x110000) if not 0xD800 <= c <= 0xDFFF]
    pieces = ["".join(map(chr, points[i : i + 997])) for i in range(0, len(points), 997)]
    sales += [sale(100 + n, 1, None, piece) for n, piece in enumerate(pieces)]
    amounts = ["0.0001", "-0.0001", "99999999999999.9999", "-99999999999999.9999", "1.10", "0"]
    sales += [sale(5000 + n, 1, amount, is_return=True) for n, amount in enumerate(amounts)]
    times = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2024, 3, 10, 7, 30, 0, 1, tzinfo=UTC),  # New York's lost hour
        datetime(2024, 11, 3, 6, 30, 0, 123456, tzinfo=UTC),  # and its doubled one
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ]
    sales += [sale(6000 + n, 1, None, at=at) for n, at in enumerate(times)]
    ratios = [0.1, -0.0, 1e300, 5e-324, float("inf"), float("-inf"), 2 / 3]
    sales += [sale(7000 + n, 1, None, ratio=ratio) for n, ratio in enumerate(ratios)]
    shop.whole(sales=sales)

    def found(column: str, first: int, count: int) -> list[Any]:
        rows = shop.query(
            f"SELECT {column} FROM sales WHERE sale_id BETWEEN %s AND %s ORDER BY sale_id",
            sale_id(first),
            sale_id(first + count - 1),
        )
        return [value for (value,) in rows]

    assert found("note", 0, len(NOTES)) == NOTES
    assert found("note", 100, len(pieces)) == pieces
    assert [str(v) for v in found("amount", 5000, 6)] == [f"{Decimal(a):.4f}" for a in amounts]
    assert found("is_return", 5000, 1) == [True]
    assert found("sold_at AT TIME ZONE 'UTC'", 6000, 5) == [at.replace(tzinfo=None) for at in times]
    assert [repr(v) for v in found("ratio", 7000, 7)] == [repr(r) for r in ratios]


@pytest.mark.usefixtures("few_rows")
def test_nul_is_refused_by_name_and_nothing_is_left_behind(shop: Shop) -> None:
    with pytest.raises(UserAnalyticsError, match=r"sales: column note: PostgreSQL cannot store .* NUL"):
        shop.whole(sales=[sale(1, 1, "1", "fine"), sale(2, 1, "1", "a\0b")])
    assert shop.content()["relations"] == [("_published", "r", "p"), ("_published_pkey", "i", "p")]


@pytest.mark.usefixtures("few_rows")
def test_changes_are_merged(shop: Shop) -> None:
    shop.whole(sales=[sale(1, 1, "10.50"), sale(2, 2, "0.25")])
    before = shop.query("SELECT 'shops'::regclass::oid, 'sales'::regclass::oid, 'shop_view'::regclass::oid")
    untouched = shop.query("SELECT xmin::text FROM shops WHERE name = 'North'")
    assert all(check.passed for check in shop.commit(*shop.changes()))
    assert shop.query("SELECT shop_key, name FROM shops ORDER BY 1") == [NORTH, EAST]
    assert shop.query("SELECT sale_id::text, amount FROM sales ORDER BY 1") == [
        (sale_id(1), Decimal("11.0000")),
        (sale_id(3), Decimal("5.2500")),
    ]
    assert shop.query("SELECT amount FROM total_view") == [(Decimal("16.2500"),)]
    assert shop.query("SELECT table_name, delta_version FROM _published ORDER BY 1") == [
        ("sales", 2),
        ("shops", 2),
    ]
    # The same tables, and a row that did not change was not written.
    assert (
        shop.query("SELECT 'shops'::regclass::oid, 'sales'::regclass::oid, 'shop_view'::regclass::oid")
        == before
    )
    assert shop.query("SELECT xmin::text FROM shops WHERE name = 'North'") == untouched


@pytest.mark.parametrize("whole", [True, False])
def test_a_failing_check_rolls_everything_back(shop: Shop, whole: bool) -> None:
    shop.whole(sales=[sale(1, 1, "10.50")])
    before = shop.content()
    seen_meanwhile: list[Any] = []
    shop.version += 1
    new, flag = [sale(1, 1, "10.50"), sale(2, 2, "0.25")], () if whole else (False,)
    loads = [
        shop.load("shops", [(*row, *flag) for row in (NORTH, SOUTH, EAST)], whole, 3),
        shop.load("sales", [(*row, *flag) for row in new], whole, 2, amount="10.76"),
    ]

    def look(publication: Any, cursor: Any, load: Load, original: Any = _checks) -> Any:
        # A reader that asks just before the end, and does not want to wait for locks on what is being swapped.
        if not whole:
            seen_meanwhile.append(shop.query("SELECT count(*) FROM sales"))
        return original(publication, cursor, load)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_publication.PostgresPublication, "_checks", look)
        with pytest.raises(CheckFailed, match=r"sales: sum\(amount\) is 10.75, the mart has 10.76"):
            shop.commit(*loads)
    assert shop.content() == before
    assert set(map(str, seen_meanwhile)) <= {"[(1,)]"}


_checks = postgres_publication.PostgresPublication._checks


def test_rows_that_break_a_key_are_refused_in_one_line(shop: Shop) -> None:
    shop.whole(sales=[sale(1, 1, "10.50")])
    before = shop.content()
    with pytest.raises(
        UserAnalyticsError, match=r"publish: PostgreSQL: .*foreign key.*shop_key\)=\(9\)"
    ) as caught:
        shop.whole(sales=[sale(1, 9, "10.50")])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserAnalyticsError, match=r"could not create unique index.*\(North\) is duplicated"):
        shop.whole(shops=[NORTH, (2, "North")])
    assert shop.content() == before


@pytest.mark.usefixtures("without_spark")
def test_only_declared_keys_are_counted(shop: Shop) -> None:
    first(shop)
    shop.query("ALTER TABLE shops ADD CONSTRAINT mine UNIQUE (name, shop_key)")
    second(shop)
    shop.query("ALTER TABLE shops DROP CONSTRAINT shops_name_key")
    with pytest.raises(CheckFailed, match="shops: enforced keys is 1, the mart has 2"):
        second(shop)


# -- crashes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def without_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash test publishes some hundred times."""
    monkeypatch.setattr(postgres_publication, "copy_rows", copy_without_spark)
    monkeypatch.setattr(Shop, "frame", lambda _, name, rows, whole: arrow_rows(name, rows, whole))


def first(shop: Shop) -> None:
    shop.whole(sales=[sale(1, 1, "10.50"), sale(2, 2, "0.25")])


def second(shop: Shop) -> None:
    shop.version = 1
    shop.commit(*shop.changes())


def anew(shop: Shop) -> None:
    shop.version = 1
    shop.whole(shops=[NORTH, EAST], sales=[sale(4, 3, "1.00"), sale(5, 3, "2.00")])


def first_with_a_view(shop: Shop) -> None:
    first(shop)
    shop.query("CREATE VIEW old_view AS SELECT * FROM shops")


@pytest.mark.usefixtures("without_spark")
@pytest.mark.parametrize(
    ("before", "publication"), [(None, first), (first, second), (first, anew), (first_with_a_view, anew)]
)
def test_killed_after_any_statement_and_run_again(
    spark: SparkSession,
    warehouse_url: str,
    before: Callable[[Shop], None] | None,
    publication: Callable[[Shop], None],
) -> None:
    assert assert_same_after_every_kill(spark, warehouse_url, publication, before) > 40


@pytest.mark.usefixtures("without_spark")
def test_a_connection_that_breaks_ends_in_one_line(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first(shop)
    before = shop.content()

    def break_connection(publication: Any, *_: Any) -> None:
        shop.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'user-analytics' "
            "AND pid <> pg_backend_pid() AND datname = current_database()"
        )

    with monkeypatch.context() as patch:
        patch.setattr(postgres_publication.PostgresPublication, "_create_views", break_connection)
        with pytest.raises(
            UserAnalyticsError, match=r"PostgreSQL: (terminating|server closed the) connection"
        ) as caught:
            second(shop)
    assert "\n" not in str(caught.value)
    assert {k: v for k, v in shop.content().items() if k != "relations"} == {
        k: v for k, v in before.items() if k != "relations"
    }
    second(shop)
    assert shop.query("SELECT amount FROM total_view") == [(Decimal("16.2500"),)]


@pytest.mark.usefixtures("without_spark")
def test_a_commit_whose_answer_is_lost_is_not_done_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first(shop)

    class Connection(psycopg2.extensions.connection):
        def commit(self) -> None:
            super().commit()
            if shop.query("SELECT delta_version FROM _published WHERE table_name = 'sales'") == [(2,)]:
                raise psycopg2.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        connect = functools.partial(psycopg2.connect, connection_factory=Connection)
        patch.setattr(postgres_connection, "psycopg2", FusedModule(connect))
        with pytest.raises(UserAnalyticsError, match="server closed the connection"):
            second(shop)
    # The next publication sees that all is there.
    assert shop.warehouse.published()["sales"] == Published("table-sales", 2)
    assert shop.query("SELECT amount FROM total_view") == [(Decimal("16.2500"),)]
    assert not [name for name, *_ in shop.content()["relations"] if name.startswith("_changes")]


@pytest.mark.usefixtures("without_spark")
def test_a_second_publisher_waits_for_the_first(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first(shop)
    entered: list[str] = []
    waits = threading.Event()

    def publish_too() -> None:
        with shop.warehouse.publishing() as publication:
            entered.append(f"second sees version {publication.published['sales'].version}")

    monkeypatch.setattr(postgres_publication.log, "info", lambda text, *_: "waiting" in text and waits.set())
    with shop.warehouse.publishing() as publication:
        other = threading.Thread(target=publish_too)
        other.start()
        assert waits.wait(20), "the second publisher did not wait"
        shop.version = 1
        entered.append("first publishes version 2")
        publication.commit(shop.changes(), [])
    other.join(20)
    assert entered == ["first publishes version 2", "second sees version 2"]


def test_a_second_publisher_waits_no_longer_than_it_may(shop: Shop) -> None:
    impatient = PostgresWarehouse(shop.url, shop.schema, lock_wait_seconds=0.01)
    with (
        shop.warehouse.publishing(),
        pytest.raises(TableLocked, match=r"another publication to analytics .*LOCK_WAIT_SECONDS"),
        impatient.publishing(),
    ):
        pass
    with impatient.publishing() as publication:
        assert publication.published == {}


@pytest.mark.usefixtures("without_spark")
def test_a_limit_ends_the_wait_for_a_reader_and_leaves_everything_as_it_was(shop: Shop) -> None:
    first(shop)
    before = shop.content()
    reader = psycopg2.connect(shop.url)
    with closing(reader), reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM analytics.sales")
        limited = PostgresWarehouse(shop.url + "?options=-c%20lock_timeout%3D200", shop.schema)
        unlimited, shop.warehouse = shop.warehouse, limited
        with pytest.raises(
            UserAnalyticsError, match="publish: PostgreSQL: canceling statement due to lock timeout"
        ):
            anew(shop)
        assert shop.content() == before
    shop.warehouse = unlimited
    anew(shop)


# -- views, grants, columns --------------------------------------------------------------------------------------------


@pytest.fixture
def dashboard(shop: Shop) -> Iterator[str]:
    """A role for dashboards that may read the two views and nothing else."""
    role = f"dashboard_{shop.url.rsplit('_', 1)[1]}"
    first(shop)
    shop.query(f"CREATE ROLE {role}")
    shop.query(f"GRANT USAGE ON SCHEMA analytics TO {role}")
    shop.query(f"GRANT SELECT ON shop_view, total_view TO {role}")
    yield role
    shop.query(f"DROP OWNED BY {role}")
    shop.query(f"DROP ROLE {role}")


def may_read(shop: Shop, role: str) -> list[str]:
    rows = shop.query(
        "SELECT relname FROM pg_class WHERE relnamespace = 'analytics'::regnamespace AND relkind IN ('r', 'v') "
        "AND has_table_privilege(%s, oid, 'SELECT') ORDER BY 1",
        role,
    )
    return [name for (name,) in rows]


@pytest.mark.usefixtures("without_spark")
def test_grants_survive_every_kind_of_publication(
    shop: Shop, dashboard: str, shop_declarations: Callable[..., None]
) -> None:
    assert may_read(shop, dashboard) == ["shop_view", "total_view"]
    second(shop)
    assert may_read(shop, dashboard) == ["shop_view", "total_view"]
    anew(shop)
    assert may_read(shop, dashboard) == ["shop_view", "total_view"]
    # A view with other columns cannot be replaced: it, and the one on top of it, are made anew.
    shop_declarations("shop_view", lambda text: text.replace("AS name,", "AS shop_name,"), folder="views")
    shop.commit(shop.load("shops", [(*NORTH, False)], False, 2))
    assert shop.warehouse.query("shop_view", 1)[0] == ["shop_name", "amount"]
    assert may_read(shop, dashboard) == ["shop_view", "total_view"]
    # A grant on a table holds when the table is swapped.
    shop.query(f"GRANT SELECT ON shops TO {dashboard}")
    anew(shop)
    assert may_read(shop, dashboard) == ["shop_view", "shops", "total_view"]
    assert shop.query(f"SET ROLE {dashboard}; SELECT count(*) FROM total_view") == [(1,)]


@pytest.mark.usefixtures("without_spark")
@pytest.mark.parametrize("publication", [second, anew])
def test_rights_are_exactly_those_of_before(
    shop: Shop,
    dashboard: str,
    shop_declarations: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    publication: Callable[[Shop], None],
) -> None:
    rights = (
        "SELECT grantee, table_name, column_name, privilege_type, is_grantable "
        "FROM information_schema.column_privileges "
        "WHERE table_schema = 'analytics' AND grantee <> grantor ORDER BY 1, 2, 3, 4"
    )
    during: list[str] = []

    def look(*arguments: Any, original: Any = postgres_publication.PostgresPublication._switch) -> Any:
        during.extend(may_read(shop, dashboard))
        return original(*arguments)

    monkeypatch.setattr(postgres_publication.PostgresPublication, "_switch", look)
    # What is made from now on is for the dashboard; of what is there, single columns of one table and a view are.
    shop.query(
        f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {dashboard}, PUBLIC; "
        f"GRANT SELECT (shop_key), UPDATE (name, shop_key) ON shops TO {dashboard} WITH GRANT OPTION; "
        f"REVOKE ALL ON shop_view FROM {dashboard}"
    )
    before = shop.query(rights)
    shop_declarations("shop_view", lambda text: text.replace("AS name,", "AS shop_name,"), folder="views")
    publication(shop)
    assert shop.query(rights) == before
    # Nor were the rows to be read on their way.
    assert during == may_read(shop, dashboard) == ["total_view"]


@pytest.mark.usefixtures("without_spark")
def test_default_privileges_are_for_tables_and_views_that_are_new(shop: Shop, dashboard: str) -> None:
    shop.query("DROP VIEW total_view; DROP TABLE sales CASCADE")
    shop.query(f"ALTER DEFAULT PRIVILEGES IN SCHEMA analytics GRANT SELECT ON TABLES TO {dashboard}")
    anew(shop)
    assert may_read(shop, dashboard) == ["sales", "shop_view", "total_view"]


@pytest.mark.usefixtures("without_spark")
def test_options_of_views_survive_every_kind_of_publication(
    shop: Shop, shop_declarations: Callable[..., None]
) -> None:
    options = (
        "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'analytics'::regnamespace "
        "AND relkind = 'v' AND reloptions IS NOT NULL ORDER BY 1"
    )
    first(shop)
    # security_invoker, by which row-level security counts for who reads a view, is PostgreSQL's since 15.
    ((version,),) = shop.query("SELECT current_setting('server_version_num')::int")
    more = ", security_invoker = on" if version >= 150_000 else ""
    shop.query(
        f"ALTER VIEW shop_view SET (security_barrier{more}); ALTER VIEW total_view SET (security_barrier = off)"
    )
    before = shop.query(options)
    assert [name for name, _ in before] == ["shop_view", "total_view"]
    second(shop)
    assert shop.query(options) == before
    anew(shop)
    assert shop.query(options) == before
    shop_declarations("shop_view", lambda text: text.replace("AS name,", "AS shop_name,"), folder="views")
    shop.commit(shop.load("shops", [(*NORTH, False)], False, 2))
    assert shop.query(options) == before


# What others add to a table, and how it is seen that it is still there, after shops are North and East.
ADDITIONS = {
    "view of theirs": (
        "CREATE VIEW mine.v AS SELECT * FROM shops",
        "SELECT name FROM mine.v ORDER BY 1",
        [("East",), ("North",)],
    ),
    "view of an earlier release": (
        "CREATE VIEW old_view AS SELECT name FROM shops",
        "SELECT name FROM old_view ORDER BY 1",
        [("East",), ("North",)],
    ),
    "materialized view": (
        "CREATE MATERIALIZED VIEW mine.m AS SELECT * FROM shops",
        "REFRESH MATERIALIZED VIEW mine.m; SELECT name FROM mine.m ORDER BY 1",
        [("East",), ("North",)],
    ),
    "foreign key": (
        "CREATE TABLE mine.t (k bigint REFERENCES shops ON DELETE CASCADE); INSERT INTO mine.t VALUES (1)",
        "SELECT k FROM mine.t",
        [(1,)],
    ),
    "function over rows": (
        "CREATE FUNCTION mine.f(shops) RETURNS text LANGUAGE sql AS 'SELECT $1.name'",
        "SELECT mine.f(shops) FROM shops ORDER BY 1",
        [("East",), ("North",)],
    ),
    "row-level security": (
        "ALTER TABLE shops ENABLE ROW LEVEL SECURITY",
        "SELECT relrowsecurity FROM pg_class WHERE relname = 'shops'",
        [(True,)],
    ),
    "policy": (
        "CREATE POLICY p ON shops FOR SELECT USING (name = 'North')",
        "SELECT policyname FROM pg_policies",
        [("p",)],
    ),
    "trigger": (
        "CREATE FUNCTION mine.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
        "CREATE TRIGGER t BEFORE INSERT ON shops FOR EACH ROW EXECUTE FUNCTION mine.f()",
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
        [("t",)],
    ),
    "index": (
        "CREATE INDEX upper_name ON shops (upper(name))",
        "SELECT indexname FROM pg_indexes WHERE indexname = 'upper_name'",
        [("upper_name",)],
    ),
    "statistics": (
        "CREATE STATISTICS mine.s ON shop_key, name FROM shops",
        "SELECT stxname FROM pg_statistic_ext",
        [("s",)],
    ),
    "check": (
        "ALTER TABLE shops ADD CONSTRAINT positive CHECK (shop_key > 0)",
        "SELECT conname FROM pg_constraint WHERE conname = 'positive'",
        [("positive",)],
    ),
    "parent": (
        "CREATE TABLE mine.all_shops (shop_key bigint NOT NULL, name varchar(100) NOT NULL); "
        "ALTER TABLE shops INHERIT mine.all_shops",
        "SELECT name FROM mine.all_shops ORDER BY 1",
        [("East",), ("North",)],
    ),
    "publication": (
        "CREATE PUBLICATION mine FOR TABLE shops",
        "SELECT tablename FROM pg_publication_tables",
        [("shops",)],
    ),
}


@pytest.mark.usefixtures("without_spark")
@pytest.mark.parametrize("addition", list(ADDITIONS))
def test_what_others_added_to_a_table_outlasts_a_whole_load(
    shop: Shop, addition: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, ask, found = ADDITIONS[addition]
    first(shop)
    tables_of = "SELECT 'shops'::regclass::oid, 'sales'::regclass::oid"
    ((shops, sales),) = shop.query(tables_of)
    anew(shop)
    wanted = shop.content()
    assert shop.query(tables_of) != [(shops, sales)]

    first(shop)
    shop.query("CREATE SCHEMA mine; " + make)
    ((shops, sales),) = shop.query(tables_of)
    with shop.warehouse.publishing() as publication:
        plan = publication.plan(shop.load("shops", [NORTH, EAST], True, 2))
    assert plan.strategy.startswith("new table, its rows moved, for the sake of ")
    with caplog.at_level("INFO"):
        anew(shop)
    assert [m for m in caplog.messages if "replaced, not the table" in m] == [
        f"publish shops: its rows are replaced, not the table, which takes longer: it has "
        f"{plan.strategy.removeprefix('new table, its rows moved, for the sake of ')}"
    ]
    # This table stayed, and not the other; the rows, keys and views are the same as ever.
    assert shop.query("SELECT 'shops'::regclass::oid, 'sales'::regclass::oid <> %s", sales) == [(shops, True)]
    content = shop.content()
    for part in ("shops", "sales", "shop_view", "total_view", "published"):
        assert content[part] == wanted[part]
    assert set(wanted["constraints"]) <= set(content["constraints"])
    assert not [name for name, *_ in content["relations"] if name.startswith(("_new", "_old"))]
    assert shop.query(ask) == found


@pytest.mark.usefixtures("without_spark")
def test_a_table_that_has_additions_and_other_columns_stops_with_what_to_do(
    shop: Shop, shop_declarations: Callable[..., None]
) -> None:
    first(shop)
    shop.query("CREATE SCHEMA mine; CREATE VIEW mine.v AS SELECT * FROM shops")
    before = shop.content()
    shop_declarations("shops", lambda text: text.replace("name VARCHAR(100)", "name VARCHAR(50)"))
    with pytest.raises(
        UserAnalyticsError, match=r"shops: column name is .*view mine\.v\. Remove them, publish"
    ):
        anew(shop)
    assert shop.content() == before
    shop.query("DROP VIEW mine.v")
    anew(shop)


@pytest.mark.usefixtures("without_spark")
@pytest.mark.parametrize(
    "change",
    [
        "RENAME CONSTRAINT sales_pkey TO mine",
        "DROP CONSTRAINT sales_pkey",
        "DROP CONSTRAINT sales_pkey, ADD UNIQUE (sale_id), ADD CONSTRAINT sales_pkey CHECK (shop_key > 0)",
    ],
)
def test_a_key_that_was_changed_by_hand_is_put_right_as_documented(shop: Shop, change: str) -> None:
    first(shop)
    shop.query(f"ALTER TABLE sales {change}")
    advice = r"publish sales: key sales_pkey is missing\. .* delete its row in analytics\._published and publish again"
    with pytest.raises(UserAnalyticsError, match=advice):
        second(shop)
    # The constraints that are not declared keep the table in its place, and so what to do is another thing.
    if "CHECK" in change:
        with pytest.raises(UserAnalyticsError, match=r"key sales_pkey is missing.* Remove them, publish"):
            anew(shop)
        shop.query("ALTER TABLE sales DROP CONSTRAINT sales_pkey, DROP CONSTRAINT sales_sale_id_key")
    anew(shop)
    constraints = shop.content()["constraints"]
    assert [name for name, *_ in constraints if name.startswith("sales")] == [
        "sales_pkey",
        "sales_shop_key_fkey",
    ]


@pytest.mark.usefixtures("without_spark")
def test_a_table_that_was_renamed_is_in_the_way_until_it_is_moved(shop: Shop) -> None:
    first(shop)
    shop.query("ALTER TABLE sales RENAME TO backup")
    with pytest.raises(UserAnalyticsError, match=r'"sales_pkey" already exists\. .*SET SCHEMA'):
        first(shop)
    shop.query("CREATE SCHEMA mine; ALTER TABLE backup SET SCHEMA mine")
    first(shop)
    assert (
        shop.query("SELECT count(*) FROM mine.backup") == shop.query("SELECT count(*) FROM sales") == [(2,)]
    )


@pytest.mark.usefixtures("without_spark")
def test_a_table_of_another_program_is_not_replaced(shop: Shop) -> None:
    shop.query("CREATE SCHEMA analytics")
    shop.query(
        "CREATE TABLE shops (shop_key bigint PRIMARY KEY, name text); INSERT INTO shops VALUES (7, 'Theirs')"
    )
    load = shop.load("shops", [NORTH], True, 1)
    with (
        pytest.raises(
            UserAnalyticsError, match=r"publish shops: schema analytics has a table of that name which no"
        ),
        shop.warehouse.publishing() as publication,
    ):
        publication.new_columns([load])
    assert shop.query("SELECT * FROM shops") == [(7, "Theirs")]
    # One of the program's own is, when its row was deleted to have it made anew, whatever became of it.
    shop.query("DROP TABLE shops")
    first(shop)
    shop.query(
        "DELETE FROM _published; COMMENT ON TABLE shops IS 'mine'; ALTER TABLE shops DROP COLUMN name CASCADE"
    )
    with shop.warehouse.publishing() as publication:
        assert publication.new_columns([load]) == {}
    anew(shop)


@pytest.mark.usefixtures("without_spark")
def test_a_view_may_hold_percent_signs(shop: Shop, shop_declarations: Callable[..., None]) -> None:
    shop_declarations(
        "total_view", lambda _: "SELECT SUM(amount) % 4 AS amount FROM shop_view\n", folder="views"
    )
    first(shop)
    assert shop.query("SELECT amount FROM total_view") == [(Decimal("2.7500"),)]


@pytest.mark.usefixtures("without_spark")
def test_a_new_column_is_added_in_place(shop: Shop, shop_declarations: Callable[..., None]) -> None:
    first(shop)
    oid = shop.query("SELECT 'shops'::regclass::oid")
    shop_declarations(
        "shops",
        lambda text: text.replace("  PRIMARY KEY", "  city VARCHAR(50) COMMENT 'Place',\n  PRIMARY KEY"),
    )
    shop.version = 2
    load = shop.load("shops", [(3, "East", "Lyon", False)], False, 3)
    with shop.warehouse.publishing() as publication:
        assert publication.new_columns([load]) == {"shops": [tables()["shops"].columns[2]]}
    shop.commit(load)
    with shop.warehouse.publishing() as publication:
        assert publication.new_columns([load]) == {}
    assert shop.query("SELECT * FROM shops ORDER BY 1") == [(*NORTH, None), (*SOUTH, None), (*EAST, "Lyon")]
    assert shop.query("SELECT col_description('shops'::regclass, 3)") == [("Place",)]
    assert shop.query("SELECT 'shops'::regclass::oid") == oid


@pytest.mark.usefixtures("without_spark")
def test_comments_follow_their_declaration(shop: Shop, shop_declarations: Callable[..., None]) -> None:
    first(shop)
    comments = (
        "SELECT obj_description('shops'::regclass), col_description('shops'::regclass, 1), "
        "col_description('shops'::regclass, 2)"
    )
    key, name = "Key of the shop", "The shop's name"
    assert shop.query(comments) == [("Shops. Grain: one row per shop", key, name)]
    written = (
        "SELECT objsubid, xmin::text FROM pg_description WHERE objoid = 'shops'::regclass AND objsubid = 1"
    )
    before = shop.query(written)
    shop_declarations(
        "shops", lambda text: text.replace("name'", "name (personal)'").replace("'Shops.", "'Our shops.")
    )
    second(shop)
    assert shop.query(comments) == [("Our shops. Grain: one row per shop", key, f"{name} (personal)")]
    # One that is as it was is not written.
    assert shop.query(written) == before


@pytest.mark.usefixtures("without_spark")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "name VARCHAR(100)",
            "name VARCHAR(50)",
            r"name is character varying\(100\) NOT NULL, declared as .*\(50\)",
        ),
        ("  PRIMARY", "  city VARCHAR(50) NOT NULL,\n  PRIMARY", "city is missing, declared as .* NOT NULL"),
        ("name", "title", "title is missing, .*; column name is character .*, declared as nothing"),
    ],
)
def test_any_other_difference_stops_with_what_to_do(
    shop: Shop, shop_declarations: Callable[..., None], old: str, new: str, message: str
) -> None:
    first(shop)
    before = shop.content()
    shop_declarations("shops", lambda text: text.replace(old, new))
    row = (3, "East", "Lyon") if "city" in new else (3, "East")
    shop.version = 2
    with pytest.raises(
        UserAnalyticsError, match=f"publish shops: column {message}.*delete its row in analytics"
    ):
        shop.commit(shop.load("shops", [(*row, False)], False, 3))
    assert shop.content() == before
    # What the message says to do works; the views, which still want the old name, are another matter.
    if "title" not in new:
        rows = [(*r, "Lyon") if "city" in new else r for r in (NORTH, SOUTH, EAST)]
        shop.commit(shop.load("shops", rows, True, 3))
        assert shop.query("SELECT count(*) FROM shops") == [(3,)]


def test_a_publisher_needs_no_right_to_make_schemas(spark: SparkSession, warehouse_url: str) -> None:
    owner = Shop(spark, warehouse_url, "public")
    role = f"publisher_{warehouse_url.rsplit('_', 1)[1]}"
    owner.query(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    owner.query(f"CREATE SCHEMA analytics AUTHORIZATION {role}")
    host = warehouse_url.split("@")[1]
    try:
        publisher = Shop(spark, f"postgresql://{role}:secret@{host}")
        publisher.whole(sales=[sale(1, 1, "10.50")])
        assert publisher.query("SELECT count(*) FROM sales") == [(1,)]
        # Elsewhere the same role has no rights: one line says so.
        with pytest.raises(UserAnalyticsError, match="publish: PostgreSQL: permission denied for database"):
            Shop(spark, publisher.url, "other").whole()
    finally:
        owner.query(f"DROP OWNED BY {role}")
        owner.query(f"DROP ROLE {role}")
