"""Enrich staged customers with their age group and segment.

Grain:    one row per customer.
Inputs:   `staging/customers`, and `staging/orders`, by which segments are computed.
Outputs:  Parquet `work/enriched_customers/<versions>`, for build-customer-orders and train-segments.
Re-run:   safe at any time; what was made from the present versions is not made again.
Example:  spark-submit jobs/enrich_customers.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame

from jobs.context import RunContext, job_main, open_run, parser
from jobs.feeds.customers import CUSTOMERS
from jobs.feeds.orders import ORDERS
from jobs.lake.intermediates import intermediate
from jobs.lake.staging import staging_table
from jobs.lake.tables import LakeTable
from jobs.runs import recorded
from jobs.settings import Settings
from jobs.spark import local_rows
from jobs.transforms.customers import enriched_customers


@dataclass(frozen=True)
class Staged:
    """The staged feeds of customers and orders. A feed that brought nothing yet has no rows.

    name: of this pair of tables. version: of both, greater when either has changed.
    """

    customers: LakeTable
    orders: LakeTable

    @property
    def name(self) -> str:
        return "-".join(table.table_id() if table.exists() else "none" for table in self._tables)

    @property
    def version(self) -> int:
        return sum(table.version() for table in self._tables if table.exists())

    def note_read(self, run: RunContext, *tables: LakeTable) -> None:
        """Say which of the two the present step read, as far as they are there."""
        for table in tables:
            if table.exists():
                run.note_table_read(table)

    def customer_rows(self) -> DataFrame:
        return _rows(self.customers)

    def order_rows(self) -> DataFrame:
        return _rows(self.orders)

    @property
    def _tables(self) -> tuple[LakeTable, LakeTable]:
        return self.customers, self.orders


def _rows(table: LakeTable) -> DataFrame:
    return table.read() if table.exists() else local_rows(table.spark, [], table.schema)


def staged(run: RunContext) -> Staged:
    """The staged feeds of a run's lake."""
    return Staged(*(staging_table(run, feed) for feed in (CUSTOMERS, ORDERS)))


def enrich_customers(run: RunContext) -> DataFrame:
    """Customers with age group and segment, see `jobs.transforms.customers.enriched_customers`."""
    source = staged(run)

    def make() -> DataFrame:
        source.note_read(run, source.customers, source.orders)
        return enriched_customers(source.customer_rows(), source.order_rows())

    return intermediate(run, "enriched_customers", f"{source.name}-{source.version}", make)


def main(argv: Sequence[str] | None = None) -> int:
    """Enrich customers; there are no arguments."""
    parser(__doc__, "enrich-customers").parse_args(argv)

    def body() -> None:
        with (
            open_run("enrich-customers", Settings.from_env()) as run,
            recorded(run),
            run.step("enrich customers"),
        ):
            enrich_customers(run)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
