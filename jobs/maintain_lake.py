"""Compact the lake's Delta tables, and remove files that no version of the last days needs.

Grain:    as the tables' own; no row changes.
Inputs:   every Delta table below `staging/`, `marts/`, `runs/` and `geolocation/`.
Outputs:  the same tables in fewer, larger files. Versions older than --keep-days can no longer be read.
Re-run:   safe at any time, also after a kill. A mart whose changes since its last build or publication are gone is
          built or published whole the next time.
Example:  spark-submit jobs/maintain_lake.py --keep-days 30
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from delta.tables import DeltaTable

from jobs.console import log
from jobs.context import RunContext, job_main, open_run, parser, whole_number
from jobs.feeds import FEEDS
from jobs.geolocation.cache import LocationCache
from jobs.lake.quarantine import quarantine_table
from jobs.lake.staging import staging_table
from jobs.lake.tables import LakeTable
from jobs.publish import lake_table
from jobs.runs import lock_of, recorded
from jobs.settings import Settings
from jobs.warehouse.declarations import tables

DEFAULT_KEEP_DAYS = 30
# Delta's own lower limit: a longer-running reader or writer may still need what is younger.
LEAST_KEEP_DAYS = 7
MOST_KEEP_DAYS = 36_500


def lake_tables(run: RunContext) -> Iterator[LakeTable]:
    """Every Delta table that the lake may hold, whether it is there or not."""
    for feed in FEEDS.values():
        yield staging_table(run, feed)
    yield quarantine_table(run)
    for table in tables().values():
        yield lake_table(run, table)
    yield LocationCache(run).table


def maintain(run: RunContext, keep_days: int) -> int:
    """Compact and vacuum every table that is there. Gives the number of tables."""
    count = 0
    for table in lake_tables(run):
        if not table.exists():
            continue
        name = table.uri.removeprefix(run.settings.lake_uri + "/")
        with run.locks.hold(lock_of(run, table)), run.heartbeat(name):
            delta = DeltaTable.forPath(run.spark, table.uri)
            metrics = delta.optimize().executeCompaction().collect()[0].metrics
            table.vacuum(keep_days * 24)
            run.note_table_written(table)
        count += 1
        log.info("maintain: %s, %d files became %d", name, metrics.numFilesRemoved, metrics.numFilesAdded)
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Maintain the lake; the arguments are those of `--help`."""
    arguments = parser(__doc__, "maintain")
    arguments.add_argument(
        "--keep-days",
        type=whole_number(LEAST_KEEP_DAYS, MOST_KEEP_DAYS),
        default=DEFAULT_KEEP_DAYS,
        metavar="DAYS",
        help=f"history that stays readable, at least {LEAST_KEEP_DAYS} (default: %(default)s)",
    )
    options = arguments.parse_args(argv)

    def body() -> None:
        with (
            open_run("maintain", Settings.from_env(), make=False) as run,
            recorded(run),
            run.step("maintain") as detail,
        ):
            detail.append(f"{maintain(run, options.keep_days)} tables")

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
