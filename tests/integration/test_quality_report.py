"""Rules from a run to the warehouse and the report: a table's `fail` stops publishing, and no person is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.cli import main
from jobs.warehouse import declarations
from tests.records import USER_HEADER, csv_text, user, users
from tests.unit.test_quality import outline
from tests.warehouses import query

pytestmark = [pytest.mark.spark, pytest.mark.integration]

# What must stand in no report: a name, an address, a nickname in a column that nobody declared, a password.
PERSONAL = ("Zebulon", "Quirk", "quirk.example", "Zebby", "203.0.113.9", "hunter2")


def test_rules_and_the_report(
    spark: SparkSession,
    tmp_lake: str,
    warehouse_url: str,
    tmp_path: Path,
    declare: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    monkeypatch.setenv("WAREHOUSE_URL", warehouse_url)
    raw = Path(tmp_lake) / "raw" / "users"
    raw.mkdir(parents=True)
    person = {"first_name": "Zebulon", "last_name": "Quirk", "ip_address": "203.0.113.9"}
    rows = [
        user(status="gone", nickname="A"),
        user("zeb@quirk.example", **person, created_at="yesterday", nickname="Zebby"),
        user("no address", **person, password="hunter2"),
    ]
    (raw / "a.csv").write_text(csv_text(rows, [*USER_HEADER, "nickname"]) + "Zebulon,Quirk\r\n")
    # A header that is a record: the file is refused.
    (raw / "b.csv").write_text("7,Zebulon,Quirk\n8,Bo,Dee\n")

    def ask(text: str) -> list[tuple[Any, ...]]:
        return query(warehouse_url, text)

    assert main(["run", "--feeds", "users", "--max-rejected", "1"]) == 3  # for the file
    printed = capsys.readouterr()
    (file,) = (Path(tmp_lake) / "results" / "reports").iterdir()
    assert f"Report:    {file}" in printed.out
    ((run_id,),) = ask("SELECT run_id FROM etl_runs")
    assert file.name == f"{run_id}.html"
    assert ask(
        "SELECT table_name, check_name, rule_kind, action, rows_checked, rows_failing, passed FROM etl_checks "
        "WHERE rows_failing > 0 ORDER BY 1, 2"
    ) == [
        ("staging/users", "created_at_invalid", "readable", "reject", 4, 1, True),
        ("staging/users", "email_invalid", "readable", "reject", 4, 1, True),
        ("staging/users", "password_invalid", "readable", "reject", 4, 1, True),
        ("staging/users", "status_not_in_set", "set", "warn", 1, 1, False),
        ("staging/users", "wrong_number_of_columns", "format", "reject", 4, 1, True),
        ("users", "status_not_in_set", "set", "warn", 1, 1, False),
    ]
    # A warning is no failed check.
    assert ask("SELECT failed_checks FROM run_history_view") == [(0,)]
    html = file.read_text()
    text = " ".join(outline(html).text.split())
    assert not [word for word in PERSONAL if word in html]
    for expected in (
        "user-analytics run outcome refused",
        "warning staging/users status_not_in_set one of active, invited, registered, blocked, closed 1 1",
        "users created_at_invalid 1",
        "created_at yesterday",
        "last_name *** email ***",
        "nickname ***",
        "Could not be taken apart:",
        "raw/users/b.csv: missing column: email (as email)",
        "stage users done",
    ):
        assert expected in text, expected

    # From now on a user has a known status. Nothing of the table is published while the rule is broken.
    rules = declarations.ROOT / "sql" / "users.toml"
    rules.write_text('[[rule]]\nkind = "set"\ncolumn = "status"\nvalues = ["active"]\naction = "fail"\n')
    (raw / "b.csv").write_text(users(user("bob@example.org")))
    published = ask("SELECT * FROM _published ORDER BY 1")
    assert main(["run", "--feeds", "users"]) == 3
    message = "users: status_not_in_set (expected: is active): 1 of 2 rows. Nothing was published. "
    errors = capsys.readouterr().err
    assert message in errors
    assert "report: " in errors
    assert ask("SELECT * FROM _published ORDER BY 1") == published
    # The mart is built, but the next publication is stopped as well, until it is told to go on.
    assert main(["publish"]) == 3
    assert main(["publish", "--warn-only"]) == 0
    assert ask("SELECT email FROM users ORDER BY 1") == [("ann@example.org",), ("bob@example.org",)]
    assert ask(
        "SELECT r.command, r.outcome, c.passed, r.failed_checks FROM run_history_view AS r "
        "JOIN etl_checks AS c ON c.run_id = r.run_id AND table_name = 'users' AND check_name = 'status_not_in_set' "
        "ORDER BY r.started_at"
    ) == [
        ("run", "refused", False, 0),
        ("run", "refused", False, 1),
        ("publish", "refused", False, 1),
        ("publish", "done", False, 1),
    ]

    capsys.readouterr()
    assert main(["report", "--json", "--since", "2020-01-01"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(run["command"], run["outcome"]) for run in document["runs"]] == [
        *(("run", "refused"), ("run", "refused"), ("publish", "refused"), ("publish", "done"))
    ]
    (feed,) = (feed for feed in document["feeds"] if feed["name"] == "users")
    assert (feed["read"], feed["accepted"], feed["rejected"], feed["state"]) == (5, 2, 3, "fresh")
    assert [(bar["accepted"], bar["rejected"]) for bar in feed["trend"]] == [(1, 3), (1, 0)]
    (rule,) = (r for r in document["rules"] if (r["subject"], r["rule"]) == ("users", "status_not_in_set"))
    assert (rule["action"], rule["passed"], rule["trend"]) == ("fail", False, [1, 1, 1, 1])
    assert main(["report", "--run", run_id, "--output", str(tmp_path / "one.html")]) == 0
    assert run_id in outline((tmp_path / "one.html").read_text()).text
    assert main(["report", "--json", "--since", "2020-01-01", "--output", str(tmp_path / "all.json")]) == 0
    written = json.loads((tmp_path / "all.json").read_text())
    assert {**written, "made_at": None} == {**document, "made_at": None}
    assert main(["report", "--run", "nonsense"]) == 2
    assert "run nonsense: not among the 4 recorded ones" in capsys.readouterr().err
