"""Declared tables and views in BigQuery's own terms: schema, keys, partitions, clusters, comments, labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.cloud import bigquery
from sqlglot import exp

from jobs.errors import UserAnalyticsError
from jobs.warehouse.declarations import Column, Table, View

LABELS = {"managed_by": "user-analytics"}
Kind = exp.DataType.Type
TYPES = {
    Kind.BIGINT: "INT64",
    Kind.BOOLEAN: "BOOL",
    Kind.DATE: "DATE",
    Kind.DECIMAL: "NUMERIC",
    Kind.DOUBLE: "FLOAT64",
    Kind.TEXT: "STRING",
    Kind.TIMESTAMPTZ: "TIMESTAMP",
    Kind.UUID: "STRING",
    Kind.VARCHAR: "STRING",
}
# The interface gives types back under their older names.
CURRENT_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "STRUCT": "RECORD"}


def bigquery_table(table: Table, dataset: bigquery.DatasetReference) -> bigquery.Table:
    """The table as it has to be made. Keys are declared, not enforced: BigQuery enforces none."""
    made = bigquery.Table(dataset.table(table.name), [schema_field(column) for column in table.columns])
    made.description = table.comment
    made.labels = LABELS
    if table.partitioning:
        made.time_partitioning = bigquery.TimePartitioning(
            type_=table.partitioning.unit, field=table.partitioning.column
        )
    if table.clustering:
        made.clustering_fields = list(table.clustering)
    foreign_keys = [
        bigquery.table.ForeignKey(
            name=f"{table.name}_{'_'.join(key.columns)}_fkey",
            referenced_table=dataset.table(key.table),
            column_references=[
                bigquery.table.ColumnReference(column, referenced)
                for column, referenced in zip(key.columns, key.referenced, strict=True)
            ],
        )
        for key in table.foreign_keys
    ]
    made.table_constraints = bigquery.table.TableConstraints(
        bigquery.table.PrimaryKey(list(table.primary_key)), foreign_keys
    )
    return made


def schema_field(column: Column) -> bigquery.SchemaField:
    """A column with its comment; arrays are repeated, which is never null in BigQuery."""
    return _field(column.name, column.type, "NULLABLE" if column.nullable else "REQUIRED", column.comment)


def staged_fields(table: Table, whole: bool) -> list[bigquery.SchemaField]:
    """The columns of a stage table. They may be null, as columns of Parquet files may; the table itself says no."""
    flag = [] if whole else [bigquery.SchemaField("_deleted", "BOOL")]
    return [_field(column.name, column.type, "NULLABLE", "") for column in table.columns] + flag


def differences(table: Table, there: Sequence[bigquery.SchemaField]) -> tuple[list[Column], list[str]]:
    """(declared columns that are missing and may be added, all other differences in words)."""
    sized = {field.name: _sizes(field) for field in there}
    found = {field.name: _described(field) for field in there}
    additions = [column for column in table.columns if column.name not in found and column.nullable]
    added = {column.name for column in additions}
    # A column without a size takes any.
    declared = {
        c.name: _described(schema_field(c), bool(sized.get(c.name, True)))
        for c in table.columns
        if c.name not in added
    }
    return additions, [
        f"column {name} is {found.get(name, 'missing')}, declared as {declared.get(name, 'nothing')}"
        for name in {**declared, **found}
        if found.get(name) != declared.get(name)
    ]


def add_column(table: str, column: Column) -> str:
    """The statement that adds a column to a table, given by its quoted name. The comment comes with the schema."""
    kind = exp.DataType.build("text") if column.type.this == Kind.UUID else column.type
    name = exp.to_identifier(column.name, quoted=True)
    return f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name.sql('bigquery')} {kind.sql('bigquery')}"


def empty_rows(fields: Sequence[bigquery.SchemaField]) -> str:
    """A query for no rows of these columns, in parentheses: it stands for a table that is not there."""
    columns = ", ".join(
        f"CAST(NULL AS {_type_text(f)}) AS {exp.to_identifier(f.name, quoted=True).sql('bigquery')}"
        for f in fields
    )
    return f"(SELECT {columns} LIMIT 0)"


def view_query(view: View, dataset: bigquery.DatasetReference) -> str:
    """The view's SELECT, with the full names of the tables and views that it reads."""
    query = view.query.copy()
    for table in query.find_all(exp.Table):
        table.set("db", exp.to_identifier(dataset.dataset_id))
        table.set("catalog", exp.to_identifier(dataset.project))
        # BigQuery would name the columns after the full name otherwise.
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name)))
    return query.sql(dialect="bigquery", identify=True, comments=False, pretty=True)


def _field(name: str, kind: exp.DataType, mode: str, comment: str) -> bigquery.SchemaField:
    if kind.this == Kind.ARRAY:
        return _field(name, kind.expressions[0], "REPEATED", comment)
    options: dict[str, Any] = {"description": comment} if comment else {}
    if kind.this == Kind.STRUCT:
        fields = [_field(member.name, member.args["kind"], "NULLABLE", "") for member in kind.expressions]
        return bigquery.SchemaField(name, "RECORD", mode, **options, fields=fields)
    if kind.this not in TYPES:
        raise UserAnalyticsError(f"column {name}: the type {kind.sql()} is not known for BigQuery")
    sizes = [int(size.name) for size in kind.expressions]
    if kind.this == Kind.DECIMAL:
        precision, scale = sizes
        return bigquery.SchemaField(name, "NUMERIC", mode, **options, precision=precision, scale=scale)
    if sizes:
        return bigquery.SchemaField(name, TYPES[kind.this], mode, **options, max_length=sizes[0])
    return bigquery.SchemaField(name, TYPES[kind.this], mode, **options)


def _described(field: bigquery.SchemaField, with_size: bool = True) -> str:
    """Type, size and mode in one text, the same for the same column."""
    name = CURRENT_NAMES.get(field.field_type, field.field_type)
    if field.fields:
        name += f"<{', '.join(f'{member.name} {_described(member)}' for member in field.fields)}>"
    size = _sizes(field) if with_size else ""
    return f"{name}{size} {field.mode}"


def _sizes(field: bigquery.SchemaField) -> str:
    sizes = [str(size) for size in (field.max_length, field.precision, field.scale) if size]
    return f"({', '.join(sizes)})" if sizes else ""


def _type_text(field: bigquery.SchemaField) -> str:
    """The type as a query writes it."""
    kind = field.field_type
    if kind == "RECORD":
        kind = f"STRUCT<{', '.join(f'{member.name} {_type_text(member)}' for member in field.fields)}>"
    return f"ARRAY<{kind}>" if field.mode == "REPEATED" else str(kind)
