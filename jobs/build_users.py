"""Build users and users_history from staged users.

Grain:    users, one row per e-mail address; users_history, one row per e-mail address and version (slowly changing
          dimension, type 2).
Inputs:   all staged versions of the users of whom something changed in `staging/users` since the last build; what is
          known of their addresses, see locate_users.py.
Outputs:  Delta tables `marts/users` and `marts/users_history`.
Re-run:   safe at any time; either table's log says which staging version it holds. Late and repeated files end in the
          same tables as the same files in order.
Example:  spark-submit jobs/build_users.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.console import log
from jobs.context import RunContext, parser, writes
from jobs.errors import UserAnalyticsError
from jobs.feeds.users import USERS
from jobs.geolocation.cache import LocationCache, with_locations
from jobs.lake.marts import SourceChanges, apply_changes, changes_since, declared, mart_table, source_mark
from jobs.lake.staging import staging_table
from jobs.lake.tables import LakeTable
from jobs.runs import one_step
from jobs.spark import computed_once, kept_on_disk, local_rows
from jobs.transforms.keys import KEY
from jobs.transforms.users import users, users_history


@writes("marts/users", "marts/users_history")
def build_users(run: RunContext) -> bool:
    """Bring users and users_history up to the present version of staged users. Gives whether there was anything new."""
    staged = staging_table(run, USERS)
    if not staged.exists():
        log.info("users: none staged yet")
        return False
    history, current = (mart_table(run, declared(name)).ensure() for name in ("users_history", "users"))
    _require_no_dropped_column(history, current)
    mark = source_mark(USERS.name, staged)
    # A run may have died between the two commits: what the mart that is behind has not applied goes into both.
    behind = min(
        history, current, key=lambda mart: -1 if (version := mart.applied(mark)) is None else version
    )
    changes = changes_since(behind, USERS.name, staged, KEY)
    if changes is None:
        log.info("users: up to date")
        return False
    with run.heartbeat("users"), ExitStack() as kept:
        if not changes.whole:
            emails = changes.rows.select("email").distinct()
            changes = replace(changes, rows=kept.enter_context(computed_once(emails)))
        versions = _of_changed(staged.read(changes.version), changes)
        _follow(run, history, staged, changes, users_history(versions), ("user_id", "valid_from"))
        run.note_table_read(history)
        states = users(_of_changed(history.read(), changes))
        located = with_locations(states, _known_locations(run))
        _follow(run, current, staged, changes, located, ("id",))
    log.info("users: built from version %d of staged users", changes.version)
    return True


def _require_no_dropped_column(*marts: LakeTable) -> None:
    for mart in marts:
        if unwanted := set(mart.column_names()) - set(mart.schema.names):
            raise UserAnalyticsError(
                f"{mart.uri} has the column {', '.join(sorted(unwanted))}, which SECRET_COLUMNS=drop does not allow. "
                "Move staging/users, staging/_ingested_files and both tables of users away and run again: all is "
                "made anew from raw/, without it"
            )


def _known_locations(run: RunContext) -> DataFrame:
    table = LocationCache(run).table
    if not table.exists():
        return local_rows(run.spark, [], table.schema)
    run.note_table_read(table)
    return table.read()


def _of_changed(rows: DataFrame, changes: SourceChanges) -> DataFrame:
    """The rows of all users of whom something changed."""
    return rows if changes.whole else rows.join(changes.rows.select("email"), "email", "left_semi")


def _follow(
    run: RunContext,
    mart: LakeTable,
    staged: LakeTable,
    changes: SourceChanges,
    rows: DataFrame,
    key: tuple[str, ...],
) -> None:
    """Make rows all that a mart holds of the users of whom something changed."""
    if changes.whole:
        apply_changes(run, mart, staged, changes, lambda _: rows, key)
        return
    # MERGE reads twice what it merges, and both halves of that need the rows.
    with kept_on_disk(rows):
        gone = _of_changed(mart.read(), changes).join(rows, list(key), "left_anti")
        both = rows.withColumn("_deleted", F.lit(False)).unionByName(gone.withColumn("_deleted", F.lit(True)))
        # A new version of a user changes the row of the one before.
        changes = replace(changes, only_inserts=False)
        apply_changes(run, mart, staged, changes, lambda _: both, key)


def main(argv: Sequence[str] | None = None) -> int:
    """Build users and users_history; there are no arguments."""
    parser(__doc__, "build-users").parse_args(argv)
    return one_step("build-users", build_users)


if __name__ == "__main__":
    sys.exit(main())
