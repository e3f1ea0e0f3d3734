"""customer_orders → figures by city, age group and product."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F

from jobs.transforms.customers import UNKNOWN

BREAKDOWNS = ("city", "age_group", "product")
ALL = "all"


def order_analysis(orders: DataFrame) -> DataFrame:
    """customer_orders → the columns of `sql/order_analysis.sql`.

    Grain: one row per breakdown and value, and one over all. No row where there are no orders.
    """
    named = orders.select(
        "total_amount",
        "customer_id",
        "is_customer_known",
        *(F.coalesce(name, F.lit(UNKNOWN)).alias(name) for name in BREAKDOWNS),
    )
    figures = named.groupingSets([[], *([F.col(name)] for name in BREAKDOWNS)], *BREAKDOWNS).agg(
        _of_breakdown(F.lit).alias("breakdown"),
        _of_breakdown(F.col).alias("value"),
        F.sum("total_amount").cast("decimal(28,4)").alias("revenue"),
        F.count("*").alias("order_count"),
        F.count_distinct("customer_id").alias("customer_count"),
        F.count_if(~F.col("is_customer_known")).alias("unknown_customer_order_count"),
    )
    by_revenue = Window.partitionBy("breakdown").orderBy(F.col("revenue").desc(), "value")
    average = (F.col("revenue") / F.col("order_count")).cast("decimal(18,4)")
    return (
        figures.where("order_count > 0")
        .withColumn("average_order_value", average)
        .withColumn("revenue_rank", F.row_number().over(by_revenue).cast("bigint"))
    )


def _of_breakdown(column: Callable[[str], Column]) -> Column:
    """column(name) of the breakdown that a row of the grouping sets belongs to."""
    chosen = F.when(F.lit(False), F.lit(ALL))
    for name in BREAKDOWNS:
        chosen = chosen.when(F.grouping(name) == 0, column(name))
    return chosen.otherwise(F.lit(ALL))


def analysis_results(analysis: Iterable[Row]) -> dict[str, Any]:
    """The rows of `order_analysis` → the content of analysis_results.json. Amounts are numbers; top city and product
    are those with the greatest revenue, null where no city is known.
    """
    rows = sorted(analysis, key=lambda row: row.revenue_rank)
    total = next((row for row in rows if row.breakdown == ALL), None)
    cities = [row.value for row in rows if row.breakdown == "city" and row.value != UNKNOWN]
    products = [row.value for row in rows if row.breakdown == "product"]
    return {
        "total_revenue": float(total.revenue) if total else 0.0,
        "total_orders": total.order_count if total else 0,
        "average_order_value": float(total.average_order_value) if total else None,
        "unique_customers": total.customer_count if total else 0,
        "orders_without_known_customer": total.unknown_customer_order_count if total else 0,
        "top_city": cities[0] if cities else None,
        "top_product": products[0] if products else None,
        **{f"by_{name}": {r.value: _figures(r) for r in rows if r.breakdown == name} for name in BREAKDOWNS},
    }


def _figures(row: Row) -> dict[str, Any]:
    return {
        "revenue": float(row.revenue),
        "orders": row.order_count,
        "average_order_value": float(row.average_order_value),
        "customers": row.customer_count,
    }
