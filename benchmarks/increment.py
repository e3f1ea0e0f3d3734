"""A day's file of 1 % on top of many log lines: what it takes beside the first load, ten lines, and nothing new.

Every size is run in an empty lake and an empty database: `user-analytics run --feeds logs` on 30 days, again on the
day after them, on ten lines of the next one, which take what starting takes, and with nothing new. The facts are
counted afterwards.

    python -m benchmarks.increment --sizes 10m
"""

import sys
from datetime import timedelta
from pathlib import Path

from benchmarks.deliveries import Benchmark, Delivery, Plan
from benchmarks.generate_logs import DAYS, FIRST_DAY, generate_log_lines

SHARE = 0.01
FEW = 10
ABOUT = """`user-analytics run --feeds logs` into an empty lake and an empty database: 30 days, the day after them with
1 % as many lines, ten lines of the next day, and nothing new. Start-up, publishing, checks and report are in it."""


def prepare(folder: Path, lines: int) -> Plan:
    """A month's file and those of the two days after it; deterministic."""
    month, day, few = (folder / f"{name}.jsonl" for name in ("month", "day", "few"))
    more = round(lines * SHARE)
    counts = [
        generate_log_lines(month, lines),
        generate_log_lines(day, more, seed=8, first_day=FIRST_DAY + timedelta(days=DAYS), days=1),
        generate_log_lines(few, FEW, seed=9, first_day=FIRST_DAY + timedelta(days=DAYS + 1), days=1),
    ]
    return Plan(
        [
            Delivery("30 days", month, lines),
            Delivery("the day after", day, more),
            Delivery("ten lines", few, FEW),
            Delivery("nothing new", None, 0),
        ],
        "SELECT count(*) FROM {schema}.fact_user_actions",
        (sum(count["events"] for count in counts),),
    )


INCREMENT = Benchmark(
    "increment", "logs", "log lines", "A day on top of a month", ABOUT, [1_000_000, 10_000_000], prepare
)

if __name__ == "__main__":
    sys.exit(INCREMENT.main(__doc__))
