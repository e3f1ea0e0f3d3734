"""The views over a few published rows: figures that can be checked by eye."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from jobs.warehouse import postgres_publication
from jobs.warehouse.base import Load, Published
from jobs.warehouse.declarations import tables, views_over
from jobs.warehouse.postgres import PostgresWarehouse
from tests.warehouses import arrow_rows, copy_without_spark, query

pytestmark = pytest.mark.integration

EVENING = datetime(2024, 5, 1, 23, 30, tzinfo=UTC)  # in New York it is still afternoon
NIGHT = datetime(2024, 5, 2, 0, 30, tzinfo=UTC)  # in New York it is still the day before


def identifier(number: int) -> str:
    return f"00000000-0000-8000-8000-{number:012d}"


def line(number: int, invoice: str, customer: str | None, quantity: int, price: str) -> tuple[Any, ...]:
    at = datetime(2010, 12, number, 8, 26, tzinfo=UTC)
    return (
        *(identifier(number), invoice, "85123A", "A CANDLE", quantity, Decimal(price), at, customer),
        *("France", customer is None, quantity < 0),
    )


def account(number: int, **columns: Any) -> tuple[Any, ...]:
    values = {"id": identifier(number), "email": f"{number}@x.org", "updated_at": EVENING, "updated": False}
    return tuple({**values, **columns}.get(name) for name in tables()["users"].column_names)


def version(user: int, number: int, since: datetime) -> tuple[Any, ...]:
    values = {"user_id": identifier(user), "version": number, "valid_from": since, "email": f"{user}@x.org"}
    return tuple({**values, "is_current": True}.get(name) for name in tables()["users_history"].column_names)


ROWS: dict[str, list[tuple[Any, ...]]] = {
    "dim_users": [(1, "ann"), (2, "bob")],
    "dim_actions": [(1, "login"), (2, "view")],
    "dim_devices": [(1, "Android")],
    "dim_locations": [(1, "Oslo")],
    "fact_user_actions": [
        (identifier(1), 1, 1, 1, 1, EVENING),
        (identifier(2), 1, 1, 1, None, EVENING.replace(minute=31)),
        (identifier(3), 2, 1, 1, None, EVENING),
        (identifier(4), 1, 1, None, 1, NIGHT),
        (identifier(5), 1, 2, 1, 1, NIGHT),
    ],
    "user_purchase": [
        line(1, "1", "90", 10, "1.5000"),  # 15.0, less the return: 12.0
        line(2, "C2", "90", -2, "1.5000"),
        line(3, "3", "100", 4, "3.0000"),  # 12.0 as well: ranked by id, and '100' comes before '90' as text
        line(4, "4", "7", 1, "12.0001"),
        line(5, "5", "8", 1, "11.0000"),
        line(6, "6", "9", 1, "0.3333"),
        line(7, "6", "9", 3, "0.3333"),
        line(8, "7", "1", 1, "1.0000"),
        line(9, "8", None, 1000, "99.0000"),  # a guest is no customer
    ],
    "users": [
        account(1, country="Norway", location_status="located", updated=True),
        account(2, country="Norway", location_status="located"),
        account(3, location_status="private"),
        account(4, country="Chad", location_status="located"),
    ],
    "users_history": [
        version(1, 1, EVENING),
        version(1, 2, NIGHT),
        version(2, 1, NIGHT),
        # In New York it is still April.
        version(3, 1, datetime(2024, 5, 1, 1, tzinfo=UTC)),
        version(4, 1, datetime(2024, 6, 1, tzinfo=UTC)),
    ],
    "etl_runs": [
        ("run1", "run", "0.1.0", EVENING, 12.5, "refused", None, None, None),
        ("run2", "run", "0.1.0", NIGHT, 3.25, "done", "me@here", "abc123", "{}"),
    ],
    "etl_steps": [("run1", 1, "stage logs", EVENING, 1.5, "done", None, None, "[]")],
    "etl_checks": [
        ("run1", "dim_users", "row_count", "2", "2", True, EVENING, None, None, None, None),
        ("run1", "user_purchase", "row_count", "9", "8", False, EVENING, None, None, None, None),
        (
            "run1",
            "user_purchase",
            "unit_price_out_of_range",
            "from 0",
            None,
            False,
            EVENING,
            "range",
            "warn",
            9,
            1,
        ),
    ],
    "etl_files": [
        ("logs", "raw/logs/a", 1, "v1", 10, EVENING, "staged", None, 10, 7, 1, 2, "run1", EVENING, None),
        ("logs", "raw/logs/b", 1, "v1", 10, EVENING, "refused", "cut off", 0, 0, 0, 0, "run1", EVENING, None),
        ("logs", "raw/logs/b", 2, "v2", 10, NIGHT, "staged", None, 5, 5, 0, 0, "run2", NIGHT, False),
        # One of a's records is b's now.
        ("logs", "raw/logs/a", 2, "v1", 10, EVENING, "staged", None, 10, 6, 2, 2, "run2", NIGHT, True),
    ],
}


@pytest.fixture
def published(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[tuple[Any, ...]]]:
    """A query on a warehouse to which ROWS and all views were published."""
    monkeypatch.setattr(postgres_publication, "copy_rows", copy_without_spark)
    loads = [
        Load(tables()[n], arrow_rows(n, ROWS[n]), True, Published(n, 1), {"row_count": len(ROWS[n])})
        for n in tables()
        if n in ROWS
    ]
    with PostgresWarehouse(warehouse_url, "analytics").publishing() as publication:
        publication.commit(loads, views_over(ROWS))
    return lambda text: query(warehouse_url, text)


def test_every_declared_view_exists_with_its_comment(
    published: Callable[[str], list[tuple[Any, ...]]],
) -> None:
    found = dict(
        published(
            "SELECT viewname, obj_description(viewname::regclass) FROM pg_views "
            "WHERE schemaname = 'analytics'"
        )
    )
    assert found.keys() == {view.name for view in views_over(ROWS)}
    assert all(comment.startswith("Grain: ") for comment in found.values())


def test_purchases(published: Callable[[str], list[tuple[Any, ...]]]) -> None:
    assert published(
        "SELECT customer_id, amount_spent, invoice_count, line_count FROM "
        'customer_amount_spent_view ORDER BY customer_id COLLATE "C"'
    ) == [
        ("1", Decimal("1"), 1, 1),
        ("100", Decimal("12"), 1, 1),
        ("7", Decimal("12.0001"), 1, 1),
        ("8", Decimal("11"), 1, 1),
        ("9", Decimal("1.3332"), 1, 2),
        ("90", Decimal("12"), 2, 2),
    ]
    assert published(
        "SELECT customer_rank, customer_id, amount_spent FROM top_5_customers_by_amount_spent_view"
    ) == [
        (1, "7", Decimal("12.0001")),
        (2, "100", Decimal("12")),
        (3, "90", Decimal("12")),
        (4, "8", Decimal("11")),
        (5, "9", Decimal("1.3332")),
    ]


def test_daily_activity_is_by_utc_wherever_the_reader_is(
    published: Callable[[str], list[tuple[Any, ...]]],
) -> None:
    assert published("SHOW TIME ZONE") == [("America/New_York",)]
    assert published("SELECT * FROM daily_activity_view ORDER BY 1, 2, 3") == [
        (date(2024, 5, 1), "login", "Android", 3, 2),
        (date(2024, 5, 2), "login", "unknown", 1, 1),
        (date(2024, 5, 2), "view", "Android", 1, 1),
    ]


def test_users(published: Callable[[str], list[tuple[Any, ...]]]) -> None:
    assert published("SELECT * FROM users_by_country_view ORDER BY country") == [
        ("Chad", 1, 1, 0, 0.25),
        ("Norway", 2, 2, 1, 0.5),
        ("unknown", 1, 0, 0, 0.25),
    ]
    assert published("SELECT * FROM user_changes_view ORDER BY month") == [
        (date(2024, 5, 1), 3, 1, 3),
        (date(2024, 6, 1), 1, 0, 1),
    ]


def test_runs_and_files(published: Callable[[str], list[tuple[Any, ...]]]) -> None:
    assert published(
        "SELECT run_id, outcome, file_count, records_read, accepted, duplicates, rejected, refused_files, "
        "failed_checks FROM run_history_view"
    ) == [("run2", "done", 1, 5, 5, 0, 0, 0, 0), ("run1", "refused", 2, 10, 7, 1, 2, 1, 1)]
    # A file's last reading or recount is its state.
    assert published("SELECT path, status, accepted, error FROM feed_files_view ORDER BY path") == [
        ("raw/logs/a", "staged", 6, None),
        ("raw/logs/b", "staged", 5, None),
    ]
