"""A report as one HTML file: style and pictures inline, nothing fetched, no script. Whatever is data is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from itertools import groupby

from jobs.quality.report import Bar, Example, FeedReport, Report, RuleReport
from jobs.quality.rules import Action, span

STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #5b6570; --line: #d5dae0; --back: #fff; --box: #f4f6f8;
  --good: #1a7f4b; --warn: #935f00; --bad: #c0262d; --bar: #3b73b9; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ec; --soft: #9aa5b1; --line: #3a424b; --back: #15181c;
  --box: #1e2329; --good: #53c689; --warn: #e0ab4f; --bad: #ff7b80; --bar: #6ea3e3; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 3rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .3rem 0; }
.soft, caption { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .4rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem .3rem 0; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.time { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, .mono { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); } .bold { font-weight: 600; }
details { background: var(--box); border-radius: 6px; margin: .4rem 0; padding: .45rem .8rem; }
summary { cursor: pointer; }
dl { display: grid; gap: .1rem 1rem; grid-template-columns: max-content 1fr; margin: .3rem 0; }
dt { color: var(--soft); } dd { margin: 0; }
svg { display: block; } .accepted { fill: var(--bar); } .rejected { fill: var(--bad); } .base { stroke: var(--line); }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
OUTCOMES = {"done": "good", "refused": "warn", "failed": "bad"}
FRESHNESS = {"fresh": "good", "late": "warn", "never": "soft"}
NUMBERS = "n"
HEIGHT, WIDTH, STEP = 28, 6, 8


class Html(str):
    """Text that is HTML already."""


def page(report: Report) -> str:
    """The report as an HTML document."""
    parts = [_head(report), _broken(report.rules), _feeds(report.feeds), _rejected(report.feeds)]
    parts += [_rules(report.rules), _steps(report)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(f'Run {report.name}')}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + f'\n<p class="soft">Made {_time(report.made_at)} by user-analytics. All times are UTC.</p>\n'
        + "</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    if len(report.runs) > 1:
        title, rows = f"{len(report.runs)} runs", _runs(report)
    else:
        run = report.runs[0]
        title = f"user-analytics {run['command']}"
        rows = _pairs(
            ("outcome", _outcome(run["outcome"])),
            ("started", _time(run["started_at"])),
            ("took", f"{run['seconds']:,.1f} s"),
            ("version", run["code_version"]),
            ("run", _tag("code", run["run_id"])),
        )
    return f"<h1>{escape(title)}</h1>\n{rows}"


def _runs(report: Report) -> str:
    return _table(
        ("command", "outcome", "started", "seconds:n", "version", "run"),
        [
            (
                *(r["command"], _outcome(r["outcome"]), _time(r["started_at"]), f"{r['seconds']:,.1f}"),
                *(r["code_version"], _tag("code", r["run_id"])),
            )
            for r in report.runs
        ],
    )


def _broken(rules: Sequence[RuleReport]) -> str:
    broken = [rule for rule in rules if rule.passed is False]
    if not broken:
        return '<h2>Rules</h2>\n<p class="good bold">No rule that warns or fails was broken.</p>'
    return "<h2>Broken rules</h2>\n" + _table(
        ("", "of", "rule", "expected", "found", "checked:n", "breaking it:n", "last runs"),
        map(_rule_row, broken),
    )


def _rule_row(rule: RuleReport) -> tuple[str, ...]:
    return (
        *(_verdict(rule), rule.subject, rule.rule, rule.expected, rule.found or ""),
        *(_number(rule.rows_checked), _number(rule.rows_failing), _line(rule)),
    )


def _verdict(rule: RuleReport) -> Html:
    if rule.passed is None:
        return _tag("span", "not looked at", "soft")
    if rule.action == Action.REJECT and rule.rows_failing:
        return _tag("span", "rejected", "warn bold")
    if rule.passed:
        return _tag("span", "held", "good")
    return _tag("span", *(("warning", "warn bold") if rule.action == Action.WARN else ("failed", "bad bold")))


def _feeds(feeds: Sequence[FeedReport]) -> str:
    header = ("feed", "files:n", "refused:n", "read:n", "accepted:n", "duplicates:n", "rejected:n")
    rows = [
        (
            *(f.name, _number(f.files), _number(len(f.refused)), _number(f.read), _number(f.accepted)),
            *(_number(f.duplicates), _number(f.rejected), _tag("span", f.state, FRESHNESS[f.state])),
            *(_time(f.last_new) if f.last_new else "", span(f.expected_every), _bars(f.name, f.trend)),
        )
        for f in feeds
    ]
    refused = [(f.name, path, error) for f in feeds for path, error in f.refused]
    return (
        "<h2>Feeds</h2>\n"
        + _table(
            (*header, "freshness", "last new file", "expected every", "accepted, rejected per run"), rows
        )
        + ("\n<h3>Refused files</h3>\n" + _table(("feed", "file", "why"), refused) if refused else "")
    )


def _rejected(feeds: Sequence[FeedReport]) -> str:
    # A file's rejected records are those of its last reading: a run before it has counts of them only.
    gone = "no longer in quarantine: read again or reset since"
    reasons = [
        (f.name, reason, _number(n))
        for f in feeds
        for reason, n in (f.reasons or ({gone: f.rejected} if f.rejected else {})).items()
    ]
    if not reasons:
        return '<h2>Rejected records</h2>\n<p class="good bold">None.</p>'
    examples = [
        f"<h3>{escape(f.name)}</h3>\n" + "\n".join(map(_example, f.examples)) for f in feeds if f.examples
    ]
    return (
        "<h2>Rejected records</h2>\n"
        + _table(("feed", "reason", "records:n"), reasons)
        + '\n<p class="soft">Examples. Personal and unknown fields are masked; <code>user-analytics quarantine</code> '
        "shows records as they came.</p>\n" + "\n".join(examples)
    )


def _example(example: Example) -> str:
    title = _tag("summary", f"{', '.join(example.reasons)} — {example.path}")
    if example.values is None:
        body = f'<p class="soft">Could not be taken apart: {example.length:,} characters, not shown.</p>'
    else:
        body = _pairs(*((name, _tag("span", value, "mono")) for name, value in example.values))
    return f"<details>{title}{body}</details>"


def _rules(rules: Sequence[RuleReport]) -> str:
    parts = ["<h2>All rules and checks</h2>"]
    ordered = sorted(rules, key=lambda rule: (not rule.subject.startswith("staging/"), rule.subject))
    for subject, group in groupby(ordered, key=lambda rule: rule.subject):
        ours = list(group)
        looked = [rule for rule in ours if rule.passed is not None]
        broken = sum(not rule.passed for rule in looked)
        title = f"{subject}: {len(ours)} rules and checks, {len(looked)} looked at, {broken} broken"
        rows = [
            (
                *(rule.rule, rule.kind, rule.action, rule.expected, _verdict(rule), rule.found or ""),
                *(_number(rule.rows_checked), _number(rule.rows_failing)),
            )
            for rule in ours
        ]
        header = ("rule", "kind", "action", "expected", "", "found", "checked:n", "breaking it:n")
        parts.append(f"<details>{_tag('summary', title)}{_table(header, rows)}</details>")
    parts.append(
        '<p class="soft">Rules of a feed are looked at when something of it was read; of those that reject, a run '
        "notes the ones that rejected something. Rules of a table are looked at before it is published.</p>"
    )
    return "\n".join(parts)


def _steps(report: Report) -> str:
    if not report.steps:
        return ""
    rows = [
        (s["name"], _outcome(s["outcome"]), f"{s['seconds']:,.1f}", s["detail"] or "") for s in report.steps
    ]
    return "<h2>Steps</h2>\n" + _table(("step", "outcome", "seconds:n", "what"), rows)


def _bars(name: str, bars: Sequence[Bar]) -> Html:
    """One bar per run, rejected on top of accepted; the tallest fills the height."""
    most = max((bar.accepted + bar.rejected for bar in bars), default=0)
    if not most:
        return Html("")
    drawn = []
    for number, bar in enumerate(bars):
        tops = [bar.accepted, bar.accepted + bar.rejected]
        accepted, both = (round((HEIGHT - 1) * top / most, 1) for top in tops)
        # Few among many are seen, too.
        both = max(both, accepted + 1.5) if bar.rejected else both
        says = f"{bar.at:%Y-%m-%d %H:%M}: {bar.accepted:,} accepted, {bar.rejected:,} rejected"
        drawn.append(
            f"<g><title>{escape(says)}</title>"
            f'<rect class="accepted" x="{number * STEP}" y="{HEIGHT - accepted:g}" width="{WIDTH}" '
            f'height="{accepted:g}"/>'
            f'<rect class="rejected" x="{number * STEP}" y="{max(HEIGHT - both, 0):g}" width="{WIDTH}" '
            f'height="{both - accepted:g}"/></g>'
        )
    return _svg(f"{name}: records accepted and rejected in the last {len(bars)} runs", len(bars), drawn)


def _line(rule: RuleReport) -> Html:
    """One bar per run that looked, by the rows that broke the rule."""
    most = max(rule.trend, default=0)
    if len(rule.trend) < 2 or not most:
        return Html("")
    heights = [round((HEIGHT - 1) * value / most, 1) for value in rule.trend]
    drawn = [
        f"<g><title>{value:,}</title>"
        f'<rect class="rejected" x="{n * STEP}" y="{HEIGHT - h:g}" width="{WIDTH}" height="{h:g}"/></g>'
        for n, (value, h) in enumerate(zip(rule.trend, heights, strict=True))
    ]
    return _svg(f"{rule.rule}: breaking it in the last {len(drawn)} runs", len(drawn), drawn)


def _svg(label: str, count: int, drawn: Iterable[str]) -> Html:
    width = count * STEP
    return Html(
        f'<svg role="img" aria-label="{escape(label)}" width="{width}" height="{HEIGHT}" '
        f'viewBox="0 0 {width} {HEIGHT}">{"".join(drawn)}'
        f'<line class="base" x1="0" y1="{HEIGHT - 0.5}" x2="{width}" y2="{HEIGHT - 0.5}"/></svg>'
    )


def _outcome(outcome: str) -> Html:
    return _tag("span", outcome, f"{OUTCOMES.get(outcome, 'warn')} bold")


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _time(at: datetime) -> Html:
    return _tag("span", f"{at:%Y-%m-%d %H:%M}", "time")


def _tag(name: str, text: object, style: str | None = None) -> Html:
    kind = f' class="{style}"' if style else ""
    return Html(f"<{name}{kind}>{escape(str(text))}</{name}>")


def _pairs(*pairs: tuple[str, str]) -> str:
    return (
        "<dl>" + "".join(f"<dt>{_cell(name)}</dt><dd>{_cell(value)}</dd>" for name, value in pairs) + "</dl>"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a column whose header ends in `:n` holds numbers."""
    names = [name.partition(":") for name in header]
    kinds = [' class="n"' if kind == NUMBERS else "" for *_, kind in names]
    head = "".join(f"<th{k}>{escape(n)}</th>" for (n, *_), k in zip(names, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{_cell(v)}</td>" for v, k in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'


def _cell(value: str) -> str:
    return value if isinstance(value, Html) else escape(str(value))
