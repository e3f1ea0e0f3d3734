"""A day's file of 1 % on top of many log lines: what it takes beside the first load, and a run with nothing new.

Every size is run in an empty lake and an empty database: `user-analytics run --feeds logs` on 30 days, again on the
day after them, and a third time with nothing new. The facts are counted afterwards.

    python -m benchmarks.increment --sizes 10m
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import psycopg2

from benchmarks import measure
from benchmarks.deliveries import Delivery, head, row, run_deliveries, size
from benchmarks.generate_logs import DAYS, FIRST_DAY, generate_log_lines
from benchmarks.report import DOCUMENT, describe_machine, write_section
from jobs.warehouse.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[1]
SHARE = 0.01
ABOUT = """`user-analytics run --feeds logs` into an empty lake and an empty database: 30 days, the day after them with
1 % as many lines, and nothing new. Start-up, publishing, checks and report are in it."""


def run_size(lines: int, work: Path, server: str) -> list[tuple[Delivery, measure.Measurement]]:
    """Every run with what it measured; exits when a run fails or a fact is missing."""
    folder = work / f"increment-{lines}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    month, day, more = folder / "month.jsonl", folder / "day.jsonl", round(lines * SHARE)
    counts = [
        generate_log_lines(month, lines),
        generate_log_lines(day, more, seed=8, first_day=FIRST_DAY + timedelta(days=DAYS), days=1),
    ]
    deliveries = (
        Delivery("30 days", month, lines),
        Delivery("the day after", day, more),
        Delivery("nothing new", None, 0),
    )
    schema = f"increment_{lines}"
    measured = run_deliveries("logs", deliveries, folder, server, schema)
    with psycopg2.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {schema}.fact_user_actions")
        (facts,) = cursor.fetchone()
        cursor.execute(f"DROP SCHEMA {schema} CASCADE")
    if facts != (expected := sum(count["events"] for count in counts)):
        sys.exit(f"{lines:,} lines: {facts:,} facts, expected {expected:,}")
    shutil.rmtree(folder)
    return measured


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="increment", description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=size, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmarks")
    arguments = parser.parse_args(argv)
    table = head("log lines")
    print("\n".join(table), flush=True)
    with EmbeddedPostgres(arguments.work / "increment-warehouse") as server:
        for lines in arguments.sizes:
            for delivery, found in run_size(lines, arguments.work.resolve(), server):
                table.append(row(lines, delivery, found))
                print(table[-1], flush=True)
        about = describe_machine(server)
    text = "\n".join(table)
    write_section(DOCUMENT, "increment", f"## A day on top of a month\n\n{ABOUT}\n\n{text}\n\n{about}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
