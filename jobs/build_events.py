"""Build events from staged events: one id per event, and the company behind each address.

Grain:    one row per event; events that were delivered with the id of another one have an id of their own.
Inputs:   what changed in `staging/events` since the last build; of it, with --month, that month only.
Outputs:  Delta table `marts/events`.
Re-run:   safe at any time; the table's log says which staging version it holds, for every month apart where --month is
          used. Ids depend on the events alone, not on the order of files. Events of other months are counted and stay
          in staging, for a build of their month or one without --month.
Example:  spark-submit jobs/build_events.py --month 2024-03
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.console import log
from jobs.context import RunContext, job_main, open_run, parser, writes
from jobs.feeds.events import EVENTS
from jobs.lake.marts import SourceChanges, apply_changes, changes_since, declared, mart_table
from jobs.lake.staging import staging_table
from jobs.runs import recorded
from jobs.settings import Settings
from jobs.transforms.duplicates import with_record_key
from jobs.transforms.events import events
from jobs.transforms.keys import KEY

MART = "events"


@writes(f"marts/{MART}")
def build_events(run: RunContext, month: str | None = None, detail: list[str] | None = None) -> bool:
    """Bring events up to the present version of staged events. Gives whether there was anything to do.

    month: `YYYY-MM`, to bring up that month only. detail: gets the number of events of other months.
    """
    staged = staging_table(run, EVENTS)
    if not staged.exists():
        log.info("events: none staged yet")
        return False
    mart = mart_table(run, declared(MART)).ensure()
    # Each month follows staging on its own: what it passed over for another month is still new to that one.
    source = f"{EVENTS.name} of {month}" if month else EVENTS.name
    changes = changes_since(mart, source, staged, KEY)
    if changes is None:
        log.info("events: up to date")
        return False
    if month:
        _count_other_months(changes, month, detail)
    there = mart.read()
    is_first = not mart.has_rows()
    ids = None if changes.whole else changes.rows.select("id").distinct()
    rows = events_of(staged.read(changes.version), None if is_first else there, ids, month)
    with run.heartbeat("events"):
        # What changes is known row by row here, also when staging has to be looked at as a whole.
        changed = replace(changes, rows=rows, whole=False, only_inserts=is_first)
        apply_changes(run, mart, staged, changed, lambda rows: rows, declared(MART).primary_key)
    log.info("events: built from version %d of staged events", changes.version)
    return True


def events_of(
    staged: DataFrame, there: DataFrame | None, ids: DataFrame | None, month: str | None
) -> DataFrame:
    """Staged events and the mart as it is → the rows that it should have, `_deleted` for those that have to go.

    An event that comes or goes may take or give back the id of others: all events with an id that changed are looked at
    again. there: the mart, None when it is new. ids: delivered ids that changed, None for all. month: add that
    month's events only; those of others that are there are kept right.
    """
    if ids is not None:
        staged = staged.join(ids, "id", "left_semi")
    resolved = events(staged)
    in_month = _in_month(month) if month else F.lit(True)
    if there is None:
        return resolved.where(in_month)
    if ids is not None:
        there = there.join(ids.withColumnRenamed("id", "source_id"), "source_id", "left_semi")
    if month:
        known = with_record_key(EVENTS, there.drop("id").withColumnRenamed("source_id", "id"))
        known = known.select(*KEY, F.lit(True).alias("_known"))
        resolved = resolved.join(known, list(KEY), "left").where(in_month | F.col("_known"))
    gone = there.join(resolved, "id", "left_anti")
    return resolved.withColumn("_deleted", F.lit(False)).unionByName(
        gone.withColumn("_deleted", F.lit(True)), allowMissingColumns=True
    )


def _in_month(month: str) -> Column:
    return F.date_format("timestamp", "yyyy-MM") == month


def _count_other_months(changes: SourceChanges, month: str, detail: list[str] | None) -> None:
    rows = changes.rows if changes.only_inserts else changes.rows.where("NOT _deleted")
    per_month = rows.groupBy(F.date_format("timestamp", "yyyy-MM").alias("month")).count().orderBy("month")
    others = {row.month: row["count"] for row in per_month.collect() if row.month != month}
    if others:
        which = ", ".join(f"{other} {n:,}" for other, n in others.items())
        message = f"{sum(others.values()):,} events of other months stay in staging: {which}"
        log.info("events of %s: %s", month, message)
        if detail is not None:
            detail.append(message)


def month_name(text: str) -> str:
    """`YYYY-MM`, for argparse."""
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a month such as 2024-03")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Build events; the arguments are those of `--help`."""
    arguments = parser(__doc__, "build-events")
    arguments.add_argument(
        "--month", type=month_name, metavar="YYYY-MM", help="events of this month only (default: all)"
    )
    options = arguments.parse_args(argv)

    def body() -> None:
        with (
            open_run("build-events", Settings.from_env()) as run,
            recorded(run),
            run.step("build events") as detail,
        ):
            build_events(run, options.month, detail)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
