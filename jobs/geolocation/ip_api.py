"""ip-api.com's batch endpoint: 100 addresses a request, and in the free tier 15 requests a minute.

The answer says how many requests are left (`X-Rl`) and in how many seconds there are new ones (`X-Ttl`); who goes on
regardless is answered 429 and then shut out for an hour. https://ip-api.com/docs/api:batch
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from jobs.geolocation.base import LOCATED, NOT_FOUND, Location, ProviderUnavailable

URL = "http://ip-api.com/batch"
FIELDS = "status,message,country,regionName,city,lat,lon,timezone,isp"
REQUESTS_A_MINUTE = 15
ATTEMPTS = 5
TIMEOUT_SECONDS = 20
REASONS = {"private range": "private", "reserved range": "reserved", "invalid query": "invalid"}


class IpApi:
    """See `jobs.geolocation.base.Provider`. clock and sleep: in seconds, to be replaced by tests."""

    name = "ip-api"
    batch_size = 100

    def __init__(
        self,
        url: str = URL,
        run_limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.run_limit = url, run_limit
        self._clock, self._sleep = clock, sleep
        self._asked: deque[float] = deque(maxlen=REQUESTS_A_MINUTE)
        self._not_before = clock()

    def locate(self, addresses: Sequence[str]) -> list[Location]:
        for attempt in range(1, ATTEMPTS + 1):
            self._wait_for_quota()
            try:
                found = self._ask(addresses)
            except urllib.error.HTTPError as error:
                self._note_quota(error.headers)
                problem = f"HTTP status {error.code}"
                if error.code == 429:
                    self._not_before = self._clock() + _seconds(error.headers, "X-Ttl", 60)
                    continue
                if error.code < 500:
                    break
            except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                return found
            if attempt < ATTEMPTS:
                self._sleep(2 ** (attempt - 1))
        # The query of an address may hold a key.
        raise ProviderUnavailable(f"{urlsplit(self.url).netloc}: {problem}")

    def _ask(self, addresses: Sequence[str]) -> list[Location]:
        joint = "&" if urlsplit(self.url).query else "?"
        request = urllib.request.Request(  # noqa: S310 - http and https only, see open_provider
            f"{self.url}{joint}fields={FIELDS}",
            data=json.dumps(list(addresses)).encode(),
            headers={"Content-Type": "application/json"},
        )
        self._asked.append(self._clock())
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            self._note_quota(response.headers)
            answers = json.load(response)
        if not isinstance(answers, list) or len(answers) != len(addresses):
            raise ValueError(f"an answer that is not a list of {len(addresses)} locations")
        return [_location(answer) for answer in answers]

    def _wait_for_quota(self) -> None:
        until = self._not_before
        if len(self._asked) == REQUESTS_A_MINUTE:
            # Whatever the headers say or fail to say.
            until = max(until, self._asked[0] + 60)
        if (seconds := until - self._clock()) > 0:
            self._sleep(seconds)

    def _note_quota(self, headers: Message) -> None:
        if _seconds(headers, "X-Rl", 1) == 0:
            self._not_before = self._clock() + _seconds(headers, "X-Ttl", 60)


def _seconds(headers: Message, name: str, default: float) -> float:
    try:
        return float(headers.get(name) or default)
    except ValueError:
        return default


def _location(answer: Any) -> Location:
    if not isinstance(answer, dict) or answer.get("status") not in ("success", "fail"):
        raise ValueError("an answer that is not a location")
    if answer["status"] == "fail":
        return Location(REASONS.get(str(answer.get("message")), NOT_FOUND))
    return Location(
        LOCATED,
        _degrees(answer.get("lat")),
        _degrees(answer.get("lon")),
        *(answer.get(name) or None for name in ("country", "regionName", "city", "timezone", "isp")),
    )


def _degrees(number: Any) -> float | None:
    return None if number is None else float(number)
