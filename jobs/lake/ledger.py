"""The ledger of file versions: which raw files were staged, with what counts. It alone decides what is new."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import types as T

from jobs.lake.objects import RawFile, text_bytes
from jobs.lake.tables import Lake, LakeTable

STAGED, REFUSED, FORGOTTEN = "staged", "refused", "forgotten"
# The version of a file that is about to be written anew without being another delivery.
REWRITTEN = "rewritten"


@dataclass(frozen=True)
class LedgerEntry:
    """One reading of one version of a raw file. records_read = accepted + duplicates + rejected.

    When another file brings a better record of the same key, the row becomes that file's, and the file that had it
    gets a new entry in which the record counts as a duplicate.

    batch: numbers the readings of a feed; the entry of a path with the highest one is the path's state.
    status: `staged`, or `refused` with the error that stopped the file as a whole, or `forgotten` by a reset.
    modified_at: when the file was delivered, which stays so where the file was written anew since.
    mapping: the names by which it was read, where they are not the feed's own; see `jobs.feeds.mapping.mapping_text`.
    is_recount: nothing was read: another file, a reset or an erasure changed what there is of the file.
    """

    feed: str
    path: str
    version: str
    file_id: int
    size_bytes: int
    modified_at: datetime
    batch: int
    status: str
    error: str | None
    records_read: int
    accepted: int
    duplicates: int
    rejected: int
    unknown_columns: list[str]
    run_id: str
    staged_at: datetime
    mapping: str | None = None
    is_recount: bool = False

    @property
    def text_bytes(self) -> int:
        return text_bytes(self.path, self.size_bytes)


_SQL_TYPES = {
    "str": T.StringType(),
    "str | None": T.StringType(),
    "int": T.LongType(),
    "bool": T.BooleanType(),
    "datetime": T.TimestampType(),
    "list[str]": T.ArrayType(T.StringType()),
}
SCHEMA = T.StructType(
    [T.StructField(name, _SQL_TYPES[str(kind)]) for name, kind in LedgerEntry.__annotations__.items()]
)


class Ledger:
    """Append-only Delta table `staging/_ingested_files`, one row per reading of a file version and per recount."""

    def __init__(self, lake: Lake) -> None:
        self.table = LakeTable(
            lake,
            lake.settings.lake_path("staging", "_ingested_files"),
            SCHEMA,
            comment="Readings and recounts of raw files. Grain: one row per feed, path and batch.",
        )

    def history(self, feed: str) -> list[LedgerEntry]:
        """All entries of a feed, oldest first."""
        if not self.table.exists():
            return []
        return _entries(self.table.few_rows().filter(pc.field("feed") == feed))

    def histories(self) -> dict[str, list[LedgerEntry]]:
        """All entries of every feed that has some, oldest first."""
        found: dict[str, list[LedgerEntry]] = {}
        if self.table.exists():
            for entry in _entries(self.table.few_rows()):
                found.setdefault(entry.feed, []).append(entry)
        return found

    def current(self, feed: str) -> dict[str, LedgerEntry]:
        """The last entry of every path of a feed, by path."""
        return by_path(self.history(feed))

    def write(self, entries: Iterable[LedgerEntry]) -> None:
        """Append entries in one commit."""
        rows = [tuple(asdict(entry).values()) for entry in entries]
        if rows:
            self.table.ensure().add(rows)


def _entries(rows: pa.Table) -> list[LedgerEntry]:
    # One entry per file and reading: few enough for this process.
    return sorted((LedgerEntry(**row) for row in rows.to_pylist()), key=lambda entry: entry.batch)


def forgotten(entry: LedgerEntry, batch: int, run_id: str) -> LedgerEntry:
    """An entry that says that the file is to be read as though it had never been read."""
    return replace(
        entry,
        batch=batch,
        status=FORGOTTEN,
        error=None,
        records_read=0,
        accepted=0,
        duplicates=0,
        rejected=0,
        unknown_columns=[],
        run_id=run_id,
        staged_at=datetime.now(UTC),
        is_recount=True,
    )


def by_path(history: Iterable[LedgerEntry]) -> dict[str, LedgerEntry]:
    """The last entry of every path. history: oldest first."""
    return {entry.path: entry for entry in history}


def next_batch(history: Iterable[LedgerEntry]) -> int:
    """The number of a feed's next reading. history: the feed's entries."""
    return 1 + max((entry.batch for entry in history), default=0)


def last_new(history: Iterable[LedgerEntry]) -> datetime | None:
    """When a file version was staged that had not been before. history: oldest first."""
    first_read: dict[tuple[str, str], datetime] = {}
    for entry in history:
        if entry.status == STAGED:
            first_read.setdefault((entry.path, entry.version), entry.staged_at)
    return max(first_read.values(), default=None)


def is_same_content(file: RawFile, entry: LedgerEntry | None) -> bool:
    """Whether a file is no other delivery than what the entry read."""
    return entry is not None and entry.version in (file.version, REWRITTEN, rewritten_as(file.version))


def rewritten_as(version: str) -> str:
    """What the ledger has for a file's version once the file is written anew without being another delivery."""
    return f"{REWRITTEN}:{version}"


def as_delivered(file: RawFile, entry: LedgerEntry | None) -> RawFile:
    """The file with the time of its delivery, which decides between records, wherever it was moved meanwhile."""
    return replace(file, modified_at=entry.modified_at) if entry and is_same_content(file, entry) else file


def files_to_read(
    listed: Sequence[RawFile],
    history: Sequence[LedgerEntry],
    reread: Collection[str] | None = None,
    last_stays: bool = False,
) -> list[RawFile]:
    """All that staging would read, in order of path: new files, and those beside them.

    Arguments as of `new_files` and `paths_beside`.
    """
    new = new_files(listed, history, reread)
    chosen = {*new, *files_beside(listed, history, new, last_stays)}
    return [file for file in listed if file in chosen]


def new_files(
    listed: Sequence[RawFile],
    history: Sequence[LedgerEntry],
    reread: Collection[str] | None = None,
    unsettled: Collection[str] = (),
) -> list[RawFile]:
    """The files whose present version was not staged, in order of path. history: the feed's entries, oldest first.

    reread: take the files of these paths instead, staged or not. unsettled: paths that are taken in any case.
    """
    current = by_path(history)

    def is_new(file: RawFile) -> bool:
        return file.path in reread if reread is not None else not is_staged(file, current)

    return [file for file in listed if is_new(file) or file.path in unsettled]


def files_beside(
    listed: Sequence[RawFile], history: Sequence[LedgerEntry], new: Collection[RawFile], last_stays: bool
) -> list[RawFile]:
    """The staged files that have to be read again beside new ones, in order of path; see `paths_beside`."""
    current, paths = by_path(history), paths_beside(history, new, last_stays) - {file.path for file in new}
    return [file for file in listed if file.path in paths and is_staged(file, current)]


def paths_beside(history: Sequence[LedgerEntry], new: Collection[RawFile], last_stays: bool) -> set[str]:
    """The paths of the files, there or archived, that have to be read again beside new ones.

    When a version replaces one that was staged, however long ago, records of the old one may leave staging that
    another file delivered too, as duplicates; files with duplicates are therefore read again. The same holds for a file
    that is read again under other rules.

    last_stays: of several records, the one delivered last stays. A row that was delivered again as it was keeps the
    time of its first delivery, so of a new file that was delivered earlier than another with duplicates, only that
    one tells which record is the later one.
    """
    with_duplicates = [e for e in by_path(history).values() if e.status == STAGED and e.duplicates > 0]
    once_staged = {entry.path for entry in history if entry.status == STAGED}
    if any(file.path in once_staged for file in new):
        return {entry.path for entry in with_duplicates}
    if not last_stays or not new:
        return set()
    earliest = min(file.modified_at for file in new)
    return {entry.path for entry in with_duplicates if entry.modified_at >= earliest}


def is_staged(file: RawFile, current: Mapping[str, LedgerEntry]) -> bool:
    """Whether the present version of a file is staged. current: the last entry of every path."""
    entry = current.get(file.path)
    return entry is not None and entry.status == STAGED and entry.version == file.version


def unsettled_files(history: Iterable[LedgerEntry], rows: Mapping[int, int]) -> set[str]:
    """The paths of staged files of which staging does not hold as many rows as the ledger says.

    That is what a run leaves that was killed before it could note that their rows are another file's now. rows: the
    number of staged rows by file id. history: oldest first.
    """
    staged = (entry for entry in by_path(history).values() if entry.status == STAGED)
    return {entry.path for entry in staged if rows.get(entry.file_id, 0) != entry.accepted}


def unknown_files(history: Iterable[LedgerEntry], rows: Iterable[int]) -> list[int]:
    """The ids of files that have staged rows but were never noted as staged, by a run that was killed before."""
    known = {entry.file_id for entry in history if entry.status != REFUSED}
    return sorted(set(rows) - known)
