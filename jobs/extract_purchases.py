"""Extract purchases from a table of a PostgreSQL database into the raw zone, several parts at once.

Grain:    one CSV file per part, `raw/purchases/extract/<date>/part-<n>.csv`, one record per row of the table.
Inputs:   the table with the columns invoice_number, stock_code, detail, quantity, invoice_date, unit_price, customer_id
          and country, in the database of SOURCE_URL. All parts see the same state of it.
Outputs:  files that `stage purchases` reads like any delivered file. An invoice is never split over two parts, so that
          its repeated lines are counted.
Re-run:   safe at any time: the files of the same --date are replaced; rows that were staged before add nothing.
Example:  SOURCE_URL=postgresql://… spark-submit jobs/extract_purchases.py --table retail.user_purchase
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import DATE

from jobs.console import UploadProgress, log
from jobs.context import day, job_main, open_run, parser, whole_number
from jobs.datasets import Dataset
from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.feeds.purchases import PURCHASES
from jobs.lake.archive import as_archived
from jobs.lake.objects import ObjectStore, sha256_of
from jobs.runs import recorded
from jobs.settings import Settings, postgresql_url, without_password

DEFAULT_TABLE = "retail.user_purchase"
TABLE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")
COLUMNS = PURCHASES.columns
PART = re.compile(r"part-(\d{3})\.csv")


def extract_purchases(store: ObjectStore, url: str, table: str, day: date, parts: int) -> int:
    """Copy the table into `parts` files below `raw/purchases/extract/<day>`. Gives the number of rows.

    Parts that an extraction of the same day into more of them has left get no rows: their header only, by which what
    was staged of them leaves.

    Raises ConfigurationError when the database cannot be reached or lacks the table or one of its columns, and
    UserAnalyticsError when it fails on the way.
    """
    name = sql.Identifier(*table.split("."))
    with _failing_in_one_line(table), _connect(url) as main:
        with main.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
                cursor.execute(sql.SQL("SELECT {} FROM {} LIMIT 0").format(names, name))
                columns = _columns(cursor.description)
            except psycopg2.Error as error:
                raise ConfigurationError(f"SOURCE_URL, table {table}: {str(error).splitlines()[0]}") from None
            # The other connections look at the table as this one sees it.
            cursor.execute("SELECT pg_export_snapshot()")
            snapshot = cursor.fetchone()[0]

        def extract(part: int) -> int:
            return _extract_part(store, url, name, columns, snapshot, day, part, parts)

        with ThreadPoolExecutor(parts) as pool:
            rows = sum(pool.map(extract, sorted({*range(parts), *_parts_there(store, day)})))
    log.info("extract: %s rows of %s in %d parts", f"{rows:,}", table, parts)
    return rows


def _extract_part(
    store: ObjectStore,
    url: str,
    table: sql.Identifier,
    columns: sql.Composable,
    snapshot: str,
    day: date,
    part: int,
    parts: int,
) -> int:
    query = sql.SQL(
        "COPY (SELECT {} FROM {} "
        "WHERE mod(hashtext(coalesce(invoice_number::text, ''))::bigint + 2147483648, {}) = {}) "
        "TO STDOUT (FORMAT csv, HEADER)"
    ).format(columns, table, sql.Literal(parts), sql.Literal(part))
    with tempfile.TemporaryDirectory(prefix="extract-") as folder:
        file = Path(folder) / f"part-{part:03d}.csv"
        with _connect(url) as connection, connection.cursor() as cursor, file.open("wb") as out:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute("SET TRANSACTION SNAPSHOT %s", (snapshot,))
            # A time is written with its offset, so that it stays the same instant whatever the server's zone.
            cursor.execute("SET LOCAL datestyle TO 'ISO'")
            cursor.execute("SET LOCAL TIME ZONE 'UTC'")
            # At 0 or less, which a role or an old server may have, numbers of floating point are rounded.
            cursor.execute("SET LOCAL extra_float_digits = 1")
            cursor.copy_expert(query.as_string(connection), out)
            rows = int(cursor.rowcount)
        with file.open("rb") as stream:
            digest = sha256_of(stream)
        target = f"{_folder(day)}/{file.name}"
        if store.digest(target) == digest:
            log.info("extract: %s is there already, unchanged", target)
        else:
            with UploadProgress(target, file.stat().st_size) as progress:
                store.put(file, target, digest, True, progress)
    return rows


def _folder(day: date) -> str:
    return f"raw/{PURCHASES.name}/extract/{day.isoformat()}"


def _parts_there(store: ObjectStore, day: date) -> list[int]:
    """The numbers of the parts of an earlier extraction of the day; of archived ones, too, rows are staged."""
    places = (_folder(day), as_archived(_folder(day)))
    files = (file for place in places for file in store.list(place))
    found = (PART.fullmatch(file.path.rpartition("/")[2]) for file in files)
    return [int(part[1]) for part in found if part]


def _columns(described: Sequence[Any]) -> sql.Composable:
    """What to select of the columns as the server describes them: a date is its midnight, as the feed wants a time."""
    return sql.SQL(", ").join(
        sql.SQL("{0}::timestamp AS {0}" if column.type_code == DATE else "{0}").format(
            sql.Identifier(column.name)
        )
        for column in described
    )


def _connect(url: str) -> Any:
    try:
        # COPY writes a file in the client's encoding, by default the database's own.
        connection = psycopg2.connect(
            url, connect_timeout=10, application_name="user-analytics extract", client_encoding="UTF8"
        )
    except psycopg2.Error as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"SOURCE_URL={without_password(url)}: {reason}") from None
    connection.autocommit = True
    return connection


@contextmanager
def _failing_in_one_line(table: str) -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        reason = str(error).splitlines()[0]
        raise UserAnalyticsError(f"SOURCE_URL, table {table}: {reason}; extract it again") from None


def table_name(text: str) -> str:
    """`schema.table` or `table`, for argparse."""
    if not TABLE_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not schema.table")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Extract purchases; the arguments are those of `--help`."""
    arguments = parser(__doc__, "extract-purchases")
    arguments.add_argument("--table", type=table_name, default=DEFAULT_TABLE, help="default: %(default)s")
    arguments.add_argument(
        "--date",
        type=day,
        default=None,
        metavar="YYYY-MM-DD",
        help="names the folder of the files (default: today, UTC)",
    )
    arguments.add_argument(
        "--parts", type=whole_number(1, 64), default=4, help="files written at once (default: %(default)s)"
    )
    options = arguments.parse_args(argv)

    def body() -> None:
        given = os.environ.get("SOURCE_URL", "").strip()
        if not given:
            raise ConfigurationError(
                "SOURCE_URL is not set; give postgresql://user:password@host:port/database"
            )
        url = postgresql_url("SOURCE_URL", given)
        day = options.date or datetime.now(UTC).date()
        with (
            open_run(name := "extract-purchases", Settings.from_env()) as run,
            recorded(run),
            run.step(name) as detail,
        ):
            # What is replaced must not be in the middle of being archived.
            with run.locks.hold(f"staging/{PURCHASES.name}"):
                rows = extract_purchases(run.store, url, options.table, day, options.parts)
            run.note_written(Dataset(f"raw/{PURCHASES.name}", rows=rows, files=options.parts))
            detail.append(f"{rows} rows of {options.table}")
        print(f"{rows} rows extracted to raw/{PURCHASES.name}/extract/{day.isoformat()}")

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
