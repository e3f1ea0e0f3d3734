"""What every job needs: the session, the settings, the store, an id for the run; and the frame around `main`."""

from __future__ import annotations

import argparse
import functools
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from jobs.console import configure_logging, log
from jobs.errors import UserAnalyticsError
from jobs.lake.locks import TableLocks, process_name
from jobs.lake.objects import ObjectStore, object_store
from jobs.settings import Settings
from jobs.spark import SMALL_LAKE_BYTES, get_session, jvm_pid
from jobs.warehouse.base import Check

DATA_FILE = re.compile(r"(?:\w+:)?/[^\s'\"]*\.(?:parquet|json)\b")
# How much text a compressed byte is taken for.
GZIP_RATIO = 8
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Step:
    """One step of a run, as it stands in `etl_steps`."""

    name: str
    started_at: datetime
    seconds: float
    outcome: str
    detail: str


@dataclass
class RunContext:
    """A run under way. steps grows as `step` blocks end; checks as tables are published; refused: a file was."""

    spark: SparkSession
    settings: Settings
    store: ObjectStore
    run_id: str
    command: str
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    steps: list[Step] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    refused: bool = False
    locks: TableLocks = field(init=False)

    def __post_init__(self) -> None:
        self.locks = TableLocks(
            self.store,
            self.settings.lake_uri,
            self.command,
            self.run_id,
            self.settings.lock_wait_seconds,
            processes=lambda: [process_name(pid) for pid in (os.getpid(), jvm_pid(self.spark))],
            on_lost=lambda: self.spark.sparkContext.cancelAllJobs(),
        )

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a block and keep the outcome. What the block appends to the list is the step's detail."""
        began, clock, detail = datetime.now(UTC), time.monotonic(), list[str]()
        outcome = "failed"
        try:
            yield detail
            outcome = "done"
        finally:
            self.steps.append(
                Step(name, began, round(time.monotonic() - clock, 3), outcome, "; ".join(detail))
            )


def writes(
    *tables: str,
) -> Callable[[Callable[Concatenate[RunContext, P], R]], Callable[Concatenate[RunContext, P], R]]:
    """Make a function of a run hold the locks of the tables that it writes, from its first look at them on."""

    def wrap(job: Callable[Concatenate[RunContext, P], R]) -> Callable[Concatenate[RunContext, P], R]:
        @functools.wraps(job)
        def locked(run: RunContext, *args: P.args, **kwargs: P.kwargs) -> R:
            with run.locks.hold(*tables):
                return job(run, *args, **kwargs)

        return cast(Callable[Concatenate[RunContext, P], R], locked)

    return wrap


@contextmanager
def open_run(command: str, settings: Settings) -> Iterator[RunContext]:
    """Check the lake, open a session if none is open, and close it again if it was opened here.

    Raises ConfigurationError, before Spark starts, when the lake cannot be used.
    """
    store = object_store(settings)
    store.check()
    ours = SparkSession.getActiveSession() is None
    spark = get_session(f"user-analytics {command}", settings, small=_is_small(store))
    try:
        yield RunContext(spark, settings, store, run_id=uuid.uuid4().hex, command=command)
    finally:
        if ours:
            spark.stop()


def _is_small(store: ObjectStore) -> bool:
    total = 0
    for file in store.list("raw"):
        total += file.size * (GZIP_RATIO if file.path.endswith(".gz") else 1)
        if total > SMALL_LAKE_BYTES:
            return False
    return True


def job_main(body: Callable[[], int | None]) -> int:
    """Run a job's body and turn what it raises into one line on standard error and an exit code."""
    configure_logging()
    try:
        configure_logging(os.environ.get("LOG_FORMAT", "").strip() or "text")
        with _sigterm_as_ctrl_c():
            return body() or 0
    except UserAnalyticsError as error:
        log.error("error: %s", error)
        return error.exit_code
    except KeyboardInterrupt:
        log.error("stopped; run it again to go on")
        return 130
    except (PySparkException, Py4JJavaError) as error:
        log.error("error: Spark: %s", root_cause(error))
        log.debug("", exc_info=True)
        return 1
    except (BotoCoreError, ClientError) as error:
        log.error("error: LAKE_URI: the object store: %s", error)
        log.debug("", exc_info=True)
        return 1


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """`kill`, the stop of a container, and Airflow's end a run cleanly: an embedded server is stopped, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        # Once is enough; a second one must not disturb the cleaning up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def root_cause(error: BaseException) -> str:
    """The innermost message of an error, in one line, without a stack trace; with the file that outer ones name."""
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    messages = []
    try:
        while java is not None:
            messages.append(str(java.getMessage()))
            java = java.getCause()
    except Exception:  # not a Java exception after all
        messages.clear()
    text = (messages or [str(error)])[-1] or type(error).__name__
    line = next((line.strip() for line in text.splitlines() if line.strip()), text)[:500]
    file = next((found[0] for message in messages if (found := DATA_FILE.search(message))), None)
    return line if file is None or Path(file).name in line else f"{line} (in {file})"


def parser(doc: str | None, prog: str) -> argparse.ArgumentParser:
    """A strict argument parser that shows the module's documentation; abbreviations are not guessed."""
    return argparse.ArgumentParser(
        prog=prog,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
