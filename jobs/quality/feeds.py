"""What a feed's rules find in what was read of it, before it is staged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyspark.sql import DataFrame

from jobs.context import RunContext
from jobs.feeds.declaration import Feed
from jobs.lake.ledger import STAGED, LedgerEntry, by_path, last_new
from jobs.quality.evaluation import (
    Judged,
    Lookup,
    freshness_result,
    judge,
    result,
    settle,
    volume_result,
)
from jobs.quality.rules import OF_A_RECORD, Action, Kind, RuleResult
from jobs.transforms.keys import KEY


@dataclass(frozen=True)
class FileCounts:
    """Of one file in a batch."""

    read: int = 0
    rejected: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    unknown_columns: Sequence[str] = ()
    # Of the records that are not rejected: how many break each rule that warns or fails.
    broken: Mapping[str, int] = field(default_factory=dict)


def judge_feed(
    run: RunContext,
    feed: Feed,
    valid: DataFrame,
    files: Mapping[str, FileCounts],
    history: Sequence[LedgerEntry],
    lookup: Lookup,
    is_new: bool,
) -> None:
    """Note what the feed's rules find in files that were read, by path; nothing of them is staged yet.

    valid: their records that are not rejected, with KEY. history: the feed's ledger entries. lookup: staged rows of
    another feed. is_new: look at how much came, too; files that are read again are no news.

    Raises RuleFailed when a rule that says `fail` is broken, unless the run only warns.
    """
    subject = f"staging/{feed.name}"
    read, rejected = (sum(getattr(c, name) for c in files.values()) for name in ("read", "rejected"))
    reasons: Counter[str] = sum((Counter(c.reasons) for c in files.values()), Counter())
    rules = {rule.name: rule for rule in feed.all_rules}
    results = [
        result(rules[name], subject, read, number)
        if name in rules
        else RuleResult(subject, name, "format", Action.REJECT, read, number, "can be taken apart")
        for name, number in reasons.most_common()
    ]
    related = []
    for rule in feed.all_rules:
        if rule.kind in (Kind.UNIQUE, Kind.REFERENCE):
            related.append(rule)
        elif rule.kind is Kind.VOLUME and is_new:
            new = {path: count.read for path, count in files.items()}
            before = [e for e in by_path(history).values() if e.status == STAGED and e.path not in files]
            if found := volume_result(rule, subject, new, [entry.records_read for entry in before]):
                results.append(found)
        elif rule.kind is Kind.FRESHNESS and is_new:
            results.append(freshness_result(rule, subject, run.started_at, run.started_at, read))
        elif rule.kind in OF_A_RECORD and rule.action is not Action.REJECT:
            failing = sum(count.broken.get(rule.name, 0) for count in files.values())
            results.append(result(rule, subject, read - rejected, failing))
    if related:
        results += judge([Judged(subject, valid, related, KEY)], lookup, run.started_at)
    settle(run, results, f"Nothing of {feed.name} was staged")


def judge_freshness(run: RunContext, feed: Feed, history: Sequence[LedgerEntry]) -> None:
    """Note when something new is overdue; nothing is looked at of a feed of which nothing came yet."""
    last = last_new(history)
    rules = [rule for rule in feed.all_rules if rule.kind is Kind.FRESHNESS] if last else []
    results = [freshness_result(rule, f"staging/{feed.name}", last, run.started_at, 0) for rule in rules]
    settle(run, [found for found in results if not found.passed], f"Nothing of {feed.name} was new")
