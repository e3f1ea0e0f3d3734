"""What a publication would do: per table the rows, the strategy and the SQL. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.console import table
from jobs.warehouse.base import Load, Plan

HEADER = ("table", "strategy", "insert", "update", "delete", "bytes read")


@dataclass(frozen=True)
class RowChanges:
    """How many rows a load brings, by what becomes of them."""

    inserts: int
    updates: int
    deletes: int


def row_changes(load: Load, before: DataFrame) -> RowChanges:
    """Count what becomes of the changed rows. before: the table as it is published."""
    key = list(load.table.primary_key)
    there = before.select(*key, F.lit(True).alias("_there"))
    kinds = (
        load.frame.join(there, key, "left").groupBy("_deleted", F.isnotnull("_there").alias("known")).count()
    )
    found = {(row._deleted, row.known): row["count"] for row in kinds.collect()}
    # A key that came and went since the last publication is deleted and was not there: nothing to do.
    return RowChanges(found.get((False, False), 0), found.get((False, True), 0), found.get((True, True), 0))


def print_plans(plans: Sequence[tuple[Load, RowChanges, Plan]]) -> None:
    """Print the plans to standard output: a table for all, then the SQL of each."""
    if not plans:
        print("nothing new: no table would be touched")
        return
    rows = [
        (load.table.name, plan.strategy, changes.inserts, changes.updates, changes.deletes, plan.bytes)
        for load, changes, plan in plans
    ]
    print(table(HEADER, rows))
    for load, _, plan in plans:
        print(f"\n-- {load.table.name}: {plan.strategy}")
        for statement in plan.statements:
            print(f"{statement};")
