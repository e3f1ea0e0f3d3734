"""Remove the marts, so that the next builds make them anew from all that is staged. Asks nothing: for schedulers.

Grain:    Delta tables.
Inputs:   the tables declared in `sql/`, except those that record runs; with --feeds, those made from these feeds.
Outputs:  `marts/<table>` is gone. The warehouse keeps what it has until the next publication swaps in the new tables.
Re-run:   safe at any time, also after a kill.
Example:  spark-submit jobs/reset_marts.py --feeds logs,purchases
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.console import log
from jobs.context import RunContext, job_main, open_run, parser
from jobs.feeds import FEEDS
from jobs.lake.marts import declared, mart_table
from jobs.origins import ORIGINS, Origin
from jobs.run_all import feed_names
from jobs.settings import Settings


def reset_marts(run: RunContext, origins: Sequence[Origin] = ORIGINS) -> list[str]:
    """Remove the marts of these origins, by default all, as far as they are there. Gives their names."""
    removed = []
    for origin in origins:
        # All together: a build must find either all that it makes beside each other, or nothing that says it is made.
        with run.locks.hold(*(f"marts/{name}" for name in origin.all_tables)):
            for name in origin.all_tables:
                mart = mart_table(run, declared(name))
                if mart.exists():
                    mart.remove()
                    removed.append(name)
    log.info("reset: %s", ", ".join(removed) or "there are no marts")
    return removed


def main(argv: Sequence[str] | None = None) -> int:
    """Remove the marts; the arguments are those of `--help`."""
    arguments = parser(__doc__, "reset-marts")
    arguments.add_argument(
        "--feeds", type=feed_names, default=list(FEEDS), help="comma-separated (default: all)"
    )
    options = arguments.parse_args(argv)

    def body() -> None:
        with open_run("reset-marts", Settings.from_env(), make=False) as run:
            reset_marts(run, [o for o in ORIGINS if not set(options.feeds).isdisjoint(o.all_feeds)])

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
