"""Write what became of a run as one HTML file: counts, reasons, rules, trends, examples. It needs no network.

Grain:    a run; with --since, all runs that began at that time or later, together.
Inputs:   run tables, ledger of files, quarantine.
Outputs:  `results/reports/<run id>.html` in the lake; with --json, a document on standard output instead; either of
          them in the FILE of --output. Personal, secret and unknown fields of the records shown are masked.
Re-run:   safe at any time; replaces the file. `run` writes the report of each run by itself.
Example:  user-analytics report --run 3f0c… --output report.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from jobs.causes import root_cause
from jobs.console import log
from jobs.context import RunContext, job_main, open_run, parser
from jobs.errors import RejectedShareExceeded, RuleFailed
from jobs.lake.results import FOLDER, write_text
from jobs.quality.page import page
from jobs.quality.report import Report, collect_report
from jobs.reports import add_json, as_json, print_json, print_lines, require_writable
from jobs.settings import Settings

REPORTS = "reports"


def write_report(run: RunContext, report: Report) -> str:
    """Write a report into the lake; gives its address."""
    name = f"{REPORTS}/{report.name}.html"
    write_text(run.store, name, page(report))
    return run.settings.lake_path(FOLDER, name)


@contextmanager
def reported(run: RunContext) -> Iterator[list[str]]:
    """Write the report of a run that the block records, also of one that is refused; gives a list with its address.

    A report that cannot be written is a warning: the run's work is done.
    """
    written: list[str] = []
    try:
        yield written
    except (RejectedShareExceeded, RuleFailed):
        _try_report(run, written)
        raise
    _try_report(run, written)


def _try_report(run: RunContext, written: list[str]) -> None:
    try:
        written.append(write_report(run, collect_report(run, run.run_id)))
        log.info("report: %s", written[0])
    except Exception as error:
        log.warning("the report could not be written: %s", root_cause(error))


def moment(text: str) -> datetime:
    """A time in ISO 8601, UTC where it says nothing else, for argparse."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2024-03-01T06:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def main(argv: Sequence[str] | None = None) -> int:
    """Report a run; the arguments are those of `--help`."""
    arguments = parser(__doc__, "report")
    which = arguments.add_mutually_exclusive_group()
    which.add_argument("--run", metavar="RUN_ID", help="the run (default: the last one)")
    which.add_argument("--since", type=moment, metavar="TIME", help="all runs that began then or later")
    arguments.add_argument("--output", type=Path, metavar="FILE", help="write here instead")
    add_json(arguments)
    options = arguments.parse_args(argv)

    def body() -> None:
        if options.output:
            require_writable("--output", options.output)
        with open_run("report", Settings.from_env(), quick=True) as run:
            report = collect_report(run, options.run, options.since)
            if options.output:
                text = as_json(asdict(report)) + "\n" if options.json else page(report)
                options.output.write_text(text, encoding="utf-8")
                print_lines(f"Report: {options.output}")
            elif options.json:
                print_json(asdict(report))
            else:
                print_lines(f"Report: {write_report(run, report)}")

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
