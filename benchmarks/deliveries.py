"""`user-analytics run` after each of several deliveries to one lake and one warehouse, measured."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure


@dataclass(frozen=True)
class Delivery:
    """What comes before a run: a file of so many lines, or nothing."""

    what: str
    file: Path | None
    lines: int


def run_deliveries(
    feed: str, deliveries: Sequence[Delivery], folder: Path, server: str, schema: str
) -> list[tuple[Delivery, measure.Measurement]]:
    """Move one file after the other into a new lake in the folder, and run; exits when a run fails."""
    environment = {
        **os.environ,
        "LAKE_URI": str(folder / "lake"),
        "WAREHOUSE_URL": server,
        "WAREHOUSE_SCHEMA": schema,
        "LOG_FOLDER": str(folder / "logs"),
    }
    raw = folder / "lake" / "raw" / feed
    raw.mkdir(parents=True)
    measured = []
    for delivery in deliveries:
        if delivery.file:
            delivery.file.rename(raw / delivery.file.name)
        command = [sys.executable, "-m", "jobs", "run", "--feeds", feed]
        log = folder / f"{delivery.what.replace(' ', '-')}.log"
        found = measure.run(command, environment, log, time_limit=7200)
        if found.exit_code != 0:
            sys.exit(f"{feed}, {delivery.what}: exit code {found.exit_code}, see {log}")
        measured.append((delivery, found))
    return measured


def head(of: str) -> list[str]:
    """The first two lines of a table of runs."""
    return [
        f"| {of} | run | lines | seconds | lines/s | memory, all processes, MiB | memory, largest process, MiB |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]


def row(size: int, delivery: Delivery, found: measure.Measurement) -> str:
    """A line of that table."""
    return (
        f"| {size:,} | {delivery.what} | {delivery.lines:,} | {found.seconds:.0f} "
        f"| {delivery.lines / found.seconds:,.0f} "
        f"| {found.peak_tree_bytes / 2**20:,.0f} | {found.peak_process_bytes / 2**20:,.0f} |"
    )


def size(text: str) -> int:
    """`500k` and `5m`, for argparse."""
    factor = {"k": 1_000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    try:
        number = int(float(text[:-1] if factor > 1 else text) * factor)
    except ValueError:
        number = 0
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no size; write 200000, 200k or 10m")
    return number
