"""Staged customers and orders → enriched customers, order metrics, and both joined."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

SEGMENTS = ("Premium", "Standard", "Basic")
# The rule: Premium is who spent 5,000 or more in at least 5 orders (one large order is no loyalty); Standard is who
# spent 1,000 or more; Basic is everybody else, also who ordered nothing.
PREMIUM_SPENT, PREMIUM_ORDERS, STANDARD_SPENT = 5_000, 5, 1_000
MEDIUM_ORDER, LARGE_ORDER = 100, 500
# The age from which each group counts.
AGE_GROUPS = {65: "65+", 55: "55-64", 45: "45-54", 35: "35-44", 25: "25-34", 18: "18-24", 0: "under 18"}
UNKNOWN = "unknown"


def segment_name(value: Column) -> Column:
    """string → one of SEGMENTS, whatever its letter case; null for any other."""
    name = F.initcap(value)
    return F.when(name.isin(*SEGMENTS), name)


def age_group(age: Column) -> Column:
    """bigint → string, see AGE_GROUPS; `unknown` for null."""
    group = F.when(age.isNull(), UNKNOWN)
    for begin, name in AGE_GROUPS.items():
        group = group.when(age >= begin, name)
    return group


def order_metrics(orders: DataFrame) -> DataFrame:
    """Staged orders → their columns, total_amount decimal(18,4), order_size string (Small, Medium, Large), order_year
    and order_month bigint.

    Grain: one row per order. An order is Medium from 100 and Large from 500 on.
    """
    measured = orders.select(
        "order_id",
        "customer_id",
        "product",
        "quantity",
        "price",
        (F.col("quantity") * F.col("price")).cast("decimal(18,4)").alias("total_amount"),
        "order_date",
        F.year("order_date").cast("bigint").alias("order_year"),
        F.month("order_date").cast("bigint").alias("order_month"),
    )
    amount = F.col("total_amount")
    size = F.when(amount < MEDIUM_ORDER, "Small").when(amount < LARGE_ORDER, "Medium").otherwise("Large")
    return measured.withColumn("order_size", size)


def enriched_customers(customers: DataFrame, orders: DataFrame) -> DataFrame:
    """Staged customers and staged orders → customers with age_group and customer_segment string, and
    is_segment_given boolean.

    Grain: one row per customer. A segment that was delivered stays; any other is computed by the rule above.
    """
    spent = (
        orders.where("customer_id IS NOT NULL")
        .groupBy("customer_id")
        .agg(F.sum(F.col("quantity") * F.col("price")).alias("_spent"), F.count("*").alias("_orders"))
    )
    is_premium = (F.col("_spent") >= PREMIUM_SPENT) & (F.col("_orders") >= PREMIUM_ORDERS)
    computed = (
        F.when(is_premium, "Premium").when(F.col("_spent") >= STANDARD_SPENT, "Standard").otherwise("Basic")
    )
    return customers.join(spent, "customer_id", "left").select(
        "customer_id",
        "name",
        "email",
        "age",
        age_group(F.col("age")).alias("age_group"),
        "city",
        "registration_date",
        F.coalesce("customer_segment", computed).alias("customer_segment"),
        F.col("customer_segment").isNotNull().alias("is_segment_given"),
    )


def customer_orders(customers: DataFrame, orders: DataFrame) -> DataFrame:
    """Enriched customers and order metrics → the columns of `sql/customer_orders.sql`.

    Grain: one row per order. Orders without a customer, or of an unknown one, stay: is_customer_known says it.
    """
    known = customers.withColumnRenamed("name", "customer_name").withColumn("_known", F.lit(True))
    return orders.join(known, "customer_id", "left").withColumn(
        "is_customer_known", F.coalesce("_known", F.lit(False))
    )
