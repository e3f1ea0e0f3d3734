"""A person is erased from every zone of the lake and from the warehouse; nothing of anybody else changes."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs.cli import main
from jobs.erase_person import Found, erase, search_for, survey
from jobs.erasure.person import person
from jobs.erasure.tables import begin_anew, persons_rows, remove_history
from jobs.erasure.traces import Trace
from jobs.errors import LockLost, UserAnalyticsError
from jobs.feeds import FEEDS
from jobs.geolocation.base import Location
from jobs.geolocation.cache import LocationCache
from jobs.lake.archive import archive, note_rewriting
from jobs.lake.ledger import Ledger, LedgerEntry, next_batch
from jobs.lake.objects import LocalStore
from jobs.lake.staging import SAME_KEY, stage, staging_table
from jobs.origins import ORIGINS
from jobs.run_all import run_all
from jobs.runs import RECORDED_TABLES
from jobs.transforms.keys import KEY
from jobs.warehouse.postgres import PostgresWarehouse
from tests.lakes import Lake
from tests.records import unread_forms
from tests.services import ObjectStore
from tests.staging import DAY, taken_over
from tests.warehouses import query
from tests.write_points import Killed, WritePoints, dying

pytestmark = [pytest.mark.spark, pytest.mark.integration]

# What names Ann, and what only her records say.
EMAIL, CUSTOMER, USER = "ann.marked@example.org", "7700123", "u-ann-77"
MARKS = (EMAIL, CUSTOMER, USER, "annabella", "203.0.113.77")
HASH = "0123456789abcdef0123456789abcdef"

USERS = f"""id,first_name,last_name,email,gender,ip_address,created_at,updated_at,password,status
1,Annabella,Mark,Ann.Marked@Example.org,f,203.0.113.77,2024-01-01,2024-01-01,{HASH},active
2,Bob,Stone,bob@example.org,m,203.0.113.1,2024-01-01,2024-01-01,{HASH},active
1,Annabella,Mark,{EMAIL},f,203.0.113.77,2024-01-01,2024-02-01,{HASH},closed
4,Annabella,Mark,{EMAIL},f,203.0.113.77,yesterday,,{HASH},active
3,Jo,Ann,joann.marked@example.org,f,203.0.113.1,2024-01-01,2024-01-01,{HASH},active
"""
CUSTOMERS = f"""customer_id,name,email,age,city,registration_date
{CUSTOMER},Annabella Mark,{EMAIL},30,Oslo,2020-01-01
42,Bob Stone,bob@example.org,40,Lima,2020-01-01
"""
ORDERS = f"""order_id,customer_id,product,quantity,price,order_date
o1,{CUSTOMER},Lamp,1,9.50,2024-01-02
o2,42,Lamp,2,9.50,2024-01-03
"""
# Later than the file above, whose order of that id it must not win over once that one is rewritten.
ORDERS_LATER = "order_id,customer_id,product,quantity,price,order_date\no2,42,Lamp,3,9.50,2024-01-03\n"


def log(user: str, minute: int) -> dict[str, object]:
    return {
        "user_id": user,
        "timestamp": f"2024-03-01T10:{minute:02}:00",
        "action_type": "login",
        "metadata": {"device": "phone", "location": "Rome"},
    }


FILES = {
    "users/u.csv.gz": gzip.compress(USERS.encode(), mtime=0),
    "customers/c.csv": CUSTOMERS.encode(),
    "orders/a.csv": ORDERS.encode(),
    "orders/b.csv": ORDERS_LATER.encode(),
    "logs/array.json": json.dumps([log(USER, 1), log("bob", 2), log(USER, 3)], indent=2).encode(),
    "logs/only-ann.jsonl": json.dumps(log(USER, 4)).encode(),
    "logs/lines.jsonl": "\n".join(
        (json.dumps(log("bob", 5)), f"{{broken {USER}", "{broken bob", json.dumps(log(USER, 6)), "")
    ).encode(),
}
# What is found of Ann in each file, and records read and rejected of it once she is gone.
RECORDS = {
    "users/u.csv.gz": (3, 2, 0),
    "customers/c.csv": (1, 1, 0),
    "orders/a.csv": (1, 1, 0),
    "orders/b.csv": (0, 1, 0),
    "logs/array.json": (2, 1, 0),
    "logs/only-ann.jsonl": (1, 0, 0),
    "logs/lines.jsonl": (2, 2, 1),
}


def feed_of(name: str) -> str:
    return name.partition("/")[0]


def deliver(lake: Path, feeds: set[str]) -> None:
    for day, (name, content) in enumerate(FILES.items(), 1):
        if feed_of(name) not in feeds:
            continue
        path = lake / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (1_704_067_200 + day * DAY,) * 2)


def bytes_with_marks(lake: Path) -> list[str]:
    """Files of the lake in which something of Ann stands: gzip unpacked, Parquet read, all else as it is."""
    found = []
    for file in sorted(p for p in lake.rglob("*") if p.is_file()):
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8", "replace")
        if file.suffix == ".parquet":
            parquet = pq.ParquetFile(io.BytesIO(content))
            text += str(parquet.read().to_pylist()) + str(parquet.schema_arrow.metadata)
        found += [f"{file.relative_to(lake)}: {mark}" for mark in MARKS if mark in marked(text)]
    return found


def marked(text: str) -> str:
    """Lower case, without the address that only ends like Ann's."""
    return text.lower().replace("%40", "@").replace("joann.marked@example.org", "")


def rows(lake: Lake, feeds: set[str]) -> dict[str, list[str]]:
    """All rows of staging and marts as text, but those of figures over several persons; facts in words."""
    found = {}
    for name in feeds:
        table = staging_table(lake, FEEDS[name])
        found[f"staging/{name}"] = sorted(map(str, table.read().collect()))
    for origin in ORIGINS:
        for name in origin.all_tables if set(origin.all_feeds) <= feeds else ():
            if name not in ("fact_user_actions", "order_analysis"):
                found[name] = sorted(map(str, lake.mart(name).read().collect()))
    return {**found, "actions": lake.actions()} if "logs" in feeds else found


def warehouse_rows(url: str) -> dict[str, list[str]]:
    names = PostgresWarehouse(url, "analytics").published().keys() - set(RECORDED_TABLES)
    return {name: sorted(str(row) for row in query(url, f"SELECT * FROM {name}")) for name in names}


class KilledAt(WritePoints):
    """Dies before the n-th write of one kind."""

    def __init__(self, name: str, nth: int) -> None:
        super().__init__()
        self.name, self.nth = name, nth

    def __call__(self, name: str, write: Callable[[], Any]) -> Any:
        if not self.dead and [*self.names, name].count(self.name) == self.nth:
            self.die_at = len(self.names) + 1
        return super().__call__(name, write)


def test_a_table_without_history_reads_and_goes_on(spark: SparkSession, tmp_lake: str) -> None:
    lake = Lake(spark, tmp_lake)
    lake.stage_logs(1, f"{USER} | 2024-05-01 08:00:00 | login | phone | Rome")
    lake.stage_logs(2, "bob | 2024-05-02 08:00:00 | login | phone | Rome")
    table = lake.staged()
    theirs = persons_rows(table.read(), person([], [], [USER]))
    table.merge(theirs, SAME_KEY, lambda merge: merge.whenMatchedDelete())
    assert bytes_with_marks(Path(tmp_lake)) != []
    identity = table.table_id()
    begin_anew(table)
    remove_history(lake.run(), table)
    assert bytes_with_marks(Path(tmp_lake)) == []
    begin_anew(table)
    remove_history(lake.run(), table)
    assert [row.user_id for row in table.read().collect()] == ["bob"]
    assert table.table_id() == identity
    version = table.version()
    lake.stage_logs(3, "eve | 2024-05-03 08:00:00 | login | phone | Rome")
    changes, only_inserts = table.changes(version, table.version(), KEY)
    assert only_inserts
    assert [row.user_id for row in changes.collect()] == ["eve"]


def test_a_table_without_history_counts_its_rows_at_every_version(spark: SparkSession, tmp_lake: str) -> None:
    """delta-rs, which makes the newest version, writes a checkpoint of its own in every tenth."""
    lake = Lake(spark, tmp_lake)
    lake.stage_logs(1, "bob | 2024-05-02 08:00:00 | login | phone | Rome")
    table = lake.staged()
    while table.version() < 9:
        begin_anew(table)
    for version in (9, 10):
        assert table.version() == version
        remove_history(lake.run(), table)
        assert (table.few_count(), table.read().count()) == (1, 1)
        begin_anew(table)


@pytest.mark.parametrize(
    ("feeds", "killed"),
    [
        pytest.param({"users"}, False, id="users"),
        pytest.param({feed_of(n) for n in FILES}, True, id="all, killed", marks=pytest.mark.faults),
    ],
)
def test_nothing_is_left_of_the_person_and_nobody_else_changes(
    spark: SparkSession, tmp_lake: str, warehouse_url: str, feeds: set[str], killed: bool
) -> None:
    lake, folder = Lake(spark, tmp_lake, warehouse_url), Path(tmp_lake)
    warehouse = PostgresWarehouse(warehouse_url, "analytics")
    ann = person([EMAIL.upper()], [CUSTOMER], [USER])

    def erase_ann() -> tuple[list[Found], list[Trace]]:
        run = lake.run("erase")
        search = search_for(run, ann)
        return survey(run, search), erase(run, warehouse, search)

    deliver(folder, feeds)
    cache = LocationCache(lake)
    cache.table.ensure()
    run_all(lake.run(), warehouse, dict.fromkeys(feeds), 1.0)
    located = [(ip, Location("located", 1.0, 2.0), "x") for ip in ("203.0.113.77", "203.0.113.1")]
    cache.keep(located, lake.run().started_at, timedelta(days=1))
    before, published = rows(lake, feeds), warehouse_rows(warehouse_url)

    run = lake.run("erase")
    found = survey(run, search_for(run, ann))
    if killed:
        # When one table has lost its history and the others have not.
        with dying(KilledAt("vacuum", 2)), pytest.raises(Killed):
            erase_ann()
        assert bytes_with_marks(folder) != []

    assert erase_ann()[1] == []
    assert bytes_with_marks(folder) == []
    files = [name for name in sorted(FILES) if feed_of(name) in feeds]
    assert {f.where: f.records for f in found if f.where.startswith("raw/")} == {
        f"raw/{name}": RECORDS[name][0] for name in files if RECORDS[name][0]
    }
    # Everybody else's records, byte by byte.
    raw = folder / "raw"
    assert gzip.decompress((raw / "users/u.csv.gz").read_bytes()).decode() == "".join(
        line for line in USERS.splitlines(True) if "Annabella" not in line
    )
    if "logs" in feeds:
        assert json.loads((raw / "logs/array.json").read_bytes()) == [log("bob", 2)]
        assert not (raw / "logs/only-ann.jsonl").exists()
    # Every row that is not Ann's, in lake and warehouse, as it was.
    wanted = {name: [r for r in of if not any(m in marked(r) for m in MARKS)] for name, of in before.items()}
    if "logs" in feeds:
        wanted["actions"] = [row for row in before["actions"] if not row.startswith(USER)]
    after = rows(lake, feeds)
    assert after == wanted
    assert sum(map(len, before.values())) > sum(map(len, after.values()))
    assert {row.ip_address for row in cache.table.read().collect()} == {"203.0.113.1"}
    now = warehouse_rows(warehouse_url)
    for name in published.keys() - {"order_analysis", "fact_user_actions"}:
        assert now[name] == [r for r in published[name] if not any(m in marked(r) for m in MARKS)], name
    if "logs" in feeds:
        assert len(now["fact_user_actions"]) == len(after["actions"]) == 2
    # Of every file, records read = accepted + duplicates + rejected, as though she had not been there.
    counts = query(warehouse_url, "SELECT path, records_read, rejected FROM feed_files_view ORDER BY path")
    assert counts == [(f"raw/{name}", *RECORDS[name][1:]) for name in files]

    # Again: nothing is found, and a run finds nothing new.
    assert erase_ann() == ([], [])
    assert [r for r in run_all(lake.run(), warehouse, dict.fromkeys(feeds), 1.0) if r.entries] == []
    assert rows(lake, feeds) == wanted


@pytest.mark.parametrize("harm", [slice(-9, None), slice(12, 20)], ids=["cut off", "other bytes"])
def test_a_file_that_cannot_be_unpacked_is_told(spark: SparkSession, tmp_lake: str, harm: slice) -> None:
    run, content = Lake(spark, tmp_lake).run("erase"), bytearray(FILES["users/u.csv.gz"])
    content[harm] = b"\xff" * 8 if harm.stop else b""
    (Path(tmp_lake) / "raw/users").mkdir(parents=True)
    (Path(tmp_lake) / "raw/users/u.csv.gz").write_bytes(content)
    search = search_for(run, person([EMAIL], [], []))
    assert survey(run, search) == []
    [trace] = search.in_lake(run)
    assert (trace.where, trace.what[:18]) == ("raw/users/u.csv.gz", "cannot be searched")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("u.csv.GZ", FILES["users/u.csv.gz"]),
        ("u.csv.gz", gzip.compress(FILES["users/u.csv.gz"])),
        ("U.CSV.BZ2", bz2.compress(USERS.encode())),
        ("u.csv", USERS.encode("utf-16")),
        *((f"{form}.csv", content) for form, content in unread_forms(USERS).items()),
    ],
)
def test_a_file_in_a_form_that_is_not_read_is_told(
    spark: SparkSession, tmp_lake: str, name: str, content: bytes
) -> None:
    """Staging refuses it. Searched as it is, Ann is not found in it, though she is there."""
    run, file = Lake(spark, tmp_lake).run("erase"), Path(tmp_lake) / "raw/users" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    search = search_for(run, person([EMAIL], [], []))
    assert survey(run, search) == []
    [trace] = search.in_lake(run)
    assert (trace.where, trace.what[:18]) == (f"raw/users/{name}", "cannot be searched")


def test_a_correction_that_comes_meanwhile_stays_and_is_a_delivery_of_its_own(
    spark: SparkSession, tmp_lake: str, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, warehouse = Lake(spark, tmp_lake, warehouse_url), PostgresWarehouse(warehouse_url, "analytics")
    deliver(Path(tmp_lake), {"orders"})
    stage(lake.run(), FEEDS["orders"])
    raw, archived = (Path(tmp_lake) / zone / "orders/a.csv" for zone in ("raw", "archive"))
    correction = ORDERS.replace("Lamp,1", "Lamp,5").replace("o2,42,Lamp,2", "o2,42,Lamp,9")

    def erase_ann() -> list[Trace]:
        run = lake.run("erase")
        return erase(run, warehouse, search_for(run, person([], [CUSTOMER], [])))

    def corrected_meanwhile(*arguments: Any) -> None:
        note_rewriting(*arguments)
        raw.write_text(correction)

    for place in (raw, archived):
        if place == archived:
            # The correction takes the place to which the archived file was to come back.
            archived.parent.mkdir(parents=True)
            raw.rename(archived)
        there = place.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("jobs.erase_person.note_rewriting", corrected_meanwhile)
            with pytest.raises(UserAnalyticsError, match=r"raw/orders/a\.csv was delivered anew meanwhile"):
                erase_ann()
        assert raw.read_text() == correction
        assert place == raw or place.read_bytes() == there
    # The archived file is rewritten where it is, and the correction without Ann is still one when it is staged.
    assert erase_ann() == []
    stage(lake.run(), FEEDS["orders"])
    header, _, bobs = correction.splitlines()
    assert raw.read_text().splitlines() == archived.read_text().splitlines() == [header, bobs]
    rows = staging_table(lake, FEEDS["orders"]).read().collect()
    assert [(row.order_id, row.quantity) for row in rows] == [("o2", 9)]


def test_an_erasure_that_slept_until_another_run_had_its_lock_removes_nobody_elses_file(
    spark: SparkSession, tmp_lake: str, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archived file that it had brought back was archived again; it removed that one."""
    lake, warehouse = Lake(spark, tmp_lake, warehouse_url), PostgresWarehouse(warehouse_url, "analytics")
    deliver(Path(tmp_lake), {"orders"})
    stage(lake.run(), FEEDS["orders"])
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    archive(lake.run(), "orders", tomorrow)
    run = lake.run("erase")
    run.locks.beat_seconds = run.locks.expiry_seconds = 1000.0
    put = LocalStore.put

    def sleep(store: LocalStore, *arguments: Any) -> None:
        put(store, *arguments)
        monkeypatch.undo()
        taken_over(store, "staging/orders")
        stage(lake.run(), FEEDS["orders"])
        archive(lake.run(), "orders", tomorrow)
        # What it does first when it goes on.
        run.locks.beat()

    monkeypatch.setattr(LocalStore, "put", sleep)
    with pytest.raises(LockLost):
        erase(run, warehouse, search_for(run, person([], [CUSTOMER], [])))
    [file] = Path(tmp_lake).rglob("a.csv")
    header, _, bobs = ORDERS.splitlines()
    assert file.read_text().splitlines() == [header, bobs]


def test_what_was_not_staged_yet_is_delivered_when_it_was(
    spark: SparkSession, tmp_lake: str, warehouse_url: str
) -> None:
    """A file that is written anew does not become a later delivery, nor one that has its name later an earlier one."""
    lake, warehouse = Lake(spark, tmp_lake, warehouse_url), PostgresWarehouse(warehouse_url, "analytics")
    header, ann, _ = ORDERS.splitlines()

    def put(name: str, day: int, *orders: str) -> None:
        path = Path(tmp_lake) / "raw/orders" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *orders]))
        os.utime(path, (1_704_067_200 + day * DAY,) * 2)

    def quantities() -> dict[str, int]:
        stage(lake.run(), FEEDS["orders"])
        rows = staging_table(lake, FEEDS["orders"]).read().collect()
        return {row.order_id: row.quantity for row in rows}

    def bobs(order: str, quantity: int) -> str:
        return f"{order},42,Lamp,{quantity},9.50,2024-01-03"

    put("corrected.csv", 1, bobs("o3", 1))
    put("only-ann.csv", 1, ann)
    assert quantities() == {"o1": 1, "o3": 1}
    put("corrected.csv", 2, ann, bobs("o3", 2))
    put("new.csv", 3, ann, bobs("o2", 3))
    put("later.csv", 4, bobs("o2", 4), bobs("o3", 4))
    run = lake.run("erase")
    assert erase(run, warehouse, search_for(run, person([], [CUSTOMER], []))) == []
    # Staging has what it had, without Ann.
    assert [row.quantity for row in staging_table(lake, FEEDS["orders"]).read().collect()] == [1]
    assert quantities() == {"o2": 4, "o3": 4}
    put("only-ann.csv", 5, bobs("o2", 5))
    assert quantities() == {"o2": 5, "o3": 4}


def test_a_staging_that_begins_meanwhile_waits_for_the_counts(
    spark: SparkSession, tmp_lake: str, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both noted a reading of one number, and no run could be published any more."""
    lake, warehouse = Lake(spark, tmp_lake, warehouse_url), PostgresWarehouse(warehouse_url, "analytics")
    deliver(Path(tmp_lake), {"customers"})
    stage(lake.run(), FEEDS["customers"])
    folder = Path(tmp_lake) / "raw/customers"
    (folder / "c.csv").unlink()
    (folder / "later.csv").write_text(
        CUSTOMERS.splitlines()[0] + "\n42,Bob Stone,bob@example.org,41,Lima,2020-01-01\n"
    )
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "0")
    ends: list[int] = []

    def staged_meanwhile(history: Iterable[LedgerEntry]) -> int:
        ends.append(main(["stage", "customers"]))
        return next_batch(history)

    monkeypatch.setattr("jobs.erase_person.next_batch", staged_meanwhile)
    run = lake.run("erase")
    assert erase(run, warehouse, search_for(run, person([EMAIL], [], []))) == []
    assert ends == [1], "it would have had to wait"
    stage(lake.run(), FEEDS["customers"])
    entries = Ledger(lake).history("customers")
    assert [(e.path, e.batch, e.records_read, e.accepted, e.duplicates) for e in entries] == [
        ("raw/customers/c.csv", 1, 2, 2, 0),
        ("raw/customers/c.csv", 2, 1, 1, 0),
        ("raw/customers/later.csv", 3, 1, 1, 0),
        ("raw/customers/c.csv", 3, 1, 0, 1),
    ]


def test_what_json_escapes_is_found_in_raw_files_staging_and_quarantine(
    spark: SparkSession, tmp_lake: str, warehouse_url: str
) -> None:
    lake, warehouse = Lake(spark, tmp_lake, warehouse_url), PostgresWarehouse(warehouse_url, "analytics")
    bob = log("bob", 1)
    theirs = [
        log("jürgen", 2),
        log("google/123", 3),
        {**log("x", 4), "contact": {"mail": "jürgen@example.org"}},
        {**log("jürgen", 5), "timestamp": "yesterday"},
    ]
    texts = [json.dumps(record).replace("/", r"\/") for record in theirs]
    assert "jürgen" not in "".join(texts)
    folder = Path(tmp_lake) / "raw/logs"
    folder.mkdir(parents=True)
    # Of a file that is no longer there, staging and quarantine have the records.
    for name in ("gone.jsonl", "there.jsonl"):
        records = [text.replace("2024-03-01", f"2024-03-0{len(name) - 8}") for text in texts]
        (folder / name).write_text("".join(f"{text}\n" for text in [*records, json.dumps(bob)]))
    run_all(lake.run(), warehouse, {"logs": None}, 1.0)
    (folder / "gone.jsonl").unlink()
    run = lake.run("erase")
    search = search_for(run, person(["jürgen@example.org"], [], ["jürgen", "google/123"]))
    assert [found.records for found in survey(run, search)][:3] == [4, 2, 6]
    assert list(search.in_lake(run, "staging/logs")) != []
    assert erase(run, warehouse, search) == []
    assert (folder / "there.jsonl").read_text() == f"{json.dumps(bob)}\n"
    assert [row.user_id for row in staging_table(lake, FEEDS["logs"]).read().collect()] == ["bob"]
    assert query(warehouse_url, "SELECT user_id FROM dim_users") == [("bob",)]


@pytest.mark.faults
def test_nothing_is_left_in_an_object_store(minio: ObjectStore, warehouse_url: str, tmp_path: Path) -> None:
    deliver(tmp_path, {"users", "logs"})
    bucket = minio.make_bucket()

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            **minio.environment(),
            "LAKE_URI": f"s3a://{bucket}/lake",
            "WAREHOUSE_URL": warehouse_url,
            "LOG_FOLDER": str(tmp_path / "logs"),
        }
        start = (sys.executable, "-m", "jobs")
        return subprocess.run(
            [*start, *arguments], env=environment, capture_output=True, text=True, timeout=600
        )

    def copied(name: str) -> Path:
        for found in minio.client().get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in found["Contents"]:
                path = tmp_path / name / item["Key"]
                path.parent.mkdir(parents=True, exist_ok=True)
                minio.client().download_file(bucket, item["Key"], str(path))
        return tmp_path / name

    raw = str(tmp_path / "raw")
    ran = command("run", "--data", raw, "--feeds", "users,logs", "--max-rejected", "1")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert bytes_with_marks(copied("before")) != []
    erased = command("erase", "--email", EMAIL, "--user-id", USER, "--yes")
    assert erased.returncode == 0, erased.stderr[-3000:]
    assert bytes_with_marks(copied("after")) == []
    assert query(warehouse_url, "SELECT email FROM users ORDER BY 1") == [
        ("bob@example.org",),
        ("joann.marked@example.org",),
    ]
