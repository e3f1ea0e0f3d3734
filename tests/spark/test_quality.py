"""A rule of each kind over a few rows; what `reject`, `warn` and `fail` do to a feed."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pyspark.sql import SparkSession

from jobs.context import RunContext
from jobs.errors import RuleFailed
from jobs.feeds import FEEDS
from jobs.feeds.customers import CUSTOMERS
from jobs.lake.ledger import Ledger
from jobs.lake.staging import stage
from jobs.quality.evaluation import Judged, judge
from jobs.quality.report import collect_report
from jobs.quality.rules import Action, Kind, Rule, RuleResult
from jobs.runs import recorded
from tests.staging import RawZone

pytestmark = pytest.mark.spark
NOW = datetime(2024, 5, 2, 12, tzinfo=UTC)
SIZES = ("S", "M")


def test_a_rule_of_each_kind(spark: SparkSession) -> None:
    shoes = spark.createDataFrame(
        [
            ("a1", "S", 10, "red", "2024-04-30"),
            ("a2", "M", 11, "red", "2024-05-01"),
            ("b3", "XL", 9, "blue", None),
            ("a1", None, None, None, "2024-04-01"),
        ],
        "id string, size string, price int, colour string, day string",
    ).selectExpr("id", "size", "price", "colour", "cast(day as date) AS day")
    colours = spark.createDataFrame([("red",), ("red",), ("green",)], "name string")
    rules = [
        Rule(Kind.REQUIRED, ("price",)),
        Rule(Kind.PATTERN, ("id",), pattern="^a[0-9]$"),
        Rule(Kind.RANGE, ("price",), low=10, high=10),
        Rule(Kind.RANGE, ("day",), low="2024-04-30", high="now", name="day_too_early"),
        Rule(Kind.SET, ("size",), values=SIZES),
        Rule(Kind.UNIQUE, ("id",)),
        Rule(Kind.UNIQUE, ("id", "size"), name="size_comes_twice"),
        Rule(Kind.REFERENCE, ("colour",), table="colours", column="name"),
        Rule(Kind.REFERENCE, ("size",), table="not there yet", column="name"),
        Rule(Kind.FRESHNESS, ("day",), within=timedelta(days=1)),
        Rule(Kind.FRESHNESS, ("day",), within=timedelta(days=2), name="older_than_two_days"),
    ]
    judged = [
        Judged("shoes", shoes, rules),
        # The same record twice is one: what is told apart are records.
        Judged("staging/shoes", shoes.union(shoes), rules[5:6], identity=("id", "size")),
        Judged("none", shoes.limit(0), [rules[0], rules[5], rules[9]]),
    ]
    found = judge(judged, {"colours": colours}.get, NOW)
    assert [(r.subject, r.rule, r.rows_checked, r.rows_failing) for r in found] == [
        ("shoes", "price_missing", 4, 1),  # the last one
        ("shoes", "id_unexpected", 4, 1),  # b3
        ("shoes", "price_out_of_range", 4, 2),  # 11 and 9; what is missing is not out of range
        ("shoes", "day_too_early", 4, 1),
        ("shoes", "size_not_in_set", 4, 1),  # XL
        ("shoes", "id_not_unique", 4, 1),  # one a1 too many
        ("shoes", "size_comes_twice", 4, 0),
        ("shoes", "colour_unknown", 4, 1),  # blue
        ("shoes", "day_late", 4, 1),  # midnight of the first of May is 36 hours ago
        ("shoes", "older_than_two_days", 4, 0),
        ("staging/shoes", "id_not_unique", 8, 0),
        ("none", "price_missing", 0, 0),
        ("none", "id_not_unique", 0, 0),
        ("none", "day_late", 0, 1),
    ]
    assert [r.found for r in found if r.kind == Kind.FRESHNESS] == ["2024-05-01 00:00"] * 2 + [None]


HEADER = "customer_id,name,email,age,city,registration_date\n"


def findings(results: list[RuleResult]) -> dict[str, tuple[str, int, int, bool]]:
    return {r.rule: (r.action.value, r.rows_checked, r.rows_failing, r.passed) for r in results}


def test_what_becomes_of_broken_rules(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rules = (
        Rule(Kind.RANGE, ("age",), Action.REJECT, low=18),
        Rule(Kind.SET, ("city",), Action.REJECT, values=("Oslo", "Bonn")),
        Rule(Kind.PATTERN, ("name",), pattern="^[A-Z]"),
        Rule(Kind.REQUIRED, ("email",), Action.FAIL),
        Rule(Kind.UNIQUE, ("email",), Action.FAIL),
        Rule(Kind.VOLUME, tolerance=0.5),
    )
    monkeypatch.setitem(FEEDS, "customers", replace(CUSTOMERS, rules=rules))
    monkeypatch.setattr(logging.getLogger("user_analytics"), "propagate", True)
    raw = RawZone(spark, tmp_lake, "customers")

    # All rules that a record breaks are its reasons, beside those of its fields.
    raw.put(
        {"a.csv": HEADER + "1,Ann,a@example.org,17,Rome,2024-13-01\n2,bob,b@example.org,45,,2024-02-01\n"}
    )
    run = raw.run()
    stage(run, FEEDS["customers"], max_rejected_share=1.0)
    assert raw.counts() == {"a.csv": (2, 1, 0, 1)}
    assert [reasons for _, reasons, _ in raw.rejected()] == [
        ("age_out_of_range", "city_not_in_set", "registration_date_invalid")
    ]
    assert findings(run.findings) == {
        "age_out_of_range": ("reject", 2, 1, True),
        "city_not_in_set": ("reject", 2, 1, True),
        "registration_date_invalid": ("reject", 2, 1, True),
        "late": ("warn", 2, 0, True),
        "name_unexpected": ("warn", 1, 1, False),
        "email_missing": ("fail", 1, 0, True),
        "email_not_unique": ("fail", 1, 0, True),
    }
    assert "staging/customers: name_unexpected (expected: fits ^[A-Z]): 1 of 1 rows" in caplog.messages

    # Nothing is new, nothing is looked at, until something is overdue.
    stage(idle := raw.run(), FEEDS["customers"])
    assert idle.findings == []
    late = raw.run()
    late.started_at += timedelta(days=3)
    stage(late, FEEDS["customers"])
    assert findings(late.findings) == {"late": ("warn", 0, 1, False)}

    # `fail` stops before anything is written, each time, unless the run only warns.
    raw.put(
        {
            "b.csv": HEADER
            + "3,Cy,c@example.org,30,Oslo,2024-02-01\n4,Di,c@example.org,30,Oslo,2024-02-01\n5,Ed,,,,2024-02-01\n"
        }
    )
    before = raw.rows(), raw.rejected()
    for _ in range(2):
        with pytest.raises(RuleFailed) as stopped:
            stage(failed := raw.run(), FEEDS["customers"])
        assert "staging/customers: email_missing (expected: is there): 1 of 3 rows; " in str(stopped.value)
        assert (
            "email_not_unique (expected: different in each record): 1 of 3 rows. Nothing of customers was "
            in str(stopped.value)
        )
        assert stopped.value.exit_code == 3
        assert (raw.rows(), raw.rejected()) == before
        assert findings(failed.findings)["email_missing"] == ("fail", 3, 1, False)
    going_on = raw.run()
    going_on.warn_only = True
    stage(going_on, FEEDS["customers"])
    assert raw.counts()["b.csv"] == (3, 3, 0, 0)

    # A file with one record, after some with three.
    three = HEADER + "".join(f"{{n}}{i},Al,{{n}}{i}@example.org,30,Oslo,2024-02-01\n" for i in range(3))
    raw.put({f"{n}.csv": three.format(n=n) for n in ("c", "d")})
    raw.put({"a.csv": HEADER + "2,Bob,b@example.org,45,,2024-02-01\n"}, day=2)
    stage(raw.run(), FEEDS["customers"])
    raw.put({"e.csv": HEADER + "9,Al,9@example.org,30,Oslo,2024-02-01\n"})
    stage(small := raw.run(), FEEDS["customers"])
    assert [(r.expected, r.found) for r in small.findings if r.kind == Kind.VOLUME] == [
        ("3 ± 50%", "e.csv: 1")
    ]
    # Read again it is no news: how much came, and when, is not judged.
    stage(again := raw.run(), FEEDS["customers"], reread=["raw/customers/e.csv"])
    assert {"late", "volume"}.isdisjoint(findings(again.findings))
    assert len(Ledger(raw).history("customers")) == 7


def test_a_report_knows_what_its_first_run_found_however_many_came_after(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.quality.report.RUNS_IN_TREND", 2)
    raw = RawZone(spark, tmp_lake, "customers")
    first = raw.run()

    def look(
        run: RunContext, *records: str
    ) -> dict[str, tuple[bool | None, int | None, int | None, list[int]]]:
        """What a report on all runs says after one that staged these records, and two that looked at no rule."""
        # Each is delivered after those before it, or it would be read together with them.
        there = len(list(raw.folder.iterdir())) if raw.folder.is_dir() else 0
        raw.put({f"{run.run_id}.csv": HEADER + "\n".join(records)}, day=1 + there)
        with recorded(run):
            stage(run, FEEDS["customers"], max_rejected_share=1.0)
        for _ in range(2):
            with recorded(raw.run()):
                pass
        rules = collect_report(raw.run(), since=first.started_at).rules
        ours = [rule for rule in rules if rule.subject == "staging/customers"]
        return {r.rule: (r.passed, r.rows_checked, r.rows_failing, list(r.trend)) for r in ours}

    ann, bob, cy = (f"{n},Al,{{}}@example.org,{{}},Oslo,2024-02-01" for n in (1, 2, 3))
    found = look(first, ann.format("a", 170), bob.format("b", 30), cy.format("b", 30))
    assert found["age_out_of_range"] == (True, 3, 1, [1])
    assert found["email_not_unique"] == (False, 2, 1, [1])
    # The trend is of the last runs that looked.
    found = look(raw.run(), *(record.format("c", 30) for record in (ann, bob, cy)))
    assert found["age_out_of_range"] == (True, 3, 1, [1])
    assert found["email_not_unique"] == (False, 3, 2, [1, 2])
    assert look(raw.run(), ann.format("d", 30))["email_not_unique"] == (True, 1, 0, [2, 0])


def test_each_report_names_the_files_that_its_run_was_refused_for(spark: SparkSession, tmp_lake: str) -> None:
    raw = RawZone(spark, tmp_lake, "customers")
    raw.put({"a.csv": "shoe,size\n1,2\n", "b.csv": "shoe,size\n1,2\n"})

    def refused() -> tuple[str, list[str]]:
        with recorded(run := raw.run()), run.step("stage customers"):
            stage(run, FEEDS["customers"])
        found = collect_report(raw.run(), run.run_id)
        (feed,) = (feed for feed in found.feeds if feed.name == "customers")
        return found.runs[0]["outcome"], [path.removeprefix("raw/customers/") for path, _ in feed.refused]

    assert refused() == ("refused", ["a.csv", "b.csv"])
    # Tried again, though the ledger has nothing new of them; not what was taken away or mended.
    assert refused() == ("refused", ["a.csv", "b.csv"])
    (raw.folder / "a.csv").unlink()
    assert refused() == ("refused", ["b.csv"])
    raw.put({"b.csv": HEADER + "1,Ann,a@example.org,30,Oslo,2024-02-01\n"}, day=2)
    assert refused() == ("done", [])
