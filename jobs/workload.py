"""How much there is to do, told before Spark starts: with little, Java compiles less (docs/decisions/speed.md)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from jobs.context import RunContext
from jobs.feeds import FEEDS
from jobs.lake.ledger import Ledger, by_path, files_to_read
from jobs.lake.marts import declared, mart_table
from jobs.lake.tables import LakeTable
from jobs.origins import ORIGINS, Origin, source_tables
from jobs.spark import LITTLE_BYTES

# Checks read tables whole. From some 30 million log lines on, that takes as long as compiling less saves.
LARGE_LAKE_BYTES = 4 * 1024**3


def has_little_to_stage(run: RunContext, feeds: Collection[str]) -> bool:
    """Whether few bytes of these feeds are to be read, in a lake that is not very large."""
    histories = Ledger(run).histories()
    staged = sum(entry.size_bytes for history in histories.values() for entry in by_path(history).values())
    if staged > LARGE_LAKE_BYTES:
        return False
    to_read = 0
    for feed in feeds:
        listed, history = list(run.store.list(f"raw/{feed}")), histories.get(feed, [])
        files = files_to_read(listed, history, last_stays=FEEDS[feed].last_stays)
        to_read += sum(file.text_bytes for file in files)
    return to_read <= LITTLE_BYTES


def has_little_to_do(run: RunContext, feeds: Collection[str]) -> bool:
    """Whether few bytes of these feeds are to be read, and the marts hold what was staged before."""
    return has_little_to_stage(run, feeds) and not any(_is_behind(run, origin) for origin in ORIGINS)


def _is_behind(run: RunContext, origin: Origin) -> bool:
    sources = source_tables(run, origin).values()
    marts = [mart_table(run, declared(name)) for name in origin.tables]
    newest = max(map(_changed_at, sources), default=None)
    return newest is not None and any(not mart.exists() or _changed_at(mart) < newest for mart in marts)


def _changed_at(table: LakeTable) -> datetime:
    return table.committed_at(table.version()) or datetime.max.replace(tzinfo=UTC)
