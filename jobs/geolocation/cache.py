"""What is known of addresses, so that each is asked once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, fields
from datetime import datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.geolocation.base import Location
from jobs.lake.tables import Lake, LakeTable
from jobs.spark import local_rows

LOCATION = T.StructType(
    [
        T.StructField(
            field.name, T.DoubleType() if field.name in ("latitude", "longitude") else T.StringType()
        )
        for field in fields(Location)
    ]
)
SCHEMA = T.StructType(
    [
        T.StructField("ip_address", T.StringType()),
        *LOCATION,
        T.StructField("provider", T.StringType()),
        T.StructField("located_at", T.TimestampType()),
        T.StructField("expires_at", T.TimestampType()),
    ]
)
# As long as `sql/users.sql` has it.
MAX_TEXT = 200
KEY = ("ip_address",)


class LocationCache:
    """Delta table `geolocation/ip_addresses`, one row per address as users have it.

    A reason why an address cannot be located holds for ever; what a provider said, until expires_at.
    """

    def __init__(self, lake: Lake) -> None:
        self.table = LakeTable(
            lake,
            lake.settings.lake_path("geolocation", "ip_addresses"),
            SCHEMA,
            comment="Where addresses are, as a provider said. Grain: one row per address.",
        )

    def unknown(self, addresses: DataFrame, now: datetime) -> DataFrame:
        """The distinct values of a column ip_address that the cache does not have, or not any more."""
        known = self.table.read().where(F.col("expires_at").isNull() | (F.col("expires_at") > F.lit(now)))
        asked = addresses.where("ip_address IS NOT NULL").select("ip_address").distinct()
        return asked.join(known, "ip_address", "left_anti")

    def keep(
        self, found: Iterable[tuple[str, Location, str | None]], now: datetime, valid_for: timedelta
    ) -> None:
        """Keep (address, location, provider) in one commit; without a provider it needed none, and never expires."""
        rows = [
            (
                address,
                *map(_shortened, astuple(location)),
                provider,
                now,
                now + valid_for if provider else None,
            )
            for address, location, provider in found
        ]
        if rows:
            new = local_rows(self.table.spark, rows, SCHEMA).coalesce(1)
            self.table.merge(
                new,
                "s.ip_address = t.ip_address",
                lambda merge: merge.whenMatchedUpdateAll().whenNotMatchedInsertAll(),
            )


def _shortened(value: object) -> object:
    return value[:MAX_TEXT] if isinstance(value, str) else value


def with_locations(users: DataFrame, locations: DataFrame) -> DataFrame:
    """Rows with ip_address → the same with the columns of a location and location_status, null where none is known."""
    known = locations.select("ip_address", *LOCATION.names).withColumnRenamed("status", "location_status")
    columns = [name for name in users.columns if name not in known.columns or name == "ip_address"]
    return users.select(*columns).join(known, "ip_address", "left")
