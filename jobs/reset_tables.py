"""Make a feed or a mart anew: forget what was staged of it, or remove its tables. Asks first.

Grain:    a feed; tables that are built together (one of the star schema takes all five, users takes its history).
Inputs:   FEED or TABLE, or `marts` for all of them; `staging/NAME` or `marts/NAME` where both have the name.
Outputs:  a feed: the ledger says `forgotten` of its files, its staged and its rejected records are gone, and the next
          run reads all of `raw/FEED` again. A table: its Delta tables are gone, and the next run builds them from all
          that is staged. Either way marts and warehouse end as they were, but for files that are no longer in `raw/`;
          these are named before. The warehouse keeps what it has until the next publication.
Re-run:   safe at any time, also after a kill. Waits for other jobs that write the same tables.
Exit:     1 when the answer is no; 2 when there is nobody to ask and --yes is missing.
Example:  user-analytics reset logs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.console import log
from jobs.context import RunContext, job_main, open_run, parser
from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.feeds import FEEDS
from jobs.feeds.declaration import Feed
from jobs.lake.archive import archived, how_to_restore
from jobs.lake.ledger import FORGOTTEN, STAGED, Ledger, LedgerEntry, by_path, forgotten, next_batch
from jobs.lake.quarantine import SCHEMA, quarantine_table
from jobs.lake.staging import staging_table
from jobs.origins import ORIGINS, Origin, origin_of
from jobs.reports import add_json, print_json, print_lines
from jobs.reset_marts import reset_marts
from jobs.runs import recorded
from jobs.settings import Settings
from jobs.spark import local_rows

MARTS = {name for origin in ORIGINS for name in origin.all_tables}


@dataclass(frozen=True)
class Target:
    """What to reset: a feed, or the tables of some origins."""

    name: str
    feed: Feed | None
    origins: tuple[Origin, ...] = ()


def target(text: str) -> Target:
    """FEED, TABLE, `staging/FEED`, `marts/TABLE` or `marts`, for argparse."""
    if text == "marts":
        return Target(text, None, ORIGINS)
    zone, slash, name = text.rpartition("/")
    if zone not in ("", "staging", "marts") or (slash and not zone):
        raise argparse.ArgumentTypeError(f"{text}: write FEED, TABLE, staging/FEED or marts/TABLE")
    is_feed, is_mart = name in FEEDS and zone != "marts", name in MARTS and zone != "staging"
    if is_feed and is_mart:
        raise argparse.ArgumentTypeError(
            f"{text} is a feed and a table: write staging/{name} or marts/{name}"
        )
    if is_feed:
        return Target(text, FEEDS[name])
    if is_mart:
        return Target(text, None, (origin_of(name),))
    raise argparse.ArgumentTypeError(
        f"{text}: choose a feed ({', '.join(FEEDS)}), a table ({', '.join(sorted(MARTS))}) or marts"
    )


def lost_files(run: RunContext, feed: Feed) -> list[LedgerEntry]:
    """The staged files that are no longer in the raw zone: what they brought would not come back."""
    there = {file.path for file in run.store.list(f"raw/{feed.name}")}
    current = Ledger(run).current(feed.name)
    return [entry for path, entry in current.items() if entry.status == STAGED and path not in there]


def forget_feed(run: RunContext, feed: Feed) -> int:
    """Forget that files of a feed were read, then remove what they brought. Gives the number of files.

    The ledger comes first: after a kill between any two of the commits the next run reads all files again. An empty
    table comes last.
    """
    with run.locks.hold(f"staging/{feed.name}"):
        ledger = Ledger(run)
        history = ledger.history(feed.name)
        batch = next_batch(history)
        known = [entry for entry in by_path(history).values() if entry.status != FORGOTTEN]
        with run.locks.hold("staging/_ingested_files"):
            ledger.write(forgotten(entry, batch, run.run_id) for entry in known)
        if known:
            run.note_table_written(ledger.table)
        quarantine = quarantine_table(run)
        if quarantine.exists():
            nothing = local_rows(run.spark, [], SCHEMA)
            with run.locks.hold("staging/_quarantine"):
                quarantine.replace_where(nothing, f"feed = '{feed.name}'")
            run.note_table_written(quarantine)
        table = staging_table(run, feed)
        # Of a feed of which nothing was ever read there is none to make; after a kill there may be none, and has to be.
        if history or table.exists():
            table.remove()
            # Another table for the marts, which let go of what the feed brought, also where no file of it is left to
            # read.
            table.ensure()
    log.info("reset: %d files of %s forgotten", len(known), feed.name)
    return len(known)


def describe(run: RunContext, chosen: Target, lost: Sequence[LedgerEntry]) -> list[str]:
    """What a reset would do, line by line."""
    if chosen.feed is None:
        names = ", ".join(name for origin in chosen.origins for name in origin.all_tables)
        return [f"removes from the lake: {names}", "the next run builds them anew from all that is staged"]
    name = chosen.feed.name
    lines = [f"forgets what was staged of {name}", f"the next run reads all files of raw/{name} again"]
    if lost:
        records = sum(entry.accepted for entry in lost)
        lines.append(
            f"{len(lost)} files with {records:,} accepted records are no longer in raw/{name}, and would be lost: "
            + ", ".join(entry.path for entry in lost)
        )
        if away := archived(run.store, name) & {entry.path for entry in lost}:
            lines.append(f"of these {len(away)} are archived; to keep them, first: {how_to_restore(away)}")
    return lines


def confirm(lines: Sequence[str], command: str = "reset") -> None:
    """Ask on the terminal. Raises ConfigurationError when there is none, UserAnalyticsError when the answer is no."""
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{command}: {'; '.join(lines)}. Nobody can be asked here: add --yes to do it"
        )
    # The question goes where log lines go; standard output is for the answer of the command.
    sys.stderr.write("\n".join([*lines, "Go on? [y/N] "]))
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserAnalyticsError(f"{command}: nothing was changed")


def main(argv: Sequence[str] | None = None) -> int:
    """Reset a feed or tables; the arguments are those of `--help`."""
    arguments = parser(__doc__, "reset")
    arguments.add_argument("target", type=target, metavar="FEED|TABLE")
    arguments.add_argument("--yes", action="store_true", help="do not ask")
    add_json(arguments)
    options = arguments.parse_args(argv)
    chosen: Target = options.target

    def body() -> None:
        with open_run(name := f"reset {chosen.name}", Settings.from_env(), make=False) as run:
            lost = lost_files(run, chosen.feed) if chosen.feed else []
            lines = describe(run, chosen, lost)
            if not options.yes:
                confirm(lines)
            elif lost:
                log.warning("reset: %s", "; ".join(lines[2:]))
            with recorded(run), run.step(name) as detail:
                files = forget_feed(run, chosen.feed) if chosen.feed else 0
                removed = reset_marts(run, chosen.origins) if chosen.origins else []
                detail.append(f"{files} files forgotten" if chosen.feed else ", ".join(removed))
        if options.json:
            print_json(
                {
                    "target": chosen.name,
                    "files_forgotten": files,
                    "tables_removed": removed,
                    "files_lost": [entry.path for entry in lost],
                }
            )
        else:
            print_lines(
                f"{files} files forgotten" if chosen.feed else f"removed: {', '.join(removed) or 'none'}"
            )

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
