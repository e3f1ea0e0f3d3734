"""The warehouses that results can be published to, chosen by WAREHOUSE_URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.settings import Settings
from jobs.warehouse.base import Warehouse
from jobs.warehouse.embedded import EmbeddedPostgres
from jobs.warehouse.postgres import PostgresWarehouse


@contextmanager
def open_warehouse(settings: Settings) -> Iterator[Warehouse]:
    """The warehouse of WAREHOUSE_URL, checked; an embedded PostgreSQL runs for the time of the block.

    Raises ConfigurationError if it cannot be reached.
    """
    folder = settings.warehouse_url.removeprefix("embedded:")
    if folder == settings.warehouse_url:
        warehouse = PostgresWarehouse(settings.warehouse_url, settings.schema)
        warehouse.check()
        yield warehouse
    else:
        with EmbeddedPostgres(Path(folder)) as url:
            yield PostgresWarehouse(url, settings.schema)
