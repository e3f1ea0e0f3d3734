"""The run tables: what ran, step by step, with which outcome. They are published like any mart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from jobs import __version__
from jobs.console import log
from jobs.context import RunContext, Step, job_main, open_run
from jobs.datasets import as_json
from jobs.errors import RejectedShareExceeded, RuleFailed
from jobs.lake.tables import Lake, LakeTable
from jobs.lineage_events import LineageEvents, is_on
from jobs.provenance import configuration, git_revision, started_by
from jobs.settings import Settings
from jobs.warehouse.declarations import Column, tables

RUN_TABLES = ("etl_runs", "etl_steps", "etl_checks", "etl_schema_changes")
# Below it the run tables; all of them have one lock.
FOLDER = "runs"
Row = tuple[Any, ...]
RECORDED_TABLES = (*RUN_TABLES, "etl_files")


def run_table(lake: Lake, name: str) -> LakeTable:
    """`runs/<name>`, with the schema that `sql/<name>.sql` declares."""
    declaration = tables()[name]
    return LakeTable(
        lake, lake.settings.lake_path(FOLDER, name), declaration.spark_schema(), comment=declaration.comment
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


def one_step(command: str, do: Callable[[RunContext], object]) -> int:
    """What a command does that is one step of a run, recorded. Gives the exit code."""

    def body() -> None:
        with (
            open_run(command, Settings.from_env()) as run,
            recorded(run),
            run.step(command.replace("-", " ")),
        ):
            do(run)

    return job_main(body)


def record_new_columns(run: RunContext, columns: Mapping[str, Sequence[Column]]) -> None:
    """Append the columns that are about to be added to published tables to `etl_schema_changes`, each once."""
    with run.locks.hold(FOLDER):
        table = run_table(run, "etl_schema_changes").ensure()
        noted = {(row["table_name"], row["column_name"]) for row in table.few_rows().to_pylist()}
        rows = [
            (name, column.name, column.type.sql(), run.run_id, datetime.now(UTC))
            for name, added in columns.items()
            for column in added
            if (name, column.name) not in noted
        ]
        if rows:
            table.add(rows)


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

    with run.locks.hold(FOLDER):
        for name, found in rows.items():
            table = run_table(run, name).ensure()
            if found:
                table.add(found)


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
