"""Move raw files that are staged and old enough from `raw/` to `archive/`, or bring some back.

Grain:    a file.
Inputs:   `raw/<feed>/`, of it only files whose present version is staged; with --restore, files of `archive/`.
Outputs:  the same files below `archive/<feed>/`, copied, compared, and only then removed from `raw/`. Nothing else
          changes: staged rows, counts and marts stay. What reads files again (replay, reset, backfill, a correction
          beside which others have to be read) names those that are archived and has to be brought back.
Re-run:   safe at any time, also after a kill. A file that is brought back is read again by the next staging, as
          delivered when it was, and ends in the same rows.
Example:  spark-submit jobs/archive_files.py --older-than 365 --feeds logs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta

from jobs.console import log
from jobs.context import job_main, open_run, parser, whole_number
from jobs.errors import ConfigurationError
from jobs.feeds import FEEDS
from jobs.lake.archive import archive, restore
from jobs.reports import add_json, print_json, print_table
from jobs.run_all import feed_names
from jobs.runs import recorded
from jobs.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Archive or restore; the arguments are those of `--help`."""
    arguments = parser(__doc__, "archive")
    what = arguments.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--older-than",
        type=whole_number(0, 36_500),
        metavar="DAYS",
        help="files delivered more than so many days ago",
    )
    what.add_argument(
        "--restore", nargs="+", metavar="PATH", help="bring these back, e.g. archive/logs/2024-01-01.jsonl"
    )
    arguments.add_argument(
        "--feeds", type=feed_names, default=list(FEEDS), help="comma-separated (default: all)"
    )
    arguments.add_argument("--dry-run", action="store_true", help="show what would be archived; move nothing")
    add_json(arguments)
    options = arguments.parse_args(argv)

    def body() -> None:
        if options.restore and options.dry_run:
            raise ConfigurationError("archive: --dry-run goes with --older-than")
        moved: list[tuple[str, int]] = []
        with (
            open_run("archive", Settings.from_env(), make=False) as run,
            recorded(run),
            run.step("archive") as detail,
        ):
            if options.restore:
                moved = [(path, 0) for path in restore(run, options.restore)]
            else:
                before = run.started_at - timedelta(days=options.older_than)
                for feed in options.feeds:
                    files = archive(run, feed, before, write=not options.dry_run)
                    moved += [(file.path, file.size) for file in files]
            detail.append(f"{len(moved)} files")
            log.info("archive: %d files", len(moved))
        if options.json:
            print_json({"files": [path for path, _ in moved]})
        else:
            title = "Restored" if options.restore else "To archive" if options.dry_run else "Archived"
            print_table(title, ("file",), [(path,) for path, _ in moved], "none")

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
