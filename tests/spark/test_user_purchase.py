"""user_purchase: invoice lines as they were staged, told apart, with flags for guests and returns."""

from __future__ import annotations

from decimal import Decimal

import pytest
from pyspark.sql import SparkSession

from jobs.build_purchases import build_purchases
from jobs.feeds.purchases import PURCHASES
from tests.lakes import Lake

pytestmark = pytest.mark.spark

#         invoice  stock    detail       pieces date                  price   customer country
CANDLE = "536365 | 85123A | WHITE CANDLE | 6  | 2010-12-01 08:26:00 | 2.55   | 17850 | United Kingdom"
RETURN = "C53637 | 85123A | WHITE CANDLE | -1 | 2010-12-02 09:00:00 | 2.55   | 17850 | United Kingdom"
GUEST = " 536370 | POST   | -            | 1  | 2010-12-02 10:00:00 | 0.0010 | -     | France"


def test_day_by_day(spark: SparkSession, tmp_lake: str) -> None:
    lake = Lake(spark, tmp_lake)
    # The candle was sold twice on one invoice: two rows.
    lake.stage(PURCHASES, 1, CANDLE, CANDLE, RETURN, GUEST)
    assert build_purchases(lake.run()) is True
    columns = ["invoice_number", "detail", "quantity", "unit_price", "customer_id", "is_guest", "is_return"]
    rows = (
        lake.mart("user_purchase").read().select(columns).orderBy("invoice_date", "invoice_number").collect()
    )
    assert [tuple(row) for row in rows] == [
        ("536365", "WHITE CANDLE", 6, Decimal("2.5500"), "17850", False, False),
        ("536365", "WHITE CANDLE", 6, Decimal("2.5500"), "17850", False, False),
        ("C53637", "WHITE CANDLE", -1, Decimal("2.5500"), "17850", False, True),
        ("536370", None, 1, Decimal("0.0010"), None, True, False),
    ]
    ids = lake.values("user_purchase", "purchase_line_id")
    assert len(set(ids)) == 4

    version = lake.mart("user_purchase").version()
    assert build_purchases(lake.run()) is False
    assert lake.mart("user_purchase").version() == version

    # The corrected file has the candle once: one row leaves, and the others keep their ids.
    lake.stage(PURCHASES, 1, CANDLE, RETURN, GUEST)
    build_purchases(lake.run())
    assert len(remaining := lake.values("user_purchase", "purchase_line_id")) == 3
    assert set(remaining) < set(ids)
    assert lake.changed("user_purchase", version) == [True]
