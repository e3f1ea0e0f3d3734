"""Marts follow staging: each commit says, in Delta's own transaction log, up to which source version it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.console import log
from jobs.context import RunContext
from jobs.feeds import FEEDS
from jobs.lake.tables import Lake, LakeTable
from jobs.settings import Settings
from jobs.warehouse.declarations import Table, tables


@dataclass(frozen=True)
class SourceChanges:
    """What became of a source since a mart last followed it.

    whole: rows are the source's whole content (the mart is new, or has to be made anew).
    only_inserts: rows hold new rows only; otherwise one row per key with `_deleted` boolean.
    mark, version: of the source that the rows are of, whatever becomes of it meanwhile; the mart notes them.
    """

    rows: DataFrame
    mark: str
    version: int
    whole: bool
    only_inserts: bool


def mart_table(lake: Lake, declaration: Table) -> LakeTable:
    """`marts/<name>`, with the schema that `sql/<name>.sql` declares."""
    declaration = chosen_columns(declaration, lake.settings)
    partitioned_by = (declaration.partitioning.column,) if declaration.partitioning else ()
    return LakeTable(
        lake,
        lake.settings.lake_path("marts", declaration.name),
        declaration.spark_schema(),
        comment=declaration.comment,
        looked_up_by=(*declaration.primary_key, *partitioned_by),
    )


def chosen_columns(table: Table, settings: Settings) -> Table:
    """The table without the columns that bear the name of a feed's secret, where those are dropped."""
    if not settings.drop_secrets:
        return table
    secrets = {name for feed in FEEDS.values() for name in feed.secrets}
    return replace(table, columns=tuple(c for c in table.columns if c.name not in secrets))


def declared(name: str) -> Table:
    """The declaration `sql/<name>.sql`."""
    return tables()[name]


def source_mark(name: str, source: LakeTable) -> str:
    """The name under which a mart notes a source's version; a source that was made anew has another name."""
    return f"{name}:{source.table_id()}"


def changes_since(
    mart: LakeTable, name: str, source: LakeTable, key: tuple[str, ...]
) -> SourceChanges | None:
    """What the mart has not applied yet of the source; None when it is up to date.

    Raises UserAnalyticsError when it has applied a later version than there is, see `LakeTable.has_applied`.
    """
    mark, version = source_mark(name, source), source.version()
    if mart.has_applied(mark, version):
        return None
    applied = mart.applied(mark)
    if applied is not None:
        try:
            rows, only_inserts = source.changes(applied, version, key)
        except (PySparkException, Py4JJavaError) as error:
            log.warning(
                "%s: its history since version %d is gone (%s); made anew",
                name,
                applied,
                type(error).__name__,
            )
        else:
            return SourceChanges(rows, mark, version, whole=False, only_inserts=only_inserts)
    return SourceChanges(source.read(version), mark, version, whole=True, only_inserts=True)


def apply_changes(
    run: RunContext,
    mart: LakeTable,
    source: LakeTable,
    changes: SourceChanges,
    transform: Callable[[DataFrame], DataFrame],
    key: tuple[str, ...],
) -> None:
    """Bring a mart up to a source's version in one commit that happens once, however often it is tried.

    transform: rows of the source → rows of the mart, one to one; a `_deleted` column passes through.
    """
    rows = transform(changes.rows)
    run.note_table_read(source, changes.version)
    if changes.whole and mart.has_rows():
        mart.overwrite(rows, changes.mark, changes.version)
    elif changes.only_inserts:
        mart.append(rows, changes.mark, changes.version)
    else:
        condition = " AND ".join(f"s.`{column}` = t.`{column}`" for column in key)
        columns = _all_columns(mart)
        mart.merge(
            rows,
            condition,
            lambda merge: (
                merge.whenMatchedDelete("s._deleted")
                .whenMatchedUpdate(_differs(mart), set=columns)
                .whenNotMatchedInsert("NOT s._deleted", values=columns)
            ),
            changes.mark,
            changes.version,
        )
    run.note_table_written(mart, rows)


def bring_to(
    run: RunContext,
    mart: LakeTable,
    rows: DataFrame,
    key: tuple[str, ...],
    source: str,
    version: int,
    made_by: DataFrame | None = None,
) -> None:
    """Make a mart's content equal to rows, in one commit that happens once, writing only what differs.

    rows: all that the mart should hold, one per key. source, version: what they were made from. made_by: how the rows
    were computed, where they do not say it.
    """
    if not mart.has_rows():
        mart.append(rows, source, version)
    else:
        condition = " AND ".join(f"s.`{column}` = t.`{column}`" for column in key)
        mart.merge(
            rows,
            condition,
            lambda merge: (
                merge.whenMatchedUpdate(_differs(mart), set=_all_columns(mart))
                .whenNotMatchedInsert(values=_all_columns(mart))
                .whenNotMatchedBySourceDelete()
            ),
            source,
            version,
        )
    run.note_table_written(mart, rows if made_by is None else made_by)


def _all_columns(mart: LakeTable) -> dict[str, Column | str]:
    return {f"`{c}`": f"s.`{c}`" for c in mart.schema.names}


def _differs(mart: LakeTable) -> Column:
    """A record that was delivered again as it was changes nothing, and has nothing to publish."""
    pairs = (~F.col(f"s.`{c}`").eqNullSafe(F.col(f"t.`{c}`")) for c in mart.schema.names)
    return reduce(lambda a, b: a | b, pairs)
