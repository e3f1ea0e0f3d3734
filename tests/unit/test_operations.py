"""What the operations commands decide without data: days of files, freshness, names, origins of marts."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from jobs.backfill import days_of, files_between
from jobs.cli import COMMANDS
from jobs.feeds import FEEDS
from jobs.feeds.logs import LOGS
from jobs.feeds.mapping import declared_sources, mapped_sources, mapping_text
from jobs.lake.ledger import FORGOTTEN, REFUSED, STAGED, LedgerEntry, files_to_read
from jobs.lake.objects import RawFile
from jobs.origins import ORIGINS
from jobs.plan_run import why_read
from jobs.reset_tables import main as reset_main
from jobs.reset_tables import target
from jobs.run_all import MARTS
from jobs.runs import RECORDED_TABLES
from jobs.show_status import feed_status, freshness
from jobs.warehouse.declarations import tables

NOW = datetime(2024, 5, 10, 12, tzinfo=UTC)
A_DAY = timedelta(days=1)


def file(path: str, version: str = "1") -> RawFile:
    return RawFile(path, 1, datetime(2024, 5, 9, 23, 59, tzinfo=UTC), version)


def read(path: str, at: datetime = NOW, status: str = STAGED, **fields: int) -> LedgerEntry:
    counts = {"batch": 1, "records_read": 5, "accepted": 4, "duplicates": 0, "rejected": 1, **fields}
    return LedgerEntry(
        *("logs", path, "1", 7, 1, NOW),
        counts["batch"],
        status,
        None,
        *(counts[name] for name in ("records_read", "accepted", "duplicates", "rejected")),
        *([], "run", at),
    )


@pytest.mark.parametrize(
    ("path", "first", "last"),
    [
        ("raw/logs/2024-03-01.jsonl", date(2024, 3, 1), date(2024, 3, 1)),
        ("raw/logs/export_20240301T0800.jsonl", date(2024, 3, 1), date(2024, 3, 1)),
        ("raw/logs/2024/03/01/part-0.jsonl", date(2024, 3, 1), date(2024, 3, 1)),
        ("raw/logs/year=2024/month=03/day=01/part-0.jsonl", date(2024, 3, 1), date(2024, 3, 1)),
        # Delivered on one day for another: the name of the file says more than that of the folder.
        ("raw/logs/2024-03-05/of-2024-03-01.jsonl", date(2024, 3, 1), date(2024, 3, 1)),
        ("raw/orders/2024-02.csv", date(2024, 2, 1), date(2024, 2, 29)),
        ("raw/orders/year=2024/month=02/a.csv", date(2024, 2, 1), date(2024, 2, 29)),
        # No dates: a day that there is not, and digits within longer numbers.
        ("raw/logs/2024-02-30.jsonl", date(2024, 2, 1), date(2024, 2, 29)),
        ("raw/logs/id-120240301.jsonl", date(2024, 5, 9), date(2024, 5, 9)),
        ("raw/logs/a.jsonl", date(2024, 5, 9), date(2024, 5, 9)),
    ],
)
def test_the_days_of_a_file(path: str, first: date, last: date) -> None:
    assert days_of(file(path)) == (first, last)


def test_a_range_has_both_its_ends() -> None:
    files = [file(f"raw/logs/2024-03-0{n}.jsonl") for n in range(1, 6)] + [file("raw/logs/2024-03.jsonl")]
    chosen = files_between(files, date(2024, 3, 2), date(2024, 3, 3))
    assert [f.path for f in chosen] == [
        "raw/logs/2024-03-02.jsonl",
        "raw/logs/2024-03-03.jsonl",
        "raw/logs/2024-03.jsonl",
    ]


def test_what_is_read_again_leaves_new_files_and_takes_those_with_duplicates() -> None:
    history = [read("raw/logs/a"), read("raw/logs/b", duplicates=1, accepted=3), read("raw/logs/c")]
    listed = [file(f"raw/logs/{name}") for name in "abcn"]
    assert [f.path for f in files_to_read(listed, history, ["raw/logs/a"])] == ["raw/logs/a", "raw/logs/b"]
    # A file that is read for the first time takes nothing away.
    assert [f.path for f in files_to_read(listed, history, ["raw/logs/n"])] == ["raw/logs/n"]
    assert files_to_read(listed, history, []) == []
    # What was forgotten is new.
    forgotten = [*history, read("raw/logs/c", status=FORGOTTEN, batch=2)]
    assert [f.path for f in files_to_read(listed[:3], forgotten)] == ["raw/logs/b", "raw/logs/c"]
    assert [
        why_read(file("raw/logs/a", version), entry)
        for version, entry in [
            ("1", None),
            ("2", read("raw/logs/a")),
            ("1", read("raw/logs/a", status=REFUSED)),
            ("1", read("raw/logs/a")),
            ("1", read("raw/logs/a", status=FORGOTTEN)),
        ]
    ] == ["new", "replaced", "refused before", "beside", "new"]


def test_a_mapping_comes_back_from_the_ledger() -> None:
    declared = declared_sources(LOGS)
    assert mapping_text(LOGS, declared) is None
    assert mapped_sources(LOGS, None) == declared
    names = {**declared, "user_id": ("actor.login", "user_id"), "device": ()}
    assert mapped_sources(LOGS, mapping_text(LOGS, names)) == names


def test_freshness() -> None:
    assert freshness(None, A_DAY, NOW) == "never"
    assert freshness(NOW - A_DAY, A_DAY, NOW) == "fresh"
    assert freshness(NOW - A_DAY - timedelta(seconds=1), A_DAY, NOW) == "late"

    # A file that was read again, or was counted anew, is nothing new.
    old = NOW - 3 * A_DAY
    history = [read("raw/logs/a", old), read("raw/logs/a", NOW, batch=2, rejected=0, accepted=5)]
    found = feed_status("logs", history, NOW)
    assert (found.state, found.last_new, found.files, found.accepted, found.rejected) == (
        "late",
        old,
        1,
        5,
        0,
    )
    assert feed_status("logs", [read("raw/logs/a", status=REFUSED)], NOW).state == "never"


def test_every_mart_has_one_origin() -> None:
    made = [name for origin in ORIGINS for name in origin.all_tables]
    assert sorted(made) == sorted(tables().keys() - set(RECORDED_TABLES))
    assert {feed for origin in ORIGINS for feed in origin.all_feeds} == FEEDS.keys()
    steps = [origin.step for origin in ORIGINS]
    assert set(steps) <= {step for chain in MARTS for step in chain}


def test_the_readme_has_every_command() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`{name}" not in readme] == []


def test_the_operations_name_the_commands_that_answer_with_json() -> None:
    root = Path(__file__).parents[2]
    operations = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"safe beside a run\.(.*?)take `--json`", operations, re.DOTALL)
    files = {name: root / f"{module.replace('.', '/')}.py" for name, (module, _) in COMMANDS.items()}
    taking = {name for name, file in files.items() if "add_json(" in file.read_text(encoding="utf-8")}
    assert set(re.findall(r"`([a-z-]+)`", said)) == taking


def test_a_name_that_is_a_feed_and_a_table_has_to_be_said_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert target("logs").feed == target("staging/logs").feed == LOGS
    assert [o.all_tables for o in target("marts/users").origins] == [("users_history", "users")]
    assert "dim_users" in target("fact_user_actions").origins[0].all_tables
    assert target("staging/users").feed == FEEDS["users"]
    assert target("marts").origins == ORIGINS
    for text, message in {
        "users": "write staging/users or marts/users",
        "marts/logs": "choose a feed",
        "raw/logs": "write FEED, TABLE",
        "etl_runs": "choose a feed",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            reset_main([text])
        assert message in capsys.readouterr().err
