"""Stage a feed: raw files → accepted records in Delta, rejected ones in quarantine, counts in the ledger.

Grain:    `staging/<feed>`, one row per natural key of the feed; `staging/_quarantine`, one row per rejected record;
          `staging/_ingested_files`, one row per reading of a file version, and per recount.
Inputs:   every file below `raw/<feed>/` whose present version the ledger does not have.
Outputs:  the three tables above. For each file: records read = accepted + duplicates + rejected.
Re-run:   safe at any time, also after a kill. A file's rows are known by its id and put right when it is read again;
          nothing is lost and nothing comes twice. A file replaced under its name replaces its records.
Exit:     3 when more records than --max-rejected were rejected, or a rule that says `fail` was broken (nothing is
          written then), or a file was refused whole.
Example:  spark-submit jobs/stage_feed.py logs
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jobs.context import add_warn_only, job_main, open_run, parser
from jobs.feeds import FEEDS
from jobs.feeds.mapping import load_mapping
from jobs.lake.staging import DEFAULT_MAX_REJECTED_SHARE, stage
from jobs.runs import recorded
from jobs.settings import Settings
from jobs.workload import has_little_to_stage


def share(text: str) -> float:
    """A share between 0 and 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def add_max_rejected(arguments: argparse.ArgumentParser) -> None:
    """Add `--max-rejected`, the same for every command that stages."""
    arguments.add_argument(
        "--max-rejected",
        type=share,
        default=DEFAULT_MAX_REJECTED_SHARE,
        metavar="SHARE",
        help="stop when a greater share of a feed's new records is rejected (default: %(default)s; 1 never stops)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Stage one feed; the arguments are those of `--help`."""
    arguments = parser(__doc__, "stage")
    arguments.add_argument("feed", choices=sorted(FEEDS))
    arguments.add_argument("--mapping", type=Path, metavar="FILE", help='JSON file: {"source name": "field"}')
    add_max_rejected(arguments)
    add_warn_only(arguments)
    options = arguments.parse_args(argv)

    def body() -> int:
        feed = FEEDS[options.feed]
        names = load_mapping(feed, options.mapping) if options.mapping else None
        with (
            open_run(
                name := f"stage {feed.name}",
                Settings.from_env(),
                options.warn_only,
                has_little_to_do=partial(has_little_to_stage, feeds=[feed.name]),
            ) as run,
            recorded(run),
            run.step(name),
        ):
            result = stage(run, feed, names, options.max_rejected)
        return 3 if result.refused else 0

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
