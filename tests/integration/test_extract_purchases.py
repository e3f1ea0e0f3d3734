"""Purchases from a table of a real PostgreSQL into the raw zone, and on into staging."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from pyspark.sql import SparkSession

from jobs import console, extract_purchases
from jobs.lake.archive import archive
from jobs.lake.objects import LocalStore
from tests.staging import RawZone

pytestmark = pytest.mark.integration

TABLE = """
    CREATE SCHEMA retail;
    CREATE TABLE retail.user_purchase (
        invoice_number varchar(10), stock_code varchar(20), detail varchar(1000), quantity int,
        invoice_date timestamptz, unit_price numeric(8, 3), customer_id int, country varchar(20));
    SET TIME ZONE 'America/New_York';
    INSERT INTO retail.user_purchase VALUES
        ('1', 'LAMP', 'a "lamp", lit' || chr(10) || 'ünï', 2, '2010-12-01 08:26+00', 2.55, 17850, 'France'),
        ('1', 'LAMP', 'a "lamp", lit' || chr(10) || 'ünï', 2, '2010-12-01 08:26+00', 2.55, 17850, 'France'),
        ('2', 'VASE', NULL, -1, '2010-12-01 03:26', 0.001, NULL, NULL);
    INSERT INTO retail.user_purchase
    SELECT 'n' || n, 'S', 'd', n, timestamptz '2011-01-01 00:00+00' + n * interval '1 hour', 1.5, n, 'UK'
    FROM generate_series(1, 97) AS n;
"""
NO_NUMBER = (
    "INSERT INTO retail.user_purchase VALUES (NULL, 'LAMP', 'd', 1, '2010-12-01 08:26+00', 1, 1, 'UK')"
)
FLOATS = """
    CREATE TABLE retail.user_purchase AS
    SELECT '1' AS invoice_number, 'LAMP' AS stock_code, 'd' AS detail, 1 AS quantity,
        timestamp '2010-12-01 08:26' AS invoice_date, 1234.567::real AS unit_price, 1 AS customer_id, 'UK' AS country
"""


def execute(url: str, statements: str) -> None:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(statements)
    connection.close()


def test_a_table_is_extracted_in_parts_and_staged_and_a_second_time_adds_nothing(
    spark: SparkSession, tmp_lake: str, warehouse_url: str
) -> None:
    execute(warehouse_url, TABLE)
    zone = RawZone(spark, tmp_lake, "purchases")

    def extract(day: int) -> int:
        moment = date(2024, 5, day)
        return extract_purchases.extract_purchases(
            zone.store, warehouse_url, "retail.user_purchase", moment, parts=3
        )

    assert extract(1) == 100
    names = [file.path.removeprefix("raw/purchases/") for file in zone.store.list("raw/purchases")]
    assert names == [f"extract/2024-05-01/part-{n:03d}.csv" for n in range(3)]
    assert zone.stage().total("accepted") == 100
    columns = ("invoice_number", "detail", "quantity", "invoice_date", "unit_price", "customer_id")
    rows = [tuple(map(str, row)) for row in zone.rows(*columns) if row[0] in "12"]
    lamp = ("1", 'a "lamp", lit\nünï', "2", "2010-12-01 08:26:00", "2.5500", "17850")
    assert rows == [lamp, lamp, ("2", "None", "-1", "2010-12-01 08:26:00", "0.0010", "None")]

    assert extract(1) == 100, "the same day's files are there already"
    assert zone.stage().entries == ()
    execute(warehouse_url, "INSERT INTO retail.user_purchase SELECT * FROM retail.user_purchase LIMIT 1")
    assert extract(2) == 101
    result = zone.stage()
    assert (result.total("accepted"), result.total("duplicates")) == (1, 100)


def test_every_row_is_in_a_part_and_what_fewer_parts_leave_over_has_none(
    spark: SparkSession, tmp_lake: str, warehouse_url: str
) -> None:
    execute(warehouse_url, TABLE + NO_NUMBER)
    zone = RawZone(spark, tmp_lake, "purchases")
    for price, parts in ((1, 3), (2, 2), (3, 1)):
        if parts == 1:
            assert len(archive(zone.run(), "purchases", datetime.now(UTC) + timedelta(days=1))) == 3
        execute(warehouse_url, f"UPDATE retail.user_purchase SET unit_price = {price}")
        rows = extract_purchases.extract_purchases(
            zone.store, warehouse_url, "retail.user_purchase", date(2024, 5, 1), parts
        )
        assert rows == 101
        names = [file.path.removeprefix("raw/purchases/") for file in zone.store.list("raw/purchases")]
        assert names == [f"extract/2024-05-01/part-{n:03d}.csv" for n in range(3)]
        zone.stage()
        assert zone.staging().groupBy("unit_price").count().collect() == [(price, 100)]
        assert zone.reasons() == {"invoice_number_missing": 1}
    for part in (1, 2):
        assert zone.counts()[f"extract/2024-05-01/part-00{part}.csv"] == (0, 0, 0, 0)


def test_a_date_is_its_midnight(spark: SparkSession, tmp_lake: str, warehouse_url: str) -> None:
    execute(warehouse_url, TABLE.replace("invoice_date timestamptz", "invoice_date date"))
    zone = RawZone(spark, tmp_lake, "purchases")
    extract_purchases.extract_purchases(
        zone.store, warehouse_url, "retail.user_purchase", date(2024, 5, 1), parts=2
    )
    assert zone.stage().total("accepted") == 100
    days = {str(row[1]) for row in zone.rows("invoice_number", "invoice_date") if row[0] in "12"}
    assert days == {"2010-12-01 00:00:00"}


@pytest.fixture
def main(tmp_lake: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The job's main with a SOURCE_URL."""

    def call(url: str, *arguments: str) -> int:
        monkeypatch.setenv("LAKE_URI", tmp_lake)
        monkeypatch.setenv("SOURCE_URL", url)
        monkeypatch.setattr(console.log, "handlers", [])
        return extract_purchases.main(list(arguments))

    return call


@pytest.mark.parametrize("encoding", ["LATIN1", "UTF8"])
def test_files_are_utf_8_whatever_the_encodings_of_source_and_client(
    tmp_path: Path, make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    url = make_database(encoding=encoding)
    execute(url, TABLE)
    if encoding == "UTF8":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    store = LocalStore(tmp_path)
    extract_purchases.extract_purchases(store, url, "retail.user_purchase", date(2024, 5, 1), parts=1)
    (file,) = store.list("raw/purchases")
    assert "lit\nünï" in (tmp_path / file.path).read_text(encoding="utf-8")


def test_prices_are_not_rounded_whatever_the_roles_settings(tmp_lake: str, warehouse_url: str) -> None:
    execute(warehouse_url, "CREATE SCHEMA retail; " + FLOATS)
    url = warehouse_url + "?options=-c%20extra_float_digits%3D0"
    store = LocalStore(Path(tmp_lake))
    assert extract_purchases.extract_purchases(store, url, "retail.user_purchase", date(2024, 5, 1), 1) == 1
    (file,) = store.list("raw/purchases")
    with store.open(file.path) as stream:
        assert stream.read().decode().splitlines()[1] == "1,LAMP,d,1,2010-12-01 08:26:00,1234.567,1,UK"


def test_what_is_wrong_with_the_source_is_said_in_one_line_without_a_secret(
    main: Callable[..., int], warehouse_url: str, tmp_lake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(warehouse_url, "CREATE TABLE short (invoice_number text)")
    password = warehouse_url.split(":")[2].split("@")[0]
    port = warehouse_url.rsplit(":", 1)[1].split("/")[0]
    for url, table, message in (
        (warehouse_url, "no_such.table_here", 'relation "no_such.table_here" does not exist'),
        (warehouse_url, "short", 'column "stock_code" does not exist'),
        (warehouse_url.replace(password, "wrong-word"), "short", "password authentication failed"),
        (warehouse_url.replace(port, "9"), "short", "refused"),
        ("", "short", "SOURCE_URL is not set"),
        ("mysql://u:wrong-word@host/db", "short", "SOURCE_URL=mysql://…: expected postgresql://"),
        ("postgresql://u:p@wrong-word@host/db", "short", "SOURCE_URL=postgresql://…: user or password hold"),
    ):
        assert main(url, "--table", table) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
        assert password not in error
        assert "wrong-word" not in error
    assert list(Path(tmp_lake).rglob("*.csv")) == []


def test_files_are_not_replaced_while_they_are_staged_or_archived(
    spark: SparkSession,
    main: Callable[..., int],
    warehouse_url: str,
    tmp_lake: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execute(warehouse_url, TABLE)
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "0")
    with RawZone(spark, tmp_lake, "purchases").run().locks.hold("staging/purchases"):
        assert main(warehouse_url) == 1
        assert "staging/purchases is being written by" in capsys.readouterr().err
        assert list(Path(tmp_lake).rglob("*.csv")) == []
    assert main(warehouse_url) == 0
    assert len(list(Path(tmp_lake).rglob("*.csv"))) == 4


@pytest.mark.parametrize(
    ("quantity", "message"),
    [
        ("1 / (customer_id - 50)", "division by zero"),
        ("(pg_terminate_backend(pg_backend_pid()))::int", "connection already closed"),
    ],
)
def test_a_source_that_fails_on_the_way_is_one_line(
    main: Callable[..., int],
    warehouse_url: str,
    tmp_lake: str,
    capsys: pytest.CaptureFixture[str],
    quantity: str,
    message: str,
) -> None:
    others = "invoice_number, stock_code, detail, invoice_date, unit_price, customer_id, country"
    view = f"CREATE VIEW broken AS SELECT {others}, {quantity} AS quantity FROM retail.user_purchase"
    execute(warehouse_url, TABLE + view)
    assert main(warehouse_url, "--table", "broken", "--parts", "1") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: SOURCE_URL, table broken: {message}" in error
    assert list(Path(tmp_lake).rglob("*.csv")) == []
