"""The ledger of file versions: which raw files were staged, with what counts. It alone decides what is new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.lake.objects import RawFile
from jobs.lake.tables import LakeTable
from jobs.settings import Settings

STAGED, REFUSED = "staged", "refused"


@dataclass(frozen=True)
class LedgerEntry:
    """One reading of one version of a raw file. records_read = accepted + duplicates + rejected.

    batch: numbers the readings of a feed; the entry of a path with the highest one is the path's state.
    status: `staged`, or `refused` with the error that stopped the file as a whole.
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


_SQL_TYPES = {
    "str": T.StringType(),
    "str | None": T.StringType(),
    "int": T.LongType(),
    "datetime": T.TimestampType(),
    "list[str]": T.ArrayType(T.StringType()),
}
SCHEMA = T.StructType(
    [T.StructField(name, _SQL_TYPES[str(kind)]) for name, kind in LedgerEntry.__annotations__.items()]
)


class Ledger:
    """Append-only Delta table `staging/_ingested_files`, one row per reading of a file version."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        self.spark = spark
        self.table = LakeTable(
            spark,
            settings.lake_path("staging", "_ingested_files"),
            SCHEMA,
            comment="Readings of raw files. Grain: one row per feed, path and batch.",
        )

    def current(self, feed: str) -> dict[str, LedgerEntry]:
        """The last entry of every path of a feed, by path."""
        if not self.table.exists():
            return {}
        rows = self.table.read().where(F.col("feed") == feed).collect()
        entries = [LedgerEntry(**row.asDict()) for row in rows]
        # One entry per file and reading: few enough for the driver, and cheaper there than a sort in Spark.
        return {entry.path: entry for entry in sorted(entries, key=lambda entry: entry.batch)}

    def write(self, entries: Iterable[LedgerEntry]) -> None:
        """Append entries in one commit."""
        rows = [tuple(asdict(entry).values()) for entry in entries]
        if rows:
            self.table.ensure().append(self.spark.createDataFrame(rows, SCHEMA).coalesce(1))


def files_to_read(listed: Sequence[RawFile], current: dict[str, LedgerEntry]) -> list[RawFile]:
    """The files whose present version was not staged, in order of path.

    When a version replaces one that was staged, records of the old one may leave staging that another file delivered
    too, as duplicates; files with duplicates are therefore read again beside it.
    """

    def staged(file: RawFile) -> bool:
        entry = current.get(file.path)
        return entry is not None and entry.status == STAGED and entry.version == file.version

    new = [file for file in listed if not staged(file)]
    replaces = any(current[f.path].status == STAGED for f in new if f.path in current)
    if not replaces:
        return new
    return [f for f in listed if not staged(f) or current[f.path].duplicates > 0]
