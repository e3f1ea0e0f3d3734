"""Build customer_orders: orders with their metrics, joined with enriched customers.

Grain:    one row per order; orders without a customer, or of an unknown one, are rows as well, flagged.
Inputs:   `staging/customers` and `staging/orders`, by way of the intermediates of enrich-customers and measure-orders,
          which are made here where they are not there, or were made from other versions.
Outputs:  Delta table `marts/customer_orders`.
Re-run:   safe at any time; the table's log says which versions it was made from. An order or a customer may move many
          rows (a segment depends on all orders of the customer), so all are computed, and those that differ written.
Example:  spark-submit jobs/build_customer_orders.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.console import log
from jobs.context import RunContext, parser, writes
from jobs.enrich_customers import enrich_customers, staged
from jobs.lake.intermediates import FOLDER as WORK
from jobs.lake.marts import bring_to, declared, mart_table
from jobs.measure_orders import measure_orders
from jobs.runs import one_step
from jobs.transforms.customers import customer_orders

MART = "customer_orders"


@writes(f"marts/{MART}", WORK)
def build_customer_orders(run: RunContext) -> bool:
    """Bring customer_orders up to the present staged customers and orders. Gives whether there was anything to do."""
    source = staged(run)
    if not source.orders.is_there:
        log.info("customer orders: no orders staged yet")
        return False
    mart = mart_table(run, declared(MART)).ensure()
    if mart.has_applied(source.name, source.version):
        log.info("customer orders: up to date")
        return False
    with run.heartbeat("customer orders"):
        rows = customer_orders(enrich_customers(run, source), measure_orders(run, source))
        bring_to(run, mart, rows, declared(MART).primary_key, source.name, source.version)
    log.info("customer orders: built")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Build customer_orders; there are no arguments."""
    parser(__doc__, "build-customer-orders").parse_args(argv)
    return one_step("build-customer-orders", build_customer_orders)


if __name__ == "__main__":
    sys.exit(main())
