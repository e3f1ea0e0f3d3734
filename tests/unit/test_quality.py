"""Rules as they are declared, what volume and freshness say of numbers, masked examples, and the page as HTML."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jobs import run_all
from jobs.errors import ConfigurationError
from jobs.feeds import FEEDS
from jobs.feeds.customers import CUSTOMERS
from jobs.feeds.logs import LOGS
from jobs.feeds.mapping import declared_sources
from jobs.quality.evaluation import freshness_result, volume_result
from jobs.quality.masking import shown_error, shown_record
from jobs.quality.page import page
from jobs.quality.report import Bar, Example, FeedReport, Report, RuleReport
from jobs.quality.rules import Action, Kind, Rule
from jobs.quality.tables import rules_of, table_rules
from jobs.warehouse import declarations

NOW = datetime(2024, 5, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def test_every_declared_rule_can_be_looked_at() -> None:
    assert {"customer_orders", "events", "user_purchase", "users"} <= table_rules().keys()
    for feed in FEEDS.values():
        assert {rule.kind for rule in feed.all_rules} >= {
            Kind.REQUIRED,
            Kind.READABLE,
            Kind.FRESHNESS,
            Kind.VOLUME,
        }
        for rule in feed.all_rules:
            if rule.kind is Kind.REFERENCE:
                assert rule.column in FEEDS[rule.table].columns


def test_a_rule_is_named_after_what_is_wrong_when_it_is_broken() -> None:
    names = {rule.name for rule in CUSTOMERS.all_rules}
    assert {
        "customer_id_missing",
        "email_invalid",
        "name_too_long",
        "age_out_of_range",
        "email_not_unique",
    } <= names
    assert {"late", "volume"} <= names
    assert Rule(Kind.SET, ("size",), values=("S", "M")).wanted == "one of S, M"
    assert Rule(Kind.RANGE, ("day",), high="now").wanted == "to now"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": Kind.RANGE, "columns": ("age",)}, "age_out_of_range: a range needs low or high"),
        ({"kind": Kind.SET, "columns": ("size",)}, "size_not_in_set: a set needs values"),
        ({"kind": Kind.PATTERN, "columns": ("id",), "pattern": "("}, "id_unexpected: pattern '('"),
        ({"kind": Kind.REQUIRED, "columns": ("a", "b")}, "a required is about one column"),
        ({"kind": Kind.VOLUME}, "a volume needs a tolerance above 0"),
        ({"kind": Kind.REQUIRED, "columns": ("a",), "name": "A b"}, "a name has small letters"),
        (
            {"kind": Kind.UNIQUE, "columns": ("id",), "action": Action.REJECT},
            "id_not_unique: unique cannot reject",
        ),
    ],
)
def test_rules_that_cannot_be_meant(rule: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Rule(**rule)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((Rule(Kind.REQUIRED, ("shoe",)),), "customers: rule shoe_missing: shoe is no field"),
        ((Rule(Kind.REQUIRED, ("name",)),), "customers: there are two rules name_missing"),
        ((Rule(Kind.RANGE, ("age",), high="now"),), "age_out_of_range: age is bigint, and so are its bounds"),
        ((Rule(Kind.RANGE, ("name",), low=1),), "name_out_of_range: name is string, and so are its bounds"),
        (
            (Rule(Kind.FRESHNESS, ("registration_date",), within=DAY),),
            "a feed is as fresh as its last new file",
        ),
    ],
)
def test_rules_that_do_not_fit_their_feed(rules: tuple[Rule, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CUSTOMERS, rules=rules)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]", "sql/users.toml: not TOML: "),
        ("rules = 1", "sql/users.toml: expected nothing but [[rule]] tables, found rules"),
        ("kind = 'unikue'\naction = 'warn'", "rule 1: kind = 'unikue': expected one of required, pattern, "),
        (
            "kind = 'unique'\ncolumn = 'email'\naction = 'reject'",
            "rule 1: action = 'reject': expected warn or fail",
        ),
        ("kind = 'unique'\ncolumn = 'email'", "rule 1: action = None: expected warn or fail"),
        (
            "kind = 'unique'\ncolum = 'email'\naction = 'warn'",
            "rule 1: colum: not a key; there are kind, action, ",
        ),
        ("kind = 'required'\naction = 'warn'", "rule 1: column: missing"),
        (
            "kind = 'required'\ncolumn = 'shoe'\naction = 'warn'",
            "rule 1: column 'shoe': users has no such column",
        ),
        (
            "kind = 'range'\ncolumn = 'email'\naction = 'warn'",
            "rule 1: rule email_out_of_range: a range needs low",
        ),
        (
            "kind = 'required'\ncolumn = 'email'\nlow = 1\naction = 'warn'",
            "rule 1: low: not a key of a rule of kind",
        ),
        (
            "kind = 'range'\ncolumn = 'email'\nlow = 1\naction = 'warn'",
            "rule 1: rule email_out_of_range: email is string, and so are its bounds",
        ),
        (
            "kind = 'range'\ncolumn = 'created_at'\nhigh = 'soon'\naction = 'warn'",
            'created_at is timestamp, its bounds are "now" or as',
        ),
        (
            "kind = 'pattern'\ncolumn = 'created_at'\npattern = '^2'\naction = 'warn'",
            "created_at is timestamp, a pattern is about texts",
        ),
        (
            "kind = 'freshness'\ncolumn = 'email'\nwithin_days = 1\naction = 'warn'",
            "email is string, a freshness is about days and instants",
        ),
        (
            "[[rule]]\nkind = 'set'\ncolumn = 'status'\nvalues = ['active', 1]\naction = 'warn'",
            "status is string, and so are its values",
        ),
        ("kind = 'required'\ncolumn = true\naction = 'warn'", "rule 1: column = True: expected str"),
        (
            "kind = 'reference'\ncolumn = 'email'\nreferences = 'events.mail'\naction = 'warn'",
            "rule 1: references = 'events.mail': expected a declared table.column",
        ),
        (
            "kind = 'unique'\ncolumn = 'email'\naction = 'warn'\n" * 2,
            "sql/users.toml: not TOML: ",
        ),
    ],
)
def test_a_wrong_file_of_rules_is_named_with_the_key(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "sql" / "users.toml"
    file.parent.mkdir()
    file.write_text(text if "[" in text or "rules" in text else f"[[rule]]\n{text}\n")
    with pytest.raises(ConfigurationError) as caught:
        rules_of(file)
    assert message in str(caught.value)
    assert "sql/users.toml" in str(caught.value)


def test_a_wrong_rule_ends_a_run_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declarations.tables()
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql/users.toml").write_text(
        "[[rule]]\nkind = 'range'\ncolumn = 'email'\nlow = 1\naction = 'warn'"
    )
    monkeypatch.setattr(declarations, "ROOT", tmp_path)
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    monkeypatch.setenv("WAREHOUSE_URL", f"embedded:{tmp_path / 'warehouse'}")
    assert run_all.main([]) == 2
    assert "sql/users.toml: rule 1: rule email_out_of_range: email is string" in capsys.readouterr().err
    assert not (tmp_path / "lake").exists()


def test_two_rules_of_a_table_have_two_names(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    rule = "[[rule]]\nkind = 'unique'\ncolumn = 'email'\naction = 'warn'\n"
    file.write_text(rule * 2)
    with pytest.raises(ConfigurationError, match="there are two rules email_not_unique"):
        rules_of(file)
    file.write_text(f"{rule}{rule}name = 'another'\n")
    assert [r.name for r in rules_of(file)] == ["email_not_unique", "another"]
    (tmp_path / "shoes.toml").write_text(rule)
    with pytest.raises(ConfigurationError, match="there is no table shoes"):
        rules_of(tmp_path / "shoes.toml")


def test_volume_compares_a_file_with_the_median_of_those_before() -> None:
    rule = Rule(Kind.VOLUME, tolerance=0.5)

    def look(new: dict[str, int], *before: int) -> tuple[bool, int, int, str | None] | None:
        found = volume_result(rule, "staging/logs", new, before)
        return found and (found.passed, found.rows_checked, found.rows_failing, found.found)

    # Nothing to compare with, yet.
    assert look({"a": 1}, 100, 100) is None
    assert look({}, 100, 100, 100) is None
    # The median of 90, 100, 4000 is 100: 50 to 150 is usual.
    assert look({"raw/logs/a": 50, "raw/logs/b": 150}, 90, 100, 4000) == (True, 2, 0, None)
    assert look({"raw/logs/a": 49, "raw/logs/b": 100}, 90, 100, 4000) == (False, 2, 1, "a: 49")
    assert look({"raw/logs/a": 0}, 90, 100, 4000) == (False, 1, 1, "a: 0")
    # Only the last twenty count.
    assert look({"a": 10}, *[1000] * 30, *[10] * 20) == (True, 1, 0, None)


def test_freshness_looks_at_the_newest() -> None:
    rule = Rule(Kind.FRESHNESS, within=DAY)
    assert freshness_result(rule, "staging/logs", NOW - DAY, NOW, 0).passed
    late = freshness_result(rule, "staging/logs", NOW - DAY - timedelta(seconds=1), NOW, 0)
    assert (late.passed, late.found, late.expected) == (False, "2024-05-01 11:59", "something new every 1 d")
    assert not freshness_result(rule, "staging/logs", None, NOW, 0).passed


def test_examples_show_what_is_not_personal() -> None:
    names = declared_sources(CUSTOMERS)
    record = {
        "Customer_ID": "7",
        "name": "Zebulon Quirk",
        "email": "zebulon@example.org",
        "age": "207",
        # Unknown: nobody says that it is harmless.
        "nickname": "Zeb",
        # Slipped into another column.
        "city": "mail zebulon@example.org",
        "registration_date": "",
    }
    assert shown_record(CUSTOMERS, names, json.dumps(record)) == [
        ("customer_id", "7"),
        ("name", "***"),
        ("email", "***"),
        ("age", "207"),
        ("nickname", "***"),
        ("city", "***"),
        ("registration_date", "(empty)"),
    ]
    # With a mapping, another column is the name.
    mapped = {**names, "name": ("city", "name"), "city": ()}
    assert ("city", "***") in (shown_record(CUSTOMERS, mapped, '{"city": "Zebulon", "age": "1"}') or [])
    nested = '{"user_id": 7, "metadata": {"device": "x", "owner": "Zebulon"}, "timestamp": "10.0.0.7"}'
    assert shown_record(LOGS, declared_sources(LOGS), nested) == [
        ("user_id", "7"),
        ("metadata.device", "x"),
        ("metadata.owner", "***"),
        ("timestamp", "***"),
    ]
    for broken in ("7,Zebulon Quirk,207,,,,,", '{"name": "Zeb', '["Zebulon"]', "[" * 100_000):
        assert shown_record(CUSTOMERS, names, broken) is None


def test_why_a_file_was_refused_quotes_no_person() -> None:
    error = "raw/x.csv: missing column: customer_id (as customer_id); the header is 7, Zebulon Quirk"
    assert shown_error(CUSTOMERS, error) == (
        "raw/x.csv: missing column: customer_id (as customer_id); (not shown)"
    )
    assert shown_error(LOGS, error) == error


class Outline(HTMLParser):
    """Fails for elements that are not closed in turn; collects attributes and text."""

    VOID = frozenset({"meta", "rect", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        for name, value in attrs:
            assert value is not None, f"{tag} {name} has no value"
            self.attributes.setdefault(name, []).append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def outline(html: str) -> Outline:
    """A page's outline; fails unless the page is well-formed and needs nothing from outside."""
    assert html.startswith("<!DOCTYPE html>")
    found = Outline()
    found.feed(html)
    found.close()
    assert not found.open
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(found.seen)
    assert not found.attributes.keys() & {"src", "href", "srcset", "action", "onclick", "onload", "style"}
    # Text may name an address; what could fetch one, may not.
    texts = [value for values in found.attributes.values() for value in values]
    assert not re.search(
        r"https?:|@import|url\(|//", " ".join([*texts, *re.findall(r"<style>(.*?)</style>", html, re.S)])
    )
    assert [value for value in found.attributes["content"] if "src" in value] == [
        "default-src 'none'; style-src 'unsafe-inline'"
    ]
    return found


def test_the_page_is_html_on_its_own_and_escapes_what_is_data() -> None:
    bad = "<script>alert('x')</script> & \"more\""
    feed = FeedReport(
        *("logs", 2, 12, 9, 1, 2, {bad: 2}, [(bad, bad)], "late", NOW, DAY),
        [Bar("r1", NOW - DAY, 20, 0), Bar("r2", NOW, 9, 2)],
        [Example(bad, (bad,), [(bad, bad)], 9), Example("raw/logs/b", ("malformed_json",), None, 1234)],
    )
    quiet = FeedReport("users", 0, 0, 0, 0, 0, {}, [], "never", None, DAY, [], [])
    run = {"run_id": "r2", "command": bad, "code_version": "1", "seconds": 3.0, "outcome": "done"}
    step = {"run_id": "r2", "name": bad, "outcome": "failed", "seconds": 1.0, "detail": None}
    rules = [
        RuleReport("staging/logs", "x_out_of_range", "range", "warn", bad, bad, False, 9, 3, (0, 3)),
        RuleReport("staging/logs", "user_id_missing", "required", "reject", "is there", None, True, 12, 1),
        RuleReport("users", "email_not_unique", "unique", "fail", "different in each record"),
        RuleReport("users", "row_count", "post-load", "fail", "5", "4", False),
    ]
    report = Report([{**run, "started_at": NOW}], [{**step, "started_at": NOW}], [feed, quiet], rules, NOW)
    html = page(report)
    found = outline(html)
    assert "http:" not in html
    assert bad in found.text
    words = " ".join(found.text.split())
    for expected in ("warning", "failed", "rejected", "not looked at", "1,234 characters, not shown", "late"):
        assert expected in words
    assert found.seen.count("svg") == 2
    assert "logs: records accepted and rejected in the last 2 runs" in found.attributes["aria-label"]
    # Nothing was wrong.
    calm = page(Report([{**run, "started_at": NOW}] * 2, [], [quiet], [], NOW))
    assert "No rule that warns or fails was broken." in outline(calm).text
    assert "2 runs" in calm
    # The file was mended since, and read again by another run.
    mended = replace(quiet, files=1, read=3, accepted=1, rejected=2)
    past = " ".join(outline(page(Report([{**run, "started_at": NOW}], [], [mended], [], NOW))).text.split())
    assert "reason records users no longer in quarantine: read again or reset since 2 Examples." in past
