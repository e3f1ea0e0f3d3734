"""A person is erased from every zone of the lake and from the warehouse; nothing of anybody else changes."""

from __future__ import annotations

import gzip
import io
import os
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs.erase_person import Found, erase, search_for, survey
from jobs.erasure.person import person
from jobs.erasure.tables import begin_anew, persons_rows, remove_history
from jobs.erasure.traces import Trace
from jobs.feeds import FEEDS
from jobs.geolocation.base import Location
from jobs.geolocation.cache import LocationCache
from jobs.lake.staging import SAME_KEY, staging_table
from jobs.run_all import run_all
from jobs.runs import RECORDED_TABLES
from jobs.transforms.keys import KEY
from jobs.warehouse.postgres import PostgresWarehouse
from tests.lakes import Lake
from tests.warehouses import query

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


def deliver(lake: Path) -> None:
    path = lake / "raw" / "users" / "u.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(USERS.encode(), mtime=0))
    os.utime(path, (1_704_067_200,) * 2)


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


def rows(lake: Lake) -> dict[str, list[str]]:
    """All rows of staging and marts as text."""
    tables = {name: lake.mart(name) for name in ("users", "users_history")}
    tables["staging/users"] = staging_table(lake.spark, lake.settings, FEEDS["users"])
    return {name: sorted(map(str, table.read().collect())) for name, table in tables.items()}


def warehouse_rows(url: str) -> dict[str, list[str]]:
    names = PostgresWarehouse(url, "analytics").published().keys() - set(RECORDED_TABLES)
    return {name: sorted(str(row) for row in query(url, f"SELECT * FROM {name}")) for name in names}


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


def test_nothing_is_left_of_the_person_and_nobody_else_changes(
    spark: SparkSession, tmp_lake: str, warehouse_url: str
) -> None:
    lake, folder = Lake(spark, tmp_lake, warehouse_url), Path(tmp_lake)
    warehouse = PostgresWarehouse(warehouse_url, "analytics")
    ann = person([EMAIL.upper()], [CUSTOMER], [USER])

    def erase_ann() -> tuple[list[Found], list[Trace]]:
        run = lake.run("erase")
        search = search_for(run, ann)
        return survey(run, search), erase(run, warehouse, search)

    deliver(folder)
    cache = LocationCache(spark, lake.settings)
    cache.table.ensure()
    run_all(lake.run(), warehouse, {"users": None}, 1.0)
    located = [(ip, Location("located", 1.0, 2.0), "x") for ip in ("203.0.113.77", "203.0.113.1")]
    cache.keep(located, lake.run().started_at, timedelta(days=1))
    before, published = rows(lake), warehouse_rows(warehouse_url)

    found, left = erase_ann()
    assert left == []
    assert bytes_with_marks(folder) == []
    assert {f.where: f.records for f in found if f.where.startswith("raw/")} == {"raw/users/u.csv.gz": 3}
    # Everybody else's records, byte by byte.
    assert gzip.decompress((folder / "raw/users/u.csv.gz").read_bytes()).decode() == "".join(
        line for line in USERS.splitlines(True) if "Annabella" not in line
    )
    # Every row that is not Ann's, in lake and warehouse, as it was.
    wanted = {name: [r for r in of if not any(m in marked(r) for m in MARKS)] for name, of in before.items()}
    after = rows(lake)
    assert after == wanted
    assert sum(map(len, before.values())) > sum(map(len, after.values()))
    assert {row.ip_address for row in cache.table.read().collect()} == {"203.0.113.1"}
    now = warehouse_rows(warehouse_url)
    for name in published:
        assert now[name] == [r for r in published[name] if not any(m in marked(r) for m in MARKS)], name
    # Of every file, records read = accepted + duplicates + rejected, as though she had not been there.
    files = query(warehouse_url, "SELECT path, records_read, rejected FROM feed_files_view ORDER BY path")
    assert files == [("raw/users/u.csv.gz", 2, 0)]

    # Again: nothing is found, and a run finds nothing new.
    assert erase_ann() == ([], [])
    assert [r for r in run_all(lake.run(), warehouse, {"users": None}, 1.0) if r.entries] == []
    assert rows(lake) == wanted
