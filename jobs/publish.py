"""Publish the marts and the run tables to the warehouse, and make the views over them.

Grain:    as the tables' own, see `sql/`.
Inputs:   `marts/*`, `runs/*` and the ledger of files: what changed since the version published last.
Outputs:  the same tables and the views of `views/` in the warehouse's schema, in one transaction.
Re-run:   safe at any time, also after a kill and from two places at once: the versions that are published stand in the
          warehouse itself and change in the same transaction as the data. With nothing new, no table is touched.
Checks:   rules of the tables (`sql/<table>.toml`) before loading; row counts and sums equal to the marts', keys
          enforced, after it: one that fails rolls everything back.
Exit:     3 when a rule that says `fail` is broken; nothing is published then, unless --warn-only.
Example:  WAREHOUSE_URL=postgresql://… spark-submit jobs/publish.py
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.column_lineage import IDENTITY, SourceColumn, columns_of_view
from jobs.console import log
from jobs.context import RunContext, add_warn_only, job_main, open_run, parser
from jobs.datasets import Dataset, of_lake
from jobs.dry_run import RowChanges, print_plans, row_changes
from jobs.errors import CheckFailed, UserAnalyticsError
from jobs.lake.ledger import Ledger
from jobs.lake.marts import chosen_columns, mart_table
from jobs.lake.tables import GONE, LakeTable
from jobs.quality.tables import judge_tables, table_rules
from jobs.runs import RECORDED_TABLES, RUN_TABLES, lock_of, record_new_columns, recorded, run_table
from jobs.settings import Settings
from jobs.spark import some_at_once
from jobs.warehouse import open_warehouse
from jobs.warehouse.base import (
    REPLACED_FROM_SHARE,
    ROW_COUNT,
    Check,
    Load,
    Measures,
    Plan,
    Published,
    Warehouse,
)
from jobs.warehouse.declarations import Table, tables, views_over

STRATEGIES = ("auto", "merge", "replace")
# How far the clocks of lake and warehouse may be apart: no further than S3 lets one be from its own.
CLOCKS_APART = timedelta(minutes=15)
# Small tables are merged without a count.
COUNTED_FROM_ROWS = 1_000_000


def lake_table(run: RunContext, table: Table) -> LakeTable:
    """Where in the lake the rows of a declared table are."""
    if table.name == "etl_files":
        return Ledger(run).table
    if table.name in RUN_TABLES:
        return run_table(run, table.name)
    return mart_table(run, table)


def publish(
    run: RunContext, warehouse: Warehouse, names: Sequence[str] | None = None, strategy: str = "auto"
) -> list[Check]:
    """Bring tables in the warehouse to the state that the lake has now; by default all that the lake holds.

    strategy: `merge` what changed; `replace` the whole tables; `auto` merges, but replaces a large table of which more
    than an eighth changed, or those months of it, where it has monthly partitions. Either way a table without a
    published state, or without its history, is loaded whole.
    Gives the results of the post-load checks; an empty list when nothing was new. Raises CheckFailed, with nothing
    published and the results added to the run's, when a check fails, and RuleFailed when a rule that says `fail` is
    broken in what would be published.
    """
    sources = lake_tables(run, names)
    # A column that was declared since the mart was last built is added to it first.
    for _, source in sources.values():
        if not source.is_declared():
            with run.locks.hold(lock_of(run, source)):
                source.ensure()
    with warehouse.publishing() as publication:
        published = publication.published
        loads = pending_loads(sources, published, strategy)
        if not loads:
            log.info("publish: nothing new")
            return []
        log.info(
            "publish: %s", ", ".join(f"{x.table.name} ({'whole' if x.whole else 'changes'})" for x in loads)
        )
        if columns := publication.new_columns(loads):
            record_new_columns(run, columns)
        ruled = table_rules().keys() & {load.table.name for load in loads}
        changed = [
            (x.table.name, sources[x.table.name][1].read(x.state.version))
            for x in loads
            if x.table.name in ruled
        ]
        judge_tables(run, changed, lambda name: _mart_rows(run, name))
        present = {*published, *(load.table.name for load in loads)}
        shown = views_over(present)
        with run.heartbeat("publish"):
            try:
                checks = publication.commit(loads, shown)
            except CheckFailed as error:
                run.checks += error.checks
                raise
    for load in loads:
        _note(run, load, sources[load.table.name][1])
    run.note_written(
        *(Dataset(v.name, in_warehouse=True, columns=partial(columns_of_view, v)) for v in shown)
    )
    log.info("publish: %d tables, %d checks passed", len(loads), len(checks))
    return checks


def _note(run: RunContext, load: Load, source: LakeTable) -> None:
    table = of_lake(source, run.settings.lake_uri, load.state.version)
    copied = {c: [SourceColumn(table.name, c, IDENTITY)] for c in load.table.column_names}
    run.note_read(table)
    run.note_written(
        Dataset(
            load.table.name,
            load.state.version,
            int(load.expected[ROW_COUNT] or 0),
            in_warehouse=True,
            schema=load.table.spark_schema(),
            columns=lambda: copied,
        )
    )


def _mart_rows(run: RunContext, name: str) -> DataFrame | None:
    source = lake_table(run, tables()[name])
    return source.read() if source.exists() else None


def dry_run(
    run: RunContext, warehouse: Warehouse, strategy: str = "auto"
) -> list[tuple[Load, RowChanges, Plan]]:
    """What `publish` would do now, table by table. Writes nothing."""
    sources, published = lake_tables(run), warehouse.published()
    plans = []
    for load in pending_loads(sources, published, strategy):
        name = load.table.name
        if load.whole:
            replaced = warehouse.counts([name])[name] if name in published else 0
            changes = RowChanges(int(load.expected[ROW_COUNT] or 0), 0, replaced)
        elif isinstance(load.rows, pa.Table):
            changes = RowChanges(load.rows.num_rows, 0, 0)
        else:
            changes = row_changes(load, sources[name][1].read(published[name].version))
        plans.append((load, changes, warehouse.plan(load)))
    return plans


def lake_tables(run: RunContext, names: Sequence[str] | None = None) -> dict[str, tuple[Table, LakeTable]]:
    """The declared tables that the lake has, by name; only those of `names` where given."""
    wanted = [chosen_columns(t, run.settings) for t in tables().values() if names is None or t.name in names]
    sources = {table.name: (table, lake_table(run, table)) for table in wanted}
    return {name: source for name, source in sources.items() if source[1].exists()}


def pending_loads(
    sources: Mapping[str, tuple[Table, LakeTable]], published: Mapping[str, Published], strategy: str = "auto"
) -> list[Load]:
    """What has to be loaded of the tables of the lake, given what the warehouse holds."""

    def load(name: str) -> Load | None:
        return _load(*sources[name], published.get(name), strategy)

    return [found for found in some_at_once(load, sources) if found]


def _load(table: Table, source: LakeTable, published: Published | None, strategy: str) -> Load | None:
    """What has to be loaded of one table; None when the warehouse has it all."""
    state = Published(source.table_id(), source.version())
    # The state that changes lead on from; None where the table is loaded whole.
    known = (
        published if strategy != "replace" and published and published.table_id == state.table_id else None
    )
    if known:
        _require_published_here(table, source, known, state)
    if published == state:
        return None
    if table.name in RECORDED_TABLES and (
        found := _recorded_load(table, source, state, known.version if known else None)
    ):
        return found
    expected = lake_measures(table, source, state.version)
    if known:
        try:
            rows, only_inserts = source.changes(known.version, state.version, table.primary_key)
        except GONE as error:
            log.warning(
                "publish %s: its history is gone (%s); published whole", table.name, type(error).__name__
            )
        else:
            merged = strategy == "merge"
            if merged or known.by_month or not _mostly_changed(table, rows, expected):
                rows = rows.withColumn("_deleted", F.lit(False)) if only_inserts else rows
                return Load(table, rows, False, state, expected, only_merge=merged)
    return Load(table, source.read(state.version), True, state, expected)


def _require_published_here(table: Table, source: LakeTable, published: Published, state: Published) -> None:
    """Stop where the warehouse holds a version that the lake does not have, or that has come about again since.

    A lake that was restored from a backup counts on from there: the same numbers then stand for other rows.
    """
    found = None
    if published.version > state.version:
        found = f"only {state.version}. Other tables may have come to the published version again, with other rows"
    else:
        committed = source.committed_at(published.version)
        if committed and published.at and committed > published.at + CLOCKS_APART:
            found = f"one of that number which was made later, {committed:%Y-%m-%d %H:%M} UTC"
    if found:
        raise UserAnalyticsError(
            f"publish {table.name}: the warehouse holds version {published.version}, the lake {found}. Was the lake "
            "restored from a backup? To publish the lake's state, delete all rows in _published"
        )


def _recorded_load(table: Table, source: LakeTable, state: Published, since: int | None) -> Load | None:
    """What has to be loaded of a run table, without Spark; None where rows were changed rather than added.

    since: the version that the warehouse holds; None for the whole table.
    """
    rows = source.few_rows() if since is None else source.few_added(since, state.version)
    count = source.few_count()
    if rows is None or source.version() != state.version:
        return None
    rows = rows.select(table.column_names)
    if since is not None:
        rows = rows.append_column("_deleted", pa.array([False] * rows.num_rows))
    return Load(table, rows, since is None, state, {ROW_COUNT: count})


def _mostly_changed(table: Table, changes: DataFrame, expected: Measures) -> bool:
    total = int(expected[ROW_COUNT] or 0)
    if total < COUNTED_FROM_ROWS:
        return False
    changed = changes.count()
    if changed <= total * REPLACED_FROM_SHARE:
        return False
    log.info("publish %s: %s of %s rows changed; published whole", table.name, f"{changed:,}", f"{total:,}")
    return True


def lake_measures(table: Table, source: LakeTable, version: int) -> Measures:
    """The number of rows and the sum of each measure of a declared table, in a version of its Delta form."""
    there = source.column_names()
    sums = [
        f'sum(CAST("{name}" AS DECIMAL(38, 4))) AS "sum({name})"' for name in table.measures if name in there
    ]
    (found,) = source.query(f"SELECT {', '.join([f'count(*) AS {ROW_COUNT}', *sums])} FROM t", version)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Publish, or say what would be published."""
    arguments = parser(__doc__, "publish")
    arguments.add_argument(
        "--dry-run", action="store_true", help="show rows, strategy and SQL per table; write nothing"
    )
    arguments.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="merge what changed, replace whole tables, or choose by size, month by month where a table has "
        "partitions (default: %(default)s)",
    )
    add_warn_only(arguments)
    options = arguments.parse_args(argv)

    def body() -> None:
        settings = Settings.from_env()
        with open_warehouse(settings) as warehouse, open_run("publish", settings, options.warn_only) as run:
            if options.dry_run:
                print_plans(dry_run(run, warehouse, options.strategy))
                return
            with recorded(run), run.step("publish"):
                run.checks += publish(run, warehouse, strategy=options.strategy)
            publish(run, warehouse, RECORDED_TABLES)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
