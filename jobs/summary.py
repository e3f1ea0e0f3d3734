"""What a run ends with: records per feed, rows per table, first rows of every view, seconds, and where it all is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.console import table
from jobs.context import RunContext
from jobs.errors import QueryTooSlow
from jobs.lake.staging import StageResult
from jobs.settings import without_password
from jobs.warehouse.base import Warehouse
from jobs.warehouse.declarations import tables, views

FIRST_ROWS = 5
SECONDS_PER_VIEW = 1
COUNTS = ("records_read", "accepted", "duplicates", "rejected")


@dataclass(frozen=True)
class Contents:
    """What stands in the warehouse.

    counts: rows of each table. views: each one's columns and first rows; None where that takes long.
    """

    counts: dict[str, int]
    views: dict[str, tuple[list[str], list[tuple[object, ...]]] | None]


def warehouse_contents(warehouse: Warehouse) -> Contents:
    """Count the tables and read the first rows of the views; one over a large table is not waited for."""
    there = set(warehouse.published())
    counts = warehouse.counts([name for name in tables() if name in there])
    shown = [name for name in views() if _tables_of(name) <= there]
    return Contents(counts, {name: _first_rows(warehouse, name) for name in shown})


def _first_rows(warehouse: Warehouse, view: str) -> tuple[list[str], list[tuple[object, ...]]] | None:
    try:
        return warehouse.query(view, FIRST_ROWS, SECONDS_PER_VIEW)
    except QueryTooSlow:
        return None


def print_summary(
    run: RunContext, contents: Contents, results: Sequence[StageResult], report: str | None = None
) -> None:
    """Print the summary of a run to standard output. report: the address of the run's report."""
    print("\nRecords of this run")
    if any(result.entries for result in results):
        rows = [
            (r.feed, len(r.entries) - len(r.refused), len(r.refused), *(r.total(name) for name in COUNTS))
            for r in results
        ]
        print(table(("feed", "files", "refused", "read", "accepted", "duplicate", "rejected"), rows))
    else:
        print("  nothing new: every file was staged before, nothing was added")
    for entry in (entry for result in results for entry in result.refused):
        print(f"  refused: {entry.error}")

    print("\nRows per table")
    print(table(("table", "rows"), list(contents.counts.items())))
    for name, content in contents.views.items():
        print(f"\n{name}  ({views()[name].comment})")
        if content is None:
            print(f"  takes more than {SECONDS_PER_VIEW} s; user-analytics query {name} waits for it")
        else:
            header, first = content
            print(table(header, first) if first else "  no rows")

    print("\nSeconds per step")
    steps = [(s.name, round(s.seconds, 1), "; ".join(s.detail)) for s in run.steps]
    print(table(("step", "seconds", "what"), steps))
    broken = [found for found in run.findings if not found.passed]
    if broken:
        print("\nBroken rules")
        columns = ("of", "rule", "action", "expected", "checked", "breaking it")
        lines = [(f.subject, f.rule, f.action, f.expected, f.rows_checked, f.rows_failing) for f in broken]
        print(table(columns, lines))
    print(f"\nLake:      {run.settings.lake_uri}")
    if report:
        print(f"Report:    {report}")
    if run.settings.warehouse_url.startswith("bigquery:"):
        print(f"Warehouse: {run.settings.warehouse_url}")
    else:
        print(f"Warehouse: {without_password(run.settings.warehouse_url)}, schema {run.settings.schema}")
        print("Open it:   make psql   (or: user-analytics psql)")


def _tables_of(view: str) -> set[str]:
    """The tables that a view stands on, through other views."""
    reads = views()[view].reads
    return {name for read in reads for name in (_tables_of(read) if read in views() else {read})}
