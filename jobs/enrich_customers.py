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

from jobs.context import RunContext, parser
from jobs.feeds.customers import CUSTOMERS
from jobs.feeds.orders import ORDERS
from jobs.lake.intermediates import intermediate
from jobs.lake.staging import staging_table
from jobs.lake.tables import LakeTable
from jobs.runs import one_step
from jobs.spark import local_rows
from jobs.transforms.customers import enriched_customers


@dataclass(frozen=True)
class StagedVersion:
    """A staged feed at one version, whatever is staged meanwhile. One that brought nothing yet has no rows and no id.

    name: of this version of this table.
    """

    table: LakeTable
    table_id: str | None = None
    version: int = 0

    @property
    def is_there(self) -> bool:
        return self.table_id is not None

    @property
    def name(self) -> str:
        return f"{self.table_id or 'none'}-{self.version}"

    def read(self, run: RunContext) -> DataFrame:
        """Its rows, which are noted as read by the present step."""
        if not self.is_there:
            return local_rows(self.table.spark, [], self.table.schema)
        run.note_table_read(self.table, self.version)
        return self.table.read(self.version)


@dataclass(frozen=True)
class Staged:
    """The staged feeds of customers and orders, each at one version.

    name: of this pair of tables. version: of both, greater when either has changed.
    """

    customers: StagedVersion
    orders: StagedVersion

    @property
    def name(self) -> str:
        return f"customers and orders:{self.customers.table_id or 'none'}-{self.orders.table_id or 'none'}"

    @property
    def version(self) -> int:
        return self.customers.version + self.orders.version


def staged(run: RunContext) -> Staged:
    """The staged feeds of a run's lake, at their present versions."""
    return Staged(*(_newest(staging_table(run, feed)) for feed in (CUSTOMERS, ORDERS)))


def _newest(table: LakeTable) -> StagedVersion:
    return StagedVersion(table, table.table_id(), table.version()) if table.exists() else StagedVersion(table)


def enrich_customers(run: RunContext, source: Staged | None = None) -> DataFrame:
    """Customers with age group and segment, see `jobs.transforms.customers.enriched_customers`.

    source: by default what is staged now.
    """
    source = source or staged(run)
    customers, orders = source.customers, source.orders

    def make() -> DataFrame:
        return enriched_customers(customers.read(run), orders.read(run))

    return intermediate(run, "enriched_customers", f"{customers.name}-{orders.name}", make)


def main(argv: Sequence[str] | None = None) -> int:
    """Enrich customers; there are no arguments."""
    parser(__doc__, "enrich-customers").parse_args(argv)
    return one_step("enrich-customers", enrich_customers)


if __name__ == "__main__":
    sys.exit(main())
