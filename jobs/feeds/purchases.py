"""purchases: invoice lines of a shop. CSV. Grain: one row per invoice line and its occurrence in the file.

Invoice lines have no key in the source, and exact repeats are real. The key is the line's content and its
occurrence number within the file: loading a file twice, under whatever name, adds nothing, while a repeat inside a
file stays a row. A corrected file delivered under the same name replaces the lines of the one before; a corrected
file under a new name adds the lines that differ, because the old file still says the old ones.
"""

from pyspark.sql import types as T

from jobs.feeds.declaration import Feed, Field, RawFormat
from jobs.quality.rules import NOW, Kind, Rule
from jobs.transforms.parsing import decimal, free_text, identifier, integer, text, us_or_iso_timestamp

PURCHASES = Feed(
    name="purchases",
    format=RawFormat.CSV,
    fields=(
        Field(
            "invoice_number",
            T.StringType(),
            identifier,
            ("InvoiceNo", "invoice_number"),
            required=True,
            max_length=20,
        ),
        Field("stock_code", T.StringType(), text, ("StockCode", "stock_code"), required=True, max_length=20),
        Field("detail", T.StringType(), free_text, ("Description", "detail"), max_length=1000),
        Field("quantity", T.LongType(), integer, ("Quantity", "quantity"), required=True),
        Field(
            "invoice_date",
            T.TimestampType(),
            us_or_iso_timestamp,
            ("InvoiceDate", "invoice_date"),
            required=True,
        ),
        Field("unit_price", T.DecimalType(18, 4), decimal, ("UnitPrice", "unit_price"), required=True),
        Field("customer_id", T.StringType(), identifier, ("CustomerID", "customer_id"), max_length=50),
        Field("country", T.StringType(), text, ("Country", "country"), max_length=100),
    ),
    key=(
        "invoice_number",
        "stock_code",
        "detail",
        "quantity",
        "invoice_date",
        "unit_price",
        "customer_id",
        "country",
    ),
    counts_repeats=True,
    rules=(
        Rule(Kind.RANGE, ("invoice_date",), low="2000-01-01", high=NOW),
        # Returns have negative quantities; a negative price is a correction that somebody should know about.
        Rule(Kind.RANGE, ("unit_price",), low=0),
        Rule(Kind.PATTERN, ("customer_id",), pattern=r"^[0-9]+$"),
        Rule(Kind.VOLUME, tolerance=0.5),
    ),
)
