"""Run everything, in one Spark session if anything is new: stage all feeds, build all marts, publish, make the views.

Grain:    as the single jobs' own.
Inputs:   what is new below `raw/`; with --data or --sample, files are uploaded there first.
Outputs:  staging, marts, run tables, warehouse; `results/reports/<run id>.html`; a summary on standard output.
Re-run:   safe at any time, also after a kill; with nothing new it says so and adds nothing.
Exit:     3 when a file was refused (the others went on) or more records were rejected than allowed, or a rule that says
          `fail` was broken (stops there).
Example:  spark-submit jobs/run_all.py --feeds logs,purchases
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from jobs.analyze_orders import analyze_orders
from jobs.build_customer_orders import build_customer_orders
from jobs.build_events import build_events
from jobs.build_purchases import build_purchases
from jobs.build_review_features import build_review_features
from jobs.build_star_schema import build_star_schema
from jobs.build_users import build_users
from jobs.context import RunContext, add_warn_only, job_main, open_run, parser
from jobs.feeds import FEEDS
from jobs.feeds.detect import files_by_feed
from jobs.feeds.mapping import SourceNames, load_mapping
from jobs.generate_samples import write_samples
from jobs.lake.intermediates import remove_intermediates
from jobs.lake.objects import ObjectStore, object_store
from jobs.lake.staging import StageResult, stage
from jobs.locate_users import locate_users
from jobs.publish import publish
from jobs.quality.tables import table_rules
from jobs.report_run import reported
from jobs.runs import RECORDED_TABLES, recorded
from jobs.settings import Settings
from jobs.spark import some_at_once
from jobs.stage_feed import add_max_rejected
from jobs.summary import print_summary, warehouse_contents
from jobs.train_segments import train_segments
from jobs.upload_files import upload
from jobs.warehouse import open_warehouse
from jobs.warehouse.base import Warehouse
from jobs.workload import has_little_to_do

# The marts, in chains: within one, each needs those before it; no chain needs another, and the longest come first.
MARTS: tuple[dict[str, Callable[[RunContext], bool]], ...] = (
    {"build star schema": build_star_schema},
    {
        "build customer orders": build_customer_orders,
        "analyze orders": analyze_orders,
        "train segments": train_segments,
    },
    {"build review features": build_review_features},
    {"build users": build_users, "locate users": locate_users},
    {"build events": build_events},
    {"build purchases": build_purchases},
)


def run_all(
    run: RunContext,
    warehouse: Warehouse,
    feeds: Mapping[str, SourceNames | None],
    max_rejected_share: float,
) -> list[StageResult]:
    """Stage, build and publish. Gives what staging did, feed by feed.

    feeds: the names that the files of each use; None as in `jobs.lake.staging.stage`.
    """
    with recorded(run):
        results = stage_all(run, feeds, max_rejected_share)
        build_and_publish(run, warehouse)
    publish(run, warehouse, RECORDED_TABLES)
    remove_intermediates(run)
    return results


def stage_all(
    run: RunContext, feeds: Mapping[str, SourceNames | None], max_rejected_share: float
) -> list[StageResult]:
    """Stage feeds, two at once."""

    def stage_one(feed: str) -> StageResult:
        with run.step(f"stage {feed}") as detail:
            result = stage(run, FEEDS[feed], feeds[feed], max_rejected_share)
            detail.append(f"{len(result.entries)} files, {result.total('accepted')} records accepted")
            return result

    return some_at_once(stage_one, feeds)


def build_marts(run: RunContext, without: Collection[str] = ()) -> None:
    """Build all marts from what is staged, two at once. without: names of those that are left out."""

    def build_chain(chain: Mapping[str, Callable[[RunContext], bool]]) -> None:
        for name, build in chain.items():
            if name not in without:
                with run.step(name) as detail:
                    detail.append("built" if build(run) else "up to date")

    some_at_once(build_chain, MARTS)


def build_and_publish(run: RunContext, warehouse: Warehouse) -> None:
    """Build all marts from what is staged, and publish what changed."""
    build_marts(run)
    with run.step("publish") as detail:
        run.checks += publish(run, warehouse)
        detail.append(f"{len(run.checks)} checks passed" if run.checks else "nothing new")


def upload_folder(store: ObjectStore, folder: Path) -> None:
    """Upload the files of a folder below the feeds that they belong to, by sub-folder or by content."""
    for feed, files in files_by_feed(folder).items():
        upload(store, feed, files)


def feed_names(text: str) -> list[str]:
    """A list of feeds, for argparse."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - FEEDS.keys())
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'}: choose from {', '.join(FEEDS)}")
    return names


def feed_mapping(text: str) -> tuple[str, Path]:
    """FEED=FILE, for argparse."""
    name, _, file = text.partition("=")
    if name not in FEEDS or not file:
        raise argparse.ArgumentTypeError(f"{text}: write FEED=FILE, FEED one of {', '.join(FEEDS)}")
    return name, Path(file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything; the arguments are those of `--help`."""
    arguments = parser(__doc__, "run")
    source = arguments.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, metavar="FOLDER", help="upload the files of this folder first")
    source.add_argument("--sample", action="store_true", help="generate sample data and upload it first")
    arguments.add_argument(
        "--feeds", type=feed_names, default=list(FEEDS), help="comma-separated (default: all)"
    )
    arguments.add_argument(
        "--mapping",
        type=feed_mapping,
        action="append",
        default=[],
        metavar="FEED=FILE",
        help='JSON file for a feed: {"source name": "field"}; may be given for several feeds',
    )
    add_max_rejected(arguments)
    add_warn_only(arguments)
    options = arguments.parse_args(argv)
    mapped = Counter(name for name, _ in options.mapping)
    if unread := mapped.keys() - set(options.feeds):
        arguments.error(f"argument --mapping: {', '.join(sorted(unread))}: not among --feeds")
    if repeated := [name for name, times in mapped.items() if times > 1]:
        arguments.error(
            f"argument --mapping: {', '.join(repeated)}: given more than once; name all in one file"
        )

    def body() -> int:
        settings = Settings.from_env()
        names: dict[str, SourceNames | None] = dict.fromkeys(options.feeds)
        names |= {name: load_mapping(FEEDS[name], file) for name, file in options.mapping}
        # Rules that cannot be meant stop here, before anything is written.
        table_rules()
        store = object_store(settings)
        store.check()
        if options.sample:
            folder = Path("var/samples")
            write_samples(folder)
            upload_folder(store, folder)
        elif options.data:
            upload_folder(store, options.data)
        with open_warehouse(settings) as warehouse, ThreadPoolExecutor(1) as meanwhile:
            with (
                open_run(
                    "run",
                    settings,
                    options.warn_only,
                    has_little_to_do=partial(has_little_to_do, feeds=options.feeds),
                ) as run,
                reported(run) as written,
            ):
                results = run_all(run, warehouse, names, options.max_rejected)
                # The warehouse works on these while the report is collected, and Spark ends.
                contents = meanwhile.submit(warehouse_contents, warehouse)
            print_summary(run, contents.result(), results, *written)
        return 3 if any(result.refused for result in results) else 0

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
