"""customers: who may order. CSV. Grain: one row per customer.

Of several records of one customer, the file delivered last decides. A file may bring the segment of each customer
(`customer_segment`); where it does not, the segment is computed from what the customer ordered.
"""

from pyspark.sql import types as T

from jobs.feeds.declaration import Feed, Field, RawFormat
from jobs.quality.rules import NOW, Action, Kind, Rule
from jobs.transforms.customers import segment_name
from jobs.transforms.parsing import email_address, free_text, identifier, integer, iso_date, text

CUSTOMERS = Feed(
    name="customers",
    format=RawFormat.CSV,
    fields=(
        Field("customer_id", T.StringType(), identifier, ("customer_id",), required=True, max_length=50),
        Field("name", T.StringType(), free_text, ("name",), required=True, max_length=200, personal=True),
        Field("email", T.StringType(), email_address, ("email",), max_length=254, personal=True),
        Field("age", T.LongType(), integer, ("age",)),
        Field("city", T.StringType(), text, ("city",), max_length=100),
        Field("registration_date", T.DateType(), iso_date, ("registration_date",), required=True),
        Field("customer_segment", T.StringType(), segment_name, ("customer_segment",)),
    ),
    key=("customer_id",),
    prefer=("_delivered_at",),
    rules=(
        Rule(Kind.RANGE, ("age",), Action.REJECT, low=0, high=130),
        Rule(Kind.RANGE, ("registration_date",), high=NOW),
        Rule(Kind.UNIQUE, ("email",)),
        Rule(Kind.VOLUME, tolerance=0.5),
    ),
)
