"""Put generated customers and orders into the raw zone when there are none, so that their jobs can be tried.

Grain:    one file per feed.
Inputs:   none but a seed.
Outputs:  `raw/customers/generated.csv` (1,000 customers) and `raw/orders/generated.csv` (5,000 orders).
Re-run:   safe at any time; where either feed has a file, in `raw/` or in the archive, nothing is done.
Example:  spark-submit jobs/generate_customer_orders.py
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs.console import log
from jobs.context import job_main, parser
from jobs.lake.archive import ARCHIVE, RAW, as_raw
from jobs.lake.objects import ObjectStore, object_store
from jobs.samples.customers import make_customer_orders
from jobs.settings import Settings
from jobs.upload_files import upload

FEEDS = ("customers", "orders")
FILE = "generated.csv"


def generate_customer_orders(store: ObjectStore, seed: int = 7) -> bool:
    """Generate and upload, unless customers or orders were delivered. Gives whether it did."""
    there = {
        as_raw(f.path) for zone in (RAW, ARCHIVE) for feed in FEEDS for f in store.list(f"{zone}/{feed}")
    }
    generated = {f"raw/{feed}/{FILE}" for feed in FEEDS}
    # One of the two is there when a run died between them.
    if there - generated or there == generated:
        log.info("customers and orders: there are files, nothing is generated")
        return False
    with tempfile.TemporaryDirectory() as folder:
        for feed in make_customer_orders(seed, 1.0):
            for file in feed.files:
                path = Path(folder) / feed.name / FILE
                path.parent.mkdir()
                path.write_bytes(file.content)
                upload(store, feed.name, [path])
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Generate; the arguments are those of `--help`."""
    arguments = parser(__doc__, "generate-customer-orders")
    arguments.add_argument(
        "--seed", type=int, default=7, help="other seeds, other data (default: %(default)s)"
    )
    options = arguments.parse_args(argv)

    def body() -> None:
        store = object_store(Settings.from_env())
        store.check()
        generate_customer_orders(store, options.seed)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
