"""Which feed a file on disk belongs to."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from jobs.console import log
from jobs.errors import ConfigurationError, FileRefused
from jobs.feeds import FEEDS
from jobs.feeds.declaration import Feed, RawFormat
from jobs.feeds.mapping import declared_sources
from jobs.lake.objects import LocalStore, RawFile, is_hidden
from jobs.lake.raw import InspectedFile, columns_by_field, first_bytes, inspect
from jobs.transforms.json_arrays import BYTE_ORDER_MARK, elements
from jobs.transforms.json_records import levels_of, read_record

JSON_NAMES = (".json", ".jsonl", ".ndjson")
# Records that are looked at: some of the first may be broken.
FIRST_RECORDS = 100


def files_by_feed(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder by feed: those in a sub-folder named like a feed, and those whose content fits just one.

    Others are left out with a line in the log. Raises ConfigurationError when there is no such folder, or nothing in
    it fits any feed.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            log.info("upload: %s left out: names that begin with _ or . are not read", path)
            continue
        feed, problems = None, set[str]()
        if path.is_dir():
            feed = path.name if path.name in FEEDS else None
        elif path.is_file():
            # One that may not be read fits no feed for another reason than its content.
            path.open("rb").close()
            fitting, problems = _tried(path)
            feed = fitting[0] if len(fitting) == 1 else None
        if feed is None:
            # What all feeds say is about the file, not about what one of them lacks in it.
            why = f": {problems.pop()}" if len(problems) == 1 else ""
            log.info("upload: %s fits no feed, left out%s", path, why)
        else:
            found.setdefault(feed, []).append(path)
    if not found:
        raise ConfigurationError(
            f"{folder}: nothing in it fits a feed; put files into sub-folders named {', '.join(FEEDS)}"
        )
    return found


def _tried(path: Path) -> tuple[list[str], set[str]]:
    """The feeds that a file fits; where there is none, why they refuse it."""
    fitting, problems = [], set()
    for name, feed in FEEDS.items():
        try:
            if _fits(feed, path):
                fitting.append(name)
        except FileRefused as error:
            problems.add(str(error).removeprefix(f"{path.name}: "))
    return fitting, set() if fitting else problems


def _fits(feed: Feed, path: Path) -> bool:
    """Whether a file's content is a feed's. Raises FileRefused as `inspect` does."""
    is_json = path.name.removesuffix(".gz").lower().endswith(JSON_NAMES)
    if is_json != (feed.format is RawFormat.JSON):
        return False
    store, names = LocalStore(path.parent), declared_sources(feed)
    file = RawFile(path.name, path.stat().st_size, datetime.now(UTC), "")
    found = inspect(store, feed, names, file)
    if is_json:
        there = _first_members(store, found)
        needed = (*(f.name for f in feed.fields if f.required), *feed.recognised_by)
        return all(there.intersection(names[name]) for name in needed)
    columns = columns_by_field(feed, names, found.header)
    return all(columns[name] for name in feed.recognised_by)


def _first_members(store: LocalStore, found: InspectedFile) -> set[str]:
    """Which of the names by which a JSON file is read its first records have, as far as its beginning reaches."""
    head, _ = first_bytes(store, found.file)
    text = head.decode(errors="ignore").removeprefix(BYTE_ORDER_MARK)
    levels, members = levels_of(found.names), set[str]()
    # The last of them is cut off, which is no error here.
    with suppress(ValueError):
        for record in islice(
            elements(text) if found.layout == "json_array" else text.splitlines(), FIRST_RECORDS
        ):
            members.update(read_record(record.encode(), levels).values)
    return members
