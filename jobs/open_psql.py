"""Open the warehouse in psql.

Inputs:   WAREHOUSE_URL; an embedded PostgreSQL is started for the time of the session.
Re-run:   safe at any time.
Example:  user-analytics psql -c 'TABLE top_5_customers_by_amount_spent_view'
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from psycopg2.extensions import make_dsn, parse_dsn

from jobs.context import job_main, parser
from jobs.errors import ConfigurationError
from jobs.settings import Settings
from jobs.warehouse import require_made
from jobs.warehouse.embedded import EmbeddedPostgres


def psql_environment(given: Mapping[str, str], schema: str, parts: dict[str, str]) -> dict[str, str]:
    """What psql finds in its environment; takes out of the parts of an address what is handed over in this way.

    The arguments of a program can be listed by every user of the machine, its environment cannot.
    """
    # There is no variable for it: whoever has a client's key with a password is asked for it at the terminal.
    parts.pop("sslpassword", None)
    options = parts.pop("options", given.get("PGOPTIONS", ""))
    environment = {**given, "PGOPTIONS": f"-c search_path={schema} {options}".strip()}
    if "password" in parts:
        environment["PGPASSWORD"] = parts.pop("password")
    return environment


def run_psql(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run psql and give its exit code. Ctrl-C is psql's own: it ends a statement, not the session."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)


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
        folder = settings.warehouse_url.removeprefix("embedded:")
        if folder != settings.warehouse_url:
            # Its password stands in a file, which PGPASSWORD would take precedence over.
            given = {name: value for name, value in os.environ.items() if name != "PGPASSWORD"}
            server = EmbeddedPostgres(Path(folder))
            with server:
                environment = psql_environment(given, settings.schema, {})
                return run_psql([*server.psql_command(), *command], environment)
        if settings.warehouse_url.startswith("bigquery:"):
            raise ConfigurationError(
                f"WAREHOUSE_URL={settings.warehouse_url}: psql opens PostgreSQL only; use BigQuery's console or bq"
            )
        program = shutil.which("psql")
        if program is None:
            raise ConfigurationError("psql is not installed (Debian: apt-get install postgresql-client)")
        parts = parse_dsn(settings.warehouse_url)
        environment = psql_environment(os.environ, settings.schema, parts)
        return run_psql([program, make_dsn(**parts), *command], environment)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
