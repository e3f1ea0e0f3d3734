"""BigQuery as the warehouse.

Rows go into stage tables by load jobs (`bigquery_load.py`); one script, run as one job, changes all tables, checks
them and notes the published versions, in one transaction (`bigquery_script.py`). Tables are made and columns added
before it, views made after it: BigQuery takes neither into a transaction. Where a publication dies, the next one does
both.

There is no lock. Two publications at once load into the same stage tables under the same job ids, and the transaction
goes on only while the published versions are those that its loads were made from: one of them wins, and the other finds
its work done. The same look at the published versions tells a commit whose answer was lost from one that failed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.api_core.exceptions import Conflict, NotFound
from google.api_core.retry import Retry
from google.cloud import bigquery
from pyspark.sql import functions as F

from jobs.console import log
from jobs.errors import CheckFailed, ConfigurationError, UserAnalyticsError
from jobs.warehouse.base import KEY_HASH, ROW_COUNT, Check, Load, Measures, Plan, Published
from jobs.warehouse.bigquery_load import (
    ERRORS,
    Connection,
    Scratch,
    Stage,
    digest,
    load_rows,
    one_line,
    run_once,
)
from jobs.warehouse.bigquery_schema import (
    LABELS,
    add_column,
    bigquery_table,
    differences,
    empty_rows,
    staged_fields,
    view_query,
)
from jobs.warehouse.bigquery_script import (
    STATES,
    PublishScript,
    StagedLoad,
    full_name,
    literal,
    measures_query,
    merge_statement,
    partition_type,
    replace_statements,
)
from jobs.warehouse.declarations import Column, Table, View

STATE_FIELDS = [
    bigquery.SchemaField("table_name", "STRING", "REQUIRED", description="Table"),
    bigquery.SchemaField("delta_table_id", "STRING", "REQUIRED", description="Identity of its mart"),
    bigquery.SchemaField("delta_version", "INT64", "REQUIRED", description="Version of its mart"),
    bigquery.SchemaField("published_at", "TIMESTAMP", "REQUIRED", description="When, UTC"),
]
# Stage tables that a killed run left behind go on their own.
STAGE_LIFE = timedelta(days=1)
# A wrong address should be told at once, not after the ten minutes that Google's client goes on trying.
ONCE, CHECK_SECONDS = Retry(lambda _: False), 30.0
Made = TypeVar("Made")


@contextmanager
def told(action: str) -> Iterator[None]:
    """Turn what Google's libraries raise into one line."""
    try:
        yield
    except ERRORS as error:
        raise UserAnalyticsError(f"{action}: BigQuery: {one_line(error)}") from None


class BigQueryWarehouse:
    """A dataset. The address is `bigquery://project/dataset`; location and credentials come from the environment."""

    def __init__(
        self, url: str, connection: Connection | None = None, scratch: Scratch | None = None
    ) -> None:
        self.url = url
        project, _, name = url.removeprefix("bigquery://").partition("/")
        self.dataset = bigquery.DatasetReference(project, name)
        self.connection = connection or Connection.from_env(project)
        self.scratch = scratch

    def check(self) -> None:
        try:
            found = self.connection.client().get_dataset(self.dataset, retry=ONCE, timeout=CHECK_SECONDS)
        except NotFound:
            return  # The first publication makes it.
        except ERRORS as error:
            raise ConfigurationError(f"WAREHOUSE_URL={self.url}: BigQuery: {one_line(error)}") from None
        wanted = self.connection.location
        if wanted and found.location and found.location.lower() != wanted.lower():
            raise ConfigurationError(
                f"BIGQUERY_LOCATION={wanted}: the dataset {self.dataset.dataset_id} is in {found.location}"
            )

    def missing_rights(self) -> list[str]:
        # Rights on a dataset can be seen by using them only; those to run jobs by asking what one would cost.
        try:
            self.connection.client().query("SELECT 1", job_config=bigquery.QueryJobConfig(dry_run=True))
        except ERRORS as error:
            return [f"jobs cannot be run: {one_line(error)}"]
        return []

    @told("look up what is published")
    def published(self) -> Mapping[str, Published]:
        return BigQueryPublication(self.connection, self.dataset).published

    @told("plan")
    def plan(self, load: Load) -> Plan:
        target, stage = self._name(load.table.name), self._name(f"_stage_{load.table.name}")
        span = None if load.whole else _span(load)

        def statements(table: Table, source: str) -> list[str]:
            if load.whole:
                return replace_statements(table, target, source)
            return [merge_statement(table, target, source, span)]

        client, config = self.connection.client(), bigquery.QueryJobConfig(dry_run=True)
        read = 0
        # A table that is not there yet has nothing that could be read, nor has a column; asked for, it is an error.
        with suppress(NotFound):
            there = client.get_table(self.dataset.table(load.table.name)).schema
            table = load.table.among([field.name for field in there])
            read = sum(
                client.query(text, job_config=config).total_bytes_processed or 0
                for text in statements(table, empty_rows(staged_fields(table, load.whole)))
            )
        return Plan("replace" if load.whole else "merge", tuple(statements(load.table, stage)), read)

    @contextmanager
    def publishing(self) -> Iterator[BigQueryPublication]:
        with told("publish"):
            client = self.connection.client()
            wanted = bigquery.Dataset(self.dataset)
            # Its location is the client's; without one, BigQuery's default, which a null in the request is not.
            wanted.labels = LABELS
            dataset = _make(lambda: client.get_dataset(self.dataset), lambda: client.create_dataset(wanted))
            states = bigquery.Table(self.dataset.table(STATES), STATE_FIELDS)
            states.labels = LABELS
            _make(lambda: client.get_table(states), lambda: client.create_table(states))
            # A job is looked up where it runs, which is where the dataset is.
            connection = replace(self.connection, location=dataset.location)
            yield BigQueryPublication(connection, self.dataset, self.scratch)

    @told("query")
    def query(
        self, name: str, limit: int, seconds: float | None = None
    ) -> tuple[list[str], list[tuple[object, ...]]]:
        text = f"SELECT * FROM {self._name(name)} LIMIT {int(limit)}"
        try:
            rows = self.connection.client().query(text).result()
        except NotFound:
            raise ConfigurationError(
                f"{self.url}/{name}: there is no such table or view; publish first"
            ) from None
        return [field.name for field in rows.schema], [tuple(row.values()) for row in rows]

    @told("count")
    def counts(self, names: Sequence[str]) -> dict[str, int]:
        client = self.connection.client()
        return {
            name: next(iter(client.query_and_wait(f"SELECT COUNT(*) FROM {self._name(name)}")))[0]
            for name in names
        }

    @told("search")
    def rows_naming(self, table: Table, texts: Sequence[str], ids: Mapping[str, Sequence[str]]) -> list[str]:
        wanted = [("text", list(texts)), *((column, list(values)) for column, values in ids.items())]
        conditions = [
            "EXISTS (SELECT 1 FROM UNNEST(@text) AS t WHERE STRPOS(LOWER(TO_JSON_STRING(x)), t) > 0)",
            *(f"`{column}` IN UNNEST(@{column})" for column in ids),
        ]
        parameters = [bigquery.ArrayQueryParameter(name, "STRING", values) for name, values in wanted]
        rows = self.connection.client().query_and_wait(
            f"SELECT TO_JSON_STRING(x) FROM {self._name(table.name)} AS x WHERE {' OR '.join(conditions)}",
            job_config=bigquery.QueryJobConfig(query_parameters=parameters),
        )
        return [row[0] for row in rows]

    @told("measure")
    def measures(self, tables: Sequence[Table]) -> dict[str, Measures]:
        client = self.connection.client()
        found: dict[str, Measures] = {}
        for declared in tables:
            there = client.get_table(self.dataset.table(declared.name)).schema
            table = declared.among([field.name for field in there])
            names = [ROW_COUNT, *(f"sum({name})" for name in table.measures), KEY_HASH]
            rows = client.query(measures_query(table, self._name(table.name))).result()
            found[table.name] = dict(zip(names, next(iter(rows)).values(), strict=True))
        return found

    def _name(self, name: str) -> str:
        return full_name(self.dataset.table(name))


class BigQueryPublication:
    """See `jobs.warehouse.base.Publication`."""

    def __init__(
        self,
        connection: Connection,
        dataset: bigquery.DatasetReference,
        scratch: Scratch | None = None,
    ) -> None:
        self.client = connection.client()
        self.dataset = dataset
        self.connection = connection
        self.scratch = scratch
        self.before: Mapping[str, Published] = {}

    @property
    def published(self) -> Mapping[str, Published]:
        self.before = self._states()
        # A table that somebody dropped is not published, whatever its row says.
        present = self._present()
        return {name: state for name, state in self.before.items() if name in present}

    def _states(self) -> dict[str, Published]:
        try:
            rows = list(self.client.list_rows(self.dataset.table(STATES), selected_fields=STATE_FIELDS))
        except NotFound:
            return {}
        return {
            row.table_name: Published(row.delta_table_id, row.delta_version, at=row.published_at)
            for row in rows
        }

    def _present(self) -> set[str]:
        try:
            return {table.table_id for table in self.client.list_tables(self.dataset)}
        except NotFound:
            return set()

    def new_columns(self, loads: Sequence[Load]) -> Mapping[str, Sequence[Column]]:
        found = {}
        for load in loads:
            with suppress(NotFound):
                there = self.client.get_table(self.dataset.table(load.table.name))
                found[load.table.name] = self._missing(load.table, there)
        return {name: columns for name, columns in found.items() if columns}

    def commit(self, loads: Sequence[Load], views: Sequence[View]) -> list[Check]:
        for load in loads:
            self._ensure(load.table)
        try:
            staged = [StagedLoad(load, self._stage(load)) for load in loads]
            checks = self._run(PublishScript(self.dataset, staged, self.before, self._present()))
        except (UserAnalyticsError, *ERRORS):
            # An answer was lost, or another publication came first.
            if not self._is_done(loads):
                raise
            checks = []
        for view in views:
            self._ensure_view(view)
        return checks

    def _missing(self, table: Table, there: bigquery.Table) -> list[Column]:
        """The declared columns that may be null and are not there; any other difference stops."""
        missing, others = differences(table, there.schema)
        if others:
            raise UserAnalyticsError(
                f"publish {table.name}: {'; '.join(others)}. Only new columns that may be null are added on their "
                f"own. To have the table made anew from its mart, drop {table.name} and publish again"
            )
        return missing

    def _ensure(self, table: Table) -> None:
        """Make the table, or add the columns that were declared since and bring comments up to date."""
        wanted = bigquery_table(table, self.dataset)

        def create() -> bigquery.Table:
            # It is empty until the script has run, whatever becomes of that.
            self._forget(table)
            return self.client.create_table(wanted)

        there = _make(lambda: self.client.get_table(wanted.reference), create)
        missing = self._missing(table, there)
        for column in missing:
            self.client.query_and_wait(add_column(full_name(wanted.reference), column))
            log.info("publish %s: column %s added", table.name, column.name)
        if missing:
            # An update of what was there before the columns would be refused.
            there = self.client.get_table(wanted.reference)
        comments = {field.name: field.description for field in there.schema}
        if there.description != table.comment or comments != {c.name: c.comment for c in table.columns}:
            order = [field.name for field in there.schema]
            there.schema = sorted(
                wanted.schema, key=lambda f: order.index(f.name) if f.name in order else len(order)
            )
            there.description = table.comment
            self.client.update_table(there, ["schema", "description"])

    def _forget(self, table: Table) -> None:
        """Delete the state of a table that somebody dropped."""
        if table.name in self.before:
            states = full_name(self.dataset.table(STATES))
            self.client.query_and_wait(f"DELETE FROM {states} WHERE table_name = {literal(table.name)}")
            self.before = {name: state for name, state in self.before.items() if name != table.name}

    def _stage(self, load: Load) -> bigquery.TableReference:
        """Bring a load's rows into a stage table. A run that repeats a killed one finds what that one has loaded."""
        before = self.before.get(load.table.name)
        content = (load.state.table_id, str(load.state.version), str(before), str(load.whole))
        name = f"_stage_{load.table.name}_{digest(*content)[:16]}"
        stage = self._make_stage(name, load)
        loaded = self._load(load, stage)
        if self._count(stage) != loaded:
            # Another run has cut the rows into other parts, and loaded some of them.
            stage = self._make_stage(f"{name}_{uuid.uuid4().hex[:8]}", load)
            loaded = self._load(load, stage)
        log.debug("publish %s: %s rows loaded", load.table.name, f"{loaded:,}")
        return self.dataset.table(stage.table_id)

    def _make_stage(self, name: str, load: Load) -> bigquery.Table:
        table = bigquery.Table(self.dataset.table(name), staged_fields(load.table, load.whole))
        table.expires = datetime.now(UTC) + STAGE_LIFE
        table.labels = LABELS
        return _make(lambda: self.client.get_table(table), lambda: self.client.create_table(table))

    def _load(self, load: Load, table: bigquery.Table) -> int:
        names = [*load.table.column_names, *(() if load.whole else ("_deleted",))]
        stage = Stage(
            f"{table.project}.{table.dataset_id}.{table.table_id}",
            str(table.created),
            tuple(field.to_api_repr() for field in staged_fields(load.table, load.whole)),
        )
        return load_rows(load.rows.select(names), stage, self.connection, self.scratch)

    def _count(self, table: bigquery.Table) -> int:
        name = full_name(self.dataset.table(table.table_id))
        return int(next(iter(self.client.query_and_wait(f"SELECT COUNT(*) FROM {name}")))[0])

    def _run(self, script: PublishScript) -> list[Check]:
        text = script.sql()
        stages = [f"{s.stage.table_id} {self.client.get_table(s.stage).created}" for s in script.staged]
        config = bigquery.QueryJobConfig(labels={**LABELS, "step": "publish"})

        def start(job_id: str) -> bigquery.QueryJob:
            return self.client.query(text, job_id=job_id, job_config=config, job_retry=None)

        job = run_once(self.client, "user_analytics_publish_" + digest(text, *stages), start)
        outcome, *found = next(iter(job.result())).values()
        # New stage tables make a new job: this one's outcome must not be that of the next publication.
        for staged in script.staged:
            self.client.delete_table(staged.stage, not_found_ok=True)
        if outcome == "overtaken":
            raise UserAnalyticsError(
                "publish: another publication came between, and nothing was published; publish again"
            )
        checks = script.checks(found)
        if not all(check.passed for check in checks):
            raise CheckFailed(checks)
        return checks

    def _is_done(self, loads: Sequence[Load]) -> bool:
        """Whether the warehouse holds what the loads bring."""
        published: Mapping[str, Published] = {}
        with suppress(*ERRORS):
            published = self._states()
        done = all(published.get(load.table.name) == load.state for load in loads)
        if done:
            log.info("publish: done already, as the published versions show")
        return done

    def _ensure_view(self, view: View) -> None:
        """Make the view, or change it in place: access that was granted on it stays."""
        wanted = bigquery.Table(self.dataset.table(view.name))
        wanted.view_query = view_query(view, self.dataset)
        wanted.description = view.comment
        there = _make(
            lambda: self.client.get_table(wanted.reference), lambda: self.client.create_table(wanted)
        )
        if (there.view_query, there.description) != (wanted.view_query, wanted.description):
            there.view_query, there.description = wanted.view_query, wanted.description
            self.client.update_table(there, ["view_query", "description"])


def _span(load: Load) -> tuple[str, str] | None:
    """The first and last value of the partition column among the changes, as SQL; None where there is none."""
    if not load.table.partitioning:
        return None
    column = F.col(load.table.partitioning.column).cast("string")
    (low, high) = load.frame.agg(F.min(column), F.max(column)).collect()[0]
    if low is None:
        return None
    kind = partition_type(load.table)
    return f"CAST({literal(low)} AS {kind})", f"CAST({literal(high)} AS {kind})"


def _make(find: Callable[[], Made], make: Callable[[], Made]) -> Made:
    """What is there, or else is made now, perhaps by somebody else in this moment."""
    try:
        return find()
    except NotFound:
        with suppress(Conflict):
            return make()
        return find()
