"""Build user_purchase from staged purchases.

Grain:    one row per invoice line and its occurrence number within the file that delivered it.
Inputs:   what changed in `staging/purchases` since the last build.
Outputs:  Delta table `marts/user_purchase`.
Re-run:   safe at any time; the table's log says which staging version it holds. Loading a file again adds nothing; a
          corrected file under the same name replaces its lines.
Example:  spark-submit jobs/build_purchases.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.console import log
from jobs.context import RunContext, parser, writes
from jobs.feeds.purchases import PURCHASES
from jobs.lake.marts import apply_changes, changes_since, declared, mart_table
from jobs.lake.staging import staging_table
from jobs.runs import one_step
from jobs.transforms.keys import KEY
from jobs.transforms.purchases import user_purchases

MART = "user_purchase"


@writes(f"marts/{MART}")
def build_purchases(run: RunContext) -> bool:
    """Bring user_purchase up to the present version of staged purchases. Gives whether there was anything to do."""
    purchases = staging_table(run, PURCHASES)
    if not purchases.exists():
        log.info("purchases: none staged yet")
        return False
    mart = mart_table(run, declared(MART)).ensure()
    changes = changes_since(mart, PURCHASES.name, purchases, KEY)
    if changes is None:
        log.info("purchases: up to date")
        return False
    with run.heartbeat("purchases"):
        apply_changes(run, mart, purchases, changes, user_purchases, declared(MART).primary_key)
    log.info("purchases: built from version %d of staged purchases", changes.version)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Build user_purchase; there are no arguments."""
    parser(__doc__, "build-purchases").parse_args(argv)
    return one_step("build-purchases", build_purchases)


if __name__ == "__main__":
    sys.exit(main())
