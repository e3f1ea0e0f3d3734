"""Locate users by their IP addresses, with the provider that GEOLOCATION_PROVIDER names.

Grain:    as users; the cache `geolocation/ip_addresses` has one row per address.
Inputs:   the addresses in `marts/users` that the cache does not have, or not any more.
Outputs:  the cache; location columns of `marts/users`.
Re-run:   safe at any time. Each address is asked once; what was found is kept every few seconds, so that a run that
          dies goes on where it was. When the provider does not answer, or its limit is reached, users stay without a
          location until a later run. An address that is not public is never sent: location_status says why.
Example:  GEOLOCATION_PROVIDER=ip-api spark-submit jobs/locate_users.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.console import log
from jobs.context import RunContext, parser, writes
from jobs.geolocation import cache_days, open_provider
from jobs.geolocation.addresses import public_address, reason
from jobs.geolocation.base import Location, Provider, ProviderUnavailable
from jobs.geolocation.cache import KEY, LocationCache, with_locations
from jobs.lake.marts import apply_changes, changes_since, declared, mart_table
from jobs.runs import one_step

SOURCE = "ip_addresses"
# So many batches of a provider are kept in one commit: of ip-api's, a minute's quota.
BATCHES_PER_COMMIT = 15


@writes("marts/users", "geolocation/ip_addresses")
def locate_users(run: RunContext, provider: Provider | None = None) -> bool:
    """Fill the location columns of users. Gives whether any changed.

    provider: instead of the one that the environment names.
    """
    provider = provider or open_provider()
    if provider is None:
        log.info("locations: no provider chosen (GEOLOCATION_PROVIDER)")
        return False
    mart = mart_table(run, declared("users"))
    if not mart.exists():
        log.info("locations: no users yet")
        return False
    cache = LocationCache(run)
    cache.table.ensure()
    with run.heartbeat("locations"):
        ask(run, cache, cache.unknown(mart.ensure().read(), run.started_at), provider)
        changes = changes_since(mart, SOURCE, cache.table, KEY)
        if changes is None:
            log.info("locations: up to date")
            return False
        rows = mart.read().join(changes.rows.select(*KEY), list(KEY), "left_semi")
        run.note_table_written(cache.table)
        apply_changes(
            run,
            mart,
            cache.table,
            replace(changes, whole=False, only_inserts=False),
            lambda _: with_locations(rows, cache.table.read(changes.version)).withColumn(
                "_deleted", F.lit(False)
            ),
            ("id",),
        )
    return True


def ask(run: RunContext, cache: LocationCache, addresses: DataFrame, provider: Provider) -> None:
    """Locate the addresses, a column ip_address of distinct texts, and keep what is found, commit by commit."""
    valid_for = timedelta(days=cache_days())
    # Partitions come to the driver one by one.
    texts = (row.ip_address for row in addresses.toLocalIterator())
    left = provider.run_limit
    counts = {"located": 0, "without a location": 0}
    while chunk := list(islice(texts, BATCHES_PER_COMMIT * provider.batch_size)):
        public = {text: address for text in chunk if (address := public_address(text))}
        found = [(text, Location(reason(text)), None) for text in chunk if text not in public]
        wanted = list(dict.fromkeys(public.values()))[:left]
        locations, problem = _locate(provider, wanted)
        answers = [(t, locations[a], provider.name) for t, a in public.items() if a in locations]
        cache.keep([*found, *answers], run.started_at, valid_for)
        counts["located"] += sum(location.status == "located" for _, location, _ in answers)
        counts["without a location"] += len(found) + sum(x.status != "located" for _, x, _ in answers)
        if problem:
            log.warning("locations: %s; the rest is left to a later run", problem)
            break
        if left is not None:
            left -= len(wanted)
            if left == 0:
                log.warning(
                    "locations: %d addresses asked, the limit of a run; the rest is left", provider.run_limit
                )
                break
    log.info("locations: %s", ", ".join(f"{n:,} addresses {what}" for what, n in counts.items()))


def _locate(provider: Provider, addresses: Sequence[str]) -> tuple[dict[str, Location], str | None]:
    """What the provider says, as far as it answers, and why it stopped."""
    found: dict[str, Location] = {}
    for batch in _batches(addresses, provider.batch_size):
        try:
            found.update(zip(batch, provider.locate(batch), strict=True))
        except ProviderUnavailable as error:
            return found, str(error)
    return found, None


def _batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def main(argv: Sequence[str] | None = None) -> int:
    """Locate users; there are no arguments."""
    parser(__doc__, "locate-users").parse_args(argv)
    return one_step("locate-users", locate_users)


if __name__ == "__main__":
    sys.exit(main())
