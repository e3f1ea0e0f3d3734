"""What a person sees while a job runs: one line per event, and a heartbeat with Spark's progress on long steps.

Progress goes to standard error, results to standard output.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from pyspark.sql import SparkSession

from jobs.errors import ConfigurationError

log = logging.getLogger("user_analytics")
HEARTBEAT_SECONDS = 5.0
# Of what stands in a cell: a terminal would go back to the line's beginning, or do what else they say.
CONTROLS = dict.fromkeys([*range(32), 127], " ")
# Of a log line, which may name a file that is called so; a line break may be the message's own.
SHOWN_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        return f"{at:%H:%M:%S} {record.getMessage().translate(SHOWN_CONTROLS)}"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(line, ensure_ascii=False)


def configure_logging(form: str = "text") -> None:
    """Write this suite's log lines to standard error, as text or as one JSON object a line.

    Raises ConfigurationError for another form.
    """
    forms: dict[str, type[logging.Formatter]] = {"text": _TextFormatter, "json": _JsonFormatter}
    if form not in forms:
        raise ConfigurationError(f"LOG_FORMAT={form!r}: expected text or json")
    # A program around this one may have handlers of its own here.
    ours = [h for h in log.handlers if isinstance(h.formatter, (_TextFormatter, _JsonFormatter))]
    for handler in ours:
        log.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(forms[form]())
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.INFO)
    # Of a run that is stopped, py4j would write a stack trace here.
    logging.getLogger().setLevel(logging.CRITICAL)


@contextmanager
def heartbeat(session: Callable[[], SparkSession | None], label: str) -> Iterator[None]:
    """Every five seconds, say how far Spark is with what runs inside the block.

    session: gives Spark's, None while there is none.
    """
    done = threading.Event()
    started = time.monotonic()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            log.info("%s … %s%.0f s", label, _tasks(session()), time.monotonic() - started)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tasks(spark: SparkSession | None) -> str:
    if spark is None:
        return ""
    try:
        tracker = spark.sparkContext.statusTracker()
        stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
    except Exception:  # the session is going away; the heartbeat is only a courtesy
        return ""
    running = [stage for stage in stages if stage]
    total = sum(stage.numTasks for stage in running)
    finished = sum(stage.numCompletedTasks for stage in running)
    return f"task {finished} of {total}, " if total else ""


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], indent: str = "  ", longest: int = 60
) -> str:
    """A plain text table; numbers stand to the right, None is shown as a dash. Text over `longest` is cut.

    Digits are grouped from 10,000 on, so that a year reads as a year; those of keys and ids never, so that they can be
    copied.
    """
    grouped = [not f"_{name}".endswith(("_key", "_id")) for name in header]
    cells = [[_cell(v, longest, grouping) for v, grouping in zip(row, grouped, strict=True)] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    right = [
        all(isinstance(row[i], (int, float)) or row[i] is None for row in rows) for i in range(len(header))
    ]

    def line(values: Sequence[str]) -> str:
        parts = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)]
        return indent + "  ".join(parts).rstrip()

    return "\n".join([line(list(header)), line(["-" * w for w in widths]), *(line(row) for row in cells)])


def _cell(value: object, longest: int, grouped: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        grouping = "," if grouped and abs(value) >= 10_000 else ""
        return (
            f"{value:{grouping}}"
            if isinstance(value, int)
            else f"{value:{grouping}.3f}".rstrip("0").rstrip(".")
        )
    text = str(value).translate(CONTROLS)
    return text if len(text) <= longest else text[: longest - 3] + "..."


class UploadProgress:
    """Says how much of a file was sent: when it is done, and every five seconds until then. Call it with bytes."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size, self.sent = name, size, 0
        self.lock = threading.Lock()
        self.said = time.monotonic()

    def __enter__(self) -> UploadProgress:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self.sent >= self.size:
            log.info("upload: %s, %s bytes", self.name, f"{self.size:,}")

    def __call__(self, sent: int) -> None:
        with self.lock:
            self.sent += sent
            if time.monotonic() - self.said >= HEARTBEAT_SECONDS:
                self.said = time.monotonic()
                log.info("upload: %s … %.0f %%", self.name, 100 * self.sent / max(self.size, 1))
