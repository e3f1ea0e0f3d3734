"""OpenLineage events of a run and its steps: what was read and written, at which version, and column by column.

Off, unless one of the standard's own variables says where to: OPENLINEAGE_URL, OPENLINEAGE_CONFIG or
OPENLINEAGE__TRANSPORT…. A receiver that does not answer costs a run two seconds and one warning.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyspark
from pyspark.sql import types as T

from jobs import __version__
from jobs.causes import root_cause
from jobs.column_lineage import SourceColumn
from jobs.console import log
from jobs.context import RunContext, Step
from jobs.datasets import Dataset
from jobs.errors import ConfigurationError
from jobs.settings import Settings, without_credentials

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport import Transport

VARIABLES = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")
PREFIX = "OPENLINEAGE__TRANSPORT"
DEFAULT_NAMESPACE = "user-analytics"
PRODUCER = f"urn:user-analytics:{__version__}"
TIMEOUT_SECONDS = 2.0
# Of what is sent of an error; it says what to do in its first line.
MAX_ERROR = 500


@dataclass(frozen=True)
class JobRun:
    """A job of the standard and a run of it."""

    namespace: str
    name: str
    run_id: str


def is_on(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the environment asks for events."""
    env = os.environ if environ is None else environ
    if env.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    return any(env.get(name, "").strip() for name in VARIABLES) or any(n.startswith(PREFIX) for n in env)


class LineageEvents:
    """Sends START and COMPLETE or FAIL of a run and of each of its steps. None of its methods raises."""

    def __init__(self, run: RunContext) -> None:
        self.run = run
        namespace = os.environ.get("OPENLINEAGE_NAMESPACE", "").strip() or DEFAULT_NAMESPACE
        self.job = JobRun(namespace, _job_name(run.command), str(uuid.UUID(run.run_id)))
        self.parent = _parent(os.environ.get("OPENLINEAGE_PARENT_ID", ""))
        self._one_at_a_time = threading.Lock()
        self.client: OpenLineageClient | None = None
        with self._at_most_a_warning():
            self.client = _client()
        self._send("START", self.job, run.started_at, self._run_facets())

    def begun(self, step: Step) -> None:
        """Tell that a step has begun."""
        self._send("START", self._step_run(step), step.started_at, self._step_facets())

    def ended(self, step: Step) -> None:
        """Tell what a step read and wrote, and how it ended."""
        at = step.started_at + timedelta(seconds=step.seconds)
        kind = "COMPLETE" if step.outcome == "done" else "FAIL"
        facets = {**self._step_facets(), **_error_facet(step.error)}
        self._send(kind, self._step_run(step), at, facets, step.inputs.values(), step.outputs.values())

    def close(self, done: bool) -> None:
        """Tell whether the run came to its end, with all that its steps read and wrote."""
        inputs = {key: d for step in self.run.steps for key, d in step.inputs.items()}
        # Their columns were told with the steps.
        outputs = {
            key: replace(d, columns=dict) for step in self.run.steps for key, d in step.outputs.items()
        }
        error = next((s.error for s in self.run.steps if s.error), None)
        facets = {**self._run_facets(), **_error_facet(error)}
        kind = "COMPLETE" if done else "FAIL"
        self._send(kind, self.job, datetime.now(UTC), facets, inputs.values(), outputs.values())
        if self.client:
            with self._at_most_a_warning():
                self.client.close(TIMEOUT_SECONDS)

    def _step_run(self, step: Step) -> JobRun:
        identifier = uuid.uuid5(uuid.UUID(self.run.run_id), str(step.number))
        return JobRun(self.job.namespace, f"{self.job.name}.{_job_name(step.name)}", str(identifier))

    def _run_facets(self) -> dict[str, Any]:
        from openlineage.client.facet_v2 import processing_engine_run

        engine = processing_engine_run.ProcessingEngineRunFacet(
            version=pyspark.__version__, name="spark", openlineageAdapterVersion=__version__
        )
        return {"processing_engine": engine} | (_parent_facet(self.parent) if self.parent else {})

    def _step_facets(self) -> dict[str, Any]:
        return _parent_facet(self.job, self.parent or self.job)

    def _send(
        self,
        kind: str,
        job: JobRun,
        at: datetime,
        facets: dict[str, Any],
        inputs: Iterable[Dataset] = (),
        outputs: Iterable[Dataset] = (),
    ) -> None:
        from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import job_type_job

        # Steps of several threads may begin and end at once.
        with self._one_at_a_time, self._at_most_a_warning():
            if self.client is None:
                return
            event = RunEvent(
                eventType=RunState[kind],
                eventTime=at.isoformat(),
                producer=PRODUCER,
                run=Run(runId=job.run_id, facets=facets),
                job=Job(
                    namespace=job.namespace,
                    name=job.name,
                    facets={
                        "jobType": job_type_job.JobTypeJobFacet(
                            processingType="BATCH",
                            integration="SPARK",
                            jobType="JOB" if job == self.job else "TASK",
                        )
                    },
                ),
                inputs=[_input(d, self.run.settings) for d in inputs],
                outputs=[_output(d, self.run.settings) for d in outputs],
            )
            self.client.emit(event)

    @contextmanager
    def _at_most_a_warning(self) -> Iterator[None]:
        """Turn the first error inside the block into a warning, and send nothing more of this run."""
        try:
            yield
        except Exception as error:
            self.client = None
            # Not its text: it may hold the address with a key in it.
            log.warning("lineage events: %s; no more are sent of this run", type(error).__name__)
            log.debug("", exc_info=True)


def _client() -> OpenLineageClient:
    # What the client says of its own is one line of ours; its messages may show settings.
    logging.getLogger("openlineage").setLevel(logging.CRITICAL)
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import set_producer

    set_producer(PRODUCER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # The client hands OPENLINEAGE_URL on through variables of its own, which must not outlive it.
        before = dict(os.environ)
        try:
            client = OpenLineageClient()
        finally:
            for name in set(os.environ) - set(before):
                del os.environ[name]
    if client.transport.kind == "console":
        raise ConfigurationError("no transport is configured")
    _hurry(client.transport)
    return client


def _hurry(transport: Transport) -> None:
    """One try of two seconds instead of six of five: a run does not wait for whoever listens."""
    from openlineage.client.transport.http import HttpTransport

    for each in getattr(transport, "transports", [transport]):
        if isinstance(each, HttpTransport):
            each.timeout = min(each.timeout, TIMEOUT_SECONDS)
            each.config.retry = {**each.config.retry, "total": 0, "connect": 0, "read": 0}


def _job_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text.strip())


def _parent(text: str) -> JobRun | None:
    """The run that started this one, `namespace/job/run id`, as Airflow's provider writes it."""
    namespace, _, rest = text.strip().partition("/")
    name, _, identifier = rest.rpartition("/")
    try:
        return JobRun(namespace, name, str(uuid.UUID(identifier))) if namespace and name else None
    except ValueError:
        return None


def _parent_facet(parent: JobRun, root: JobRun | None = None) -> dict[str, Any]:
    from openlineage.client.facet_v2 import parent_run as p

    top = root or parent
    return {
        "parent": p.ParentRunFacet(
            run=p.Run(runId=parent.run_id),
            job=p.Job(namespace=parent.namespace, name=parent.name),
            root=p.Root(p.RootRun(runId=top.run_id), p.RootJob(namespace=top.namespace, name=top.name)),
            producer=PRODUCER,
        )
    }


def _error_facet(error: BaseException | None) -> dict[str, Any]:
    if error is None:
        return {}
    from openlineage.client.facet_v2 import error_message_run

    message = f"{type(error).__name__}: {root_cause(error)}"[:MAX_ERROR]
    return {"errorMessage": error_message_run.ErrorMessageRunFacet(message, "PYTHON")}


def _input(dataset: Dataset, settings: Settings) -> Any:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics

    namespace, name = standard_name(dataset.name, dataset.in_warehouse, settings)
    counted = statistics.InputStatisticsInputDatasetFacet(rowCount=dataset.rows, fileCount=dataset.files)
    known = dataset.rows is not None or dataset.files is not None
    facets = _facets(dataset)
    return InputDataset(
        namespace=namespace,
        name=name,
        facets=facets,
        inputFacets={"inputStatistics": counted} if known else {},
    )


def _output(dataset: Dataset, settings: Settings) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    namespace, name = standard_name(dataset.name, dataset.in_warehouse, settings)
    counted = statistics.OutputStatisticsOutputDatasetFacet(rowCount=dataset.rows)
    return OutputDataset(
        namespace=namespace,
        name=name,
        facets=_facets(dataset) | _column_facet(_columns(dataset), settings),
        outputFacets={"outputStatistics": counted} if dataset.rows is not None else {},
    )


def _columns(dataset: Dataset) -> Mapping[str, Iterable[SourceColumn]]:
    try:
        return dataset.columns()
    except Exception as error:  # Spark's plans are no interface that it promises to keep
        log.warning("lineage events: the columns of %s: %s", dataset.name, type(error).__name__)
        log.debug("", exc_info=True)
        return {}


def _facets(dataset: Dataset) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset, schema_dataset

    facets: dict[str, Any] = {}
    if dataset.version is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(str(dataset.version))
    if dataset.schema is not None:
        facets["schema"] = schema_dataset.SchemaDatasetFacet(_fields(dataset.schema))
    return facets


def _fields(schema: T.StructType) -> list[Any]:
    from openlineage.client.facet_v2 import schema_dataset

    return [
        schema_dataset.SchemaDatasetFacetFields(name=f.name, type=f.dataType.simpleString()) for f in schema
    ]


def _column_facet(columns: Mapping[str, Iterable[SourceColumn]], settings: Settings) -> dict[str, Any]:
    from openlineage.client.facet_v2 import column_lineage_dataset as c

    fields = {
        name: c.Fields(
            [
                c.InputField(
                    *standard_name(source.dataset, source.in_warehouse, settings),
                    source.column,
                    [_transformation(source.how)],
                )
                for source in sources
            ]
        )
        for name, sources in columns.items()
    }
    return {"columnLineage": c.ColumnLineageDatasetFacet(fields)} if fields else {}


def _transformation(how: str) -> Any:
    from openlineage.client.facet_v2 import column_lineage_dataset as c

    return c.Transformation("INDIRECT" if how == "WINDOW" else "DIRECT", how)


def standard_name(name: str, in_warehouse: bool, settings: Settings) -> tuple[str, str]:
    """Namespace and name of a dataset as the standard has them, without user, password or options of an address."""
    if not in_warehouse:
        if settings.lake_is_local:
            return "file", settings.lake_path(name)
        address = urlsplit(settings.lake_path(name))
        return f"s3://{address.netloc}", address.path.lstrip("/")
    if settings.warehouse_url.startswith("bigquery://"):
        project, _, dataset = settings.warehouse_url.removeprefix("bigquery://").partition("/")
        return "bigquery", f"{project}.{dataset}.{name}"
    if settings.warehouse_url.startswith("embedded:"):
        return settings.warehouse_url, f"{settings.schema}.{name}"
    address = urlsplit(without_credentials(settings.warehouse_url))
    host = address.netloc
    where = host if ":" in host.rpartition("]")[2] else f"{host or 'localhost'}:5432"
    return f"postgres://{where}", f"{address.path.strip('/')}.{settings.schema}.{name}"
