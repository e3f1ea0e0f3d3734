"""The statements that make, fill and name PostgreSQL's tables as they are declared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg2 import sql

from jobs.warehouse.declarations import Column, Table
from jobs.warehouse.partitions import CHANGES_TABLE, NEW_TABLE, identifiers


class Statements:
    """The statements for one schema."""

    def __init__(self, schema: str) -> None:
        self.schema = schema

    def create(self, table: Table, name: str, clause: sql.Composable | None = None) -> sql.Composable:
        """Make a table by this name, with its comments and without keys. clause: how it is partitioned."""
        definitions = sql.SQL(", ").join(column_definition(column) for column in table.columns)
        comments = [self.table_comment(name, table), *(self.column_comment(name, c) for c in table.columns)]
        create = sql.SQL("CREATE TABLE {} ({})").format(self.name(name), definitions)
        return sql.SQL("; ").join([create + clause if clause else create, *comments])

    def table_comment(self, name: str, table: Table) -> sql.Composed:
        return sql.SQL("COMMENT ON TABLE {} IS {}").format(self.name(name), sql.Literal(table.comment))

    def column_comment(self, name: str, column: Column) -> sql.Composed:
        return sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
            self.name(name), sql.Identifier(column.name), sql.Literal(column.comment)
        )

    def keys(self, table: Table, name: str) -> Iterable[sql.Composable]:
        """Give a new table its primary and unique keys, by names that are new, too."""
        for constraint, definition in constraints(table):
            yield sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                self.name(name), sql.Identifier(NEW_TABLE.format(constraint)), definition
            )

    def foreign_key(self, table: Table, key: Any) -> sql.Composable:
        """Have the server enforce a foreign key from now on, and check the rows that are there."""
        return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({})").format(
            self.name(table.name),
            sql.Identifier(foreign_key_name(table, key)),
            identifiers(key.columns),
            self.name(key.table),
            identifiers(key.referenced),
        )

    def replacement(self, table: Table) -> list[sql.Composable]:
        """What brings a new table's rows into the old one. Those that stay are updated: others may point at them."""
        new = NEW_TABLE.format(table.name)
        delete = sql.SQL("DELETE FROM {} AS t WHERE NOT EXISTS (SELECT FROM {} AS s WHERE {})").format(
            self.name(table.name), self.name(new), _same_key(table)
        )
        return [delete, self.upsert(table, new)]

    def upsert(self, table: Table, staged: str, condition: str = "TRUE") -> sql.Composable:
        """Bring rows of a staged table into the table: those of its keys are updated, the others inserted."""
        columns = identifiers(table.column_names)
        others = [name for name in table.column_names if name not in table.primary_key]
        update = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in others
        )
        return sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM {} WHERE {} ON CONFLICT ({}) DO UPDATE SET {}"
        ).format(
            self.name(table.name),
            columns,
            columns,
            self.name(staged),
            sql.SQL(condition),
            identifiers(table.primary_key),
            update,
        )

    def merge(self, table: Table) -> sql.Composable:
        """Bring staged changes into the table, except for those that say that a row is gone."""
        return self.upsert(table, CHANGES_TABLE.format(table.name), "NOT _deleted")

    def delete(self, table: Table) -> sql.Composable:
        """Remove the rows of which staged changes say that they are gone."""
        return sql.SQL("DELETE FROM {} AS t USING {} AS s WHERE s._deleted AND {}").format(
            self.name(table.name), self.name(CHANGES_TABLE.format(table.name)), _same_key(table)
        )

    def rename(self, old: str, new: str) -> sql.Composable:
        return sql.SQL("ALTER TABLE {} RENAME TO {}").format(self.name(old), sql.Identifier(new))

    def name(self, name: str) -> sql.Identifier:
        return sql.Identifier(self.schema, name)


def column_definition(column: Column) -> sql.Composable:
    """A column as CREATE TABLE and ADD COLUMN take it."""
    kind = "jsonb" if column.is_json else column.type.sql(dialect="postgres")
    null = "" if column.nullable else " NOT NULL"
    return sql.SQL("{} " + kind + null).format(sql.Identifier(column.name))


def constraints(table: Table) -> list[tuple[str, sql.Composable]]:
    """Name and definition of a table's primary and unique keys."""
    keys = [(f"{table.name}_pkey", "PRIMARY KEY ({})", table.primary_key)]
    keys += [(f"{table.name}_{'_'.join(columns)}_key", "UNIQUE ({})", columns) for columns in table.unique]
    return [(name, sql.SQL(form).format(identifiers(columns))) for name, form, columns in keys]


def _same_key(table: Table) -> sql.Composable:
    same = (sql.SQL("t.{0} = s.{0}").format(sql.Identifier(name)) for name in table.primary_key)
    return sql.SQL(" AND ").join(same)


def key_names(table: Table) -> list[str]:
    """The names of the constraints that the table is declared to have."""
    foreign_keys = [foreign_key_name(table, key) for key in table.foreign_keys]
    return [name for name, _ in constraints(table)] + foreign_keys


def foreign_key_name(table: Table, key: Any) -> str:
    return f"{table.name}_{'_'.join(key.columns)}_fkey"
