"""Rules over rows: what a run finds, as few Spark queries as there are occasions; and what becomes of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.console import log
from jobs.context import RunContext
from jobs.errors import RuleFailed
from jobs.quality.rules import OF_A_RECORD, Action, Kind, Rule, RuleResult
from jobs.transforms.checks import broken

# A file is compared with so many before it, and with none while there are fewer than the second.
RECENT_FILES, LEAST_FILES = 20, 3
Lookup = Callable[[str], DataFrame | None]


@dataclass(frozen=True)
class Judged:
    """Rows and the rules that they are judged by.

    identity: the columns that make a row, where rows may repeat; without any, each row counts.
    """

    subject: str
    rows: DataFrame
    rules: Sequence[Rule]
    identity: tuple[str, ...] = ()


def judge(judged: Sequence[Judged], lookup: Lookup, now: datetime) -> list[RuleResult]:
    """Evaluate rules over rows: one aggregation for each Judged, all of them in one query.

    lookup: the rows of another table by name, None where it is not there yet: its references are not looked at.
    """
    parts = []
    for number, one in enumerate(judged):
        rules, rows = _with_references(one, lookup)
        found = [F.count("*"), *(_measure(rule, one.identity) for rule in rules)]
        aggregated = rows.agg(F.array(*(c.cast("bigint") for c in found)).alias("found"))
        parts.append((one.subject, rules, aggregated.select(F.lit(number).alias("number"), "found")))
    if not parts:
        return []
    union = reduce(DataFrame.unionAll, (frame for *_, frame in parts))
    found_by_number = {row.number: row.found for row in union.collect()}
    return [
        _result(subject, rule, found_by_number[number][0], value, now)
        for number, (subject, rules, _) in enumerate(parts)
        for rule, value in zip(rules, found_by_number[number][1:], strict=True)
    ]


def _with_references(one: Judged, lookup: Lookup) -> tuple[list[Rule], DataFrame]:
    """The rules that can be looked at, and the rows, each beside the values that its references point at."""
    rules, rows = [], one.rows
    for rule in one.rules:
        if rule.kind is Kind.REFERENCE:
            there = lookup(rule.table)
            if there is None:
                continue
            known = there.select(F.col(rule.column).alias(_known(rule))).distinct()
            rows = rows.join(known, F.col(rule.columns[0]) == F.col(_known(rule)), "left")
        rules.append(rule)
    return rules, rows


def _known(rule: Rule) -> str:
    return f"_known_{rule.name}"


def _measure(rule: Rule, identity: tuple[str, ...]) -> Column:
    """How many rows break a rule, as an aggregate; for freshness, the newest value in seconds."""
    if rule.kind in OF_A_RECORD:
        return F.count_if(broken(rule, F.col(rule.columns[0])))
    if rule.kind is Kind.REFERENCE:
        return F.count_if(F.col(rule.columns[0]).isNotNull() & F.col(_known(rule)).isNull())
    if rule.kind is Kind.FRESHNESS:
        return F.unix_seconds(F.max(rule.columns[0]).cast("timestamp"))
    named = reduce(lambda a, b: a & b, (F.col(name).isNotNull() for name in rule.columns))
    every = F.count_distinct(*identity, *rule.columns) if identity else F.count_if(named)
    return every - F.count_distinct(*rule.columns)


def _result(subject: str, rule: Rule, rows: int, value: int | None, now: datetime) -> RuleResult:
    if rule.kind is not Kind.FRESHNESS:
        return result(rule, subject, rows, value or 0)
    newest = None if value is None else datetime.fromtimestamp(value, now.tzinfo)
    return freshness_result(rule, subject, newest, now, rows)


def result(rule: Rule, subject: str, rows: int, failing: int, found: str | None = None) -> RuleResult:
    """What was found by a rule."""
    return RuleResult(subject, rule.name, rule.kind, rule.action, rows, failing, rule.wanted, found)


def freshness_result(
    rule: Rule, subject: str, newest: datetime | None, now: datetime, rows: int
) -> RuleResult:
    """Whether the newest of the rows is new enough; without any it is not. One row fails: the newest."""
    late = newest is None or (rule.within is not None and now - newest > rule.within)
    return result(rule, subject, rows, int(late), f"{newest:%Y-%m-%d %H:%M}" if newest else None)


def volume_result(
    rule: Rule, subject: str, new: Mapping[str, int], before: Sequence[int]
) -> RuleResult | None:
    """Whether new files hold about as many records as those before; None while there are few to compare with.

    new: records by path; before: records of earlier files, in their order. What is checked, and fails, is files.
    """
    recent = before[-RECENT_FILES:]
    if not new or len(recent) < LEAST_FILES:
        return None
    median, tolerance = statistics.median(recent), rule.tolerance or 0
    off = {path: n for path, n in new.items() if abs(n - median) > tolerance * median}
    found = ", ".join(f"{path.rsplit('/', 1)[-1]}: {n}" for path, n in sorted(off.items())[:3])
    more = f" and {len(off) - 3} more" if len(off) > 3 else ""
    expected = f"{median:g} ± {tolerance:.0%}"
    return RuleResult(
        subject, rule.name, rule.kind, rule.action, len(new), len(off), expected, (found + more) or None
    )


def settle(run: RunContext, results: Sequence[RuleResult], stopped: str) -> None:
    """Note results with the run, and say what was broken. stopped: what has not happened when the run stops here.

    Raises RuleFailed when a rule that says `fail` is broken, unless the run only warns.
    """
    run.findings += results
    failed = []
    for found in results:
        if found.passed:
            continue
        line = _line(found)
        if found.action is Action.FAIL and not run.warn_only:
            failed.append(line)
        else:
            log.warning("%s", line)
    if failed:
        raise RuleFailed(
            f"{'; '.join(failed)}. {stopped}. Mend the data or the rule, or go on with --warn-only"
        )


def _line(found: RuleResult) -> str:
    head = f"{found.subject}: {found.rule} (expected: {found.expected}"
    if found.kind in (Kind.FRESHNESS, Kind.VOLUME):
        return f"{head}; found: {found.found or 'nothing'})"
    return f"{head}): {found.rows_failing:,} of {found.rows_checked:,} rows"
