"""Show how the pipeline is: last runs, freshness of feeds and marts, rejected records, refused files, locks held.

Grain:    one line per run; per feed; per mart; per feed and reason; per refused file; per lock.
Inputs:   run tables, ledger of files, quarantine, the marts' logs, locks; of each feed, how often something new should
          come.
Outputs:  standard output. Nothing is written.
Re-run:   safe at any time, also beside a run.
State:    fresh: something new came (was built) within the time expected; late: not; never: nothing came yet.
Example:  user-analytics status --json
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from jobs.context import RunContext, job_main, open_run, parser
from jobs.feeds import FEEDS
from jobs.lake.ledger import REFUSED, STAGED, Ledger, LedgerEntry, by_path, last_new
from jobs.lake.locks import Holder, holders
from jobs.lake.quarantine import RejectedCount, count_rejected, quarantine_table
from jobs.origins import ORIGINS, followed, origin_of
from jobs.quality.rules import span
from jobs.query_view import limit
from jobs.reports import add_json, print_json, print_lines, print_table, shown
from jobs.runs import run_table
from jobs.settings import Settings

FRESH, LATE, NEVER = "fresh", "late", "never"
LAST_RUNS = 5


@dataclass(frozen=True)
class FeedStatus:
    """A feed. last_new: when a file version was staged that had not been before. files, accepted, rejected: now."""

    feed: str
    state: str
    last_new: datetime | None
    expected_every: timedelta
    files: int
    accepted: int
    rejected: int


@dataclass(frozen=True)
class MartStatus:
    """Tables that are built together. last_built: when they last followed their source.

    versions_waiting: versions of the source that they do not hold yet; None when they hold none.
    """

    tables: tuple[str, ...]
    state: str
    last_built: datetime | None
    expected_every: timedelta
    versions_waiting: int | None


@dataclass(frozen=True)
class Status:
    """All that `status` says."""

    runs: Sequence[Mapping[str, Any]]
    feeds: Sequence[FeedStatus]
    marts: Sequence[MartStatus]
    rejected: Sequence[Mapping[str, Any]]
    refused: Sequence[LedgerEntry]
    locks: Sequence[Holder]


def freshness(last: datetime | None, expected_every: timedelta, now: datetime) -> str:
    """fresh, late or never."""
    if last is None:
        return NEVER
    return FRESH if now - last <= expected_every else LATE


def feed_status(feed: str, history: Sequence[LedgerEntry], now: datetime) -> FeedStatus:
    """A feed by its ledger entries, oldest first. A version that was read again is not new."""
    last = last_new(history)
    present = [entry for entry in by_path(history).values() if entry.status == STAGED]
    every = FEEDS[feed].expected_every
    return FeedStatus(
        feed,
        freshness(last, every, now),
        last,
        every,
        len(present),
        sum(entry.accepted for entry in present),
        sum(entry.rejected for entry in present),
    )


def by_reason(counts: Iterable[RejectedCount]) -> list[dict[str, Any]]:
    """feed, reason, records, files; a record that breaks two rules counts for either."""
    records: Counter[tuple[str, str]] = Counter()
    files: dict[tuple[str, str], set[str]] = {}
    for count in counts:
        for reason in count.reasons:
            records[count.feed, reason] += count.records
            files.setdefault((count.feed, reason), set()).add(count.path)
    return [
        {"feed": feed, "reason": reason, "records": number, "files": len(files[feed, reason])}
        for (feed, reason), number in sorted(
            records.items(), key=lambda item: (item[0][0], -item[1], item[0])
        )
    ]


def status(run: RunContext, last_runs: int = LAST_RUNS) -> Status:
    """Look at the lake as it is."""
    histories = Ledger(run).histories()
    last = [entry for history in histories.values() for entry in by_path(history).values()]
    refused = [entry for entry in last if entry.status == REFUSED]
    # What was taken away needs no mending any more.
    present = {file.path for file in run.store.list("raw")} if refused else set()
    now = run.started_at
    return Status(
        _runs(run, last_runs),
        [feed_status(name, histories.get(name, []), now) for name in FEEDS],
        _marts(run, now),
        by_reason(count_rejected(quarantine_table(run))),
        [entry for entry in refused if entry.path in present],
        holders(run.store),
    )


def _runs(run: RunContext, number: int) -> list[dict[str, Any]]:
    table = run_table(run, "etl_runs")
    if not table.exists():
        return []
    newest = sorted(
        table.few_rows().to_pylist(), key=lambda row: (-row["started_at"].timestamp(), row["run_id"])
    )
    return newest[:number]


def _marts(run: RunContext, now: datetime) -> list[MartStatus]:
    found = []
    for origin in ORIGINS:
        state = followed(run, origin)
        last = state.at if state else None
        every = min(FEEDS[feed].expected_every for feed in origin.all_feeds)
        waiting = state.waiting if state else None
        found.append(MartStatus(origin.all_tables, freshness(last, every, now), last, every, waiting))
    return found


def print_status(found: Status) -> None:
    """Print the status as tables."""
    print_table(
        "Last runs",
        ("started", "command", "outcome", "seconds", "run"),
        [(shown(r["started_at"]), r["command"], r["outcome"], r["seconds"], r["run_id"]) for r in found.runs],
        "none yet",
    )
    print_table(
        "Feeds",
        ("feed", "state", "last new file", "expected every", "files", "accepted", "rejected"),
        [
            (f.feed, f.state, shown(f.last_new), span(f.expected_every), f.files, f.accepted, f.rejected)
            for f in found.feeds
        ],
        "none",
    )
    print_table(
        "Marts",
        ("tables", "state", "last built", "expected every", "versions waiting"),
        [
            (
                origin_of(m.tables[0]).label,
                m.state,
                shown(m.last_built),
                span(m.expected_every),
                m.versions_waiting,
            )
            for m in found.marts
        ],
        "none",
    )
    print_table(
        "Rejected records in quarantine",
        ("feed", "reason", "records", "files"),
        [tuple(row.values()) for row in found.rejected],
        "none",
    )
    print_lines(
        "Refused files", *(f"  {e.error}" for e in found.refused), *([] if found.refused else ["  none"]), ""
    )
    print_table(
        "Locks held",
        ("table", "command", "process", "host", "since"),
        [(h.table, h.command, str(h.pid), h.host, h.taken_at) for h in found.locks],
        "none",
    )


def as_document(found: Status) -> dict[str, Any]:
    """The status for programs."""
    return {
        "runs": found.runs,
        "feeds": [asdict(feed) for feed in found.feeds],
        "marts": [asdict(mart) for mart in found.marts],
        "rejected": found.rejected,
        "refused_files": [
            {"feed": e.feed, "path": e.path, "error": e.error, "read_at": e.staged_at} for e in found.refused
        ],
        "locks": [
            {"table": h.table, "command": h.command, "run_id": h.run_id, "host": h.host, "pid": h.pid}
            | {"since": h.taken_at}
            for h in found.locks
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Show the status; the arguments are those of `--help`."""
    arguments = parser(__doc__, "status")
    arguments.add_argument(
        "--runs", type=limit, default=LAST_RUNS, metavar="N", help="last runs to show (default: %(default)s)"
    )
    add_json(arguments)
    options = arguments.parse_args(argv)

    def body() -> None:
        with open_run("status", Settings.from_env(), quick=True) as run:
            found = status(run, options.runs)
        if options.json:
            print_json(as_document(found))
        else:
            print_status(found)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
