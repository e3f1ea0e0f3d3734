"""Rejected records, whole, with every reason. Nothing that was delivered is dropped."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.lake.tables import Lake, LakeTable
from jobs.spark import local_rows

SCHEMA = T.StructType(
    [
        T.StructField("feed", T.StringType()),
        T.StructField("file_id", T.LongType()),
        T.StructField("path", T.StringType()),
        T.StructField("reasons", T.ArrayType(T.StringType())),
        T.StructField("record", T.StringType()),
        T.StructField("run_id", T.StringType()),
        T.StructField("rejected_at", T.TimestampType()),
    ]
)


def quarantine_table(lake: Lake) -> LakeTable:
    """`staging/_quarantine`, one row per rejected record; a file's rows are those of its last reading."""
    return LakeTable(
        lake,
        lake.settings.lake_path("staging", "_quarantine"),
        SCHEMA,
        partitioned_by=("feed",),
        comment="Rejected records as they came, with the names of all rules they break.",
    )


def write_quarantine(
    table: LakeTable, feed: str, file_ids: Sequence[int], rejected: DataFrame | None
) -> None:
    """Make the quarantine of these files what this reading rejected, in one commit; rejected None means nothing.

    rejected: columns of SCHEMA.
    """
    if table.counts_by("file_id", file_ids):
        condition = f"feed = '{feed}' AND file_id IN ({', '.join(map(str, file_ids))})"
        rows = local_rows(table.spark, [], SCHEMA) if rejected is None else rejected
        table.replace_where(rows.where(F.col("feed") == feed), condition)
    elif rejected is not None:
        table.ensure().append(rejected)


@dataclass(frozen=True)
class RejectedCount:
    """How many records of a file break the same rules."""

    feed: str
    path: str
    reasons: tuple[str, ...]
    records: int


def selected(
    table: LakeTable, feed: str | None = None, reason: str | None = None, file: str | None = None
) -> DataFrame:
    """The rejected records of a feed, for a reason, of the files whose path fits a pattern with `*` and `?`."""
    rows = table.read()
    if feed:
        rows = rows.where(F.col("feed") == feed)
    if reason:
        rows = rows.where(F.array_contains("reasons", reason))
    if file:
        rows = rows.where(F.col("path").rlike(f"^(?s:{_as_regex(file).pattern})$"))
    return rows


def count_rejected(
    table: LakeTable,
    feed: str | None = None,
    reason: str | None = None,
    file: str | None = None,
    run_ids: Collection[str] | None = None,
) -> list[RejectedCount]:
    """Count rejected records by feed, file and reasons, in this order; without Spark.

    feed, reason, file: as `selected` has them. run_ids: those that were rejected in one of these runs.
    """
    if not table.exists():
        return []
    found = table.query(
        f"SELECT feed, path, reasons, count(*) AS records FROM t WHERE {_of_runs(run_ids)} GROUP BY feed, path, reasons"
    )
    counts = (RejectedCount(r["feed"], r["path"], tuple(r["reasons"]), r["records"]) for r in found)
    pattern = _as_regex(file or "*")
    chosen = (
        c
        for c in counts
        if feed in (None, c.feed) and (reason is None or reason in c.reasons) and pattern.fullmatch(c.path)
    )
    return sorted(chosen, key=lambda count: (count.feed, count.path, count.reasons))


def no_such_reason(reason: str, counts: Sequence[RejectedCount]) -> str:
    """What to say where none of what was counted was rejected for a reason."""
    there = sorted({name for count in counts for name in count.reasons})
    return f"no record was rejected for {reason}; the reasons are: {', '.join(there) or 'none'}"


def sample_rejected(
    table: LakeTable, counts: Sequence[RejectedCount], number: int, run_ids: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """So many records of every feed and combination of reasons that was counted, the same ones each time."""
    if not counts:
        return []
    paths = ", ".join(sorted({_text(count.path) for count in counts}))
    order = "PARTITION BY feed, reasons ORDER BY md5(concat(path, record)), path, record"
    numbered = f"SELECT *, row_number() OVER ({order}) AS number FROM t WHERE path IN ({paths}) AND {_of_runs(run_ids)}"
    found = table.query(
        f"SELECT feed, path, reasons, record, run_id, rejected_at FROM ({numbered}) WHERE number <= {number} "
        "ORDER BY feed, reasons, number"
    )
    kinds = {(count.feed, count.reasons) for count in counts}
    return [row for row in found if (row["feed"], tuple(row["reasons"])) in kinds]


def _of_runs(run_ids: Collection[str] | None) -> str:
    return "true" if run_ids is None else f"run_id IN ({', '.join(map(_text, run_ids))})"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _as_regex(pattern: str) -> re.Pattern[str]:
    """A pattern of a path, in which `*` stands for any text and `?` for any letter."""
    return re.compile("".join({"*": ".*", "?": "."}.get(c) or re.escape(c) for c in pattern), re.DOTALL)
