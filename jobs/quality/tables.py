"""Rules of tables: `sql/<table>.toml` beside `sql/<table>.sql`, one `[[rule]]` each, judged before publishing."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame

from jobs.context import RunContext
from jobs.errors import ConfigurationError
from jobs.quality.evaluation import Judged, Lookup, judge, settle
from jobs.quality.rules import Action, Kind, Rule, misfit
from jobs.warehouse import declarations

# Key of a rule in a file → the types of its value.
KEYS: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "action": (str,),
    "column": (str,),
    "columns": (list,),
    "name": (str,),
    "pattern": (str,),
    "low": (int, float, str),
    "high": (int, float, str),
    "values": (list,),
    "references": (str,),
    "within_days": (int, float),
}
# What a kind knows beside kind, action, column and name.
OWN: dict[Kind, frozenset[str]] = {
    Kind.REQUIRED: frozenset(),
    Kind.PATTERN: frozenset({"pattern"}),
    Kind.RANGE: frozenset({"low", "high"}),
    Kind.SET: frozenset({"values"}),
    Kind.UNIQUE: frozenset({"columns"}),
    Kind.REFERENCE: frozenset({"references"}),
    Kind.FRESHNESS: frozenset({"within_days"}),
}


def table_rules() -> dict[str, tuple[Rule, ...]]:
    """The rules of every table that has some, by its name.

    Raises ConfigurationError, naming file, rule and key, for what is not a rule of this table.
    """
    files = sorted((declarations.ROOT / "sql").glob("*.toml"))
    return {file.stem: rules_of(file) for file in files}


def rules_of(file: Path) -> tuple[Rule, ...]:
    """The rules in one file."""
    where = f"{file.parent.name}/{file.name}"
    table = declarations.tables().get(file.stem)
    if table is None:
        raise ConfigurationError(f"{where}: there is no table {file.stem}")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where}: not TOML: {error}") from None
    entries = content.get("rule")
    if content.keys() != {"rule"} or not isinstance(entries, list):
        raise ConfigurationError(f"{where}: expected nothing but [[rule]] tables, found {', '.join(content)}")
    rules = [_rule(f"{where}: rule {n}", entry, table) for n, entry in enumerate(entries, 1)]
    names = [rule.name for rule in rules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(
            f"{where}: there are two rules {', '.join(twice)}; give one a name of its own"
        )
    return tuple(rules)


def _rule(where: str, entry: Mapping[str, Any], table: declarations.Table) -> Rule:
    for key, value in entry.items():
        if key not in KEYS:
            raise ConfigurationError(f"{where}: {key}: not a key; there are {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or (isinstance(value, bool) and bool not in KEYS[key]):
            kinds = " or ".join(kind.__name__ for kind in KEYS[key])
            raise ConfigurationError(f"{where}: {key} = {value!r}: expected {kinds}")
    known = [kind.value for kind in OWN]
    if entry.get("kind") not in known:
        raise ConfigurationError(f"{where}: kind = {entry.get('kind')!r}: expected one of {', '.join(known)}")
    # Rows of a table were accepted: there is nothing to reject.
    actions = [Action.WARN.value, Action.FAIL.value]
    if entry.get("action") not in actions:
        raise ConfigurationError(
            f"{where}: action = {entry.get('action')!r}: expected {' or '.join(actions)}"
        )
    kind = Kind(entry["kind"])
    if other := entry.keys() - OWN[kind] - {"kind", "action", "column", "name"}:
        raise ConfigurationError(f"{where}: {', '.join(sorted(other))}: not a key of a rule of kind {kind}")
    columns = tuple(entry.get("columns", [entry["column"]] if "column" in entry else []))
    if not columns:
        raise ConfigurationError(f"{where}: column: missing")
    if unknown := [name for name in columns if name not in table.column_names]:
        raise ConfigurationError(f"{where}: column {unknown[0]!r}: {table.name} has no such column")
    other_table, _, other_column = entry.get("references", "").partition(".")
    if kind is Kind.REFERENCE:
        target = declarations.tables().get(other_table)
        if target is None or other_column not in target.column_names:
            raise ConfigurationError(
                f"{where}: references = {entry.get('references')!r}: expected a declared table.column"
            )
    try:
        rule = Rule(
            kind,
            columns,
            Action(entry["action"]),
            entry.get("name", ""),
            pattern=entry.get("pattern"),
            low=entry.get("low"),
            high=entry.get("high"),
            values=tuple(entry.get("values", ())),
            table=other_table,
            column=other_column,
            within=timedelta(days=entry["within_days"]) if "within_days" in entry else None,
        )
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    if problem := misfit(rule, table.spark_schema()[columns[0]].dataType):
        raise ConfigurationError(f"{where}: rule {rule.name}: {problem}")
    return rule


def judge_tables(run: RunContext, tables: Iterable[tuple[str, DataFrame]], lookup: Lookup) -> None:
    """Judge the rows that tables are about to be published with by the tables' rules, in one query.

    Raises RuleFailed when a rule that says `fail` is broken, unless the run only warns.
    """
    rules = table_rules()
    judged = [Judged(name, rows, rules[name]) for name, rows in tables if name in rules]
    settle(run, judge(judged, lookup, run.started_at), "Nothing was published")
