"""A local database in MaxMind's format (.mmdb), such as GeoLite2 City. Nothing leaves the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import maxminddb

from jobs.errors import ConfigurationError
from jobs.geolocation.base import LOCATED, NOT_FOUND, Location


class MaxMind:
    """See `jobs.geolocation.base.Provider`. Raises ConfigurationError when the file is no such database."""

    name = "maxmind"
    batch_size = 10_000
    run_limit: int | None = None

    def __init__(self, file: Path) -> None:
        try:
            self._reader = maxminddb.open_database(file)
        except OSError as error:
            raise ConfigurationError(f"GEOLOCATION_DATABASE={str(file)!r}: {error.strerror}") from None
        except maxminddb.InvalidDatabaseError as error:
            raise ConfigurationError(f"GEOLOCATION_DATABASE={str(file)!r}: {error}") from None

    def locate(self, addresses: Sequence[str]) -> list[Location]:
        return [self._locate(address) for address in addresses]

    def _locate(self, address: str) -> Location:
        if ":" in address and self._reader.metadata().ip_version == 4:
            return Location(NOT_FOUND)
        record: Any = self._reader.get(address)
        if not isinstance(record, dict):
            return Location(NOT_FOUND)
        location = record.get("location", {})
        traits = record.get("traits", {})
        return Location(
            LOCATED,
            location.get("latitude"),
            location.get("longitude"),
            _name(record.get("country") or record.get("registered_country")),
            _name(next(iter(record.get("subdivisions", [])), None)),
            _name(record.get("city")),
            location.get("time_zone"),
            traits.get("isp") or traits.get("autonomous_system_organization"),
        )


def _name(place: Any) -> str | None:
    return place.get("names", {}).get("en") if isinstance(place, dict) else None
