"""Analyse customer_orders: revenue, orders and customers, in all and by city, age group and product.

Grain:    one row per breakdown and value.
Inputs:   `marts/customer_orders`.
Outputs:  `results/analysis_results.json` in the lake, and the Delta table `marts/order_analysis`.
Re-run:   safe at any time; made anew when customer_orders has changed.
Example:  spark-submit jobs/analyze_orders.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.build_customer_orders import MART as CUSTOMER_ORDERS
from jobs.console import log
from jobs.context import RunContext, parser, writes
from jobs.datasets import Dataset
from jobs.lake.marts import bring_to, declared, mart_table, source_mark
from jobs.lake.results import write_result
from jobs.runs import one_step
from jobs.spark import local_rows
from jobs.transforms.order_analysis import analysis_results, order_analysis

MART = "order_analysis"
RESULT = "analysis_results.json"


@writes(f"marts/{MART}")
def analyze_orders(run: RunContext) -> bool:
    """Bring order_analysis and its JSON file up to customer_orders. Gives whether there was anything to do."""
    orders = mart_table(run, declared(CUSTOMER_ORDERS))
    if not orders.exists():
        log.info("order analysis: no customer orders yet")
        return False
    mart = mart_table(run, declared(MART)).ensure()
    source, version = source_mark(CUSTOMER_ORDERS, orders), orders.version()
    if mart.has_applied(source, version):
        log.info("order analysis: up to date")
        return False
    with run.heartbeat("order analysis"):
        # A few rows per city and product: kept here, as both the file and the table need them.
        analysed = order_analysis(orders.read(version)).select(*mart.schema.names)
        rows = analysed.collect()
        # The table's log says that both are there, so it comes last.
        write_result(run.store, RESULT, analysis_results(rows))
        run.note_table_read(orders, version)
        run.note_written(Dataset(f"results/{RESULT}", rows=len(rows)))
        bring_to(
            run,
            mart,
            local_rows(run.spark, rows, mart.schema),
            declared(MART).primary_key,
            source,
            version,
            made_by=analysed,
        )
    log.info("order analysis: %d rows, and %s", len(rows), run.settings.lake_path("results", RESULT))
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Analyse orders; there are no arguments."""
    parser(__doc__, "analyze-orders").parse_args(argv)
    return one_step("analyze-orders", analyze_orders)


if __name__ == "__main__":
    sys.exit(main())
