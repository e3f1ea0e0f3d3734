"""What a report says of one run, or of several together: read from run tables, ledger and quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.context import RunContext
from jobs.errors import ConfigurationError
from jobs.feeds import FEEDS
from jobs.feeds.mapping import mapped_sources
from jobs.lake.ledger import REFUSED, Ledger, LedgerEntry, by_path
from jobs.lake.quarantine import count_rejected, quarantine_table, sample_rejected
from jobs.quality.masking import shown_error, shown_record
from jobs.quality.rules import Action, Rule
from jobs.quality.tables import table_rules
from jobs.runs import run_table
from jobs.show_status import feed_status

RUNS_IN_TREND = 20
EXAMPLES_OF_A_KIND, EXAMPLES_OF_A_FEED = 1, 10


@dataclass(frozen=True)
class Bar:
    """One run in a feed's trend."""

    run_id: str
    at: datetime
    accepted: int
    rejected: int


@dataclass(frozen=True)
class Example:
    """A rejected record. values: see `jobs.quality.masking.shown_record`."""

    path: str
    reasons: tuple[str, ...]
    values: Sequence[tuple[str, str]] | None
    length: int


@dataclass(frozen=True)
class FeedReport:
    """A feed: what the runs did with it, by the files that they read; how fresh it is after them."""

    name: str
    files: int
    read: int
    accepted: int
    duplicates: int
    rejected: int
    reasons: Mapping[str, int]
    refused: Sequence[tuple[str, str]]
    state: str
    last_new: datetime | None
    expected_every: timedelta
    trend: Sequence[Bar]
    examples: Sequence[Example]


@dataclass(frozen=True)
class RuleReport:
    """A declared rule, or a check, of a table or `staging/<feed>`, and what was found; None where it was not looked at.

    trend: the rows that broke it in the last runs that looked, oldest first.
    """

    subject: str
    rule: str
    kind: str
    action: str
    expected: str
    found: str | None = None
    passed: bool | None = None
    rows_checked: int | None = None
    rows_failing: int | None = None
    trend: Sequence[int] = ()


@dataclass(frozen=True)
class Report:
    """All that a report says. runs and steps: rows of the run tables, oldest first."""

    runs: Sequence[Mapping[str, Any]]
    steps: Sequence[Mapping[str, Any]]
    feeds: Sequence[FeedReport]
    rules: Sequence[RuleReport]
    made_at: datetime

    @property
    def name(self) -> str:
        """The run that the report is named after: the last one."""
        return str(self.runs[-1]["run_id"])


def collect_report(run: RunContext, run_id: str | None = None, since: datetime | None = None) -> Report:
    """What is known of a run; of the last one without an id; since: of all that began at this time or later.

    Raises ConfigurationError when there is no such run.
    """
    rows = _rows(run, "etl_runs")
    known = sorted(rows, key=lambda row: row["started_at"])
    if since:
        chosen = [row for row in known if row["started_at"] >= since]
    else:
        chosen = [row for row in known if run_id in (None, row["run_id"])][-1:]
    if not chosen:
        wanted = run_id or (f"since {since}" if since else "any")
        raise ConfigurationError(
            f"run {wanted}: not among the {len(known)} recorded ones; see `user-analytics status`"
        )
    # In order, and quick to look up: after a year there are thousands of runs, and far more files.
    ids = {row["run_id"]: number for number, row in enumerate(chosen)}
    end = max(row["started_at"] + timedelta(seconds=row["seconds"]) for row in chosen)
    past = dict.fromkeys(row["run_id"] for row in known if row["started_at"] <= end)
    histories = Ledger(run).histories()
    upto = {name: [e for e in entries if e.run_id in past] for name, entries in histories.items()}
    rejected = any(e.run_id in ids and e.rejected for entries in upto.values() for e in entries)
    reasons, examples = _rejected(run, ids, upto) if rejected else ({}, {})
    steps = sorted(_rows(run, "etl_steps", ids), key=lambda s: (ids[s["run_id"]], s["step_number"]))
    checks = _rows(run, "etl_checks", past)
    refused = _refused(run, chosen, steps, upto)
    return Report(
        chosen,
        steps,
        [
            _feed(
                *(name, upto.get(name, []), ids, end, dict(reasons.get(name, {}))),
                *(examples.get(name, []), refused.get(name, [])),
            )
            for name in FEEDS
        ],
        _rules(checks, ids, past, upto),
        datetime.now(UTC),
    )


def _rows(run: RunContext, name: str, run_ids: Collection[str] | None = None) -> list[dict[str, Any]]:
    table = run_table(run, name)
    if not table.exists():
        return []
    rows: list[dict[str, Any]] = table.few_rows().to_pylist()
    return rows if run_ids is None else [row for row in rows if row["run_id"] in run_ids]


def _refused(
    run: RunContext,
    runs: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
    histories: Mapping[str, Sequence[LedgerEntry]],
) -> dict[str, list[LedgerEntry]]:
    """By feed: the files that runs were refused for in the end; the ledger notes them with the first run only."""
    ids = [row["run_id"] for row in runs if row["outcome"] == "refused"]
    tried = {step["name"] for step in steps if step["run_id"] in ids}
    found = {
        name: [entry for entry in by_path(history).values() if entry.status == REFUSED]
        for name, history in histories.items()
        if f"stage {name}" in tried
    }
    # What was taken away is not tried again.
    present = {file.path for file in run.store.list("raw")} if any(found.values()) else set()
    return {name: [entry for entry in entries if entry.path in present] for name, entries in found.items()}


def _rejected(
    run: RunContext, run_ids: Collection[str], histories: Mapping[str, Sequence[LedgerEntry]]
) -> tuple[dict[str, Counter[str]], dict[str, list[Example]]]:
    """By feed: how many records broke each rule, and some of them."""
    table = quarantine_table(run)
    counts = count_rejected(table, run_ids=run_ids)
    reasons: dict[str, Counter[str]] = {}
    for count in counts:
        reasons.setdefault(count.feed, Counter()).update(dict.fromkeys(count.reasons, count.records))
    mappings = {(e.feed, e.path): e.mapping for entries in histories.values() for e in entries}
    examples: dict[str, list[Example]] = {}
    for row in sample_rejected(table, counts, EXAMPLES_OF_A_KIND, run_ids):
        feed, kept = FEEDS[row["feed"]], examples.setdefault(row["feed"], [])
        if len(kept) < EXAMPLES_OF_A_FEED:
            names = mapped_sources(feed, mappings.get((feed.name, row["path"])))
            shown = shown_record(feed, names, row["record"])
            kept.append(Example(row["path"], tuple(row["reasons"]), shown, len(row["record"])))
    return reasons, examples


def _feed(
    name: str,
    history: Sequence[LedgerEntry],
    run_ids: Collection[str],
    end: datetime,
    reasons: Mapping[str, int],
    examples: Sequence[Example],
    refused: Sequence[LedgerEntry],
) -> FeedReport:
    readings = [entry for entry in history if not entry.is_recount]
    entries = [entry for entry in readings if entry.run_id in run_ids]
    status = feed_status(name, history, end)
    bars: dict[str, Bar] = {}
    for e in readings:
        bar = bars.get(e.run_id, Bar(e.run_id, e.staged_at, 0, 0))
        bars[e.run_id] = Bar(e.run_id, bar.at, bar.accepted + e.accepted, bar.rejected + e.rejected)
    return FeedReport(
        name,
        sum(not entry.error for entry in entries),
        sum(entry.records_read for entry in entries),
        sum(entry.accepted for entry in entries),
        sum(entry.duplicates for entry in entries),
        sum(entry.rejected for entry in entries),
        reasons,
        [
            (e.path, shown_error(FEEDS[name], e.error))
            for e in (*entries, *(e for e in refused if e not in entries))
            if e.error
        ],
        status.state,
        status.last_new,
        status.expected_every,
        list(bars.values())[-RUNS_IN_TREND:],
        examples,
    )


def declared_rules() -> dict[tuple[str, str], Rule]:
    """Every rule of feeds and tables, by subject and name."""
    feeds = {(f"staging/{f.name}", rule.name): rule for f in FEEDS.values() for rule in f.all_rules}
    return feeds | {(name, rule.name): rule for name, rules in table_rules().items() for rule in rules}


def _rules(
    checks: Sequence[Mapping[str, Any]],
    run_ids: Collection[str],
    past: Collection[str],
    histories: Mapping[str, Sequence[LedgerEntry]],
) -> list[RuleReport]:
    """Declared rules with what the runs found by them, and what the runs found besides."""
    read: Counter[str] = Counter()
    for entries in histories.values():
        for entry in entries:
            if entry.run_id in run_ids and not entry.is_recount:
                read[f"staging/{entry.feed}"] += entry.records_read
    by_rule: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for check in checks:
        by_rule.setdefault((check["table_name"], check["check_name"]), {})[check["run_id"]] = check
    found = []
    rules = declared_rules()
    for key in [*rules, *(key for key in by_rule if key not in rules)]:
        subject, name = key
        looks = by_rule.get(key, {})
        ours = [looks[run_id] for run_id in run_ids if run_id in looks]
        trend = [looks[i].get("rows_failing") or 0 for i in past if i in looks][-RUNS_IN_TREND:]
        if ours:
            last = ours[-1]
            found.append(
                RuleReport(
                    *(subject, name, last.get("rule_kind") or "post-load", last.get("action") or "fail"),
                    *(last["expected"] or "", last["found"], last["passed"]),
                    *(last.get("rows_checked"), last.get("rows_failing"), trend),
                )
            )
        elif key in rules:
            rule = rules[key]
            # A run notes only those rules that rejected something.
            kept = rule.action is Action.REJECT and read[subject] > 0
            passed, checked, failing = (True, read[subject], 0) if kept else (None, None, None)
            found.append(
                RuleReport(
                    *(subject, name, rule.kind, rule.action, rule.wanted, None),
                    passed=passed,
                    rows_checked=checked,
                    rows_failing=failing,
                    trend=trend,
                )
            )
    return found
