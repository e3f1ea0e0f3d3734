"""The run tables: what ran, step by step, with which outcome. They are published like any mart.

Jobs that need no Spark leave a note in the lake instead, because starting Spark to write two rows would take longer
than most of them; the next run that has Spark enters it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs import __version__
from jobs.console import log
from jobs.context import RunContext, Step
from jobs.datasets import as_json
from jobs.errors import RejectedShareExceeded, RuleFailed
from jobs.lake.objects import ObjectStore
from jobs.lake.tables import LakeTable
from jobs.lineage_events import LineageEvents, is_on
from jobs.provenance import configuration, git_revision, started_by
from jobs.settings import Settings
from jobs.spark import local_rows, some_at_once
from jobs.warehouse.declarations import Column, tables

RUN_TABLES = ("etl_runs", "etl_steps", "etl_checks", "etl_schema_changes")
# Below it the run tables; all of them have one lock.
FOLDER = "runs"
# Notes of runs without Spark, until they are entered.
WAITING = f"{FOLDER}/waiting"
Row = tuple[Any, ...]
RECORDED_TABLES = (*RUN_TABLES, "etl_files")


def run_table(spark: SparkSession, settings: Settings, name: str) -> LakeTable:
    """`runs/<name>`, with the schema that `sql/<name>.sql` declares."""
    declaration = tables()[name]
    return LakeTable(
        spark, settings.lake_path(FOLDER, name), declaration.spark_schema(), comment=declaration.comment
    )


def lock_of(run: RunContext, table: LakeTable) -> str:
    """The name of a table's lock: the table's path in the lake, except that run tables have one in common."""
    path = table.uri.removeprefix(f"{run.settings.lake_uri}/")
    return FOLDER if path.startswith(f"{FOLDER}/") else path


@contextmanager
def recorded(run: RunContext) -> Iterator[None]:
    """Append what the block did to the run tables when it ends, whatever its outcome."""
    outcome = "failed"
    events = LineageEvents(run) if is_on() else None
    run.listener, ended = events, False
    try:
        yield
        ended = True
        outcome = "refused" if run.refused else "done"
    except (RejectedShareExceeded, RuleFailed):
        outcome = "refused"
        raise
    finally:
        run.listener = None
        if events:
            events.close(ended)
        try:
            _record(run, outcome)
        except Exception as error:
            # The block's own error matters more than its record.
            log.warning("the run could not be recorded: %s", type(error).__name__)
            if outcome != "failed":
                raise


def record_new_columns(run: RunContext, columns: Mapping[str, Sequence[Column]]) -> None:
    """Append the columns that are about to be added to published tables to `etl_schema_changes`, each once."""
    with run.locks.hold(FOLDER):
        table = run_table(run.spark, run.settings, "etl_schema_changes").ensure()
        noted = {(row.table_name, row.column_name) for row in table.read().collect()}
        rows = [
            (name, column.name, column.type.sql(), run.run_id, datetime.now(UTC))
            for name, added in columns.items()
            for column in added
            if (name, column.name) not in noted
        ]
        if rows:
            table.append(local_rows(run.spark, rows, table.schema).coalesce(1))


@contextmanager
def noted(store: ObjectStore, settings: Settings, command: str) -> Iterator[Step]:
    """Leave a note of what the block did, without Spark. The step is named like the command."""
    clock, step, outcome = time.monotonic(), Step(command, 1, datetime.now(UTC)), "failed"
    try:
        yield step
        outcome = step.outcome = "done"
    finally:
        step.seconds = round(time.monotonic() - clock, 3)
        run_id = uuid.uuid4().hex
        rows = {
            "etl_runs": [_run_row(run_id, command, step.started_at, step.seconds, outcome, settings)],
            "etl_steps": [_step_row(run_id, step)],
        }
        try:
            store.swap(f"{WAITING}/{run_id}.json", json.dumps(rows, default=str).encode(), None)
        except Exception as error:
            log.warning("the run could not be noted: %s", type(error).__name__)
            if outcome != "failed":
                raise


def _record(run: RunContext, outcome: str) -> None:
    now = datetime.now(UTC)
    rows: dict[str, list[Row]] = {
        "etl_runs": [
            _run_row(run.run_id, run.command, run.started_at, run.seconds, outcome, run.settings),
        ],
        "etl_steps": [_step_row(run.run_id, step) for step in run.steps],
        "etl_checks": [
            *(
                (run.run_id, c.table, c.name, c.expected, c.found, c.passed, now, None, None, None, None)
                for c in run.checks
            ),
            *(
                (
                    *(run.run_id, f.subject, f.rule, f.expected[:100], f.found and f.found[:100]),
                    *(f.passed, now, f.kind, f.action, f.rows_checked, f.rows_failing),
                )
                for f in run.findings
            ),
        ],
    }

    def append(name: str) -> None:
        table = run_table(run.spark, run.settings, name).ensure()
        waiting = [row for note in notes for row in _noted_rows(note, table)]
        if waiting:
            # A run that was killed after it had entered a note, and before it had removed it.
            known = table.read().where(F.col("run_id").isin([row[0] for row in waiting])).collect()
            entered = {row.run_id for row in known}
            waiting = [row for row in waiting if row[0] not in entered]
        if every := [*waiting, *rows[name]]:
            table.append(local_rows(run.spark, every, table.schema).coalesce(1))

    with run.locks.hold(FOLDER):
        files = [file.path for file in run.store.list(WAITING)]
        notes = [json.loads(found[0]) for path in files if (found := run.store.fetch(path))]
        some_at_once(append, rows)
        for path in files:
            run.store.delete(path)


def _run_row(
    run_id: str, command: str, started_at: datetime, seconds: float, outcome: str, settings: Settings
) -> Row:
    return (
        *(run_id, command[:200], __version__, started_at, seconds, outcome),
        *(started_by()[:500], git_revision(), configuration(settings)),
    )


def _step_row(run_id: str, s: Step) -> Row:
    return (
        *(run_id, s.number, s.name, s.started_at, s.seconds, s.outcome),
        *("; ".join(s.detail)[:2000] or None, *(as_json(d.values()) for d in (s.inputs, s.outputs))),
    )


def _noted_rows(note: Mapping[str, list[list[Any]]], table: LakeTable) -> list[Row]:
    times = [isinstance(field.dataType, T.TimestampType) for field in table.schema]
    return [
        tuple(datetime.fromisoformat(v) if is_time else v for v, is_time in zip(row, times, strict=True))
        for row in note.get(table.uri.rsplit("/", 1)[-1], [])
    ]
