"""Publish the marts and the run tables to the warehouse, and make the views over them.

Grain:    as the tables' own, see `sql/`.
Inputs:   `marts/*`, `runs/*` and the ledger of files: what changed since the version published last.
Outputs:  the same tables and the views of `views/` in the warehouse's schema, in one transaction.
Re-run:   safe at any time, also after a kill and from two places at once: the versions that are published stand in the
          warehouse itself and change in the same transaction as the data. With nothing new, no table is touched.
Checks:   row counts and sums equal to the marts', keys enforced; one that fails rolls everything back.
Example:  WAREHOUSE_URL=postgresql://… spark-submit jobs/publish.py
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from jobs.console import heartbeat, log
from jobs.context import RunContext, job_main, open_run, parser
from jobs.errors import UserAnalyticsError
from jobs.lake.ledger import Ledger
from jobs.lake.marts import mart_table
from jobs.lake.tables import LakeTable
from jobs.runs import RECORDED_TABLES, RUN_TABLES, recorded, run_table
from jobs.settings import Settings
from jobs.warehouse import open_warehouse
from jobs.warehouse.base import Check, Load, Published, Warehouse
from jobs.warehouse.declarations import Table, tables, views_over


def lake_table(run: RunContext, table: Table) -> LakeTable:
    """Where in the lake the rows of a declared table are."""
    if table.name == "etl_files":
        return Ledger(run.spark, run.settings).table
    if table.name in RUN_TABLES:
        return run_table(run.spark, run.settings, table.name)
    return mart_table(run.spark, run.settings, table)


def publish(run: RunContext, warehouse: Warehouse, names: Sequence[str] | None = None) -> list[Check]:
    """Bring tables in the warehouse to the state that the lake has now; by default all that the lake holds.

    Gives the results of the post-load checks; an empty list when nothing was new. Raises CheckFailed, with nothing
    published, when a check fails.
    """
    wanted = [t for t in tables().values() if names is None or t.name in names]
    sources = {table.name: lake_table(run, table) for table in wanted}
    # A column that was declared since the mart was last built is added to it first.
    there = {name: source.ensure() for name, source in sources.items() if source.exists()}
    with warehouse.publishing() as publication:
        published = publication.published
        loads = [
            load
            for table in wanted
            if table.name in there and (load := _load(table, there[table.name], published.get(table.name)))
        ]
        if not loads:
            log.info("publish: nothing new")
            return []
        log.info(
            "publish: %s", ", ".join(f"{x.table.name} ({'whole' if x.whole else 'changes'})" for x in loads)
        )
        present = {*published, *(load.table.name for load in loads)}
        with heartbeat(run.spark, "publish"):
            checks = publication.commit(loads, views_over(present))
    log.info("publish: %d tables, %d checks passed", len(loads), len(checks))
    return checks


def _load(table: Table, source: LakeTable, published: Published | None) -> Load | None:
    """What has to be loaded of one table; None when the warehouse has it all."""
    state = Published(source.table_id(), source.version())
    if published == state:
        return None
    key = table.primary_key
    if published and published.table_id == state.table_id:
        if published.version > state.version:
            raise UserAnalyticsError(
                f"publish {table.name}: the warehouse holds version {published.version}, the lake only "
                f"{state.version}. Was the lake restored from a backup? To publish its state, delete the table's row "
                "in _published"
            )
        try:
            rows, only_inserts = source.changes(published.version, state.version, key)
        except (PySparkException, Py4JJavaError) as error:
            log.warning(
                "publish %s: its history is gone (%s); published whole", table.name, type(error).__name__
            )
        else:
            rows = rows.withColumn("_deleted", F.lit(False)) if only_inserts else rows
            return Load(table, rows, False, state, _expected(table, source, state.version))
    return Load(table, source.read(state.version), True, state, _expected(table, source, state.version))


def _expected(table: Table, source: LakeTable, version: int) -> Mapping[str, Decimal | int | None]:
    rows = source.read(version)
    sums = [F.sum(F.col(name).cast("decimal(38,4)")).alias(f"sum({name})") for name in table.measures]
    found: dict[str, Decimal | int | None] = (
        rows.agg(F.count("*").alias("row_count"), *sums).collect()[0].asDict()
    )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Publish; there are no arguments."""
    parser(__doc__, "publish").parse_args(argv)

    def body() -> None:
        settings = Settings.from_env()
        with open_warehouse(settings) as warehouse, open_run("publish", settings) as run:
            with recorded(run), run.step("publish"):
                run.checks += publish(run, warehouse)
            publish(run, warehouse, RECORDED_TABLES)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
