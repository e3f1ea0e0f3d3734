"""Remove the marts, so that the next builds make them anew from all that is staged.

Grain:    Delta tables.
Inputs:   the tables declared in `sql/`, except those that record runs.
Outputs:  `marts/<table>` is gone. The warehouse keeps what it has until the next publication swaps in the new tables.
Re-run:   safe at any time, also after a kill.
Example:  spark-submit jobs/reset_marts.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.console import log
from jobs.context import RunContext, job_main, open_run, parser
from jobs.lake.marts import mart_table
from jobs.runs import RECORDED_TABLES
from jobs.settings import Settings
from jobs.warehouse.declarations import tables


def reset_marts(run: RunContext) -> list[str]:
    """Remove every mart that is there. Gives their names."""
    removed = []
    for name, declaration in tables().items():
        mart = mart_table(run.spark, run.settings, declaration)
        if name not in RECORDED_TABLES and mart.exists():
            with run.locks.hold(f"marts/{name}"):
                mart.remove()
            removed.append(name)
    log.info("reset: %s", ", ".join(removed) or "there are no marts")
    return removed


def main(argv: Sequence[str] | None = None) -> int:
    """Remove the marts; there are no arguments."""
    parser(__doc__, "reset-marts").parse_args(argv)

    def body() -> None:
        with open_run("reset-marts", Settings.from_env()) as run:
            reset_marts(run)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
