"""Measure staged orders: amount, size, year and month.

Grain:    one row per order.
Inputs:   `staging/orders`.
Outputs:  Parquet `work/measured_orders/<version>`, for build-customer-orders.
Re-run:   safe at any time; what was made from the present version is not made again.
Example:  spark-submit jobs/measure_orders.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pyspark.sql import DataFrame

from jobs.context import RunContext, parser
from jobs.enrich_customers import Staged, staged
from jobs.lake.intermediates import intermediate
from jobs.runs import one_step
from jobs.transforms.customers import order_metrics


def measure_orders(run: RunContext, source: Staged | None = None) -> DataFrame:
    """Orders with their amount and size, see `jobs.transforms.customers.order_metrics`.

    source: by default what is staged now.
    """
    orders = (source or staged(run)).orders
    return intermediate(run, "measured_orders", orders.name, lambda: order_metrics(orders.read(run)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure orders; there are no arguments."""
    parser(__doc__, "measure-orders").parse_args(argv)
    return one_step("measure-orders", measure_orders)


if __name__ == "__main__":
    sys.exit(main())
