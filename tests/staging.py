"""Staging seen from outside: files into a lake, staged in the tests' Spark session, tables as plain Python."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from jobs.context import RunContext
from jobs.feeds import FEEDS
from jobs.feeds.mapping import SourceNames
from jobs.lake.ledger import Ledger, LedgerEntry
from jobs.lake.locks import read_holder
from jobs.lake.objects import ObjectStore, object_store
from jobs.lake.quarantine import quarantine_table
from jobs.lake.staging import StageResult, stage, staging_table
from jobs.settings import Settings

DAY = 24 * 60 * 60
BOOKKEEPING = ("_file_id", "_delivered_at", "_key_hi", "_key_lo")


class RawZone:
    """The raw zone of one feed and what staging makes of it. File names are relative to `raw/<feed>/`."""

    def __init__(
        self, spark: SparkSession, lake_uri: str, feed: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.spark, self.feed = spark, feed
        self.settings = Settings.from_env({"LAKE_URI": lake_uri, **(environment or {})})
        self.store = object_store(self.settings)
        self.folder = Path(lake_uri) / "raw" / feed

    def put(self, files: Mapping[str, str | bytes], day: float = 1) -> None:
        """Deliver files; a name that is there is replaced. day: of January 2024, the files' modification time."""
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            os.utime(path, (1_704_067_200 + day * DAY,) * 2)

    def stage(self, names: SourceNames | None = None, max_rejected_share: float = 1.0) -> StageResult:
        return stage(self.run(), FEEDS[self.feed], names, max_rejected_share)

    def run(self) -> RunContext:
        """A run of its own, as `open_run` would give it."""
        return RunContext(
            lambda: self.spark, self.settings, self.store, uuid.uuid4().hex, f"stage {self.feed}"
        )

    def ledger(self) -> dict[str, LedgerEntry]:
        """The present entry of every file."""
        entries = Ledger(self).current(self.feed)
        return {path.removeprefix(f"raw/{self.feed}/"): entry for path, entry in entries.items()}

    def counts(self) -> dict[str, tuple[int, int, int, int]]:
        """Of every file that was not refused: records read, accepted, duplicates, rejected."""
        return {name: counts(entry) for name, entry in self.ledger().items() if not entry.error}

    def refused(self) -> dict[str, str]:
        """Why files were refused as a whole."""
        return {name: entry.error for name, entry in self.ledger().items() if entry.error}

    def staging(self) -> DataFrame:
        return staging_table(self, FEEDS[self.feed]).read()

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """Accepted records in a stable order: the columns asked for, else the feed's own and `_extra`."""
        frame = self.staging()
        rows = frame.select(*columns) if columns else frame.drop(*BOOKKEEPING)
        return sorted((tuple(row) for row in rows.collect()), key=repr)

    def rejected(self) -> list[tuple[str, tuple[str, ...], str]]:
        """(file, reasons, record) of what lies in quarantine, in a stable order."""
        table = quarantine_table(self)
        if not table.exists():
            return []
        rows = table.read().where(f"feed = '{self.feed}'").select("path", "reasons", "record").collect()
        found = [(r.path.removeprefix(f"raw/{self.feed}/"), tuple(r.reasons), r.record) for r in rows]
        return sorted(found, key=repr)

    def reasons(self) -> dict[str, int]:
        """How many records break each rule."""
        return dict(Counter(reason for _, reasons, _ in self.rejected() for reason in reasons))


def taken_over(store: ObjectStore, table: str) -> None:
    """Another run took a table's lock over, since it heard nothing of who had it, and has given it back."""
    path = f"locks/{table}.json"
    content, version = store.fetch(path) or (b"", "")
    given_back = replace(read_holder(path, content), token="another", released=True)
    assert store.swap(path, given_back.encode(), version)


def counts(entry: LedgerEntry) -> tuple[int, int, int, int]:
    """Records read, accepted, duplicates, rejected."""
    return entry.records_read, entry.accepted, entry.duplicates, entry.rejected


def balanced(entry: LedgerEntry) -> bool:
    """Whether nothing was lost and nothing came twice."""
    read, *parts = counts(entry)
    return read == sum(parts) and min(parts) >= 0
