"""Print a view or table of the warehouse.

Grain:    as the view's own; its file in `views/` says it.
Inputs:   WAREHOUSE_URL; an embedded PostgreSQL is started for the time of the query.
Outputs:  the first rows, on standard output: a table for people, CSV with a header, or one JSON array of objects, in
          which decimals, dates and times are texts.
Re-run:   safe at any time.
Example:  user-analytics query most_used_tags_view --limit 10 --format csv
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import IO

from jobs.console import table
from jobs.context import job_main, parser, whole_number
from jobs.reports import csv_writer
from jobs.settings import Settings
from jobs.warehouse import open_warehouse, require_made
from jobs.warehouse.declarations import tables, views

FORMATS = ("table", "csv", "json")


def write_rows(out: IO[str], form: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows as a text table, as CSV (RFC 4180, null is an empty field), or as JSON."""
    if form == "csv":
        write = csv_writer(out)
        write(header)
        for row in rows:
            write([json.dumps(v, ensure_ascii=False) if isinstance(v, (list, dict)) else v for v in row])
    elif form == "json":
        objects = [dict(zip(header, row, strict=True)) for row in rows]
        out.write(json.dumps(objects, ensure_ascii=False, indent=1, default=str) + "\n")
    else:
        out.write((table(header, rows, indent="") if rows else "no rows") + "\n")


# A number of rows, for argparse. What is asked for is held in memory.
limit = whole_number(1, 10_000_000)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a view or table; the arguments are those of `--help`."""
    arguments = parser(__doc__, "query")
    names = [*views(), *tables()]
    arguments.add_argument("name", metavar="NAME", choices=names, help=", ".join(names))
    arguments.add_argument(
        "--limit", type=limit, default=100, metavar="N", help="at most so many rows (default: %(default)s)"
    )
    arguments.add_argument("--format", choices=FORMATS, default="table", help="default: %(default)s")
    options = arguments.parse_args(argv)

    def body() -> None:
        settings = Settings.from_env()
        require_made(settings)
        with open_warehouse(settings) as warehouse:
            header, rows = warehouse.query(options.name, options.limit)
        write_rows(sys.stdout, options.format, header, rows)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
