"""Show which raw files and versions the present state of a mart comes from; of one row: its files.

Grain:    one line per source that was followed; one per file.
Inputs:   the mart's log, which says up to which version of staging it was made; that version of staging, whose rows
          know their file and its modification time; the ledger, which says which version of the file that was. With
          --key, the mart's row and the staged rows that made it, found by the same keys that the builds compute.
Outputs:  standard output. Nothing is written.
Re-run:   safe at any time.
Exit:     2 when --key names no column, or fits no row or several.
Example:  user-analytics lineage fact_user_actions --key action_event_id=018f2c5e-…
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.console import log
from jobs.context import RunContext, job_main, open_run, parser
from jobs.errors import ConfigurationError
from jobs.feeds import FEEDS
from jobs.feeds.events import EVENTS
from jobs.feeds.users import ATTRIBUTES
from jobs.lake.ledger import STAGED, Ledger, LedgerEntry
from jobs.lake.marts import declared, mart_table
from jobs.lake.staging import staging_table
from jobs.lake.tables import GONE
from jobs.origins import ORIGINS, Followed, Origin, followed, origin_of
from jobs.reports import add_json, print_json, print_lines, print_table, shown
from jobs.settings import Settings
from jobs.transforms.duplicates import with_record_key
from jobs.transforms.keys import KEY, hash_id, time_ordered_id
from jobs.transforms.star_schema import DIMENSIONS

TABLES = sorted(table for origin in ORIGINS for table in origin.all_tables)


@dataclass(frozen=True)
class SourceVersion:
    """A source of the mart. applied: the version that the mart holds; None where several feeds are counted together and
    the mart is behind one of them. newest: the version that is there. note: what has to be said beside."""

    source: str
    applied: int | None
    newest: int
    applied_at: datetime | None
    note: str = ""


@dataclass(frozen=True)
class SourceFile:
    """A version of a raw file. rows: staged rows of it. role: what they are to the mart's row; empty for a table."""

    feed: str
    path: str
    version: str | None
    modified_at: datetime
    run_id: str | None
    rows: int
    role: str = ""


@dataclass(frozen=True)
class Lineage:
    """Where a table, or one row of it (`key`), comes from."""

    table: str
    version: int
    key: Mapping[str, str]
    sources: Sequence[SourceVersion]
    files: Sequence[SourceFile]


Found = tuple[str, str, DataFrame]  # feed, role, staged rows


def trace(run: RunContext, table: str, key: Mapping[str, str] | None = None) -> Lineage:
    """Follow a table, or the one row that key (column → value as text) names, back to its files.

    Raises ConfigurationError when the table was not built yet, or key names no column or not one row.
    """
    mart = mart_table(run, declared(table))
    origin = origin_of(table)
    if not mart.exists():
        raise ConfigurationError(f"{table}: not built yet; `user-analytics run` builds it")
    sources = source_versions(run, origin)
    staged = {s.source: _staged(run, s) for s in sources if s.source in origin.all_feeds}
    if key:
        row = _one_row(mart.read(), table, key)
        found = ROWS[table](row, staged) if table in ROWS else [(f, "", rows) for f, rows in staged.items()]
    else:
        found = [(feed, "", rows) for feed, rows in staged.items()]
    entries = Ledger(run).histories()
    files = [file for feed, role, rows in found for file in _files(feed, role, rows, entries.get(feed, []))]
    return Lineage(table, mart.version(), dict(key or {}), sources, files)


def source_versions(run: RunContext, origin: Origin) -> list[SourceVersion]:
    """The versions that a mart was made from, through other marts down to staging."""
    state = followed(run, origin)
    if state is None:
        return []
    if origin.mart:
        return [_version(origin.mart, state), *source_versions(run, origin_of(origin.mart))]
    if len(origin.feeds) == 1:
        return [_version(origin.feeds[0], state)]
    found = []
    for feed in origin.feeds:
        table = staging_table(run, FEEDS[feed])
        if table.exists():
            version = table.version()
            known = state.waiting == 0
            note = (
                ""
                if known
                else f"the mart is behind: {state.waiting} versions of {' and '.join(origin.feeds)} wait"
            )
            found.append(SourceVersion(feed, version if known else None, version, state.at, note))
    return found


def _version(source: str, state: Followed) -> SourceVersion:
    months = ", ".join(f"{month} at version {version}" for month, (version, _) in state.parts.items())
    return SourceVersion(
        source, state.applied, state.newest, state.at, f"built by month: {months}" if months else ""
    )


def _staged(run: RunContext, source: SourceVersion) -> DataFrame:
    table = staging_table(run, FEEDS[source.source])
    if source.applied is None or source.applied == source.newest:
        return table.read()
    rows = table.read(source.applied)
    try:
        rows.select("_file_id").distinct().collect()
    except GONE:
        log.warning(
            "lineage: version %d of staged %s was vacuumed; the newest is shown",
            source.applied,
            source.source,
        )
        return table.read()
    return rows


def _one_row(mart: DataFrame, table: str, key: Mapping[str, str]) -> Row:
    """The row that the key names, its times in microseconds: Python has no word for some of the first and the last.

    Raises ConfigurationError when there is none, or more than one.
    """
    rows = mart
    types = {field.name: field.dataType for field in mart.schema}
    for name, text in key.items():
        if name not in types:
            raise ConfigurationError(
                f"--key {name}: not a column of {table}; its key is {', '.join(declared(table).primary_key)}"
            )
        if isinstance(types[name], T.ArrayType):
            raise ConfigurationError(
                f"--key {name}: a list, which is not looked for; the key of {table} is "
                f"{', '.join(declared(table).primary_key)}"
            )
        rows = rows.where(F.col(name) == F.lit(text).try_cast(types[name]))
    is_time = {name: isinstance(kind, T.TimestampType) for name, kind in types.items()}
    as_read = [F.unix_micros(n).alias(n) if is_time[n] else F.col(n) for n in types]
    found = rows.select(*as_read).limit(2).collect()
    if len(found) != 1:
        fits = "several rows fit" if found else "no row fits"
        what = ", ".join(f"{name}={text}" for name, text in key.items())
        raise ConfigurationError(
            f"--key {what}: {fits}; the key of {table} is {', '.join(declared(table).primary_key)}"
        )
    return found[0]


# -- from a mart's row to the staged rows that made it ------------------------------------------------------------


def _by_time_ordered_id(
    feed: str, time: str, column: str
) -> Callable[[Row, Mapping[str, DataFrame]], list[Found]]:
    def find(row: Row, staged: Mapping[str, DataFrame]) -> list[Found]:
        identifier = time_ordered_id(F.col(time), *(F.col(name) for name in KEY))
        # Rows of other times need not be hashed, nor their files opened.
        near = staged[feed].where(F.col(time) == F.timestamp_micros(F.lit(row[time])))
        return [(feed, "", near.where(identifier == row[column]))]

    return find


def _review(row: Row, staged: Mapping[str, DataFrame]) -> list[Found]:
    return [("reviews", "", staged["reviews"].where(F.col("review_id") == row.review_id))]


def _user(row: Row, staged: Mapping[str, DataFrame]) -> list[Found]:
    identifier = row.asDict().get("id") or row.user_id
    versions = staged["users"].where(hash_id(F.col("email")) == identifier)
    there = row.asDict()
    same = [F.col(name).eqNullSafe(_literal(versions, name, there.get(name))) for name in ATTRIBUTES]
    is_this = same[0]
    for condition in same[1:]:
        is_this &= condition
    return [
        ("users", "says what the row says", versions.where(is_this)),
        ("users", "another version of the user", versions.where(~is_this)),
    ]


def _event(row: Row, staged: Mapping[str, DataFrame]) -> list[Found]:
    rows = staged["events"]
    values = {name: row.source_id if name == "id" else row[name] for name in EVENTS.columns}
    literals = [_literal(rows, name, value).alias(name) for name, value in values.items()]
    wanted = rows.sparkSession.range(1).select(*literals)
    return [("events", "", rows.join(with_record_key(EVENTS, wanted).select(*KEY), list(KEY), "left_semi"))]


def _customer_order(row: Row, staged: Mapping[str, DataFrame]) -> list[Found]:
    orders, customers = staged.get("orders"), staged.get("customers")
    found: list[Found] = []
    if orders is not None:
        found.append(("orders", "the order", orders.where(F.col("order_id") == row.order_id)))
    if customers is not None and row.is_customer_known:
        found.append(("customers", "its customer", customers.where(F.col("customer_id") == row.customer_id)))
    if orders is not None and row.is_customer_known and not row.is_segment_given:
        others = orders.where((F.col("customer_id") == row.customer_id) & (F.col("order_id") != row.order_id))
        found.append(("orders", "other orders of the customer, for the segment", others))
    return found


def _member(column: str, business_key: str) -> Callable[[Row, Mapping[str, DataFrame]], list[Found]]:
    def find(row: Row, staged: Mapping[str, DataFrame]) -> list[Found]:
        return [("logs", "", staged["logs"].where(F.col(column) == row[business_key]))]

    return find


# Of a table that is not here, such as order_analysis, every row is made from all files.
ROWS: dict[str, Callable[[Row, Mapping[str, DataFrame]], list[Found]]] = {
    "fact_user_actions": _by_time_ordered_id("logs", "timestamp", "action_event_id"),
    "user_purchase": _by_time_ordered_id("purchases", "invoice_date", "purchase_line_id"),
    "movie_review": _review,
    "users": _user,
    "users_history": _user,
    "events": _event,
    "customer_orders": _customer_order,
    **{d.table: _member(d.source, d.business_key) for d in DIMENSIONS},
}


def _micros(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


def _literal(rows: DataFrame, name: str, value: object) -> Column:
    kind = rows.schema[name].dataType
    return F.timestamp_micros(F.lit(value)) if isinstance(kind, T.TimestampType) else F.lit(value).cast(kind)


def _files(feed: str, role: str, rows: DataFrame, history: Sequence[LedgerEntry]) -> list[SourceFile]:
    """The files of staged rows, in order of path. The modification time tells a file's versions apart."""
    read = {(e.file_id, _micros(e.modified_at)): e for e in history if e.status == STAGED}
    paths = {entry.file_id: entry.path for entry in history}
    counted = rows.groupBy("_file_id", F.unix_micros("_delivered_at").alias("micros")).count().collect()
    found = []
    for row in counted:
        entry = read.get((row._file_id, row.micros))
        found.append(
            SourceFile(
                feed,
                paths.get(row._file_id, f"unknown file {row._file_id}"),
                entry.version if entry else None,
                datetime.fromtimestamp(row.micros / 1_000_000, UTC),
                entry.run_id if entry else None,
                row["count"],
                role,
            )
        )
    return sorted(found, key=lambda file: (file.path, file.modified_at))


def print_lineage(lineage: Lineage) -> None:
    """Print the lineage as tables."""
    of = "".join(f", {name}={text}" for name, text in lineage.key.items())
    print_lines(f"{lineage.table}, version {lineage.version}{of}", "")
    print_table(
        "Made from",
        ("source", "version", "of", "since", "note"),
        [(s.source, s.applied, s.newest, shown(s.applied_at), s.note) for s in lineage.sources],
        "nothing that is still there",
    )
    print_table(
        "Files",
        ("file", "version", "modified", "rows", "what"),
        [(f.path, f.version, shown(f.modified_at), f.rows, f.role) for f in lineage.files],
        "none",
    )


def key_part(text: str) -> tuple[str, str]:
    """column=value, for argparse."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text}: write column=value")
    return name, value


def main(argv: Sequence[str] | None = None) -> int:
    """Show the lineage; the arguments are those of `--help`."""
    arguments = parser(__doc__, "lineage")
    arguments.add_argument("table", choices=TABLES, metavar="TABLE", help=", ".join(TABLES))
    arguments.add_argument(
        "--key",
        type=key_part,
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="of the one row for which this holds; may be given for several columns",
    )
    add_json(arguments)
    options = arguments.parse_args(argv)

    def body() -> None:
        with open_run("lineage", Settings.from_env(), quick=True) as run:
            found = trace(run, options.table, dict(options.key))
        if options.json:
            print_json(asdict(found))
        else:
            print_lineage(found)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
