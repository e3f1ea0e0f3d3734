"""Say what a run would do now: files it would read, marts it would build, tables it would publish.

Grain:    one line per feed; per mart; per table.
Inputs:   the raw zone against the ledger, the marts' logs against staging, the published versions against the lake.
Outputs:  standard output. Nothing is written; an embedded warehouse is started for the question where there is one.
Re-run:   safe at any time. What the files hold is not known before they are read: marts of feeds with files to read are
          built after staging, and published on top of what is counted here.
Example:  user-analytics plan --json
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from jobs.build_review_features import scoring_model
from jobs.context import RunContext, job_main, open_run, parser
from jobs.errors import ConfigurationError
from jobs.feeds import FEEDS
from jobs.lake.ledger import REFUSED, STAGED, Ledger, LedgerEntry, by_path, files_to_read
from jobs.lake.objects import RawFile
from jobs.models.files import chosen_version
from jobs.origins import ORIGINS, Origin, followed, origin_of
from jobs.publish import dry_run, lake_tables, pending_loads
from jobs.reports import add_json, print_json, print_table
from jobs.settings import Settings
from jobs.warehouse import open_warehouse, require_made
from jobs.warehouse.base import ROW_COUNT, Warehouse

NEW, REPLACED, RETRIED, BESIDE = "new", "replaced", "refused before", "beside"


@dataclass(frozen=True)
class PlannedFile:
    """A file that would be read. why: new, replaced, refused before, or beside a replaced one, for its duplicates."""

    feed: str
    path: str
    bytes: int
    why: str


@dataclass(frozen=True)
class PlannedBuild:
    """Tables that are built together. versions: of the source, to be applied; None when all is made anew.

    what: in words; `up to date` when there is nothing to do. after_staging: files of its feeds would be read first.
    """

    tables: tuple[str, ...]
    what: str
    versions: int | None
    after_staging: bool


@dataclass(frozen=True)
class PlannedTable:
    """A table that would be published from the lake as it is, before anything is staged or built."""

    table: str
    strategy: str
    insert: int
    update: int
    delete: int


@dataclass(frozen=True)
class RunPlan:
    """What a run would do."""

    files: Sequence[PlannedFile]
    builds: Sequence[PlannedBuild]
    tables: Sequence[PlannedTable]


def plan_run(run: RunContext, warehouse: Warehouse | None) -> RunPlan:
    """Look at what is new everywhere. warehouse: None where a run would make it."""
    histories = Ledger(run).histories()
    files = []
    for feed, declaration in FEEDS.items():
        history = histories.get(feed, [])
        current = by_path(history)
        listed = list(run.store.list(f"raw/{feed}"))
        todo = files_to_read(listed, history, last_stays=declaration.last_stays)
        files += [PlannedFile(feed, f.path, f.size, why_read(f, current.get(f.path))) for f in todo]
    feeds = {file.feed for file in files}
    builds = [_planned_build(run, origin, not feeds.isdisjoint(origin.all_feeds)) for origin in ORIGINS]
    return RunPlan(files, builds, _planned_tables(run, warehouse))


def why_read(file: RawFile, last: LedgerEntry | None) -> str:
    """Why a file would be read, given its last reading."""
    if last is None or last.status not in (STAGED, REFUSED):
        return NEW
    if last.version != file.version:
        return REPLACED
    return RETRIED if last.status == REFUSED else BESIDE


def _planned_build(run: RunContext, origin: Origin, after_staging: bool) -> PlannedBuild:
    state = followed(run, origin)
    tables = origin.all_tables
    if state is None:
        return PlannedBuild(
            tables, "first build" if after_staging else "nothing staged yet", None, after_staging
        )
    if state.waiting is None:
        return PlannedBuild(tables, "all made anew", None, after_staging)
    if "movie_review" in tables and scoring_model(state.mark) != (latest := chosen_version(run.store)):
        return PlannedBuild(tables, f"all scored anew, by model {latest}", None, after_staging)
    what = f"{state.waiting} versions of {' and '.join(origin.feeds) or origin.mart}"
    return PlannedBuild(tables, what if state.waiting else "up to date", state.waiting, after_staging)


def _planned_tables(run: RunContext, warehouse: Warehouse | None) -> list[PlannedTable]:
    if warehouse is None:
        loads = pending_loads(lake_tables(run), {})
        counts = {load.table.name: int(load.expected[ROW_COUNT] or 0) for load in loads}
        found = [PlannedTable(name, "new table", number, 0, 0) for name, number in counts.items()]
    else:
        found = [
            PlannedTable(load.table.name, plan.strategy, rows.inserts, rows.updates, rows.deletes)
            for load, rows, plan in dry_run(run, warehouse)
        ]
    return sorted(found, key=lambda table: table.table)


def print_plan(plan: RunPlan) -> None:
    """Print the plan as tables."""
    numbers = Counter((file.feed, file.why) for file in plan.files)
    sizes: Counter[str] = Counter()
    for file in plan.files:
        sizes[file.feed] += file.bytes
    why = (NEW, REPLACED, RETRIED, BESIDE)
    print_table(
        "Files to read",
        ("feed", *why, "bytes"),
        [(feed, *(numbers[feed, reason] for reason in why), size) for feed, size in sizes.items()],
        "none",
    )
    print_table(
        "Marts to build",
        ("tables", "from what is staged", "more after staging"),
        [
            (origin_of(b.tables[0]).label, b.what, "yes" if b.after_staging else "no")
            for b in plan.builds
            if b.after_staging or b.what not in ("up to date", "nothing staged yet")
        ],
        "none",
    )
    print_table(
        "Tables to publish, as the lake is now",
        ("table", "strategy", "insert", "update", "delete"),
        [tuple(asdict(table).values()) for table in plan.tables],
        "none",
    )


def as_document(plan: RunPlan) -> dict[str, Any]:
    """The plan for programs."""
    return asdict(plan)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan; the arguments are those of `--help`."""
    arguments = parser(__doc__, "plan")
    add_json(arguments)
    options = arguments.parse_args(argv)

    def body() -> None:
        settings = Settings.from_env()
        with ExitStack() as stack:
            warehouse = stack.enter_context(open_warehouse(settings)) if _is_made(settings) else None
            run = stack.enter_context(open_run("plan", settings, make=False, write=False))
            plan = plan_run(run, warehouse)
        if options.json:
            print_json(as_document(plan))
        else:
            print_plan(plan)

    return job_main(body)


def _is_made(settings: Settings) -> bool:
    try:
        require_made(settings)
    except ConfigurationError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
