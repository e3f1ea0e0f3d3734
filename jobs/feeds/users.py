"""users: who has an account. CSV. Grain: one row per user and version that was delivered.

A user is an e-mail address, whatever its letter case. All versions of a user are staged, so that the present state
and the history can be told from them in whichever order files come; `build_users.py` does that.

When a version dates from: its `updated_at`; without one its `created_at` (never updated since); without either the
moment its file was delivered. The same content of the same date is one version, however often it is delivered, and
known since its first delivery.

Passwords are taken as hashes only. A record is one line: a line break inside quotes makes it two broken ones.
"""

from pyspark.sql import types as T

from jobs.feeds.declaration import Feed, Field, RawFormat
from jobs.quality.rules import NOW, Kind, Rule
from jobs.transforms.parsing import (
    email_address,
    identifier,
    lower_text,
    password_hash,
    text,
    timestamp_or_date,
)

# What a user is described by. A difference in any of them is another version.
ATTRIBUTES = (
    "source_id",
    "first_name",
    "last_name",
    "gender",
    "ip_address",
    "created_at",
    "password",
    "status",
)

USERS = Feed(
    name="users",
    format=RawFormat.CSV,
    fields=(
        Field("source_id", T.StringType(), identifier, ("id", "user_id", "source_id"), max_length=100),
        Field("first_name", T.StringType(), text, ("first_name",), max_length=100, personal=True),
        Field("last_name", T.StringType(), text, ("last_name",), max_length=100, personal=True),
        Field(
            "email", T.StringType(), email_address, ("email",), required=True, max_length=254, personal=True
        ),
        Field("gender", T.StringType(), text, ("gender",), max_length=50, personal=True),
        # Any text: whether it is an address that can be located is found out when it is to be.
        Field("ip_address", T.StringType(), lower_text, ("ip_address",), max_length=100, personal=True),
        Field("created_at", T.TimestampType(), timestamp_or_date, ("created_at",)),
        Field("updated_at", T.TimestampType(), timestamp_or_date, ("updated_at",)),
        Field("password", T.StringType(), password_hash, ("password",), secret=True, personal=True),
        Field("status", T.StringType(), text, ("status",), max_length=50),
        Field("changed_at", T.TimestampType(), timestamp_or_date, ()),
        Field("delivered_at", T.TimestampType(), timestamp_or_date, ()),
        Field("content_id", T.StringType(), text, ()),
    ),
    key=("email", "changed_at", "content_id"),
    derived={
        "changed_at": "coalesce(updated_at, created_at, _delivered_at)",
        "delivered_at": "_delivered_at",
        # Of an instant, `to_json` writes milliseconds only.
        "content_id": f"md5(concat_ws('', to_json(struct({', '.join(ATTRIBUTES)})), "
        "nullif(unix_micros(created_at) % 1000, 0)))",
    },
    # The first delivery stays.
    prefer=("-1 * unix_micros( delivered_at )",),
    multi_line=False,
    recognised_by=("first_name", "last_name"),
    rules=(
        Rule(Kind.RANGE, ("created_at",), low="2000-01-01", high=NOW),
        Rule(Kind.RANGE, ("updated_at",), low="2000-01-01", high=NOW),
        Rule(Kind.SET, ("status",), values=("active", "invited", "registered", "blocked", "closed")),
        # A file holds all accounts, or those that changed: much more or less is usual.
        Rule(Kind.VOLUME, tolerance=0.9),
    ),
)
