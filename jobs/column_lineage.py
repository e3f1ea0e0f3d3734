"""Where a column comes from: of rows, as Spark's analysed plan says; of a view, as its SQL says.

Only what a column is computed from counts, not what rows are filtered, joined or grouped by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from py4j.protocol import Py4JError
from pyspark.sql import DataFrame
from sqlglot import exp
from sqlglot.lineage import Node, lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope

from jobs.warehouse.declarations import View, tables, views

IDENTITY, TRANSFORMATION, AGGREGATION, WINDOW = "IDENTITY", "TRANSFORMATION", "AGGREGATION", "WINDOW"
# Of several on one way, the last in this order is what the way is called.
_BY_WEIGHT = (IDENTITY, TRANSFORMATION, WINDOW, AGGREGATION)
# What stands before the address of a table whose rows are a part of the plan.
IN_PLAN = "rows of "
# Folders that a version makes: Delta's own, and those of intermediates, `work/<name>/<made from>`.
_VERSIONED = re.compile(r"(work/[^/]+)/.*|(.*?)/_(?:change_data|delta_log)(?:/.*)?")


@dataclass(frozen=True, order=True)
class SourceColumn:
    """A column that another one is computed from.

    dataset: its path in the lake, or its name in the warehouse. how: IDENTITY, TRANSFORMATION, AGGREGATION, WINDOW.
    """

    dataset: str
    column: str
    how: str
    in_warehouse: bool = False


@dataclass
class _Graph:
    """made_from: attribute → those that it is computed from, and how. leaves: attribute → column of a source."""

    made_from: dict[int, dict[int, str]] = field(default_factory=dict)
    leaves: dict[int, tuple[str, str]] = field(default_factory=dict)

    def add(self, made: int, source: int, how: str) -> None:
        if made != source:
            known = self.made_from.setdefault(made, {})
            known[source] = _heavier(known.get(source, IDENTITY), how)

    def sources(self, attribute: int) -> Iterator[SourceColumn]:
        """The columns of sources that an attribute is computed from."""
        seen: dict[int, str] = {}
        todo = [(attribute, IDENTITY)]
        while todo:
            at, how = todo.pop()
            if at in seen and _heavier(seen[at], how) == seen[at]:
                continue
            seen[at] = how
            todo += [(source, _heavier(how, step)) for source, step in self.made_from.get(at, {}).items()]
        for at, how in seen.items():
            if at in self.leaves:
                yield SourceColumn(*self.leaves[at], how)


def _heavier(one: str, other: str) -> str:
    return max(one, other, key=_BY_WEIGHT.index)


def columns_of_rows(rows: DataFrame, lake_uri: str) -> dict[str, list[SourceColumn]]:
    """Of every column of rows: the columns of the lake's tables and files that it is computed from.

    A column that stands on nothing of the lake, such as a constant, has an empty list.
    """
    plan = rows._jdf.queryExecution().analyzed()
    graph = _Graph()
    _walk(plan, graph, lake_uri)
    output = _attributes(plan.output())
    return {name: sorted(set(graph.sources(attribute))) for name, attribute in output}


def _walk(plan: Any, graph: _Graph, lake_uri: str) -> None:
    kind = _class(plan)
    children = list(_each(plan.children()))
    for child in children:
        _walk(child, graph, lake_uri)
    output = _attributes(plan.output())
    if dataset := _dataset(plan, lake_uri):
        graph.leaves.update({attribute: (dataset, name) for name, attribute in output})
    if not children:
        return
    if kind == "Union":
        columns = [_attributes(child.output()) for child in children]
        for position, (_, made) in enumerate(output):
            for child_columns in columns:
                graph.add(made, child_columns[position][1], IDENTITY)
        return
    if kind == "Expand":  # GROUPING SETS, ROLLUP and CUBE: the same columns once per set
        for projection in _each(plan.projections()):
            for (_, made), part in zip(output, _each(projection), strict=True):
                for _, source in _attributes(part.references().toSeq()):
                    graph.add(made, source, _how(kind, part))
        return
    named = {}
    for expression in _each(plan.expressions()):
        if _class(expression) == "Alias":
            named[expression.exprId().id()] = expression
    below = {attribute for child in children for _, attribute in _attributes(child.output())}
    for _, made in output:
        if made in named:
            how = _how(kind, named[made].child())
            references = _attributes(named[made].references().toSeq())
        elif made not in below:
            # What a generator or a function over partitions makes.
            how = TRANSFORMATION
            references = _attributes(plan.references().toSeq()) or [("", other) for other in below]
        else:
            continue
        for _, source in references:
            graph.add(made, source, how)


def _how(node: str, made: Any) -> str:
    if _class(made) == "AttributeReference":
        return IDENTITY
    if node == "Aggregate" and "AggregateExpression" in _classes(made):
        return AGGREGATION
    return WINDOW if node == "Window" else TRANSFORMATION


def _classes(expression: Any) -> Iterator[str]:
    yield _class(expression)
    for child in _each(expression.children()):
        yield from _classes(child)


def named_in_plan(address: str) -> str:
    """The alias of rows that are a part of a plan, by which it is known where in the lake they are from."""
    return IN_PLAN + address


def _dataset(node: Any, lake_uri: str) -> str | None:
    """The lake's table or folder that a node of a plan reads; None when it is none."""
    match _class(node):
        case "LogicalRelation":
            address = _address(node.relation())
        case "SubqueryAlias" if (name := str(node.alias())).startswith(IN_PLAN):
            address = name.removeprefix(IN_PLAN)
        case _:
            return None
    if not address.startswith(f"{lake_uri}/"):
        return None
    name = address.removeprefix(f"{lake_uri}/").rstrip("/")
    found = _VERSIONED.fullmatch(name)
    return (found[1] or found[2]) if found else name


def _address(relation: Any) -> str:
    try:
        path = str(relation.location().rootPaths().head().toString())
    except Py4JError:  # Delta's change data feed
        path = str(relation.snapshotWithSchemaMode().snapshot().deltaLog().dataPath().toString())
    parts = urlsplit(path)
    return unquote(parts.path) if parts.scheme in ("", "file") else path


def _attributes(sequence: Any) -> list[tuple[str, int]]:
    return [(a.name(), a.exprId().id()) for a in _each(sequence)]


def _each(sequence: Any) -> Iterator[Any]:
    return (sequence.apply(i) for i in range(sequence.size()))


def _class(node: Any) -> str:
    return str(node.getClass().getSimpleName())


def columns_of_view(view: View) -> Mapping[str, Sequence[SourceColumn]]:
    """Of every column of a view: the columns of tables and views of the warehouse that it is computed from."""
    schema: dict[str, object] = {t.name: {c.name: c.type.sql() for c in t.columns} for t in tables().values()}
    schema |= {v.name: dict.fromkeys(v.query.named_selects, "VARCHAR") for v in views().values()}
    query = qualify(view.query.copy(), schema=schema, dialect="spark")
    scope = build_scope(query)
    found = {}
    for name in query.named_selects:
        top = lineage(name, query, schema=schema, dialect="spark", scope=scope)
        found[name] = sorted(set(_sources_of(top, IDENTITY)))
    return found


def _sources_of(node: Node, how: str) -> Iterator[SourceColumn]:
    if isinstance(node.expression, exp.Table):
        yield SourceColumn(node.expression.name, exp.to_column(node.name).name, how, in_warehouse=True)
        return
    how = _heavier(how, _how_selected(node.expression.unalias()))
    for below in node.downstream:
        yield from _sources_of(below, how)


def _how_selected(selected: exp.Expr) -> str:
    if isinstance(selected, exp.Column):
        return IDENTITY
    if selected.find(exp.Window):
        return WINDOW
    return AGGREGATION if selected.find(exp.AggFunc) else TRANSFORMATION
