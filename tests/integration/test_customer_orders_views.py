"""The views over customer_orders: few rows, figures that can be checked by eye."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from jobs.warehouse import postgres_publication
from jobs.warehouse.base import Load, Published
from jobs.warehouse.declarations import tables, views_over
from jobs.warehouse.postgres import PostgresWarehouse
from tests.warehouses import arrow_rows, copy_without_spark, query

pytestmark = pytest.mark.integration


def order(number: int, customer: str | None, segment: str | None, amount: str, day: date) -> tuple[Any, ...]:
    price = Decimal(amount)
    return (
        *(
            f"o{number}",
            customer,
            segment is not None,
            "lamp",
            1,
            price,
            price,
            "Small",
            day,
            day.year,
            day.month,
        ),
        *("Ann" if segment else None, None, None, None, None, None, segment, False if segment else None),
    )


def test_segments_and_months(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_publication, "copy_rows", copy_without_spark)
    rows = [
        order(1, "c1", "Premium", "60.0000", date(2023, 12, 31)),
        order(2, "c1", "Premium", "15.5000", date(2024, 1, 1)),
        order(3, "c2", "Basic", "10.0000", date(2024, 1, 2)),
        order(4, "c3", "Basic", "2.5000", date(2024, 1, 31)),
        order(5, None, None, "12.0000", date(2024, 1, 31)),
    ]
    table = tables()["customer_orders"]
    load = Load(table, arrow_rows(table.name, rows), True, Published("orders", 1), {"row_count": 5})
    with PostgresWarehouse(warehouse_url, "analytics").publishing() as publication:
        publication.commit([load], views_over([table.name]))

    assert query(warehouse_url, "SELECT * FROM customer_segments_view") == [
        ("Premium", 1, 2, Decimal("75.5000"), 37.75, 0.755),
        ("Basic", 2, 2, Decimal("12.5000"), 6.25, 0.125),
        ("unknown", 0, 1, Decimal("12.0000"), 12.0, 0.12),
    ]
    assert query(warehouse_url, "SELECT * FROM monthly_orders_view") == [
        (2023, 12, 1, 1, Decimal("60.0000"), 0),
        (2024, 1, 4, 3, Decimal("40.0000"), 1),
    ]
