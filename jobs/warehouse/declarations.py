"""Tables (`sql/<name>.sql`) and views (`views/<name>.sql`), declared once in standard SQL, for every engine.

A table's file holds one CREATE TABLE with types, keys and comments; a view's file holds one SELECT. sqlglot reads
them and writes each engine's own dialect.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import sqlglot
from pyspark.sql import types as T
from sqlglot import exp

from jobs.errors import UserAnalyticsError
from jobs.resources import project_root

ROOT = project_root()
# sqlglot says on its log that Postgres has no column comments inside CREATE TABLE; they are written separately.
logging.getLogger("sqlglot").setLevel(logging.ERROR)
# Besides decimals and what is nested. Spark's own reader of such names needs its session.
SPARK_TYPES: dict[exp.DType, type[T.DataType]] = {
    exp.DataType.Type.BIGINT: T.LongType,
    exp.DataType.Type.INT: T.IntegerType,
    exp.DataType.Type.DOUBLE: T.DoubleType,
    exp.DataType.Type.BOOLEAN: T.BooleanType,
    exp.DataType.Type.DATE: T.DateType,
    exp.DataType.Type.TIMESTAMPTZ: T.TimestampType,
    exp.DataType.Type.TEXT: T.StringType,
    exp.DataType.Type.VARCHAR: T.StringType,
    exp.DataType.Type.UUID: T.StringType,
}


@dataclass(frozen=True)
class Column:
    """One column; type is sqlglot's, which every dialect can write.

    personal: it says something about one person, or is computed from what does; its comment ends in `(personal)`.
    No view shows it in clear.
    """

    name: str
    type: exp.DataType
    nullable: bool
    comment: str

    @property
    def personal(self) -> bool:
        return self.comment.endswith("(personal)")

    @property
    def is_time(self) -> bool:
        return self.type.is_type(exp.DataType.Type.TIMESTAMPTZ)

    @property
    def is_measure_type(self) -> bool:
        return self.type.is_type(exp.DataType.Type.BIGINT, exp.DataType.Type.DECIMAL)

    @property
    def max_bytes(self) -> int | None:
        """What the widest value takes in UTF-8 or in Arrow's form, in bytes; None where nothing bounds it."""
        if self.type.is_type(exp.DataType.Type.VARCHAR) and (length := self.type.find(exp.DataTypeParam)):
            return 4 * int(length.name)
        if self.type.is_type(exp.DataType.Type.UUID):
            return 36
        return None if self.is_nested or self.type.is_type(*exp.DataType.TEXT_TYPES) else 16

    @property
    def is_nested(self) -> bool:
        return self.type.is_type(exp.DataType.Type.ARRAY, exp.DataType.Type.STRUCT)

    @property
    def is_text_array(self) -> bool:
        return self.type.is_type(exp.DataType.Type.ARRAY) and all(
            inner.is_type(*exp.DataType.TEXT_TYPES) for inner in self.type.expressions
        )

    @property
    def is_json(self) -> bool:
        """Whether PostgreSQL holds it as JSON: it is nested, and no array of texts."""
        return self.is_nested and not self.is_text_array


@dataclass(frozen=True)
class ForeignKey:
    """columns of this table point at the primary key of another."""

    columns: tuple[str, ...]
    table: str
    referenced: tuple[str, ...]


@dataclass(frozen=True)
class Partitioning:
    """Rows stand together by a column's month (unit MONTH), DAY, HOUR or YEAR, in UTC.

    A row's key has to decide its value in that column: a change is looked for in the partitions of its new value only.
    Where the key is a UUID, it has to begin with that value: see `Table.key_begins_with_time`.
    """

    column: str
    unit: str


@dataclass(frozen=True)
class Table:
    """A table as `sql/<name>.sql` declares it."""

    name: str
    comment: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    foreign_keys: tuple[ForeignKey, ...]
    partitioning: Partitioning | None = None
    clustering: tuple[str, ...] = ()

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def measures(self) -> tuple[str, ...]:
        """The numbers whose sums must arrive: integers and decimals that are not part of a key."""
        keys = {
            *self.primary_key,
            *(c for u in self.unique for c in u),
            *(c for f in self.foreign_keys for c in f.columns),
        }
        return tuple(c.name for c in self.columns if c.is_measure_type and c.name not in keys)

    @property
    def key_columns(self) -> list[Column]:
        """The columns of the primary key, in its order."""
        kinds = {column.name: column for column in self.columns}
        return [kinds[name] for name in self.primary_key]

    @property
    def key_begins_with_time(self) -> bool:
        """Whether the primary key is one UUID whose first 48 bits are the partitioning column's milliseconds.

        It is so by agreement: a table that is partitioned by MONTH and has one UUID as its key makes that by
        `jobs.transforms.keys.time_ordered_id`, from that column.
        """
        kinds = {column.name: column.type for column in self.columns}
        return (
            self.partitioning is not None
            and self.partitioning.unit == "MONTH"
            and len(self.primary_key) == 1
            and kinds[self.primary_key[0]].is_type(exp.DataType.Type.UUID)
        )

    def among(self, names: Collection[str]) -> Table:
        """The table with those of its columns that are among these."""
        return replace(self, columns=tuple(column for column in self.columns if column.name in names))

    def spark_schema(self) -> T.StructType:
        """The schema of the table's Delta form; texts without length, identifiers as text."""
        return T.StructType([T.StructField(c.name, _spark_type(c.type)) for c in self.columns])


@dataclass(frozen=True)
class View:
    """A view as `views/<name>.sql` declares it; reads names the tables and views that it stands on."""

    name: str
    comment: str
    query: exp.Query
    reads: frozenset[str]

    def sql(self, dialect: str) -> str:
        return self.query.sql(dialect=dialect, identify=True, comments=False, pretty=True)


def _spark_type(kind: exp.DataType) -> T.DataType:
    inner = kind.expressions
    if kind.is_type(exp.DataType.Type.ARRAY):
        return T.ArrayType(_spark_type(inner[0]))
    if kind.is_type(exp.DataType.Type.STRUCT):
        return T.StructType([T.StructField(field.name, _spark_type(field.kind)) for field in inner])
    if kind.is_type(exp.DataType.Type.DECIMAL):
        return T.DecimalType(*(int(number.name) for number in inner))
    if kind.this not in SPARK_TYPES:
        raise UserAnalyticsError(
            f"{kind.sql()} is not a type of a declared column; use one of {_type_names()}"
        )
    return SPARK_TYPES[kind.this]()


def _type_names() -> str:
    return ", ".join([*(kind.value for kind in SPARK_TYPES), "DECIMAL(p, s)", "ARRAY<…>", "STRUCT<…>"])


@cache
def tables() -> dict[str, Table]:
    """Every declared table by name, referenced tables before those that refer to them."""
    found = {file.stem: _read_table(file) for file in sorted((ROOT / "sql").glob("*.sql"))}
    order = TopologicalSorter({name: {f.table for f in table.foreign_keys} for name, table in found.items()})
    return {name: found[name] for name in order.static_order()}


@cache
def views() -> dict[str, View]:
    """Every declared view by name, each after those that it reads."""
    found = {file.stem: _read_view(file) for file in sorted((ROOT / "views").glob("*.sql"))}
    order = TopologicalSorter({name: view.reads & found.keys() for name, view in found.items()})
    return {name: found[name] for name in order.static_order()}


def views_over(present: Iterable[str]) -> list[View]:
    """The views whose tables are all among those present, in the order in which they can be made."""
    there, chosen = set(present), []
    for view in views().values():
        if view.reads <= there:
            there.add(view.name)
            chosen.append(view)
    return chosen


def _read_table(file: Path) -> Table:
    create = sqlglot.parse_one(file.read_text(encoding="utf-8"))
    if not isinstance(create, exp.Create) or create.find(exp.Table).name != file.stem:  # type: ignore[union-attr]
        raise UserAnalyticsError(f"{file}: expected CREATE TABLE {file.stem}")
    comment = create.find(exp.SchemaCommentProperty)
    columns, unique, foreign_keys = [], [], []
    primary_key: tuple[str, ...] = ()
    for item in create.this.expressions:
        match item:
            case exp.ColumnDef():
                columns.append(_read_column(item))
            case exp.PrimaryKey():
                primary_key = _names(item.expressions)
            case exp.UniqueColumnConstraint():
                unique.append(_names(item.this.expressions))
            case exp.ForeignKey():
                target = item.args["reference"].this
                foreign_keys.append(
                    ForeignKey(_names(item.expressions), target.this.name, _names(target.expressions))
                )
            case _:
                raise UserAnalyticsError(f"{file}: {item.sql()}: this kind of constraint is not known")
    if not primary_key:
        raise UserAnalyticsError(f"{file}: the table has no PRIMARY KEY")
    clustering = create.find(exp.ClusterProperty)
    table = Table(
        file.stem,
        comment.name if comment else "",
        tuple(columns),
        primary_key,
        tuple(unique),
        tuple(foreign_keys),
        _read_partitioning(file, create.find(exp.PartitionedByProperty)),
        _names(clustering.expressions) if clustering else (),
    )
    named = {*table.clustering, *([table.partitioning.column] if table.partitioning else [])}
    if table.partitioning and any(c.nullable and c.name == table.partitioning.column for c in table.columns):
        raise UserAnalyticsError(f"{file}: partitioned by {table.partitioning.column}, which may be null")
    if unknown := named - set(table.column_names):
        raise UserAnalyticsError(
            f"{file}: partitioned or clustered by {', '.join(unknown)}, which is no column"
        )
    return table


def _read_partitioning(file: Path, found: exp.PartitionedByProperty | None) -> Partitioning | None:
    if found is None:
        return None
    if not isinstance(found.this, exp.DateTrunc | exp.TimestampTrunc):
        raise UserAnalyticsError(f"{file}: expected PARTITION BY DATE_TRUNC('MONTH', <column>)")
    return Partitioning(found.this.this.name, found.this.text("unit"))


def _read_column(definition: exp.ColumnDef) -> Column:
    kinds = {type(c.kind): c.kind for c in definition.args.get("constraints") or []}
    comment = kinds.get(exp.CommentColumnConstraint)
    return Column(
        definition.name,
        definition.args["kind"],
        exp.NotNullColumnConstraint not in kinds,
        comment.this.name if comment else "",
    )


def _read_view(file: Path) -> View:
    text = file.read_text(encoding="utf-8")
    query = sqlglot.parse_one(text, dialect="spark")
    if not isinstance(query, exp.Query):
        raise UserAnalyticsError(f"{file}: expected one SELECT")
    comment = " ".join(line.removeprefix("--").strip() for line in text.splitlines() if line.startswith("--"))
    return View(file.stem, comment, query, frozenset(t.name for t in query.find_all(exp.Table)))


def _names(items: Iterable[exp.Expression]) -> tuple[str, ...]:
    return tuple(item.name for item in items)
