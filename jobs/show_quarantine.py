"""Show rejected records: how many, why, from which files; some of them; or all of them in a file.

Grain:    one line per feed and reason; one per file.
Inputs:   `staging/_quarantine`.
Outputs:  standard output; with --export a file of the records as they came, which only its owner may read: they hold
          whatever was delivered, except what the feeds declare secret.
Re-run:   safe at any time. A record with two reasons counts for either.
Example:  user-analytics quarantine --feed logs --reason timestamp_invalid --sample 3
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame

from jobs.console import log
from jobs.context import job_main, open_run, parser
from jobs.feeds import FEEDS
from jobs.lake.quarantine import (
    RejectedCount,
    count_rejected,
    no_such_reason,
    quarantine_table,
    sample_rejected,
    selected,
)
from jobs.query_view import limit
from jobs.reports import add_json, csv_writer, print_json, print_lines, print_table, require_writable, utc
from jobs.settings import Settings
from jobs.show_status import by_reason

COLUMNS = ("feed", "path", "reasons", "record", "run_id", "rejected_at")
FORMATS = (".csv", ".jsonl")
SHOWN_FILES = 20


def export(rows: DataFrame | None, target: Path) -> int:
    """Write all records to a file, whole or not at all; gives how many. CSV: reasons are joined by commas.

    rows: None where nothing was rejected yet.
    """
    number = 0
    # Made readable for its owner only.
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=target.parent, prefix=f".{target.name}.", delete=False
    ) as out:
        part = Path(out.name)
        try:
            write = csv_writer(out)
            if target.suffix == ".csv":
                write(COLUMNS)
            for record in _records(rows) if rows is not None else ():
                number += 1
                if target.suffix == ".csv":
                    write({**record, "reasons": ",".join(record["reasons"])}.values())
                else:
                    out.write(json.dumps(record, ensure_ascii=False) + "\n")
        except BaseException:
            part.unlink()
            raise
    part.replace(target)
    log.info("quarantine: %s records written to %s", f"{number:,}", target)
    return number


def _records(rows: DataFrame) -> Iterator[dict[str, Any]]:
    ordered = rows.select(*COLUMNS).orderBy("feed", "path", "record")
    # Partitions come to the driver one by one.
    for row in ordered.toLocalIterator():
        yield {**row.asDict(), "rejected_at": utc(row.rejected_at).isoformat()}


def by_file(counts: Sequence[RejectedCount]) -> list[dict[str, Any]]:
    """feed, path, records; the file with most of them first."""
    files: Counter[tuple[str, str]] = Counter()
    for count in counts:
        files[count.feed, count.path] += count.records
    ordered = sorted(files.items(), key=lambda item: (-item[1], item[0]))
    return [{"feed": feed, "path": path, "records": number} for (feed, path), number in ordered]


def print_report(counts: Sequence[RejectedCount], records: Sequence[dict[str, Any]]) -> None:
    """Print counts, and the sample in full."""
    reasons, files = by_reason(counts), by_file(counts)
    print_table(
        "Rejected records by reason",
        ("feed", "reason", "records", "files"),
        [tuple(row.values()) for row in reasons],
        "none",
    )
    print_table(
        "Rejected records by file" + (f", the first {SHOWN_FILES}" if len(files) > SHOWN_FILES else ""),
        ("feed", "file", "records"),
        [tuple(row.values()) for row in files[:SHOWN_FILES]],
        "none",
    )
    for record in records:
        print_lines(f"{record['path']}: {', '.join(record['reasons'])}", f"  {record['record']}")


def export_file(text: str) -> Path:
    """A file to write to, for argparse."""
    if not text.endswith(FORMATS):
        raise argparse.ArgumentTypeError(f"{text}: the name must end in {' or '.join(FORMATS)}")
    return Path(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Show the quarantine; the arguments are those of `--help`."""
    arguments = parser(__doc__, "quarantine")
    arguments.add_argument("--feed", choices=sorted(FEEDS))
    arguments.add_argument("--reason", help="records that break this rule, e.g. timestamp_invalid")
    arguments.add_argument("--file", metavar="PATTERN", help="of these files, e.g. 'raw/logs/2024-*'")
    arguments.add_argument(
        "--sample", type=limit, metavar="N", help="show N records of every feed and combination of reasons"
    )
    arguments.add_argument(
        "--export", type=export_file, metavar="FILE", help="write all records to FILE.csv or FILE.jsonl"
    )
    add_json(arguments)
    options = arguments.parse_args(argv)

    def body() -> None:
        if options.export:
            require_writable("--export", options.export)
        with open_run("quarantine", Settings.from_env(), quick=True) as run:
            table = quarantine_table(run)
            chosen = (options.feed, options.reason, options.file)
            counts = count_rejected(table, *chosen)
            if options.reason and not counts:
                others = count_rejected(table, options.feed, file=options.file)
                log.info("quarantine: %s", no_such_reason(options.reason, others))
            records = sample_rejected(table, counts, options.sample) if options.sample else []
            written = None
            if options.export:
                written = export(selected(table, *chosen) if table.exists() else None, options.export)
        if options.json:
            print_json(
                {
                    "records": sum(count.records for count in counts),
                    "by_reason": by_reason(counts),
                    "by_file": by_file(counts),
                    "sample": records,
                    "exported": written,
                }
            )
        else:
            print_report(counts, records)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
