"""Where addresses are, by the provider that GEOLOCATION_PROVIDER names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import ConfigurationError
from jobs.geolocation.base import Provider
from jobs.geolocation.ip_api import URL, IpApi
from jobs.geolocation.maxmind import MaxMind

PROVIDERS = ("none", "ip-api", "maxmind")
DEFAULT_LIMIT, DEFAULT_CACHE_DAYS = 15_000, 90


def open_provider(environ: Mapping[str, str] | None = None) -> Provider | None:
    """The provider that GEOLOCATION_PROVIDER names; None for `none`, the default.

    Raises ConfigurationError naming the variable when a setting is malformed or missing.
    """
    env = os.environ if environ is None else environ
    name = env.get("GEOLOCATION_PROVIDER", "").strip() or "none"
    if name == "none":
        return None
    if name == "ip-api":
        url = env.get("GEOLOCATION_URL", "").strip() or URL
        if not url.startswith(("http://", "https://")) or "@" in url.partition("?")[0]:
            raise ConfigurationError(
                "GEOLOCATION_URL: expected an address that begins with http:// or https://, without a user"
            )
        return IpApi(url, _number(env, "GEOLOCATION_LIMIT", DEFAULT_LIMIT))
    if name == "maxmind":
        file = env.get("GEOLOCATION_DATABASE", "").strip()
        if not file:
            raise ConfigurationError(
                "GEOLOCATION_DATABASE: needed by the provider maxmind, the path of an .mmdb file"
            )
        return MaxMind(Path(file))
    raise ConfigurationError(f"GEOLOCATION_PROVIDER={name!r}: choose from {', '.join(PROVIDERS)}")


def cache_days(environ: Mapping[str, str] | None = None) -> int:
    """For how many days a location is taken from the cache before it is asked again."""
    return _number(os.environ if environ is None else environ, "GEOLOCATION_CACHE_DAYS", DEFAULT_CACHE_DAYS)


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "").strip()
    if text and (not text.isdecimal() or int(text) == 0):
        raise ConfigurationError(f"{name}={text!r}: expected a whole number above 0")
    return int(text or default)
