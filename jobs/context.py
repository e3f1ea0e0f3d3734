"""What every job needs: the session, the settings, the store, an id for the run; and the frame around `main`."""

from __future__ import annotations

import argparse
import functools
import os
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import chain, count
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from jobs.causes import root_cause
from jobs.console import configure_logging, heartbeat, log
from jobs.datasets import Dataset, of_lake
from jobs.errors import UserAnalyticsError, of_system
from jobs.lake.ledger import Ledger
from jobs.lake.locks import TableLocks, process_name
from jobs.lake.objects import ObjectStore, object_store
from jobs.lake.tables import LakeTable
from jobs.quality.rules import RuleResult
from jobs.settings import Settings
from jobs.spark import LITTLE_BYTES, get_session, has_started, is_submitted, java_has_ended, jvm_pid
from jobs.warehouse.base import Check

# How long a run that is stopped waits for Spark to stop its jobs, and after how long it looks for others.
CANCEL_SECONDS, CANCEL_AGAIN_SECONDS = 5.0, 0.5
P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Step:
    """One step of a run, as it stands in `etl_steps`. inputs and outputs: by name, as they were noted last."""

    name: str
    number: int
    started_at: datetime
    seconds: float = 0.0
    outcome: str = "failed"
    detail: list[str] = field(default_factory=list)
    inputs: dict[tuple[bool, str], Dataset] = field(default_factory=dict)
    outputs: dict[tuple[bool, str], Dataset] = field(default_factory=dict)
    error: BaseException | None = None

    def note_read(self, *datasets: Dataset) -> None:
        self.inputs.update({(d.in_warehouse, d.name): d for d in datasets})

    def note_written(self, *datasets: Dataset) -> None:
        self.outputs.update({(d.in_warehouse, d.name): d for d in datasets})


class StepListener(Protocol):
    """Is told of steps as they begin and end. It must not raise."""

    def begun(self, step: Step) -> None: ...
    def ended(self, step: Step) -> None: ...


@dataclass
class RunContext:
    """A run under way. steps grows as `step` blocks end; checks as tables are published; refused: a file was.

    start_spark: gives the session; asked once, when something needs it. Seeing that there is nothing to do needs none.
    listener: is told of the steps.
    findings: what rules found. warn_only: a rule that says `fail` does not stop the run.
    """

    start_spark: Callable[[], SparkSession]
    settings: Settings
    store: ObjectStore
    run_id: str
    command: str
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    steps: list[Step] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    findings: list[RuleResult] = field(default_factory=list)
    refused: bool = False
    listener: StepListener | None = None
    warn_only: bool = False
    locks: TableLocks = field(init=False)
    _session: SparkSession | None = field(init=False, default=None)
    _starting: threading.Lock = field(init=False, default_factory=threading.Lock)
    _clock: float = field(init=False, default_factory=time.monotonic)
    _numbers: Iterator[int] = field(init=False, default_factory=lambda: count(1))
    # Steps of several threads may be under way at once.
    _present: threading.local = field(init=False, default_factory=threading.local)

    def __post_init__(self) -> None:
        self.locks = TableLocks(
            self.store,
            self.settings.lake_uri,
            self.command,
            self.run_id,
            self.settings.lock_wait_seconds,
            processes=self._processes,
            on_lost=self._cancel,
        )

    @property
    def spark(self) -> SparkSession:
        """The session, which starts when it is first asked for."""
        with self._starting:
            if self._session is None:
                self._session = self.start_spark()
                # Who waits for a lock of this run must know of the process that writes from now on.
                self.locks.beat()
            return self._session

    @property
    def has_spark(self) -> bool:
        """Whether something needed the session."""
        return self._session is not None

    def heartbeat(self, label: str) -> AbstractContextManager[None]:
        """Say, every few seconds, how far Spark is with what runs inside the block."""
        return heartbeat(lambda: self._session, label)

    def _processes(self) -> list[str]:
        """Those that may write: this one and, once there is a session, Java's, which outlives a killed Python."""
        pids = [os.getpid(), *([jvm_pid(self._session)] if self._session else [])]
        return [process_name(pid) for pid in pids]

    def _cancel(self) -> None:
        if self._session:
            self._session.sparkContext.cancelAllJobs()

    @property
    def seconds(self) -> float:
        """How long the run has lasted; the time of day may go backwards meanwhile."""
        return round(time.monotonic() - self._clock, 3)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a block and keep the outcome, and what the block notes as read and written until it ends.

        What the block appends to the list is the step's detail.
        """
        clock = time.monotonic()
        step = self._present.step = Step(name, next(self._numbers), datetime.now(UTC))
        if self.listener:
            self.listener.begun(step)
        try:
            yield step.detail
            step.outcome = "done"
        except BaseException as error:
            step.error = error
            raise
        finally:
            del self._present.step
            step.seconds = round(time.monotonic() - clock, 3)
            self.steps.append(step)
            if self.listener:
                self.listener.ended(step)

    @property
    def _step(self) -> Step | None:
        """The step that this thread is in."""
        return getattr(self._present, "step", None)

    def note_read(self, *datasets: Dataset) -> None:
        """Say what the present step read. In a thread without a step nothing is kept."""
        if self._step:
            self._step.note_read(*datasets)

    def note_written(self, *datasets: Dataset) -> None:
        """Say what the present step wrote. In a thread without a step nothing is kept."""
        if self._step:
            self._step.note_written(*datasets)

    def note_table_read(self, table: LakeTable, version: int | None = None, rows: int | None = None) -> None:
        """Say that the present step read a table of the lake, by default at its present version."""
        if self._step:
            self.note_read(of_lake(table, self.settings.lake_uri, version, rows))

    def note_table_written(
        self, table: LakeTable, made_by: DataFrame | None = None, rows: int | None = None
    ) -> None:
        """Say that the present step brought a table of the lake to its present version, with the rows of made_by."""
        if self._step:
            self.note_written(of_lake(table, self.settings.lake_uri, None, rows, made_by))


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
def open_run(
    command: str,
    settings: Settings,
    warn_only: bool = False,
    quick: bool = False,
    make: bool = True,
    write: bool = True,
    has_little_to_do: Callable[[RunContext], bool] | None = None,
) -> Iterator[RunContext]:
    """Check the lake and begin a run; at its end, close the Spark session that was opened for it, if any.

    quick: for a command that only looks at something, soon. make: a lake that is not there is begun. write: one that
    can only be read from is not enough. Neither holds for a quick command. has_little_to_do: asked when Spark
    starts, of a run that has none.

    Raises ConfigurationError, before Spark starts, when the lake cannot be used.
    """
    store = object_store(settings)
    store.check(make and not quick, write and not quick)
    had_spark = has_started()

    def start_spark() -> SparkSession:
        # Asked of a run that has no Spark: a question that needs it could only wait for its own answer.
        asked = RunContext(_no_spark, settings, store, run.run_id, command)
        small = _is_so(_is_small, asked)
        # Where it follows, or Java has started already, it need not be asked: that lists the raw files once more.
        open_question = has_little_to_do if not (quick or small or is_submitted()) else None
        little = quick or (open_question is not None and _is_so(open_question, asked))
        return get_session(f"user-analytics {command}", settings, small=small, quick=little)

    run = RunContext(
        start_spark, settings, store, run_id=uuid.uuid4().hex, command=command, warn_only=warn_only
    )
    try:
        yield run
    finally:
        if run.has_spark and not had_spark and not java_has_ended():
            run.spark.stop()


def _no_spark() -> SparkSession:
    raise UserAnalyticsError("Spark is about to start")


def _is_so(question: Callable[[RunContext], bool], run: RunContext) -> bool:
    try:
        return question(run)
    except Exception as error:  # of a table that cannot be read; Spark names its file, where it is needed
        log.debug("%s: %s", question, error)
        return False


def _is_small(run: RunContext) -> bool:
    """Whether all that was delivered, be it archived or removed since, is little."""
    staged = chain.from_iterable(Ledger(run).histories().values())
    sizes = {entry.path: entry.text_bytes for entry in staged}
    total = sum(sizes.values())
    # Files are listed only where the ledger does not tell, and as far as it takes.
    for file in run.store.list("raw") if total <= LITTLE_BYTES else ():
        total += file.text_bytes - sizes.get(file.path, 0)
        if total > LITTLE_BYTES:
            return False
    return total <= LITTLE_BYTES


def job_main(body: Callable[[], int | None]) -> int:
    """Run a job's body and turn what it raises into one line on standard error and an exit code."""
    configure_logging()
    if sys.stdout is None:
        # Python has none where a service or `>&-` closed it; nobody reads the output then.
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    try:
        configure_logging(os.environ.get("LOG_FORMAT", "").strip() or "text")
        with _cleanly_stopped():
            code = body() or 0
            # Not at the interpreter's exit, where nothing would be made of an error.
            sys.stdout.flush()
            return code
    except UserAnalyticsError as error:
        log.error("error: %s", error)
        return error.exit_code
    except KeyboardInterrupt:
        log.error("stopped; run it again to go on")
        return 130
    except Exception as error:
        code = 1
        # Without Java, what else went wrong follows from it, and no error of Java's can be asked for its message.
        if java_has_ended():
            message = (
                "Spark's Java process ended: killed, or out of memory (SPARK_DRIVER_MEMORY); run it again"
            )
        elif isinstance(error, PySparkException | Py4JJavaError):
            message = f"Spark: {root_cause(error)}"
        elif isinstance(error, BotoCoreError | ClientError):
            message = f"LAKE_URI: the object store: {error}"
        elif isinstance(error, BrokenPipeError):
            # Whoever read the output has enough, as `head` has. The interpreter's exit would write the rest of it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        elif isinstance(error, OSError):
            known = of_system(error)
            message, code = str(known), known.exit_code
        else:
            raise
        log.error("error: %s", message)
        log.debug("", exc_info=True)
        return code


@contextmanager
def _cleanly_stopped() -> Iterator[None]:
    """Ctrl-C, `kill`, the stop of a container, and Airflow's end a run cleanly: an embedded server is stopped, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    stopping, cancelled, ended = threading.Event(), threading.Event(), threading.Event()

    def cancel() -> None:
        # Again until the end: a thread that was between two jobs, or was starting Spark, goes on to the next one.
        while not ended.is_set():
            with suppress(Exception):  # Java may have ended
                if spark := SparkContext._active_spark_context:
                    spark.cancelAllJobs()
            cancelled.set()
            ended.wait(CANCEL_AGAIN_SECONDS)

    def stop(*_: object) -> None:
        # Once is enough; a second one must not disturb the cleaning up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stopping.set()
        # As PySpark does on Ctrl-C, where the main thread started Spark: a thread that waits for Spark would keep the
        # process for as long. By a thread of its own, because this one's connection to the JVM may be in use.
        threading.Thread(target=cancel, daemon=True).start()
        if SparkContext._active_spark_context:
            cancelled.wait(CANCEL_SECONDS)
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    # A shell lets what it runs in the background ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except Exception as error:
        if stopping.is_set():
            # What failed follows from the stop: a signal to the whole group ends Java, too, during the cleaning up.
            raise KeyboardInterrupt from error
        raise
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def parser(doc: str | None, command: str) -> argparse.ArgumentParser:
    """A command's strict argument parser, which shows the module's documentation; abbreviations are not guessed."""
    return argparse.ArgumentParser(
        prog=f"user-analytics {command}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_warn_only(arguments: argparse.ArgumentParser) -> None:
    """Add `--warn-only`, the same for every command that judges by rules."""
    arguments.add_argument(
        "--warn-only", action="store_true", help="go on where a rule that says `fail` is broken"
    )


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A whole number within limits, for argparse."""

    def number(text: str) -> int:
        # Python refuses to read a number of thousands of digits.
        if not re.fullmatch(r"\d{1,18}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least:,} to {most:,}")
        return int(text)

    return number


def day(text: str) -> date:
    """YYYY-MM-DD, for argparse."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2024-03-01") from None
