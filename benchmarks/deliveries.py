"""`user-analytics run` after each of several deliveries to one lake and one warehouse, measured."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks import measure
from benchmarks.report import DOCUMENT, describe_machine, write_section
from jobs.warehouse.embedded import EmbeddedPostgres

FOLDER = Path(__file__).resolve().parents[1] / "build" / "benchmarks"


@dataclass(frozen=True)
class Delivery:
    """What comes before a run: a file of so many lines, or nothing."""

    what: str
    file: Path | None
    lines: int


@dataclass(frozen=True)
class Plan:
    """The deliveries of one size, and what the warehouse must hold after them: the row that a query has to give.

    The query names the schema as {schema}.
    """

    deliveries: Sequence[Delivery]
    query: str
    expected: tuple[Any, ...]


@dataclass(frozen=True)
class Benchmark:
    """Deliveries of a feed in several sizes. prepare: writes the files of one size into an empty folder."""

    name: str
    feed: str
    unit: str
    title: str
    about: str
    sizes: Sequence[int]
    prepare: Callable[[Path, int], Plan]

    def main(self, description: str, argv: Sequence[str] | None = None) -> int:
        """Measure the sizes asked for, each in an empty lake and schema; print a table, and write it to the document.

        Exits when a run fails or the warehouse holds something else.
        """
        parser = argparse.ArgumentParser(
            prog=f"benchmarks.{self.name}", description=description.split("\n")[0]
        )
        parser.add_argument("--sizes", type=size, nargs="+", default=self.sizes)
        parser.add_argument("--work", type=Path, default=FOLDER)
        arguments = parser.parse_args(argv)
        work = arguments.work.resolve()
        table = _head(self.unit)
        print("\n".join(table), flush=True)
        with EmbeddedPostgres(work / f"{self.name}-warehouse") as server:
            for number in arguments.sizes:
                for delivery, found in self._run_size(number, work / f"{self.name}-{number}", server):
                    table.append(_row(number, delivery, found))
                    print(table[-1], flush=True)
            machine = describe_machine(server)
        text = "\n".join(table)
        write_section(DOCUMENT, self.name, f"## {self.title}\n\n{self.about}\n\n{text}\n\n{machine}\n")
        return 0

    def _run_size(self, number: int, folder: Path, server: str) -> list[tuple[Delivery, measure.Measurement]]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        plan, schema = self.prepare(folder, number), f"{self.name}_{number}"
        measured = _run_deliveries(self.feed, plan.deliveries, folder, server, schema)
        with psycopg2.connect(server) as connection, connection.cursor() as cursor:
            cursor.execute(plan.query.format(schema=schema))
            found = cursor.fetchone()
            cursor.execute(f"DROP SCHEMA {schema} CASCADE")
        if found != plan.expected:
            sys.exit(f"{number:,} {self.unit}: {plan.query} gives {found}, expected {plan.expected}")
        shutil.rmtree(folder)
        return measured


def _run_deliveries(
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


def _head(of: str) -> list[str]:
    """The first two lines of a table of runs."""
    return [
        f"| {of} | run | lines | seconds | lines/s | memory, all processes, MiB | memory, largest process, MiB |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]


def _row(size: int, delivery: Delivery, found: measure.Measurement) -> str:
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
