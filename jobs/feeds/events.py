"""events: what users did on the web site, one row per request. CSV. Grain: one row per event as it was delivered.

An id with the same content is one event, however often it is delivered. An id with other content is another event:
a clash, which staging keeps as a row of its own, and for which the mart computes an id.
"""

from pyspark.sql import types as T

from jobs.feeds.declaration import Feed, Field, RawFormat
from jobs.quality.rules import NOW, Kind, Rule
from jobs.transforms.parsing import email_address, identifier, iso_timestamp, tags, text

EVENTS = Feed(
    name="events",
    format=RawFormat.CSV,
    fields=(
        Field("id", T.StringType(), identifier, ("id",), required=True, max_length=100),
        Field("timestamp", T.TimestampType(), iso_timestamp, ("timestamp",), required=True),
        Field(
            "email", T.StringType(), email_address, ("email",), required=True, max_length=254, personal=True
        ),
        Field("country", T.StringType(), text, ("country",), max_length=100),
        Field("uri", T.StringType(), text, ("uri",), required=True, max_length=2048),
        Field("action", T.StringType(), text, ("action",), required=True, max_length=100),
        Field("tags", T.ArrayType(T.StringType()), tags, ("tags",)),
    ),
    key=("id", "timestamp", "email", "country", "uri", "action", "tags"),
    rules=(
        Rule(Kind.RANGE, ("timestamp",), low="2000-01-01", high=NOW),
        Rule(Kind.PATTERN, ("uri",), pattern=r"^(https?://|/)"),
        # Clashes are mended, but their source should know.
        Rule(Kind.UNIQUE, ("id",)),
        Rule(Kind.VOLUME, tolerance=0.5),
    ),
)
