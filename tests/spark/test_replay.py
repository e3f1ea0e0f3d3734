"""Files with rejected records, read again when rules or mappings were mended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs import replay_feed
from jobs.cli import main
from jobs.feeds.logs import LOGS
from jobs.feeds.mapping import load_mapping
from tests.records import event, json_lines
from tests.staging import RawZone, balanced

pytestmark = pytest.mark.spark

BAD_TIME = event("late", timestamp="2024-02-30T10:00:00")


def named(column: str, user: str) -> dict[str, object]:
    """A record in which the user is called something else."""
    record = event(user)
    record[column] = record.pop("user_id")
    return record


@pytest.fixture
def zone(spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch) -> RawZone:
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    return RawZone(spark, tmp_lake, "logs")


def mapping(folder: Path, **entries: str) -> Path:
    file = folder / f"{'-'.join(entries)}.json"
    file.write_text(json.dumps(entries))
    return file


def users(zone: RawZone) -> list[str]:
    return [user for (user,) in zone.rows("user_id")]


def test_what_a_mapping_mends_moves_to_staging_and_the_rest_stays(
    zone: RawZone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zone.put({"a.jsonl": json_lines(event("x"), named("actor", "y"), BAD_TIME)})
    zone.stage()
    # Another file was staged by a mapping of its own. One of its records is a duplicate, so it is read again beside a.
    who = load_mapping(LOGS, mapping(tmp_path, who="user_id"))
    zone.put({"b.jsonl": json_lines(named("who", "x"), named("who", "z"))})
    zone.stage(who)
    zone.put({"new.jsonl": json_lines(event("new"))})
    assert zone.counts() == {"a.jsonl": (3, 1, 0, 2), "b.jsonl": (2, 1, 1, 0)}

    actor = str(mapping(tmp_path, actor="user_id"))
    assert main(["replay", "logs", "--mapping", actor, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "feed": "logs",
        "rejected_before": {"raw/logs/a.jsonl": 2},
        "rejected_now": {"raw/logs/a.jsonl": 1},
        "missing_files": {},
        "refused_files": {},
    }
    after = (["x", "y", "z"], {"a.jsonl": (3, 2, 0, 1), "b.jsonl": (2, 1, 1, 0)}, {"timestamp_invalid": 1})
    assert (users(zone), zone.counts(), zone.reasons()) == after

    # Again, without the mapping: a file keeps the one of its last reading. A new file waits for `stage`.
    assert main(["replay", "logs"]) == 0
    assert "raw/logs/a.jsonl       1    1" in capsys.readouterr().out
    assert (users(zone), zone.counts(), zone.reasons()) == after
    # So it does when another file is corrected, beside which it has to be read.
    zone.put({"a.jsonl": json_lines(event("v"))}, day=2)
    zone.stage()
    assert users(zone) == ["new", "v", "x", "z"]
    assert all(map(balanced, zone.ledger().values()))
    # And when all that was staged was forgotten.
    assert main(["reset", "logs", "--yes"]) == 0
    assert main(["stage", "logs"]) == 0
    assert users(zone) == ["new", "v", "x", "z"]


def test_a_mended_rule_a_worse_mapping_and_a_file_that_is_gone(
    zone: RawZone, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = event("long", action_type="a" * 120)
    zone.put({"a.jsonl": json_lines(event("x"), long), "b.jsonl": json_lines(event("y"), BAD_TIME)})
    zone.stage()
    before = (users(zone), zone.counts(), zone.rejected())

    # A mapping that makes it worse stops before anything is written.
    wrong = str(mapping(tmp_path, device_id="user_id", user_id="device"))
    assert main(["replay", "logs", "--mapping", wrong]) == 3
    assert "4 of 4 records would be rejected (100.0%), more than the allowed 50%" in capsys.readouterr().err
    assert (users(zone), zone.counts(), zone.rejected()) == before

    # The rule is mended: only files with that reason are read.
    fields = tuple(replace(f, max_length=200) if f.name == "action_type" else f for f in LOGS.fields)
    monkeypatch.setitem(replay_feed.FEEDS, "logs", replace(LOGS, fields=fields))
    batch = zone.ledger()["b.jsonl"].batch
    assert main(["replay", "logs", "--file", "raw/logs/c*"]) == 0
    assert "no file to read again" in capsys.readouterr().out
    assert main(["replay", "logs", "--reason", "action_type_too_long"]) == 0
    assert users(zone) == ["long", "x", "y"]
    assert zone.counts() == {"a.jsonl": (2, 2, 0, 0), "b.jsonl": (2, 1, 0, 1)}
    assert zone.ledger()["b.jsonl"].batch == batch
    assert main(["replay", "logs", "--reason", "action_type_too_long"]) == 0
    printed, said = capsys.readouterr()
    assert "no file to read again" in printed
    assert "no record was rejected for action_type_too_long; the reasons are: timestamp_invalid\n" in said

    # Without its file a rejected record stays, and what was accepted, too.
    (zone.folder / "b.jsonl").unlink()
    assert main(["replay", "logs"]) == 1
    assert (
        "no longer in the lake, so that their rejected records stay in quarantine: raw/logs/b.jsonl (1 records)"
        in (capsys.readouterr().err)
    )
    assert (users(zone), zone.reasons()) == (["long", "x", "y"], {"timestamp_invalid": 1})
