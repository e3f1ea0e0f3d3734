"""customers: who may order. CSV. Grain: one row per customer.

Of several records of one customer, the file delivered last decides. A file may bring the segment of each customer
(`customer_segment`); where it does not, the segment is computed from what the customer ordered.
"""

from pyspark.sql import types as T

from jobs.feeds.declaration import Feed, Field, RawFormat
from jobs.transforms.customers import segment_name
from jobs.transforms.parsing import email_address, free_text, identifier, integer, iso_date, text, within

CUSTOMERS = Feed(
    name="customers",
    format=RawFormat.CSV,
    fields=(
        Field("customer_id", T.StringType(), identifier, ("customer_id",), required=True, max_length=50),
        Field("name", T.StringType(), free_text, ("name",), required=True, max_length=200, personal=True),
        Field("email", T.StringType(), email_address, ("email",), max_length=254, personal=True),
        Field("age", T.LongType(), within(integer, 0, 130), ("age",)),
        Field("city", T.StringType(), text, ("city",), max_length=100),
        Field("registration_date", T.DateType(), iso_date, ("registration_date",), required=True),
        Field("customer_segment", T.StringType(), segment_name, ("customer_segment",)),
    ),
    key=("customer_id",),
    prefer=("_delivered_at",),
)
