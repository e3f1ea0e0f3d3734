"""The one script of a publication to BigQuery: a transaction that changes all tables, checks them, notes their states.

BigQuery enforces no key, so that uniqueness and foreign keys are checked like counts and sums. What the checks found is
kept in variables, which survive a rollback, and is the script's result together with its outcome:

    published   committed
    failed      a check did; rolled back
    overtaken   the published versions were not those that the loads start from; nothing was done
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from google.cloud import bigquery
from sqlglot import exp

from jobs.warehouse.base import KEY_SEPARATOR, ROW_COUNT, Check, Load, Published, number_text
from jobs.warehouse.bigquery_schema import TYPES
from jobs.warehouse.declarations import Table

STATES = "_published"


@dataclass(frozen=True)
class StagedLoad:
    """A load whose rows stand in a stage table."""

    load: Load
    stage: bigquery.TableReference


class PublishScript:
    """What one publication runs.

    before: the published versions that the loads were made from. present: the names of all tables that are there.
    """

    def __init__(
        self,
        dataset: bigquery.DatasetReference,
        staged: Sequence[StagedLoad],
        before: Mapping[str, Published],
        present: Collection[str],
    ) -> None:
        self.dataset = dataset
        self.staged = staged
        self.before = before
        self.present = present

    def sql(self) -> str:
        """The script; its result is one row: the outcome, then what the checks of each load found."""
        # A variable must not have the name of a column.
        outcome, found = "publish_outcome", [f"publish_found_{n}" for n in range(len(self.staged))]
        tables = [staged.load.table for staged in self.staged]
        lines = [f"DECLARE {outcome} STRING DEFAULT 'published';"]
        lines += [f"DECLARE {name} STRING;" for name in found]
        lines += [
            f"DECLARE {', '.join(partition_span(table))} {partition_type(table)};"
            for table in tables
            if table.partitioning
        ]
        lines += ["BEGIN TRANSACTION;", f"IF {self._overtaken()} THEN"]
        lines += ["ROLLBACK TRANSACTION;", f"SET {outcome} = 'overtaken';", "ELSE"]
        lines += [self._change(staged) for staged in self.staged]
        for name, staged in zip(found, self.staged, strict=True):
            lines.append(f"SET {name} = ({self._measure(staged.load)});")
        failed = [self._failed(n, s.load) for n, s in zip(found, self.staged, strict=True)]
        lines += [
            f"IF {' OR '.join(failed)} THEN",
            "ROLLBACK TRANSACTION;",
            f"SET {outcome} = 'failed';",
            "ELSE",
        ]
        lines += [self._note_states(), "COMMIT TRANSACTION;", "END IF;", "END IF;"]
        lines.append(f"SELECT {outcome}, {', '.join(found)};")
        return "\n".join(lines)

    def checks(self, row: Sequence[str | None]) -> list[Check]:
        """The results of the checks, from the row's values after the outcome."""
        return [
            Check(staged.load.table.name, name, number_text(expected), number_text(found))
            for staged, text in zip(self.staged, row, strict=True)
            for (name, _, expected), found in zip(self._checks(staged.load), _numbers(text), strict=True)
        ]

    def _change(self, staged: StagedLoad) -> str:
        table, stage = staged.load.table, full_name(staged.stage)
        target = self._name(table.name)
        if staged.load.whole:
            return ";\n".join(replace_statements(table, target, stage)) + ";"
        if not table.partitioning:
            return merge_statement(table, target, stage, None) + ";"
        span, column = partition_span(table), quoted(table.partitioning.column)
        low, high = (
            f"SET {variable} = (SELECT {end}({column}) FROM {stage});\n"
            for variable, end in zip(span, ("MIN", "MAX"), strict=True)
        )
        return low + high + merge_statement(table, target, stage, span) + ";"

    def _overtaken(self) -> str:
        """Whether what is published is not what the loads were made from."""
        names = ", ".join(literal(staged.load.table.name) for staged in self.staged)
        states = [
            f"(table_name = {literal(name)} AND delta_table_id = {literal(state.table_id)} "
            f"AND delta_version = {state.version})"
            for name, state in self._before_these().items()
        ]
        there = f"(SELECT COUNT(*) FROM {self._name(STATES)} WHERE table_name IN ({names})) <> {len(states)}"
        if not states:
            return there
        same = f"(SELECT COUNT(*) FROM {self._name(STATES)} WHERE {' OR '.join(states)}) <> {len(states)}"
        return f"{there} OR {same}"

    def _before_these(self) -> Mapping[str, Published]:
        names = [staged.load.table.name for staged in self.staged]
        return {name: self.before[name] for name in names if name in self.before}

    def _note_states(self) -> str:
        rows = " UNION ALL ".join(
            f"SELECT {literal(s.load.table.name)} AS table_name, {literal(s.load.state.table_id)} AS delta_table_id, "
            f"{s.load.state.version} AS delta_version"
            for s in self.staged
        )
        return (
            f"MERGE {self._name(STATES)} AS t USING ({rows}) AS s ON t.table_name = s.table_name\n"
            "WHEN MATCHED THEN UPDATE SET delta_table_id = s.delta_table_id, delta_version = s.delta_version, "
            "published_at = CURRENT_TIMESTAMP()\n"
            "WHEN NOT MATCHED THEN INSERT (table_name, delta_table_id, delta_version, published_at) VALUES "
            "(s.table_name, s.delta_table_id, s.delta_version, CURRENT_TIMESTAMP());"
        )

    def _checks(self, load: Load) -> list[tuple[str, str, Decimal | int | None]]:
        """(name, expression over the table, what it has to give) of every check."""
        table = load.table
        checks: list[tuple[str, str, Decimal | int | None]] = [
            (name, "COUNT(*)" if name == ROW_COUNT else sum_of(name[4:-1]), expected)
            for name, expected in load.expected.items()
        ]
        for kind, columns in [("primary key", table.primary_key), *(("unique", u) for u in table.unique)]:
            names = _columns(columns)
            repeated = f"SELECT {names} FROM {self._name(table.name)} GROUP BY {names} HAVING COUNT(*) > 1"
            checks.append(
                (f"{kind} ({', '.join(columns)}) repeated", f"(SELECT COUNT(*) FROM ({repeated}))", 0)
            )
        for key in table.foreign_keys:
            if key.table in self.present:
                on = " AND ".join(
                    f"c.{quoted(a)} = p.{quoted(b)}" for a, b in zip(key.columns, key.referenced, strict=True)
                )
                missing = " AND ".join(
                    [f"p.{quoted(key.referenced[0])} IS NULL"]
                    + [f"c.{quoted(name)} IS NOT NULL" for name in key.columns]
                )
                dangling = (
                    f"SELECT COUNT(*) FROM {self._name(table.name)} AS c LEFT JOIN {self._name(key.table)} AS p "
                    f"ON {on} WHERE {missing}"
                )
                checks.append((f"foreign key ({', '.join(key.columns)}) dangling", f"({dangling})", 0))
        return checks

    def _measure(self, load: Load) -> str:
        values = ", ".join(
            f"CAST({expression} AS STRING) AS c{number}"
            for number, (_, expression, _) in enumerate(self._checks(load))
        )
        return f"SELECT TO_JSON_STRING(STRUCT({values})) FROM {self._name(load.table.name)}"

    def _failed(self, found: str, load: Load) -> str:
        return " OR ".join(
            f"CAST(JSON_VALUE({found}, '$.c{number}') AS BIGNUMERIC) IS DISTINCT FROM "
            + ("NULL" if expected is None else f"BIGNUMERIC '{number_text(expected)}'")
            for number, (_, _, expected) in enumerate(self._checks(load))
        )

    def _name(self, name: str) -> str:
        return full_name(self.dataset.table(name))


def replace_statements(table: Table, target: str, source: str) -> list[str]:
    """All rows anew, from a table or a query in parentheses."""
    columns = _columns(table.column_names)
    return [
        f"DELETE FROM {target} WHERE TRUE",
        f"INSERT INTO {target} ({columns}) SELECT {columns} FROM {source}",
    ]


def merge_statement(table: Table, target: str, source: str, span: tuple[str, str] | None) -> str:
    """The changes. span: SQL for the first and last value of the partition column among them, so that only those
    partitions are read, and paid for."""
    on = [f"t.{quoted(name)} = s.{quoted(name)}" for name in table.primary_key]
    if table.partitioning and span:
        on.append(f"t.{quoted(table.partitioning.column)} BETWEEN {span[0]} AND {span[1]}")
    others = [quoted(name) for name in table.column_names if name not in table.primary_key]
    update = ", ".join(f"{name} = s.{name}" for name in others)
    values = ", ".join(f"s.{quoted(name)}" for name in table.column_names)
    matched = f"WHEN MATCHED THEN UPDATE SET {update}\n" if others else ""
    return (
        f"MERGE {target} AS t USING {source} AS s ON {' AND '.join(on)}\n"
        f"WHEN MATCHED AND s.`_deleted` THEN DELETE\n{matched}"
        f"WHEN NOT MATCHED AND NOT s.`_deleted` THEN INSERT ({_columns(table.column_names)}) VALUES ({values})"
    )


def measures_query(table: Table, name: str) -> str:
    """Count, sums of the measures, hash of the keys (see `base.KEY_HASH`)."""
    separator = f", CHR({ord(KEY_SEPARATOR)}), "
    key = separator.join(
        f"CAST({f'UNIX_MICROS({quoted(c.name)})' if c.is_time else quoted(c.name)} AS STRING)"
        for c in table.key_columns
    )
    bits = f"CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(CONCAT({key}))), 1, 15)) AS INT64)"
    values = [
        "COUNT(*)",
        *map(sum_of, table.measures),
        f"SUM(CAST({bits} AS BIGNUMERIC))",
    ]
    return f"SELECT {', '.join(f'{value} AS c{number}' for number, value in enumerate(values))} FROM {name}"


def sum_of(column: str) -> str:
    """The sum of a measure: that of integers has to be one itself in BigQuery, or is an error."""
    return f"SUM(CAST({quoted(column)} AS BIGNUMERIC))"


def partition_span(table: Table) -> tuple[str, str]:
    """The variables that hold the first and the last value of the partition column among the changes."""
    return f"publish_{table.name}_from", f"publish_{table.name}_until"


def partition_type(table: Table) -> str:
    """The type of the column that a table is partitioned by."""
    return next(
        TYPES[c.type.this]
        for c in table.columns
        if table.partitioning and c.name == table.partitioning.column
    )


def quoted(name: str) -> str:
    """A name, quoted."""
    return exp.to_identifier(name, quoted=True).sql("bigquery")


def literal(text: str) -> str:
    """A text, quoted."""
    return exp.Literal.string(text).sql("bigquery")


def _columns(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))


def full_name(table: bigquery.TableReference) -> str:
    """A table's name with project and dataset, quoted."""
    return f"`{table.project}`.`{table.dataset_id}`.`{table.table_id}`"


def _numbers(text: str | None) -> list[Decimal | None]:
    return [None if v is None else Decimal(v) for v in json.loads(text).values()] if text else []
