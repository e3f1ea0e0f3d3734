"""Staged purchases → user_purchase."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.transforms.keys import KEY, time_ordered_id


def user_purchases(purchases: DataFrame) -> DataFrame:
    """Staged purchases → user_purchase: the invoice line's columns, purchase_line_id string (UUID), is_guest and
    is_return boolean.

    Grain: one row per staged invoice line. A `_deleted` column passes through.
    """
    return purchases.select(
        time_ordered_id(F.col("invoice_date"), *(F.col(name) for name in KEY)).alias("purchase_line_id"),
        "invoice_number",
        "stock_code",
        "detail",
        "quantity",
        "unit_price",
        "invoice_date",
        "customer_id",
        "country",
        F.col("customer_id").isNull().alias("is_guest"),
        (F.col("quantity") < 0).alias("is_return"),
        *(["_deleted"] if "_deleted" in purchases.columns else []),
    )
