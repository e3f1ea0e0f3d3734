"""How the history of a table goes that a person was erased from."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs.erasure.person import person
from jobs.erasure.tables import begin_anew, persons_rows, remove_history
from jobs.lake.staging import SAME_KEY
from jobs.transforms.keys import KEY
from tests.lakes import Lake

pytestmark = [pytest.mark.spark, pytest.mark.integration]

# What names Ann, and what only her records say.
EMAIL, CUSTOMER, USER = "ann.marked@example.org", "7700123", "u-ann-77"
MARKS = (EMAIL, CUSTOMER, USER, "annabella", "203.0.113.77")


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
