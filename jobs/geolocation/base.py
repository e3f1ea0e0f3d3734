"""What every way to locate an address has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jobs.errors import UserAnalyticsError

LOCATED, NOT_FOUND = "located", "not_found"


@dataclass(frozen=True)
class Location:
    """Where an address is. status: `located`, or the reason why it is not; the other fields are None then."""

    status: str
    latitude: float | None = None
    longitude: float | None = None
    country: str | None = None
    region: str | None = None
    city: str | None = None
    timezone: str | None = None
    isp_name: str | None = None


class ProviderUnavailable(UserAnalyticsError):
    """The provider does not answer, or not with locations. What it was asked stays to be asked later."""


class Provider(Protocol):
    """Locates public addresses.

    name: as it stands in the cache. batch_size: the most addresses that `locate` takes. run_limit: the most addresses
    that one run asks, None for all.
    """

    name: str
    batch_size: int
    run_limit: int | None

    def locate(self, addresses: Sequence[str]) -> list[Location]:
        """One location per address, in the order of the addresses. Raises ProviderUnavailable."""
