"""What a command answers: tables for people or, with --json, one document for programs. Log lines go elsewhere."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from jobs.console import table
from jobs.errors import ConfigurationError

# The longest path of a file that `etl_files` has.
PATH = 1024


def add_json(arguments: argparse.ArgumentParser) -> None:
    """Add `--json`, the same for every command that answers a question."""
    arguments.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def require_writable(option: str, file: Path) -> None:
    """Raise ConfigurationError, before there is work to lose, if an option names a file that cannot be written."""
    if not file.parent.is_dir():
        raise ConfigurationError(f"{option} {file}: there is no folder {file.parent}")
    if file.is_dir():
        raise ConfigurationError(f"{option} {file}: is a folder; name a file")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ConfigurationError(f"{option} {file}: no permission to write there")


def csv_writer(out: IO[str]) -> Callable[[Iterable[object]], None]:
    """What writes one row as CSV (RFC 4180, null is an empty field), with a line feed at its end."""
    text = io.StringIO()
    # Python 3.11 puts a carriage return into quotes only where lines end in one, and readers end a line at one without.
    writer = csv.writer(text, lineterminator="\r\n")

    def write(row: Iterable[object]) -> None:
        writer.writerow(row)
        out.write(text.getvalue().removesuffix("\r\n") + "\n")
        text.seek(0)
        text.truncate()

    return write


def as_json(document: dict[str, Any]) -> str:
    """A document as JSON: times in ISO 8601, spans in seconds."""
    return json.dumps(document, ensure_ascii=False, indent=1, default=_plain)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document, see `as_json`."""
    print(as_json(document))


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print a titled table, or the line `empty` where there are no rows."""
    print(f"{title}\n{table(header, rows, longest=PATH) if rows else '  ' + empty}\n")


def print_lines(*lines: str) -> None:
    """Print lines of text."""
    print("\n".join(lines))


def utc(at: datetime) -> datetime:
    """A time out of Spark, which has no zone and means this machine's, as one in UTC."""
    return at.astimezone(UTC)


def shown(at: datetime | None) -> str | None:
    """A time for people, to the minute."""
    return f"{at:%Y-%m-%d %H:%M}" if at else None


def _plain(value: object) -> object:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
