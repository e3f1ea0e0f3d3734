"""The warehouses that results can be published to, chosen by WAREHOUSE_URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jobs.errors import ConfigurationError
from jobs.settings import Settings
from jobs.warehouse.base import Warehouse
from jobs.warehouse.embedded import EmbeddedPostgres
from jobs.warehouse.postgres import PostgresWarehouse

if TYPE_CHECKING:
    from jobs.warehouse.bigquery_load import Scratch


@contextmanager
def open_warehouse(settings: Settings) -> Iterator[Warehouse]:
    """The warehouse of WAREHOUSE_URL, checked; an embedded PostgreSQL runs for the time of the block.

    Raises ConfigurationError if it cannot be reached.
    """
    folder = settings.warehouse_url.removeprefix("embedded:")
    if folder != settings.warehouse_url:
        with EmbeddedPostgres(Path(folder)) as url:
            yield PostgresWarehouse(url, settings.schema, settings.lock_wait_seconds)
        return
    warehouse: Warehouse
    if settings.warehouse_url.startswith("bigquery://"):
        # Google's packages take most of a second to import: who does not use them should not wait for them.
        from jobs.warehouse.bigquery import BigQueryWarehouse

        warehouse = BigQueryWarehouse(settings.warehouse_url, scratch=_scratch(settings))
    else:
        warehouse = PostgresWarehouse(settings.warehouse_url, settings.schema, settings.lock_wait_seconds)
    warehouse.check()
    yield warehouse


def _scratch(settings: Settings) -> Scratch | None:
    """A lake on Google Cloud Storage, reached through its S3 interface: BigQuery reads from there by itself."""
    if settings.lake_is_local or urlsplit(settings.s3_endpoint or "").hostname != "storage.googleapis.com":
        return None
    from jobs.warehouse.bigquery_load import Scratch

    folder = settings.lake_path("publish")
    return Scratch(folder, "gs" + folder.removeprefix("s3a"))


def require_made(settings: Settings) -> None:
    """Raise ConfigurationError if the warehouse is an embedded one that no run has made yet."""
    folder = settings.warehouse_url.removeprefix("embedded:")
    if folder != settings.warehouse_url and not (Path(folder) / "data").is_dir():
        raise ConfigurationError(f"{folder}: there is no warehouse yet; `make run` makes one")
