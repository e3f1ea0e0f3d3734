"""The command `user-analytics`: one subcommand per job, each with the arguments of the job's own file."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from jobs import __version__

COMMANDS = {
    "run": ("jobs.run_all", "everything: stage, build, publish, in one Spark session"),
    "upload": ("jobs.upload_files", "put files into the raw zone of a feed"),
    "extract-purchases": (
        "jobs.extract_purchases",
        "copy purchases from a PostgreSQL table into the raw zone",
    ),
    "stage": ("jobs.stage_feed", "raw files of a feed to accepted, duplicate and rejected records"),
    "build-star-schema": ("jobs.build_star_schema", "staged logs to dimensions and facts"),
    "build-purchases": ("jobs.build_purchases", "staged purchases to user_purchase"),
    "build-review-features": (
        "jobs.build_review_features",
        "staged reviews to movie_review: sentiment and terms",
    ),
    "build-users": ("jobs.build_users", "staged users to users and their history"),
    "locate-users": ("jobs.locate_users", "addresses of users to places, by the provider that is set"),
    "build-events": ("jobs.build_events", "staged events to events: one id each, and companies"),
    "enrich-customers": (
        "jobs.enrich_customers",
        "staged customers with age group and segment, for the next two",
    ),
    "measure-orders": ("jobs.measure_orders", "staged orders with amount and size, for the next one"),
    "build-customer-orders": (
        "jobs.build_customer_orders",
        "orders joined with customers to customer_orders",
    ),
    "analyze-orders": ("jobs.analyze_orders", "customer_orders to figures, as a table and as JSON"),
    "train-segments": ("jobs.train_segments", "customers to a model of their segments, measured in JSON"),
    "clean-up": ("jobs.clean_up", "remove what jobs handed to each other below work/"),
    "train-sentiment": (
        "jobs.train_sentiment",
        "labelled reviews to a sentiment model, measured and described",
    ),
    "replay": (
        "jobs.replay_feed",
        "read the files of rejected records again, when a rule or mapping was mended",
    ),
    "backfill": ("jobs.backfill", "read the files of some days again, build and publish"),
    "publish": ("jobs.publish", "marts and run tables to the warehouse, and the views over them"),
    "dashboard-link": ("jobs.dashboard_link", "how to open each view in Looker Studio"),
    "maintain": ("jobs.maintain_lake", "compact the lake's tables and remove files of old versions"),
    "reset": (
        "jobs.reset_tables",
        "forget what was staged of a feed, or remove marts, to be made anew; asks first",
    ),
    "archive": ("jobs.archive_files", "move staged raw files that are old to archive/, or bring some back"),
    "erase": (
        "jobs.erase_person",
        "remove a person from lake and warehouse, history included, and prove it; asks first",
    ),
    "reset-marts": ("jobs.reset_marts", "as `reset marts`, for schedulers: asks nothing"),
    "status": ("jobs.show_status", "last runs, freshness of feeds and marts, rejected records, locks held"),
    "report": ("jobs.report_run", "what became of a run, as one HTML file: counts, rules, trends, examples"),
    "plan": ("jobs.plan_run", "what a run would read, build and publish"),
    "quarantine": ("jobs.show_quarantine", "rejected records: counts, reasons, samples, export"),
    "lineage": ("jobs.trace_lineage", "which raw files and versions a mart, or one row of it, comes from"),
    "query": ("jobs.query_view", "print a view or table of the warehouse: table, CSV or JSON"),
    "reconcile": ("jobs.reconcile", "compare lake and warehouse: counts, sums, hashes of the keys"),
    "doctor": (
        "jobs.check_setup",
        "check Java, jars, packages, lake, warehouse, disk: what to do about each",
    ),
    "psql": ("jobs.open_psql", "open the warehouse in psql"),
    "generate-customer-orders": (
        "jobs.generate_customer_orders",
        "put generated customers and orders into the raw zone when there are none",
    ),
    "generate-samples": ("jobs.generate_samples", "write sample files with realistic dirt"),
}

USAGE = """usage: user-analytics COMMAND [ARGUMENTS]

{commands}

user-analytics COMMAND --help explains a command and its arguments; --version prints the version.
LAKE_URI and WAREHOUSE_URL choose lake and warehouse; the default is var/ in this folder. See .env.example.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and give its exit code.

    0 done, 1 failed, 2 wrong usage or configuration, 3 data refused, 130 stopped, 141 nobody reads the output.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    width = max(map(len, COMMANDS))
    usage = USAGE.format(commands="\n".join(f"  {n:<{width}}  {what}" for n, (_, what) in COMMANDS.items()))
    if arguments in (["--help"], ["-h"]):
        return _tell(usage)
    if arguments == ["--version"]:
        return _tell(f"user-analytics {__version__}\n")
    if not arguments or arguments[0] not in COMMANDS:
        found = f"user-analytics: {arguments[0]!r} is not a command\n\n" if arguments else ""
        print(found + usage, end="", file=sys.stderr)
        return 2
    try:
        # Imported late: `user-analytics --help` should not wait for Spark's packages.
        job = importlib.import_module(COMMANDS[arguments[0]][0])
        code: int = job.main(arguments[1:])
    except KeyboardInterrupt:
        print("stopped; run it again to go on", file=sys.stderr)
        return 130
    return code


def _tell(text: str) -> int:
    """Print a text, as `jobs.context.job_main` does without the time that importing it takes; gives the exit code."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        # The interpreter's exit would write the rest of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0
