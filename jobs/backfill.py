"""Read the files of some days again, build and publish: after rules were changed, or where days are in doubt.

Grain:    a file: a file of which any day is in the range is read whole.
Inputs:   files in `raw/<feed>/` by their days. The days of a file are those that its path names, the last such name
          counting: a date (2024-03-01, 2024/03/01, 20240301, year=2024/month=03/day=01) or a month (2024-03). Where
          the path names none, the day on which it was last modified, UTC. New files in the range are read, too.
Outputs:  staging, quarantine and ledger of these files as `stage` writes them; then all marts and the warehouse follow,
          as in `run`, whatever else waits for them.
Re-run:   safe at any time, also after a kill. Files are read by the mapping of their last reading. Files that say
          today what they said before change nothing.
Exit:     3 when a file was refused (the others went on), or a greater share of a feed's records would be rejected than
          in their last reading and than --max-rejected, or a rule that says `fail` was broken (stops there).
Example:  user-analytics backfill --from 2024-03-01 --to 2024-03-07 --feeds logs,purchases
"""

from __future__ import annotations

import calendar
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date

from jobs.console import log
from jobs.context import RunContext, add_warn_only, day, job_main, open_run, parser
from jobs.errors import ConfigurationError
from jobs.feeds import FEEDS
from jobs.lake.archive import ARCHIVE, as_raw, how_to_restore
from jobs.lake.intermediates import remove_intermediates
from jobs.lake.objects import RawFile
from jobs.lake.rereading import read_again
from jobs.lake.staging import StageResult
from jobs.publish import publish
from jobs.reports import add_json, print_json, print_table
from jobs.run_all import build_and_publish, feed_names
from jobs.runs import RECORDED_TABLES, recorded
from jobs.settings import Settings
from jobs.stage_feed import add_max_rejected
from jobs.summary import COUNTS
from jobs.warehouse import open_warehouse
from jobs.warehouse.base import Warehouse

YEAR, MONTH, DAY = r"(?<!\d)((?:19|20)\d\d)", r"(0[1-9]|1[0-2])", r"(0[1-9]|[12]\d|3[01])(?!\d)"
DATES = (
    re.compile(rf"{YEAR}(?P<between>[-_./]?){MONTH}(?P=between){DAY}"),
    re.compile(rf"year={YEAR}/month={MONTH}/day={DAY}"),
)
MONTHS = (re.compile(rf"{YEAR}[-_/]{MONTH}(?!\d)"), re.compile(rf"year={YEAR}/month={MONTH}(?!\d)"))


def days_of(file: RawFile) -> tuple[date, date]:
    """The first and the last day that a file stands for."""
    dates = [(m.start(), m) for pattern in DATES for m in pattern.finditer(file.path)]
    for _, found in sorted(dates, key=lambda item: item[0], reverse=True):
        year, month, day = (int(part) for part in found.groups() if part.isdigit())
        if day <= calendar.monthrange(year, month)[1]:
            return (date(year, month, day),) * 2
    months = [(m.start(), m) for pattern in MONTHS for m in pattern.finditer(file.path)]
    if months:
        year, month = map(int, max(months, key=lambda item: item[0])[1].groups())
        return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])
    return (file.modified_at.astimezone(UTC).date(),) * 2


def files_between(files: Sequence[RawFile], first: date, last: date) -> list[RawFile]:
    """The files of which any day is in the range; both ends belong to it."""
    return [f for f in files if (days := days_of(f)) and days[0] <= last and first <= days[1]]


def backfill(
    run: RunContext, warehouse: Warehouse, files: Mapping[str, Sequence[RawFile]], least_share: float
) -> list[StageResult]:
    """Read files again, feed by feed, build and publish. least_share: of rejected records that is always allowed."""
    results = []
    with recorded(run):
        for name, chosen in files.items():
            with run.step(f"stage {name}") as detail:
                paths = [file.path for file in chosen]
                result = read_again(run, FEEDS[name], paths, least_share=least_share)
                detail.append(f"{len(result.entries)} files, {result.total('accepted')} records accepted")
                results.append(result)
        build_and_publish(run, warehouse)
    publish(run, warehouse, RECORDED_TABLES)
    remove_intermediates(run)
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Backfill; the arguments are those of `--help`."""
    arguments = parser(__doc__, "backfill")
    arguments.add_argument("--from", dest="first", type=day, required=True, metavar="DATE", help="first day")
    arguments.add_argument("--to", dest="last", type=day, required=True, metavar="DATE", help="last day")
    arguments.add_argument(
        "--feeds", type=feed_names, default=list(FEEDS), help="comma-separated (default: all)"
    )
    add_max_rejected(arguments)
    add_warn_only(arguments)
    add_json(arguments)
    options = arguments.parse_args(argv)

    def body() -> int:
        if options.first > options.last:
            raise ConfigurationError(f"--from {options.first} is after --to {options.last}")
        settings = Settings.from_env()
        command = f"backfill {options.first} {options.last}"
        with (
            open_run(command, settings, options.warn_only, make=False) as run,
            open_warehouse(settings) as warehouse,
        ):
            listed = {name: list(run.store.list(f"raw/{name}")) for name in options.feeds}
            chosen = {
                name: files_between(files, options.first, options.last) for name, files in listed.items()
            }
            chosen = {name: files for name, files in chosen.items() if files}
            # One that is in `raw/`, too, was corrected since.
            there = {file.path for files in listed.values() for file in files}
            away = [
                file.path
                for name in options.feeds
                for file in files_between(
                    list(run.store.list(f"{ARCHIVE}/{name}")), options.first, options.last
                )
                if as_raw(file.path) not in there
            ]
            if away:
                log.warning("backfill: archived and not read: %s; %s", ", ".join(away), how_to_restore(away))
            results = backfill(run, warehouse, chosen, options.max_rejected) if chosen else []
        report(results, options.json)
        return 3 if any(result.refused for result in results) else 0

    return job_main(body)


def report(results: Sequence[StageResult], as_json: bool) -> None:
    """Print what was read, feed by feed."""
    if as_json:
        print_json(
            {
                "feeds": [
                    {
                        "feed": result.feed,
                        "files": [entry.path for entry in result.entries],
                        "refused_files": {entry.path: entry.error for entry in result.refused},
                        **{count: result.total(count) for count in COUNTS},
                    }
                    for result in results
                ]
            }
        )
        return
    print_table(
        "Records of the files read again, and of those that had to be read beside them",
        ("feed", "files", "refused", "read", "accepted", "duplicate", "rejected"),
        [
            (r.feed, len(r.entries) - len(r.refused), len(r.refused), *(r.total(name) for name in COUNTS))
            for r in results
        ],
        "no file in this range",
    )


if __name__ == "__main__":
    sys.exit(main())
