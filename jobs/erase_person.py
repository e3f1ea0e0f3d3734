"""Erase a person from lake and warehouse, history included, and prove it. Asks first.

Grain:    a person, by what names them: addresses, customer ids, user ids.
Inputs:   every zone of the lake: `raw/`, `archive/`, staging, quarantine, ledger, marts, geolocation, run tables,
          results; the warehouse's tables. --email finds the address anywhere in a record of any feed, --customer-id the
          column customer_id (customers, orders, purchases, reviews), --user-id the column user_id (logs).
Outputs:  raw files without the person's records, all other bytes as they were; staging and marts as if the person had
          never been delivered; the same in the warehouse. Tables that held something have no history before now: their
          old data files and log entries are gone. What an id does not lead to stays: orders and purchases of somebody
          of whom only the address is erased belong to a customer whom nothing names any more.
Re-run:   safe at any time, also after a kill: it goes on. Of somebody who is not there it says so, exit code 0.
          Somebody who is delivered again later is a new person. The run tables have the erasure, but not of whom.
          Rules that say `fail` only warn.
Exit:     1 when anything is left, or cannot be searched, in the lake or the warehouse, or when the answer is no.
Example:  user-analytics erase --email ann@example.org --customer-id 17850 --dry-run
"""

from __future__ import annotations

import sys
import tempfile
import zlib
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError
from pyspark.sql import functions as F

from jobs.console import log
from jobs.context import RunContext, job_main, open_run, parser
from jobs.erasure.person import Person, person
from jobs.erasure.raw_files import cut, may_name, opened, packed, unread
from jobs.erasure.tables import begin_anew, persons_rows, remove_history
from jobs.erasure.traces import Search, Trace
from jobs.errors import UserAnalyticsError
from jobs.feeds import FEEDS
from jobs.feeds.declaration import Feed
from jobs.geolocation.cache import LocationCache
from jobs.lake.archive import (
    ARCHIVE,
    RAW,
    as_raw,
    note_rewriting,
    note_rewritten,
    note_waiting,
    require_feed_lock,
    version_of,
)
from jobs.lake.intermediates import remove_intermediates
from jobs.lake.ledger import REWRITTEN, STAGED, Ledger, by_path, is_same_content, next_batch
from jobs.lake.objects import RawFile, sha256_of
from jobs.lake.quarantine import quarantine_table
from jobs.lake.rereading import read_again
from jobs.lake.staging import SAME_KEY, staging_table
from jobs.lake.tables import LakeTable
from jobs.maintain_lake import lake_tables
from jobs.origins import ORIGINS
from jobs.publish import publish
from jobs.reports import add_json, print_json, print_lines, print_table
from jobs.reset_tables import confirm
from jobs.run_all import build_marts
from jobs.runs import RECORDED_TABLES, lock_of, recorded
from jobs.settings import Settings
from jobs.spark import local_rows
from jobs.transforms.keys import KEY
from jobs.warehouse import open_warehouse
from jobs.warehouse.base import Warehouse

CACHE = "geolocation/ip_addresses"


@dataclass(frozen=True)
class Found:
    """A file or table and how many of its records are the person's."""

    where: str
    records: int


def survey(run: RunContext, search: Search) -> list[Found]:
    """Where the person is now, history left out. Writes nothing."""
    found = []
    for feed in FEEDS.values():
        found += [Found(file.path, number) for file, number in _persons_files(run, search, feed)]
    quarantined = _quarantined(run, search)
    if quarantined:
        found.append(Found("staging/_quarantine", len(quarantined)))
    for table in lake_tables(run):
        name = _name(run, table)
        if name.startswith(("staging/_", "runs/")) or not table.exists():
            continue
        if number := persons_rows(table.read(), search.person).count():
            found.append(Found(name, number))
    return found


def linked_customers(run: RunContext, who: Person) -> list[str]:
    """The customer ids that staged customers with the person's address have, and that were not given."""
    customers = staging_table(run, FEEDS["customers"])
    if not who.emails or not customers.exists():
        return []
    rows = persons_rows(customers.read(), Person(who.emails)).select("customer_id").distinct().collect()
    return sorted({row.customer_id for row in rows} - set(who.ids.get("customer_id", ())))


def erase(run: RunContext, warehouse: Warehouse, search: Search) -> list[Trace]:
    """Erase the person of a search, and look for what is left."""
    remove_intermediates(run)
    with recorded(run):
        with run.step("erase from raw files and staging") as detail:
            for feed in FEEDS.values():
                with run.locks.hold(f"staging/{feed.name}"):
                    detail += _erase_feed(run, search, feed)
            _erase_quarantined(run, search)
            _recount(run)
            _mask_messages(run, search.person)
        # What marts are made from has to have its last version before they follow it.
        staged = _with_traces(run, search, ("staging/",))
        if "staging/users" in staged:
            staged |= _forget_addresses(run)
        _begin_anew(run, staged)
        # As long as staging remembers the person, marts may not have followed it.
        if staged:
            # The one left out is the only one that asks somebody outside.
            build_marts(run, without=("locate users",))
        remove_intermediates(run)
        followers = {
            f"marts/{table}"
            for origin in ORIGINS
            if any(f"staging/{feed}" in staged for feed in origin.all_feeds)
            for table in origin.all_tables
        }
        others = _with_traces(run, search, ("marts/", "runs/"), followers)
        _begin_anew(run, others)
        with run.step("publish"):
            run.checks += publish(run, warehouse)
        with run.step("remove history") as detail, run.heartbeat("history"):
            # Staging comes last: while it has traces, a run after a kill does all of this again.
            for name, table in {**others, **staged}.items():
                remove_history(run, table)
                log.info("erase: %s has no history before now", name)
            detail.append(f"{len(others) + len(staged)} tables")
    publish(run, warehouse, RECORDED_TABLES)
    return [*search.in_lake(run), *search.in_warehouse(warehouse)]


def _erase_feed(run: RunContext, search: Search, feed: Feed) -> list[str]:
    files = _persons_files(run, search, feed)
    if files:
        there = {file.path for file in run.store.list(f"{RAW}/{feed.name}")}
        current = Ledger(run).current(feed.name)
        # An archived file comes back to `raw/`, unless a correction has its place.
        places = {f.path: f.path if as_raw(f.path) in there else as_raw(f.path) for f, _ in files}
        noted = [
            path
            for file, _ in files
            if (path := places[file.path]) != file.path or is_same_content(file, current.get(path))
        ]
        # What was not staged yet is still to be.
        waiting = [file for file, _ in files if file.path in there and file.path not in noted]
        note_rewriting(run, feed.name, noted)
        note_waiting(run, feed.name, waiting)
        for file, _ in files:
            _rewrite(run, search, feed, file, places[file.path])
            if file in waiting:
                note_rewritten(run, feed.name, file.path, version_of(run.store, file.path))
    there = {file.path for file in run.store.list(f"{RAW}/{feed.name}")}
    current = Ledger(run).current(feed.name)
    # Those of this run, and of one that was killed.
    rewritten = [entry.path for entry in current.values() if entry.version == REWRITTEN]
    for path in rewritten:
        # Another file may have the name of one that is gone.
        if path not in there:
            note_rewritten(run, feed.name, path)
    if paths := [path for path in rewritten if path in there]:
        read_again(run, feed, paths, max_rejected_share=1.0)
    # Rows of files that are no longer there.
    table = staging_table(run, feed)
    if table.exists():
        keys = persons_rows(table.read(), search.person).select(*KEY).distinct()
        if not keys.isEmpty():
            table.merge(keys, SAME_KEY, lambda merge: merge.whenMatchedDelete())
    removed = sum(number for _, number in files)
    return [f"{removed} records of {feed.name}"] if removed else []


def _persons_files(run: RunContext, search: Search, feed: Feed) -> list[tuple[RawFile, int]]:
    """The files of a feed with records of the person, and how many."""
    found = []
    for zone in (RAW, ARCHIVE):
        for file in run.store.list(f"{zone}/{feed.name}"):
            try:
                if unread(run.store, file.path):
                    continue
                with run.store.open(file.path) as stream, opened(stream, file.path) as plain:
                    if not may_name(search.person, plain):
                        continue
                with run.store.open(file.path) as stream, opened(stream, file.path) as plain:
                    number = cut(search.person, feed, search.names(feed, file.path), plain).removed
            except BotoCoreError:
                raise  # the store's fault, though some of these are OSErrors, too
            except (OSError, EOFError, zlib.error):
                log.warning("erase: %s cannot be read", file.path)
                continue
            if number:
                found.append((file, number))
    return found


def _rewrite(run: RunContext, search: Search, feed: Feed, file: RawFile, path: str) -> None:
    """Write a file without the person's records to a path, its own or a free one, and remove it elsewhere.

    Raises UserAnalyticsError when a correction has come meanwhile, which stays.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "file"
        with (
            run.store.open(file.path) as stream,
            opened(stream, file.path) as plain,
            target.open("wb") as raw,
            packed(raw, file.path) as out,
        ):
            left = cut(search.person, feed, search.names(feed, file.path), plain, out)
        with target.open("rb") as done:
            digest = sha256_of(done)
        try:
            if file not in run.store.list(file.path.rpartition("/")[0]):
                raise FileExistsError(file.path)
            if left.kept:
                run.store.put(target, path, digest, path == file.path, lambda sent: None)
        except FileExistsError:
            note_rewritten(run, feed.name, as_raw(file.path))
            shown = search.person.without_addresses(path)
            raise UserAnalyticsError(
                f"erase: {shown} was delivered anew meanwhile, which stays as it is; erase again"
            ) from None
    if not left.kept or path != file.path:
        require_feed_lock(run, feed.name)
        run.store.delete(file.path)
    log.info("erase: %s, %d records removed", path, left.removed)


def _quarantined(run: RunContext, search: Search) -> list[tuple[str, int, str]]:
    """Feed, file id and text of the person's records in quarantine."""
    table = quarantine_table(run)
    if not table.exists():
        return []
    texts = [email.partition("@")[0] for email in search.person.emails]
    texts += [value for values in search.person.ids.values() for value in values]
    clues = local_rows(run.spark, [(text,) for text in texts], "_value string")
    # What JSON escapes is not compared here.
    near = F.expr(r"contains(lower(record), lower(_value)) OR contains(record, '\\')")
    candidates = (
        table.read().join(F.broadcast(clues), near, "left_semi").select("feed", "file_id", "path", "record")
    )
    found = []
    for row in candidates.toLocalIterator():
        declared = FEEDS[row.feed]
        if search.person.owns_json(declared, search.names(declared, row.path), row.record):
            found.append((row.feed, row.file_id, row.record))
    return found


def _erase_quarantined(run: RunContext, search: Search) -> None:
    """Remove what is left of the person in quarantine: records of files that are no longer there."""
    found = _quarantined(run, search)
    if found:
        keys = local_rows(run.spark, sorted(set(found)), "feed string, file_id bigint, record string")
        same = "s.feed = t.feed AND s.file_id = t.file_id AND s.record = t.record"
        with run.locks.hold("staging/_quarantine"):
            quarantine_table(run).merge(keys, same, lambda merge: merge.whenMatchedDelete())


def _recount(run: RunContext) -> None:
    """Bring the ledger's counts of files that cannot be read again to what is left of them."""
    for name in Ledger(run).histories():
        # A staging under way has moved rows that the ledger does not know of yet, and counts them itself.
        with run.locks.hold(f"staging/{name}"):
            _recount_feed(run, name)


def _recount_feed(run: RunContext, name: str) -> None:
    ledger = Ledger(run)
    history = ledger.history(name)
    there = {file.path for file in run.store.list(f"{RAW}/{name}")}
    gone = [e for path, e in by_path(history).items() if e.status == STAGED and path not in there]
    if not gone:
        return
    accepted = staging_table(run, FEEDS[name]).counts_by("_file_id")
    rejected = quarantine_table(run).counts_by("file_id")
    batch = next_batch(history)
    changed = []
    for entry in gone:
        taken, refused = accepted.get(entry.file_id, 0), rejected.get(entry.file_id, 0)
        if (taken, refused) != (entry.accepted, entry.rejected):
            read = taken + entry.duplicates + refused
            left = replace(entry, accepted=taken, rejected=refused, records_read=read)
            noted = replace(left, batch=batch, run_id=run.run_id, staged_at=datetime.now(UTC))
            changed.append(replace(noted, is_recount=True))
    with run.locks.hold("staging/_ingested_files"):
        ledger.write(changed)


def _forget_addresses(run: RunContext) -> dict[str, LakeTable]:
    """Leave in the geolocation cache only addresses that staged users have. Gives the cache, if there is one."""
    cache = LocationCache(run).table
    if not cache.exists():
        return {}
    with run.locks.hold(CACHE):
        users = staging_table(run, FEEDS["users"]).read()
        used = users.where("ip_address IS NOT NULL").select("ip_address").distinct()
        if not cache.read().join(used, "ip_address", "left_anti").isEmpty():
            same = "s.ip_address = t.ip_address"
            cache.merge(used, same, lambda merge: merge.whenNotMatchedBySourceDelete())
    return {CACHE: cache}


def _mask_messages(run: RunContext, who: Person) -> None:
    """Mask the person's addresses in the ledger: a header that was refused may have been a record."""
    table = Ledger(run).table
    if not table.exists():
        return
    rows = [
        (
            row.feed,
            row.path,
            row.batch,
            who.without_addresses(row.error) if row.error else None,
            [who.without_addresses(name) for name in row.unknown_columns],
        )
        for row in table.read().collect()
        if who.is_named_in(row.error or "") or any(map(who.is_named_in, row.unknown_columns))
    ]
    if rows:
        kinds = "feed string, path string, batch bigint, error string, unknown_columns array<string>"
        masked = local_rows(run.spark, rows, kinds)
        with run.locks.hold("staging/_ingested_files"):
            table.merge(
                masked,
                "s.feed = t.feed AND s.path = t.path AND s.batch = t.batch",
                lambda merge: merge.whenMatchedUpdate(
                    set={"error": "s.error", "unknown_columns": "s.unknown_columns"}
                ),
            )


def _with_traces(
    run: RunContext, search: Search, zones: tuple[str, ...], always: Container[str] = ()
) -> dict[str, LakeTable]:
    """The tables of some zones of whose files, old ones included, one names the person; and those of always."""
    found = {}
    for table in lake_tables(run):
        name = _name(run, table)
        if (
            name.startswith(zones)
            and table.exists()
            and (name in always or next(search.in_lake(run, name), None))
        ):
            found[name] = table
    return found


def _begin_anew(run: RunContext, chosen: dict[str, LakeTable]) -> None:
    for table in chosen.values():
        with run.locks.hold(lock_of(run, table)):
            begin_anew(table)


def _name(run: RunContext, table: LakeTable) -> str:
    return table.uri.removeprefix(f"{run.settings.lake_uri}/")


def identifier(text: str) -> str:
    """A value for argparse; `-` reads it from a line of standard input, so that no list of processes shows it."""
    return sys.stdin.readline().strip() if text == "-" else text


def report(found: Sequence[Found], linked: Sequence[str], left: Sequence[Trace] | None) -> None:
    """Print where the person was, and what is left; None: nothing was erased."""
    print_table(
        "Records of the person" + ("" if left is None else ", erased"),
        ("where", "records"),
        [(f.where, f.records) for f in found],
        "nothing found",
    )
    if linked and left is None:
        print_lines(_advice(linked), "")
    if left:
        print_table("Left", ("where", "what"), [(t.where, t.what) for t in left], "nothing")
    elif left is not None:
        print_lines("Nothing is left: every file of the lake and every table of the warehouse was searched.")


def main(argv: Sequence[str] | None = None) -> int:
    """Erase a person; the arguments are those of `--help`."""
    arguments = parser(__doc__, "erase")
    for flag, what in (
        ("--email", "an address"),
        ("--customer-id", "of customers, orders, purchases and reviews"),
        ("--user-id", "of logs"),
    ):
        arguments.add_argument(
            flag,
            type=identifier,
            action="append",
            default=[],
            metavar="TEXT",
            help=f"{what}; may be given several times; `-` reads a line of standard input",
        )
    arguments.add_argument("--dry-run", action="store_true", help="show what would go; write nothing")
    arguments.add_argument("--yes", action="store_true", help="do not ask")
    add_json(arguments)
    options = arguments.parse_args(argv)

    def body() -> None:
        who = person(options.email, options.customer_id, options.user_id)
        settings = Settings.from_env()
        with (
            open_run("erase", settings, warn_only=True, make=False) as run,
            open_warehouse(settings) as warehouse,
        ):
            search = search_for(run, who)
            found, linked = survey(run, search), linked_customers(run, who)
            left = None
            if not options.dry_run:
                if not options.yes:
                    confirm(_question(found, linked), "erase")
                left = erase(run, warehouse, search)
        if options.json:
            document: dict[str, Any] = {"found": [vars(f) for f in found], "linked_customer_ids": linked}
            print_json(document if left is None else {**document, "left": [vars(t) for t in left]})
        else:
            report(found, linked, left)
        if left:
            raise UserAnalyticsError(
                f"erase: {len(left)} places still name the person or cannot be searched: "
                f"{', '.join(who.without_addresses(trace.where) for trace in left[:20])}. "
                "Remove or mend these files, and erase again"
            )

    return job_main(body)


def search_for(run: RunContext, who: Person) -> Search:
    """A search with what the ledger knows of files."""
    histories = Ledger(run).histories()
    return Search(who, by_path(entry for history in histories.values() for entry in history))


def _question(found: Sequence[Found], linked: Sequence[str]) -> list[str]:
    total = sum(f.records for f in found)
    return [
        f"erases {total} records in {len(found)} files and tables, and the history of these tables",
        *([_advice(linked)] if linked else []),
        "what is erased cannot be brought back",
    ]


def _advice(linked: Sequence[str]) -> str:
    ids = " ".join(f"--customer-id {text}" for text in linked)
    return f"their orders, purchases and reviews as a customer stay, without a name, unless you add {ids}"


if __name__ == "__main__":
    sys.exit(main())
