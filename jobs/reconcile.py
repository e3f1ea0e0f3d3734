"""Compare lake and warehouse, table by table, at any time: counts, sums of measures, a hash of the keys.

Grain:    one line per published table.
Inputs:   the marts, run tables and ledger at the versions that were published; the same tables in the warehouse. Each
          engine computes its own side, so that no rows travel.
Outputs:  a table on standard output. Nothing is written.
Re-run:   safe at any time; what was not published yet is no difference, and is said.
Exit:     1 when tables differ; the message names them.
Example:  WAREHOUSE_URL=postgresql://… spark-submit jobs/reconcile.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.console import log, table
from jobs.context import RunContext, job_main, open_run, parser
from jobs.errors import UserAnalyticsError
from jobs.lake.tables import GONE, LakeTable
from jobs.publish import lake_tables
from jobs.settings import Settings
from jobs.warehouse import open_warehouse
from jobs.warehouse.base import (
    KEY_HASH,
    KEY_SEPARATOR,
    ROW_COUNT,
    Measures,
    Published,
    Warehouse,
    number_text,
)
from jobs.warehouse.declarations import Table

# Longer than all measures of any table in words: a difference that is cut says nothing.
LONGEST_RESULT = 4000


@dataclass(frozen=True)
class Comparison:
    """One table. found: what the warehouse says, None where it has no such table. newest: the lake's newest version.

    made_anew: the mart was, and has not been published since, so that there is nothing to compare. vacuumed: the
    version was, so that expected is what the newest says: what differs from that may be what is not published yet.
    """

    table: str
    version: int
    newest: int
    expected: Measures
    found: Measures | None
    made_anew: bool = False
    vacuumed: bool = False

    @property
    def differences(self) -> list[str]:
        """What differs, in words."""
        if self.found is None:
            return ["not in the warehouse"]
        return [] if self.made_anew or self.vacuumed else self._compared(self.found)

    def _compared(self, found: Measures) -> list[str]:
        return [
            f"{name} is {number_text(found.get(name))}, the lake has {number_text(value)}"
            for name, value in self.expected.items()
            if number_text(found.get(name)) != number_text(value)
        ]

    @property
    def result(self) -> str:
        """The whole in words."""
        if self.differences:
            return "; ".join(self.differences)
        if self.made_anew:
            return f"made anew; version {self.newest} is not published yet"
        if self.vacuumed and self.found is not None and self._compared(self.found):
            return f"vacuumed, so that nothing can be compared; version {self.newest} is not published yet"
        return "same" if self.version == self.newest else f"same; version {self.newest} is not published yet"


def reconcile(run: RunContext, warehouse: Warehouse) -> list[Comparison]:
    """Compare every table of the lake with the warehouse's."""
    published = warehouse.published()
    sources = lake_tables(run)
    found = warehouse.measures([table for name, (table, _) in sources.items() if name in published])
    return [
        _compare(table, source, published.get(name), found.get(name))
        for name, (table, source) in sources.items()
    ]


def _compare(
    declared: Table, source: LakeTable, published: Published | None, found: Measures | None
) -> Comparison:
    newest = version = source.version()
    made_anew = published is not None and published.table_id != source.table_id()
    if published and not made_anew and published.version < newest:
        version = published.version
    vacuumed = False
    try:
        expected = keyed_measures(declared, source.read(version))
    except GONE:
        log.warning("reconcile %s: version %d was vacuumed; compared with the newest", declared.name, version)
        vacuumed, expected = True, keyed_measures(declared, source.read(newest))
    return Comparison(declared.name, version, newest, expected, found, made_anew, vacuumed)


def keyed_measures(declared: Table, rows: DataFrame) -> Measures:
    """Count, sums and the hash of the keys: the sum of the first 60 bits of each key's MD5."""
    columns = (F.unix_micros(c.name) if c.is_time else F.col(c.name) for c in declared.key_columns)
    key = F.concat_ws(KEY_SEPARATOR, *(column.cast("string") for column in columns))
    hashed = F.conv(F.substring(F.md5(key), 1, 15), 16, 10).cast("decimal(20,0)")
    sums = [
        F.sum(F.col(name).cast("decimal(38,4)")).alias(f"sum({name})")
        for name in declared.measures
        if name in rows.columns
    ]
    found: dict[str, Decimal | int | None] = (
        rows.agg(F.count("*").alias(ROW_COUNT), *sums, F.sum(hashed).alias(KEY_HASH)).collect()[0].asDict()
    )
    return found


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """Print one line per table to standard output."""
    print(
        table(
            ("table", "version", "rows", "result"),
            [(c.table, c.version, c.expected[ROW_COUNT], c.result) for c in comparisons],
            longest=LONGEST_RESULT,
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; there are no arguments."""
    parser(__doc__, "reconcile").parse_args(argv)

    def body() -> None:
        settings = Settings.from_env()
        with (
            open_run("reconcile", settings, make=False, write=False) as run,
            open_warehouse(settings) as warehouse,
        ):
            comparisons = reconcile(run, warehouse)
        print_comparisons(comparisons)
        differing = [comparison.table for comparison in comparisons if comparison.differences]
        if differing:
            raise UserAnalyticsError(
                f"reconcile: {', '.join(differing)}: the warehouse differs from the lake, see the table above. To "
                "publish a table whole, delete its row in _published and publish again"
            )

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
