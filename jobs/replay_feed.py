"""Read the files of rejected records again, after a rule or a mapping was mended.

Grain:    a file: all its records are read again, those that were accepted, too.
Inputs:   the files in `raw/<feed>/` of which records lie in quarantine; with --reason, for that reason; with --file,
          those whose path fits.
Outputs:  staging, quarantine and ledger, as `stage` writes them: what is right now moves to staging, what is still
          wrong stays in quarantine, and of each file records read = accepted + duplicates + rejected. Marts follow with
          the next builds.
Re-run:   safe at any time, also after a kill; what was replayed once is not changed by replaying it again.
          Without --mapping, a file is read by the mapping of its last reading. New files are left to `stage`.
Exit:     1 when a file is no longer there (the others are replayed); 3 when more records would be rejected than
          before, or than --max-rejected, or a rule that says `fail` was broken (nothing is written then), or a file was
          refused whole.
Example:  user-analytics replay logs --reason timestamp_invalid
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.console import log
from jobs.context import RunContext, add_warn_only, job_main, open_run, parser
from jobs.errors import UserAnalyticsError
from jobs.feeds import FEEDS
from jobs.feeds.declaration import Feed
from jobs.feeds.mapping import SourceNames, load_mapping
from jobs.lake.archive import archived, how_to_restore
from jobs.lake.quarantine import count_rejected, no_such_reason, quarantine_table
from jobs.lake.rereading import read_again
from jobs.lake.staging import StageResult
from jobs.reports import add_json, print_json, print_table
from jobs.runs import recorded
from jobs.settings import Settings
from jobs.stage_feed import share


@dataclass(frozen=True)
class ReplayResult:
    """before: rejected records of each file that was read again; missing: of each that is not there any more."""

    before: dict[str, int]
    missing: dict[str, int]
    staged: StageResult

    @property
    def after(self) -> dict[str, int]:
        """Rejected records of each file now; of one that was refused whole, as before: nothing of it was changed."""
        now = {entry.path: entry.rejected for entry in self.staged.entries if not entry.error}
        return {path: now.get(path, rejected) for path, rejected in self.before.items()}


def replay(
    run: RunContext,
    feed: Feed,
    reason: str | None = None,
    file: str | None = None,
    names: SourceNames | None = None,
    max_rejected_share: float | None = None,
) -> ReplayResult:
    """Read again what has rejected records, for a reason, in files whose path fits a pattern.

    names, max_rejected_share: as `jobs.lake.rereading.read_again` has them.
    """
    counts = count_rejected(quarantine_table(run), feed.name, file=file)
    wanted = {count.path for count in counts if reason is None or reason in count.reasons}
    rejected = {path: sum(c.records for c in counts if c.path == path) for path in sorted(wanted)}
    there = {file.path for file in run.store.list(f"raw/{feed.name}")}
    before = {path: number for path, number in rejected.items() if path in there}
    missing = {path: number for path, number in rejected.items() if path not in there}
    if not before:
        log.info("replay %s: nothing to read again", feed.name)
        if reason and not missing:
            log.info("replay %s: %s", feed.name, no_such_reason(reason, counts))
        return ReplayResult({}, missing, StageResult(feed.name, ()))
    return ReplayResult(before, missing, read_again(run, feed, list(before), names, max_rejected_share))


def print_report(result: ReplayResult) -> None:
    """Print the rejected records of each file, before and after."""
    after = result.after
    print_table(
        f"Rejected records of {result.staged.feed}",
        ("file", "before", "now"),
        [(path, number, after[path]) for path, number in result.before.items()],
        "no file to read again",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Replay a feed; the arguments are those of `--help`."""
    arguments = parser(__doc__, "replay")
    arguments.add_argument("feed", choices=sorted(FEEDS))
    arguments.add_argument("--reason", help="only files with records that break this rule")
    arguments.add_argument("--file", metavar="PATTERN", help="only these files, e.g. 'raw/logs/2024-*'")
    arguments.add_argument("--mapping", type=Path, metavar="FILE", help='JSON file: {"source name": "field"}')
    arguments.add_argument(
        "--max-rejected",
        type=share,
        metavar="SHARE",
        help="stop when a greater share of the records is rejected (default: the share of the last reading)",
    )
    add_warn_only(arguments)
    add_json(arguments)
    options = arguments.parse_args(argv)

    def body() -> int:
        feed = FEEDS[options.feed]
        names = load_mapping(feed, options.mapping) if options.mapping else None
        with (
            open_run(
                name := f"replay {feed.name}", Settings.from_env(), options.warn_only, make=False
            ) as run,
            recorded(run),
            run.step(name) as detail,
        ):
            store = run.store
            result = replay(run, feed, options.reason, options.file, names, options.max_rejected)
            detail.append(f"{sum(result.before.values())} rejected before, {sum(result.after.values())} now")
        if options.json:
            print_json(
                {
                    "feed": feed.name,
                    "rejected_before": result.before,
                    "rejected_now": result.after,
                    "missing_files": result.missing,
                    "refused_files": {entry.path: entry.error for entry in result.staged.refused},
                }
            )
        else:
            print_report(result)
        if result.missing:
            away = archived(store, feed.name) & result.missing.keys()
            how = f"; archived ones: {how_to_restore(away)}" if away else ""
            gone = ", ".join(f"{path} ({number:,} records)" for path, number in result.missing.items())
            raise UserAnalyticsError(
                f"replay {feed.name}: no longer in the lake, so that their rejected records stay in quarantine: "
                f"{gone}. Put the files back under the same names{how}, and replay again"
            )
        return 3 if result.staged.refused else 0

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
