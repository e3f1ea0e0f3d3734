"""Build the star schema of user actions from staged logs.

Grain:    fact_user_actions, one row per user, instant and action; dim_users, dim_actions, dim_devices, dim_locations,
          one row per business key.
Inputs:   what changed in `staging/logs` since the last build.
Outputs:  Delta tables `marts/dim_*` and `marts/fact_user_actions`.
Re-run:   safe at any time; the fact table's log says which staging version it holds. A day's file adds its own rows; a
          corrected file changes just the rows that differ. Members that no fact refers to any more leave.
Example:  spark-submit jobs/build_star_schema.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.console import log
from jobs.context import RunContext, parser, writes
from jobs.feeds.logs import LOGS
from jobs.lake.marts import SourceChanges, apply_changes, changes_since, declared, mart_table
from jobs.lake.staging import staging_table
from jobs.lake.tables import LakeTable
from jobs.runs import one_step
from jobs.spark import computed_once
from jobs.transforms.keys import KEY, require_distinct
from jobs.transforms.star_schema import DIMENSIONS, Dimension, dimension_members, user_actions

FACT = "fact_user_actions"


@writes("marts/fact_user_actions", *(f"marts/{dimension.table}" for dimension in DIMENSIONS))
def build_star_schema(run: RunContext) -> bool:
    """Bring dimensions and facts up to the present version of staged logs. Gives whether there was anything to do."""
    logs = staging_table(run, LOGS)
    if not logs.exists():
        log.info("star schema: no logs staged yet")
        return False
    facts = mart_table(run, declared(FACT)).ensure()
    changes = changes_since(facts, LOGS.name, logs, KEY)
    # Where all that ever happened are appends, every member is used. Otherwise some may have to leave; also when the
    # run that should have dropped them was killed.
    had_members = any(_dimension_table(run, dimension).exists() for dimension in DIMENSIONS)
    may_leave = had_members and not facts.last_commit_appended()
    if changes is None and not may_leave:
        log.info("star schema: up to date")
        return False
    with run.heartbeat("star schema"):
        if changes:
            may_leave = may_leave or (had_members and (changes.whole or not changes.only_inserts))
            # Members first: at no time does a fact refer to a member that is not there.
            # All at once: with few members each, planning and committing take longer than Spark's own work.
            with ThreadPoolExecutor(len(DIMENSIONS)) as pool:
                added = list(pool.map(lambda dimension: _add_members(run, dimension, changes), DIMENSIONS))
            for dimension, members in zip(DIMENSIONS, added, strict=True):
                if members is not None:
                    run.note_table_written(_dimension_table(run, dimension), members)
            apply_changes(run, facts, logs, changes, user_actions, declared(FACT).primary_key)
        if may_leave:
            for dimension in DIMENSIONS:
                _drop_unused_members(run, dimension)
    if changes:
        log.info("star schema: built from version %d of staged logs", changes.version)
    else:
        log.info("star schema: up to date")
    return changes is not None


def _dimension_table(run: RunContext, dimension: Dimension) -> LakeTable:
    return mart_table(run, declared(dimension.table))


def _add_members(run: RunContext, dimension: Dimension, changes: SourceChanges) -> DataFrame | None:
    """Add the members that are not there yet. Gives them, None when there is none."""
    table = _dimension_table(run, dimension).ensure()
    rows = changes.rows if changes.only_inserts else changes.rows.where("NOT _deleted")
    known = table.read()
    members = dimension_members(dimension, rows).join(known, dimension.business_key, "left_anti")
    with computed_once(members) as new:
        if new.isEmpty():
            return None
        same_key = known.join(new, dimension.key, "left_semi").select(*new.columns)
        require_distinct(new.unionByName(same_key), dimension.key, dimension.business_key, dimension.table)
        # With a mark, two builds at once cannot both add a member.
        table.append(new.coalesce(1), changes.mark, changes.version)
        return members


def _drop_unused_members(run: RunContext, dimension: Dimension) -> None:
    table = _dimension_table(run, dimension)
    facts = mart_table(run, declared(FACT)).read()
    used = facts.select(dimension.key).where(F.col(dimension.key).isNotNull()).distinct()
    if not table.read().join(used, dimension.key, "left_anti").isEmpty():
        table.merge(
            used,
            f"s.{dimension.key} = t.{dimension.key}",
            lambda merge: merge.whenNotMatchedBySourceDelete(),
        )
        run.note_table_written(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Build the star schema; there are no arguments."""
    parser(__doc__, "build-star-schema").parse_args(argv)
    return one_step("build-star-schema", build_star_schema)


if __name__ == "__main__":
    sys.exit(main())
