"""Events with clashing ids: raw CSV → staging → mart, at one size and at a tenth of it.

    python -m benchmarks.events                 # 10 million events, and 1 million
    python -m benchmarks.events --rows 200000

Each size is brought into an empty local lake by `user-analytics stage events` and `build-events`, two processes, as
a scheduler starts them. Prints a table, and writes it to docs/benchmarks.md: seconds, events a second, peak memory,
and how the time per event compares with that of the smaller size. The mart is compared with what the generator
knows; a difference ends with exit code 1. Input and lakes stay in `build/benchmarks`.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.generate_events import generate_events
from benchmarks.measure import Measurement, run
from benchmarks.report import DOCUMENT, describe_machine, write_section

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "benchmarks"
STEPS = {"stage": ("stage", "events"), "build": ("build-events",)}
TIME_LIMIT = 3 * 3600
HEAD = (
    "| events | clashes | stage, seconds | build, seconds | events/s | memory, all processes, MiB "
    "| memory, largest process, MiB | time per event ÷ that of the tenth |"
)
ABOUT = """`user-analytics stage events` and `build-events` into an empty local lake, two processes, start-up included.
1 % of the ids clash, 1 % of the lines are duplicates, 0.2 % are invalid. The driver's heap is {memory}."""


def measure(rows: int, memory: str) -> tuple[dict[str, int], dict[str, Measurement]]:
    """Generate, stage and build so many events. Gives the generator's counts and a measurement per step."""
    lake = FOLDER / f"lake-events-{rows}"
    shutil.rmtree(lake, ignore_errors=True)
    counts = generate_events(lake / "raw" / "events", rows)
    environment = {**os.environ, "LAKE_URI": str(lake), "SPARK_DRIVER_MEMORY": memory}
    measured = {}
    for step, command in STEPS.items():
        log = FOLDER / f"events-{rows}-{step}.log"
        measured[step] = run([sys.executable, "-m", "jobs", *command], environment, log, TIME_LIMIT)
        if measured[step].exit_code != 0:
            raise SystemExit(f"{step}: exit code {measured[step].exit_code}, see {log}")
    found = built(lake / "marts" / "events")
    if found != (counts["events"], counts["clashes"]):
        raise SystemExit(f"{rows:,} lines: (events, clashes) are {found}, generated were {counts}")
    return counts, measured


def built(mart: Path) -> tuple[int, int]:
    """Events and clashes of a mart that was built once: every file of it is part of the table."""
    flags = [pq.read_table(file, columns=["is_clash"])["is_clash"] for file in mart.glob("*.parquet")]
    return sum(map(len, flags)), sum(flag.to_pylist().count(True) for flag in flags)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.events", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--memory", default="2g", help="of Spark's driver (default: %(default)s)")
    arguments = parser.parse_args(argv)
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = [HEAD, "|--:|--:|--:|--:|--:|--:|--:|--:|"]
    print("\n".join(lines), flush=True)
    before = None
    for rows in (arguments.rows // 10, arguments.rows):
        counts, measured = measure(rows, arguments.memory)
        seconds = sum(m.seconds for m in measured.values())
        tree = max(m.peak_tree_bytes for m in measured.values()) / 2**20
        largest = max(m.peak_process_bytes for m in measured.values()) / 2**20
        growth = f"{seconds / rows / before:.2f} ×" if before else ""
        before = seconds / rows
        lines.append(
            f"| {rows:,} | {counts['clashes']:,} | {measured['stage'].seconds:.0f} "
            f"| {measured['build'].seconds:.0f} | {rows / seconds:,.0f} | {tree:,.0f} | {largest:,.0f} | {growth} |"
        )
        print(lines[-1], flush=True)
    table = "\n".join(lines)
    about = ABOUT.format(memory=arguments.memory)
    write_section(DOCUMENT, "events", f"## Events\n\n{about}\n\n{table}\n\n{describe_machine()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
