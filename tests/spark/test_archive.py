"""Raw files in the archive: staged rows stay, nothing is read again, and what is brought back ends as it was."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.lake.archive import archive, restore
from tests.records import event, json_lines
from tests.staging import RawZone

pytestmark = pytest.mark.spark

# Of January 2024; files are of the days 1 to 3.
DAY_3 = datetime(2024, 1, 3, 12, tzinfo=UTC)


def test_files_go_and_come_back(spark: SparkSession, tmp_lake: str) -> None:
    zone, lake = RawZone(spark, tmp_lake, "logs"), Path(tmp_lake)
    zone.put({"a.jsonl": json_lines(event("ann"), event("bob"))}, 0)
    zone.put({"sub/b.jsonl": json_lines(event("ann"), event("cid"))}, 1)
    zone.put({"young.jsonl": json_lines(event("dan"))}, 5)
    zone.stage()
    rows, counts = zone.rows(), zone.counts()
    zone.put({"new.jsonl": json_lines(event("eve"))}, 1)

    def below(folder: str) -> list[str]:
        return sorted(p.relative_to(lake / folder).as_posix() for p in (lake / folder).rglob("*.jsonl"))

    assert len(archive(zone.run(), "logs", DAY_3, write=False)) == 2
    assert below("archive") == []
    # Neither what is young nor what was not staged yet; again, nothing more.
    for found in (2, 0):
        assert len(archive(zone.run(), "logs", DAY_3)) == found
        assert below("archive") == ["logs/a.jsonl", "logs/sub/b.jsonl"]
        assert below("raw") == ["logs/new.jsonl", "logs/young.jsonl"]
    zone.folder.joinpath("new.jsonl").unlink()
    assert zone.stage().entries == ()
    assert (zone.rows(), zone.counts()) == (rows, counts)

    # A correction of a file beside which b, with its duplicate, has to be read.
    zone.put({"a.jsonl": json_lines(event("bob"))}, 6)
    with pytest.raises(UserAnalyticsError, match=r"1 are archived.*--restore raw/logs/sub/b\.jsonl"):
        zone.stage()
    with pytest.raises(ConfigurationError, match="other content"):
        restore(zone.run(), ["archive/logs/a.jsonl"])
    for path in ("archive/logs/none.jsonl", "archive/../raw/x", "elsewhere"):
        with pytest.raises(ConfigurationError):
            restore(zone.run(), [path])
    zone.folder.joinpath("a.jsonl").unlink()

    restore(zone.run(), ["archive/logs/sub/b.jsonl", "raw/logs/a.jsonl"])
    assert below("archive") == []
    assert {entry.path for entry in zone.stage().entries} == {"raw/logs/a.jsonl", "raw/logs/sub/b.jsonl"}
    assert (zone.rows(), zone.counts()) == (rows, counts)
    assert zone.ledger()["a.jsonl"].modified_at == datetime(2024, 1, 1, tzinfo=UTC)
    assert zone.stage().entries == ()
