"""logs: what users did in the app. JSON array or JSON lines. Grain: one row per user, instant and action."""

from pyspark.sql import types as T

from jobs.feeds.declaration import Feed, Field, RawFormat
from jobs.quality.rules import NOW, Kind, Rule
from jobs.transforms.parsing import identifier, iso_timestamp, text

LOGS = Feed(
    name="logs",
    format=RawFormat.JSON,
    fields=(
        Field("user_id", T.StringType(), identifier, ("user_id",), required=True, max_length=100),
        Field("timestamp", T.TimestampType(), iso_timestamp, ("timestamp",), required=True),
        Field("action_type", T.StringType(), text, ("action_type",), required=True, max_length=100),
        Field("device", T.StringType(), text, ("metadata.device",), max_length=50),
        Field("location", T.StringType(), text, ("metadata.location",), max_length=100),
    ),
    key=("user_id", "timestamp", "action_type"),
    # The record that says more stays.
    prefer=("device IS NOT NULL", "location IS NOT NULL"),
    rules=(
        Rule(Kind.RANGE, ("timestamp",), low="2000-01-01", high=NOW),
        Rule(Kind.PATTERN, ("action_type",), pattern=r"^[A-Za-z][A-Za-z0-9_.:-]*$"),
        Rule(Kind.VOLUME, tolerance=0.5),
    ),
)
