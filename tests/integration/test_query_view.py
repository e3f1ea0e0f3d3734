"""`query`: a view on standard output, as a table, CSV or JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import jobs.summary as summary
from jobs.cli import main
from jobs.errors import UserAnalyticsError
from jobs.warehouse import postgres_publication
from jobs.warehouse.base import Load, Published
from jobs.warehouse.declarations import tables, views_over
from jobs.warehouse.postgres import PostgresWarehouse
from tests.warehouses import arrow_rows, copy_without_spark, query

pytestmark = pytest.mark.integration
AT = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)


def line(number: int, customer: str, price: str) -> tuple[Any, ...]:
    identifier = f"00000000-0000-8000-8000-{number:012d}"
    detail = f'A "CANDLE", set of {number}'
    return identifier, str(number), "85123A", detail, 2, Decimal(price), AT, customer, None, False, False


@pytest.fixture(autouse=True)
def published(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warehouse with two purchases and the views over them, as WAREHOUSE_URL."""
    monkeypatch.setattr(postgres_publication, "copy_rows", copy_without_spark)
    rows = arrow_rows("user_purchase", [line(1, "7", "1.5000"), line(2, "8", "9.9900")])
    load = Load(tables()["user_purchase"], rows, True, Published("purchases", 1), {"row_count": 2})
    with PostgresWarehouse(warehouse_url, "analytics").publishing() as publication:
        publication.commit([load], views_over(["user_purchase"]))
    monkeypatch.setenv("WAREHOUSE_URL", warehouse_url)


def test_a_view_in_three_formats(capsys: pytest.CaptureFixture[str]) -> None:
    view = "top_5_customers_by_amount_spent_view"
    assert main(["query", view]) == 0
    assert capsys.readouterr().out == (
        "customer_rank  customer_id  amount_spent  invoice_count\n"
        "-------------  -----------  ------------  -------------\n"
        "            1  8            19.9800                   1\n"
        "            2  7            3.0000                    1\n"
    )
    assert main(["query", view, "--limit", "1", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "customer_rank,customer_id,amount_spent,invoice_count\n1,8,19.9800,1\n"
    assert main(["query", view, "--limit", "1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"customer_rank": 1, "customer_id": "8", "amount_spent": "19.9800", "invoice_count": 1}
    ]


def test_a_table_with_times_nulls_and_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "user_purchase", "--limit", "1", "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        '00000000-0000-8000-8000-000000000001,1,85123A,"A ""CANDLE"", set of 1",2,1.5000,'
        "2010-12-01 08:26:00+00:00,7,,False,False"
    )


def test_what_cannot_be_asked_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["query", "run_history_view"]) == 2
    assert "run_history_view: not in schema analytics yet; `user-analytics run`" in capsys.readouterr().err
    for arguments in (["pg_tables"], ["user_purchase", "--limit", "0"], ["user_purchase", "--format", "xml"]):
        with pytest.raises(SystemExit) as stop:
            main(["query", *arguments])
        assert stop.value.code == 2
    # An embedded warehouse is not made for a question.
    monkeypatch.setenv("WAREHOUSE_URL", f"embedded:{tmp_path / 'none'}")
    assert main(["query", "user_purchase"]) == 2
    assert "there is no warehouse yet" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_limit_beyond_all_numbers_is_refused_in_one_line(warehouse_url: str) -> None:
    with pytest.raises(UserAnalyticsError, match=r"^query: PostgreSQL: bigint out of range$"):
        PostgresWarehouse(warehouse_url, "analytics").query("user_purchase", 10**20)


def test_the_end_of_a_run_does_not_wait_for_a_slow_view(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "top_5_customers_by_amount_spent_view"
    query(
        warehouse_url, f"DROP VIEW {slow}; CREATE VIEW {slow} AS SELECT CAST(pg_sleep(60) AS TEXT) AS waited"
    )
    monkeypatch.setattr(summary, "SECONDS_PER_VIEW", 0.5)
    contents = summary.warehouse_contents(PostgresWarehouse(warehouse_url, "analytics"))
    assert contents.views.pop(slow) is None
    assert all(contents.views.values())
