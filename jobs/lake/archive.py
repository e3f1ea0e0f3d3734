"""Raw files that were staged, moved from `raw/` to `archive/` and back; the path below stays the same."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from jobs.console import log
from jobs.context import RunContext
from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.feeds.declaration import Feed
from jobs.lake.ledger import (
    FORGOTTEN,
    REWRITTEN,
    STAGED,
    Ledger,
    LedgerEntry,
    as_delivered,
    by_path,
    forgotten,
    is_same_content,
    is_staged,
    next_batch,
    paths_beside,
    rewritten_as,
)
from jobs.lake.locks import require_lock_not_lost
from jobs.lake.objects import ObjectStore, RawFile, sha256_of
from jobs.lake.raw import file_id

RAW, ARCHIVE = "raw", "archive"


def as_raw(path: str) -> str:
    """Where an archived file was, and comes back to; other paths as they are."""
    return f"{RAW}/{path.removeprefix(f'{ARCHIVE}/')}" if path.startswith(f"{ARCHIVE}/") else path


def as_archived(path: str) -> str:
    """Where a raw file is once it is archived."""
    return f"{ARCHIVE}/{path.removeprefix(f'{RAW}/')}"


def archived(store: ObjectStore, feed: str) -> set[str]:
    """The paths below `raw/` of a feed's archived files."""
    return {as_raw(file.path) for file in store.list(f"{ARCHIVE}/{feed}")}


def how_to_restore(paths: Iterable[str]) -> str:
    """The command that brings archived files back, as a shell takes it."""
    return f"user-analytics archive --restore {shlex.join(sorted(paths))}"


def archivable(
    files: Sequence[RawFile], current: Mapping[str, LedgerEntry], delivered_before: datetime
) -> list[RawFile]:
    """The files that were delivered before a time and whose present version is staged."""
    return [
        file
        for file in files
        if is_staged(file, current) and as_delivered(file, current[file.path]).modified_at < delivered_before
    ]


def archive(run: RunContext, feed: str, delivered_before: datetime, write: bool = True) -> list[RawFile]:
    """Move what is `archivable` of a feed to the archive; write False only tells. Gives the files."""
    with run.locks.hold(f"staging/{feed}"):
        current = Ledger(run).current(feed)
        chosen = archivable(list(run.store.list(f"{RAW}/{feed}")), current, delivered_before)
        for file in chosen if write else ():
            _move(run, feed, file.path, as_archived(file.path))
    return chosen


def restore(run: RunContext, paths: Sequence[str]) -> list[str]:
    """Bring archived files back. The next staging reads them again, as delivered when they were, to the same end.

    Gives their paths below `raw/`. paths: as they are in the archive, or as they were in `raw/`; one that is back
    already stays as it is. Raises ConfigurationError, before anything is moved, when one is nowhere, or its place in
    `raw/` is taken.
    """
    wanted = list(dict.fromkeys(as_raw(path) for path in paths))
    away = []
    for path in wanted:
        parts = path.split("/")
        if parts[0] != RAW or len(parts) < 3 or ".." in parts:
            raise ConfigurationError(f"archive: {path}: write {ARCHIVE}/FEED/FILE")
        there, kept = run.store.digest(path), run.store.digest(as_archived(path))
        if kept is None and there is None:
            raise ConfigurationError(f"archive: {as_archived(path)}: there is no such file")
        if kept is None:
            # As after a kill, with others of these still to be moved.
            log.info("archive: %s is there already", path)
            continue
        if there not in (None, kept):
            raise ConfigurationError(f"archive: {path} is there with other content; it is the later delivery")
        away.append(path)
    for path in away:
        feed = path.split("/")[1]
        with run.locks.hold(f"staging/{feed}"):
            note_rewriting(run, feed, [path])
            try:
                _copy(run, feed, as_archived(path), path, overwrite=False)
            except FileExistsError:
                note_rewritten(run, feed, path)
                raise UserAnalyticsError(
                    f"{path} was delivered anew meanwhile; {as_archived(path)} stays"
                ) from None
            there_now = version_of(run.store, path)
            note_rewritten(run, feed, path, there_now and rewritten_as(there_now))
            # Last: without it, nothing is left to be done again.
            require_feed_lock(run, feed)
            run.store.delete(as_archived(path))
    return wanted


def require_feed_lock(run: RunContext, feed: str) -> None:
    """Raise LockLost when this run lost the lock of a feed: another one may have replaced or moved its files since."""
    require_lock_not_lost(run.settings.lake_path("staging", feed))


def note_rewriting(run: RunContext, feed: str, paths: Sequence[str]) -> None:
    """Say in the ledger that files of a feed are about to be written anew, before they are.

    Whoever stages next, also after a kill, reads them as files that were delivered when the old ones were; with another
    version, they would count as delivered now. paths: below `raw/`; those that the ledger does not know are left out.
    """
    current = Ledger(run).current(feed)
    known = [current[path] for path in paths if path in current]
    _note(run, feed, [entry for entry in known if entry.version != REWRITTEN], REWRITTEN)


def note_waiting(run: RunContext, feed: str, files: Sequence[RawFile]) -> None:
    """As `note_rewriting`, of files of which the present version is not staged yet: their time is that of the file."""
    now = datetime.now(UTC)
    entries = [
        LedgerEntry(
            *(feed, f.path, f.version, file_id(f.path), f.size, f.modified_at, 0, FORGOTTEN, None),
            *(0, 0, 0, 0, [], run.run_id, now),
        )
        for f in files
    ]
    _note(run, feed, entries, REWRITTEN)


def note_rewritten(run: RunContext, feed: str, path: str, version: str | None = None) -> None:
    """Say in the ledger which version a file has now that it was written anew: a later delivery is told from it.

    path: below `raw/`, of a file of which `note_rewriting` was told. version: None where it is gone, or what is in its
    place is another delivery already.
    """
    last = Ledger(run).current(feed).get(path)
    if last is not None and last.version == REWRITTEN:
        _note(run, feed, [last], version or rewritten_as(""))


def _note(run: RunContext, feed: str, entries: Sequence[LedgerEntry], version: str) -> None:
    ledger = Ledger(run)
    batch = next_batch(ledger.history(feed))
    with run.locks.hold("staging/_ingested_files"):
        ledger.write(replace(forgotten(entry, batch, run.run_id), version=version) for entry in entries)


def version_of(store: ObjectStore, path: str) -> str | None:
    """The version of the file at a path; None where there is none."""
    return next((file.version for file in store.list(path.rpartition("/")[0]) if file.path == path), None)


def require_all_there(
    store: ObjectStore,
    feed: Feed,
    listed: Sequence[RawFile],
    new: Sequence[RawFile],
    history: Sequence[LedgerEntry],
) -> None:
    """Raise UserAnalyticsError when a file that has to be read beside others is archived.

    See `jobs.lake.ledger.paths_beside`. A file that was written anew without being another delivery is no such case.
    listed: the feed's files below `raw/`. new: as `jobs.lake.ledger.new_files` gives them, without those that are read
    only beside them.
    """
    current = by_path(history)
    staged = {(e.path, e.modified_at) for e in history if e.status == STAGED}
    delivered = [f for f in new if not _is_rewritten(f, current.get(f.path), staged)]
    beside = paths_beside(history, delivered, feed.last_stays)
    if not beside:
        return
    # Of a file that is there, too, its correction, the older version is not needed.
    needed = sorted(beside & (archived(store, feed.name) - {file.path for file in listed}))
    if needed:
        raise UserAnalyticsError(
            f"stage {feed.name}: a file that was staged before, or is older than others, is read, and beside it files "
            f"with duplicates, of which {len(needed)} are archived; nothing was written. Bring them back: "
            f"{how_to_restore(needed)}"
        )


def _is_rewritten(file: RawFile, entry: LedgerEntry | None, staged: Collection[tuple[str, datetime]]) -> bool:
    """Whether a file is what was staged before, written anew, and not a delivery of its own.

    staged: paths and times of the deliveries that were staged; an erasure writes others anew, too.
    """
    return (
        entry is not None
        and entry.version.startswith(REWRITTEN)
        and is_same_content(file, entry)
        and (entry.path, entry.modified_at) in staged
    )


def _move(run: RunContext, feed: str, source: str, target: str) -> None:
    """Copy, compare, then remove; after a kill between, moving again ends the same."""
    _copy(run, feed, source, target, overwrite=True)
    require_feed_lock(run, feed)
    run.store.delete(source)


def _copy(run: RunContext, feed: str, source: str, target: str, overwrite: bool) -> None:
    """Copy a file of a feed and compare.

    Whoever replaces a raw file holds the lock of the feed, as whoever moves one: no version is moved or removed unseen.
    Raises FileExistsError when overwrite is False and something else is in the target's place.
    """
    store = run.store
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "file"
        with store.open(source) as stream, copy.open("wb") as out:
            shutil.copyfileobj(stream, out, 1024 * 1024)
        with copy.open("rb") as done:
            digest = sha256_of(done)
        if store.digest(target) != digest:
            require_feed_lock(run, feed)
            store.put(copy, target, digest, overwrite, lambda sent: None)
    with store.open(target) as stream:
        arrived = sha256_of(stream)
    if arrived != digest:
        raise UserAnalyticsError(f"{target} differs from {source}, which stays; archive again")
