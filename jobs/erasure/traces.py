"""What is left of a person: a look at every byte of the lake and at the tables of the warehouse."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError

from jobs.context import RunContext
from jobs.erasure.person import ID_COLUMNS, Person, readings
from jobs.erasure.raw_files import cut, may_name, opened, unread
from jobs.feeds import FEEDS
from jobs.feeds.declaration import Feed
from jobs.feeds.mapping import SourceNames, declared_sources, mapped_sources
from jobs.lake import folders
from jobs.lake.archive import ARCHIVE, RAW, as_raw
from jobs.lake.ledger import LedgerEntry
from jobs.lake.locks import FOLDER as LOCKS
from jobs.warehouse.base import Warehouse
from jobs.warehouse.declarations import tables

QUARANTINED = re.compile(r"staging/_quarantine/(?:_change_data/)?.*\bfeed=(\w+)/")


@dataclass(frozen=True)
class Trace:
    """A file of the lake, or a table of the warehouse, that names the person; or a file that cannot be searched."""

    where: str
    what: str


@dataclass(frozen=True)
class Search:
    """What to look for. entries: the ledger's present ones, by path below `raw/`: they know a file's column names."""

    person: Person
    entries: Mapping[str, LedgerEntry]

    def names(self, feed: Feed, path: str) -> SourceNames:
        """The column names by which a raw or archived file was read."""
        entry = self.entries.get(as_raw(path))
        return mapped_sources(feed, entry.mapping) if entry else declared_sources(feed)

    def in_lake(self, run: RunContext, below: str = "") -> Iterator[Trace]:
        """Every file below a folder of the lake in which something is left, in order of path."""
        folder = f"{run.settings.lake_uri}/{below}".rstrip("/")
        for name in folders.files_below(run.spark, folder):
            path = f"{below}/{name}" if below else name
            if path.startswith(f"{LOCKS}/"):
                continue
            if what := self._in_file(run, path):
                yield Trace(path, what)

    def _in_file(self, run: RunContext, path: str) -> str | None:
        if self.person.is_named_in(path):
            return "the file's name"
        zone, _, rest = path.partition("/")
        try:
            if zone in (RAW, ARCHIVE):
                return self._in_raw(run, rest.partition("/")[0], path)
            with run.store.open(path) as stream:
                if path.endswith(".parquet"):
                    return self._in_parquet(path, stream.read())
                return "text" if self._in_text(stream.read().decode("utf-8", "surrogateescape")) else None
        except BotoCoreError:
            raise  # the store's fault, though some of these are OSErrors, too
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            return f"cannot be searched: {type(error).__name__}"

    def _in_raw(self, run: RunContext, feed: str, path: str) -> str | None:
        if why := unread(run.store, path):
            return f"cannot be searched: {why}"
        with run.store.open(path) as stream, opened(stream, path) as plain:
            if not may_name(self.person, plain):
                return None
        if feed not in FEEDS:
            return "text of no feed"
        with run.store.open(path) as stream, opened(stream, path) as plain:
            found = cut(self.person, FEEDS[feed], self.names(FEEDS[feed], path), plain)
        if found.removed:
            return f"{found.removed} records"
        return None if found.kept else "a file that cannot be taken apart"

    def _in_text(self, text: str) -> bool:
        if self.person.is_named_in(text):
            return True
        return any(
            re.search(rf'"{column}":\s*"{re.escape(value)}"', reading)
            for reading in readings(text)
            for column, values in self.person.ids.items()
            for value in values
        )

    def _in_parquet(self, path: str, content: bytes) -> str | None:
        file = pq.ParquetFile(io.BytesIO(content))
        for number in range(file.num_row_groups):
            group = file.read_row_group(number)
            for name in group.column_names:
                column = group[name]
                kind = column.type
                if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
                    values = [str(v) for v in column.unique().to_pylist() if v is not None]
                elif pa.types.is_nested(kind):
                    values = [json.dumps(v, default=str, ensure_ascii=False) for v in column.to_pylist() if v]
                    if any(map(self._in_text, values)):
                        return f"column {name}"
                    continue
                else:
                    continue
                if self.person.is_named_in("\n".join(values)) or self._has_ids(path, name, values):
                    return f"column {name}"
        return None

    def _has_ids(self, path: str, column: str, values: Iterable[str]) -> bool:
        if column in ID_COLUMNS:
            return any(self.person.has_id(column, value) for value in values)
        found = QUARANTINED.match(path)
        if column == "record" and found and found[1] in FEEDS:
            feed = FEEDS[found[1]]
            return any(self.person.owns_json(feed, declared_sources(feed), value) for value in values)
        return False

    def in_warehouse(self, warehouse: Warehouse) -> Iterator[Trace]:
        """Every published table that has rows left."""
        published = warehouse.published()
        texts = sorted(
            {
                form
                for email in self.person.emails
                for form in (email, email.replace("@", "%40"), json.dumps(email)[1:-1])
            }
        )
        for name, table in tables().items():
            ids = {c: v for c, v in self.person.ids.items() if c in table.column_names}
            if name not in published or not any(
                c.type.is_type("varchar") or c.is_nested for c in table.columns
            ):
                continue
            rows = warehouse.rows_naming(table, texts, ids)
            mine = [row for row in rows if self.person.is_named_in(row) or self._in_text(row)]
            if mine:
                yield Trace(f"warehouse {name}", f"{len(mine)} rows")
