"""Open the warehouse in psql.

Inputs:   WAREHOUSE_URL; an embedded PostgreSQL is started for the time of the session.
Re-run:   safe at any time.
Example:  user-analytics psql -c 'TABLE top_5_customers_by_amount_spent_view'
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg2.extensions

from jobs.context import job_main, parser
from jobs.errors import ConfigurationError
from jobs.settings import Settings
from jobs.warehouse import require_made
from jobs.warehouse.embedded import EmbeddedPostgres


def main(argv: Sequence[str] | None = None) -> int:
    """Run psql with the given arguments on the warehouse."""
    arguments = parser(__doc__, "psql")
    arguments.add_argument(
        "-c", "--command", metavar="SQL", help="run one command instead of an interactive session"
    )
    options = arguments.parse_args(argv)
    command = ["-c", options.command] if options.command else []

    def body() -> int:
        settings = Settings.from_env()
        require_made(settings)
        environment = {**os.environ, "PGOPTIONS": f"-c search_path={settings.schema}"}
        folder = settings.warehouse_url.removeprefix("embedded:")
        if folder != settings.warehouse_url:
            server = EmbeddedPostgres(Path(folder))
            with server:
                return subprocess.run(
                    [*server.psql_command(), *command], env=environment, check=False
                ).returncode
        if settings.warehouse_url.startswith("bigquery:"):
            raise ConfigurationError(
                f"WAREHOUSE_URL={settings.warehouse_url}: psql opens PostgreSQL only; use BigQuery's console or bq"
            )
        program = shutil.which("psql")
        if program is None:
            raise ConfigurationError("psql is not installed (Debian: apt-get install postgresql-client)")
        parts = psycopg2.extensions.parse_dsn(settings.warehouse_url)
        # In the environment, not among the arguments, which every user of the machine can list.
        environment |= {"PGPASSWORD": parts.pop("password", "")}
        target = psycopg2.extensions.make_dsn(**parts)
        return subprocess.run([program, target, *command], env=environment, check=False).returncode

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
