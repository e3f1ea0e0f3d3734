"""Results that one job hands to the next: Parquet below `work/`, named after the versions that they were made from.

They outlive a job that fails, so that the next try goes on from them, and are removed when all jobs are through.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pyspark.sql import DataFrame

from jobs.column_lineage import columns_of_rows
from jobs.console import log
from jobs.context import RunContext
from jobs.datasets import Dataset
from jobs.lake import folders

FOLDER = "work"


def intermediate(run: RunContext, name: str, made_from: str, make: Callable[[], DataFrame]) -> DataFrame:
    """The rows of `work/<name>/<made_from>`, which are made first where they are not there yet, or not whole."""
    uri = run.settings.lake_path(FOLDER, name, made_from)
    # One at a time: of two that write a folder, each removes what the other is writing.
    with run.locks.hold(FOLDER):
        # Spark writes this file last.
        if not folders.exists(run.spark, f"{uri}/_SUCCESS"):
            rows = make()
            rows.write.mode("overwrite").parquet(uri)
            columns = partial(columns_of_rows, rows, run.settings.lake_uri)
            run.note_written(Dataset(f"{FOLDER}/{name}", schema=rows.schema, columns=columns))
            log.info("%s: made, in %s", name, uri)
    rows = run.spark.read.parquet(uri)
    run.note_read(Dataset(f"{FOLDER}/{name}", schema=rows.schema))
    return rows


def remove_intermediates(run: RunContext) -> bool:
    """Remove all that is below `work/`. Gives whether there was anything."""
    uri = run.settings.lake_path(FOLDER)
    if not any(run.store.list(FOLDER)):
        return False
    # Whoever builds on them has the lock.
    with run.locks.hold(FOLDER):
        folders.remove(run.spark, uri)
    log.info("intermediates: removed")
    return True
