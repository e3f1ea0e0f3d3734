"""The commands of operations on one lake and warehouse: status, plan, quarantine, reset, backfill."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs import show_status
from jobs.cli import main
from jobs.feeds.logs import LOGS
from jobs.lake.staging import stage
from jobs.lake.tables import LakeTable
from tests.lakes import Lake
from tests.records import event, json_lines, purchase, purchases
from tests.staging import RawZone
from tests.warehouses import query

pytestmark = [pytest.mark.spark, pytest.mark.integration]

Ask = Callable[..., Any]
BAD_TIME = event("late", timestamp="2024-02-30T10:00:00")


@pytest.fixture
def logs(spark: SparkSession, tmp_lake: str, warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> RawZone:
    """The raw zone of logs in a lake that the commands use."""
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    monkeypatch.setenv("WAREHOUSE_URL", warehouse_url)
    return RawZone(spark, tmp_lake, "logs")


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command that has to end with 0, or with `code`, and give its JSON."""

    def run(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*arguments, "--json"]) == code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


def test_status_plan_and_quarantine(
    logs: RawZone,
    spark: SparkSession,
    tmp_path: Path,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # An empty lake.
    empty = ask("status")
    assert {row["state"] for row in (*empty["feeds"], *empty["marts"])} == {"never"}
    assert (empty["runs"], empty["rejected"], empty["refused_files"]) == ([], [], [])
    assert ask("plan")["files"] == []
    assert ask("quarantine")["records"] == 0

    shop = RawZone(spark, str(logs.folder.parents[1]), "purchases")
    good = json_lines(event("ann"), event("bob"), BAD_TIME)
    logs.put({"1.jsonl": good, "broken.json": "["})
    shop.put({"may.csv": purchases(purchase())})
    planned = ask("plan")
    assert planned["files"] == [
        {"feed": "logs", "path": "raw/logs/1.jsonl", "bytes": len(good), "why": "new"},
        {"feed": "logs", "path": "raw/logs/broken.json", "bytes": 1, "why": "new"},
        {
            "feed": "purchases",
            "path": "raw/purchases/may.csv",
            "bytes": (shop.folder / "may.csv").stat().st_size,
            "why": "new",
        },
    ]
    first = {b["tables"][0]: (b["what"], b["after_staging"]) for b in planned["builds"]}
    assert first["fact_user_actions"] == ("first build", True)
    assert first["users_history"] == ("nothing staged yet", False)
    assert planned["tables"] == []
    assert not (Path(logs.settings.lake_uri) / "staging").exists(), "a plan writes nothing"

    assert main(["run", "--feeds", "logs,purchases", "--max-rejected", "1"]) == 3
    found = ask("status")
    assert [(run["command"], run["outcome"]) for run in found["runs"]] == [("run", "refused")]
    feeds = {feed.pop("feed"): feed for feed in found["feeds"]}
    assert feeds["logs"]["last_new"] is not None
    assert {name: (f["state"], f["files"], f["accepted"], f["rejected"]) for name, f in feeds.items()} == {
        **dict.fromkeys(feeds, ("never", 0, 0, 0)),
        "logs": ("fresh", 1, 2, 1),
        "purchases": ("fresh", 1, 1, 0),
    }
    marts = {mart["tables"][0]: (mart["state"], mart["versions_waiting"]) for mart in found["marts"]}
    assert marts["fact_user_actions"] == marts["user_purchase"] == ("fresh", 0)
    assert marts["events"] == ("never", None)
    assert found["rejected"] == [{"feed": "logs", "reason": "timestamp_invalid", "records": 1, "files": 1}]
    assert [file["path"] for file in found["refused_files"]] == ["raw/logs/broken.json"]
    assert found["locks"] == []
    with logs.run().locks.hold("staging/logs"):
        (lock,) = ask("status")["locks"]
    assert (lock["table"], lock["command"], lock["pid"]) == ("staging/logs", "stage logs", os.getpid())
    # The same as text, for a feed that should have come again by now.
    monkeypatch.setitem(show_status.FEEDS, "logs", replace(LOGS, expected_every=timedelta(0)))
    capsys.readouterr()
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "logs       late" in printed
    assert "raw/logs/broken.json: not one complete JSON array" in printed

    # All is built and published; a staged correction waits for both.
    planned = ask("plan")
    assert [(f["path"], f["why"]) for f in planned["files"]] == [("raw/logs/broken.json", "refused before")]
    assert {b["what"] for b in planned["builds"]} == {"up to date", "nothing staged yet"}
    assert planned["tables"] == []
    shop.put({"may.csv": purchases(purchase(), purchase(StockCode="LAMP"))}, day=2)
    assert ask("plan")["files"][1]["why"] == "replaced"
    # A refused file that was taken away is nothing to do any more.
    (logs.folder / "broken.json").unlink()
    assert ask("status")["refused_files"] == []
    shop.stage()
    builds = {b["tables"][0]: b for b in ask("plan")["builds"]}
    assert builds["user_purchase"]["what"] == "1 versions of purchases"
    assert main(["build-purchases"]) == 0
    capsys.readouterr()
    assert main(["plan"]) == 0
    assert " ".join(capsys.readouterr().out.split()).endswith(
        "etl_files merge 1 0 0 etl_runs merge 1 0 0 etl_steps merge 1 0 0 user_purchase merge 1 0 0"
    )

    # Rejected records: counted, shown, exported.
    found = ask("quarantine", "--feed", "logs", "--reason", "timestamp_invalid", "--sample", "2")
    assert found["records"] == 1
    assert found["by_reason"] == [{"feed": "logs", "reason": "timestamp_invalid", "records": 1, "files": 1}]
    assert found["by_file"] == [{"feed": "logs", "path": "raw/logs/1.jsonl", "records": 1}]
    (record,) = found["sample"]
    assert json.loads(record["record"]) == BAD_TIME
    assert main(["quarantine", "--reason", "timestamp_wrong"]) == 0
    assert "rejected for timestamp_wrong; the reasons are: timestamp_invalid\n" in capsys.readouterr().err
    for pattern, number in {"raw/logs/?.jsonl": 1, "raw/logs/%.jsonl": 0, "*": 1}.items():
        assert ask("quarantine", "--file", pattern)["records"] == number
    for name in ("out.csv", "out.jsonl"):
        assert ask("quarantine", "--export", str(tmp_path / name))["exported"] == 1
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    lines = json.loads((tmp_path / "out.jsonl").read_text())
    (row,) = csv.DictReader((tmp_path / "out.csv").open(newline=""))
    assert row == {**lines, "reasons": "timestamp_invalid"}
    assert json.loads(row["record"]) == BAD_TIME
    capsys.readouterr()
    assert main(["quarantine", "--sample", "1"]) == 0
    assert f"raw/logs/1.jsonl: timestamp_invalid\n  {json.dumps(BAD_TIME)}" in capsys.readouterr().out
    assert main(["quarantine", "--export", str(tmp_path / "none" / "out.csv")]) == 2


def test_reset_and_backfill(
    logs: RawZone,
    spark: SparkSession,
    warehouse_url: str,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lake = Lake(spark, logs.settings.lake_uri, warehouse_url)
    logs.put(
        {
            "2024-03-01.jsonl": json_lines(event("ann"), BAD_TIME),
            "2024-03-02.jsonl": json_lines(event("ann"), event("bob"), event("carl")),
        }
    )
    run = ["run", "--feeds", "logs", "--max-rejected", "1"]
    assert main(run) == 0

    def state() -> tuple[object, ...]:
        facts = query(warehouse_url, "SELECT * FROM fact_user_actions ORDER BY 1")
        return lake.star(), logs.rows(), logs.rejected(), logs.counts(), facts

    before = state()

    # Nobody to ask, and an answer that is no: nothing is changed.
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    assert main(["reset", "logs"]) == 2
    assert (
        "forgets what was staged of logs; the next run reads all files of raw/logs again. Nobody can be asked"
        in (capsys.readouterr().err)
    )
    theirs, ours = os.openpty()
    with os.fdopen(ours) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        os.write(theirs, b"n\n")
        assert main(["reset", "fact_user_actions"]) == 1
        assert "nothing was changed" in capsys.readouterr().err
        assert state() == before
        os.write(theirs, b"y\n")
        assert main(["reset", "fact_user_actions"]) == 0
    os.close(theirs)
    # The star schema goes as a whole, and comes back as it was.
    assert not any(lake.mart(name).exists() for name in before[0])  # type: ignore[attr-defined]
    assert main(["build-star-schema"]) == 0
    assert lake.star() == before[0]

    # A reset that dies before its last step, too, makes the next run read all files.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LakeTable, "remove", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["reset", "logs", "--yes"]) == 130
    assert {entry.status for entry in logs.ledger().values()} == {"forgotten"}
    assert logs.rejected() == []
    assert ask("reset", "staging/logs", "--yes") == {
        "target": "staging/logs",
        "files_forgotten": 0,
        "tables_removed": [],
        "files_lost": [],
    }
    assert lake.staged().few_count() == 0
    assert main(run) == 0
    assert state() == before

    # Days are in doubt: somebody changed staging by hand. Their file is read again, and all follows.
    staged = lake.staged().uri
    spark.sql(f"DELETE FROM delta.`{staged}` WHERE user_id = 'bob'")
    spark.sql(f"UPDATE delta.`{staged}` SET device = 'wrong' WHERE user_id = 'carl'")
    assert ask("backfill", "--from", "2024-04-01", "--to", "2024-04-30")["feeds"] == []
    answer = ask("backfill", "--from", "2024-03-02", "--to", "2024-03-02", "--max-rejected", "1")
    (feed,) = answer["feeds"]
    assert feed["feed"] == "logs"
    assert "raw/logs/2024-03-02.jsonl" in feed["files"]
    assert state() == before

    # What is in the archive only is named; not so the older version of what was read.
    archived = Path(logs.settings.lake_uri) / "archive" / "logs"
    archived.mkdir(parents=True)
    for name in ("2024-03-02.jsonl", "2024-03-02-b.jsonl"):
        (archived / name).write_text(json_lines(event("ann")))
    capsys.readouterr()
    days = ["--from", "2024-03-02", "--to", "2024-03-02"]
    assert main(["backfill", *days, "--feeds", "logs", "--max-rejected", "1"]) == 0
    assert "archived and not read: archive/logs/2024-03-02-b.jsonl; " in capsys.readouterr().err
    shutil.rmtree(archived)

    # Without its file, what a feed brought would be lost: that is said, and stays out.
    (logs.folder / "2024-03-02.jsonl").unlink()
    assert ask("reset", "logs", "--yes")["files_lost"] == ["raw/logs/2024-03-02.jsonl"]
    stage(lake.run(), LOGS, max_rejected_share=1.0)
    assert [user for (user,) in logs.rows("user_id")] == ["ann"]

    assert main(["backfill", "--from", "2024-03-02", "--to", "2024-03-01"]) == 2
    assert "--from 2024-03-02 is after --to 2024-03-01" in capsys.readouterr().err
