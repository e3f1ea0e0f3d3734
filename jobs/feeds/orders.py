"""orders: what customers ordered. CSV. Grain: one row per order.

Of several records of one order, the file delivered last decides. An order without a customer, or of one that is not
known, is accepted and flagged later.
"""

from pyspark.sql import types as T

from jobs.feeds.declaration import Feed, Field, RawFormat
from jobs.quality.rules import NOW, Action, Kind, Rule
from jobs.transforms.parsing import decimal, free_text, identifier, integer, iso_date

ORDERS = Feed(
    name="orders",
    format=RawFormat.CSV,
    fields=(
        Field("order_id", T.StringType(), identifier, ("order_id",), required=True, max_length=50),
        Field("customer_id", T.StringType(), identifier, ("customer_id",), max_length=50),
        Field("product", T.StringType(), free_text, ("product",), required=True, max_length=200),
        Field("quantity", T.LongType(), integer, ("quantity",), required=True),
        Field("price", T.DecimalType(18, 4), decimal, ("price",), required=True),
        Field("order_date", T.DateType(), iso_date, ("order_date",), required=True),
    ),
    key=("order_id",),
    prefer=("_delivered_at",),
    rules=(
        # Together at most 10^13, which an amount has room for.
        Rule(Kind.RANGE, ("quantity",), Action.REJECT, low=1, high=1_000_000),
        Rule(Kind.RANGE, ("price",), Action.REJECT, low=0, high=10_000_000),
        Rule(Kind.RANGE, ("order_date",), high=NOW),
        Rule(Kind.VOLUME, tolerance=0.5),
    ),
)
