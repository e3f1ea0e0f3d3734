"""Files that were staged, read again through the one engine: after a rule or a mapping was mended, or for some days."""

from __future__ import annotations

from collections.abc import Collection

from jobs.context import RunContext
from jobs.feeds.declaration import Feed
from jobs.feeds.mapping import SourceNames
from jobs.lake.ledger import STAGED, Ledger, files_to_read
from jobs.lake.staging import StageResult, stage


def read_again(
    run: RunContext,
    feed: Feed,
    paths: Collection[str],
    names: SourceNames | None = None,
    max_rejected_share: float | None = None,
    least_share: float = 0.0,
) -> StageResult:
    """Stage files as though they were new. names: by which to read them; None for those of each file's last reading.

    max_rejected_share: None for the share that the same files had before, but at least least_share: what is read again
    must not become worse unseen. Raises RejectedShareExceeded, before anything is written, when it would.
    """
    if max_rejected_share is None:
        history = Ledger(run).history(feed.name)
        current = {entry.path: entry for entry in history if entry.status == STAGED}
        listed = list(run.store.list(f"raw/{feed.name}"))
        todo = files_to_read(listed, history, paths, feed.last_stays)
        before = [current[file.path] for file in todo if file.path in current]
        read, rejected = (sum(getattr(e, name) for e in before) for name in ("records_read", "rejected"))
        max_rejected_share = max(rejected / read if read else 0.0, least_share)
    return stage(run, feed, names, max_rejected_share, paths)
