"""Not a contender: writes the star schema as CSV files, for those that only load."""

import sys
from pathlib import Path

import duckdb

from benchmarks import star_schema
from benchmarks.contenders import duckdb_transform


def write(lines: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    duckdb_transform.build(connection, lines)
    for table in star_schema.TABLES:
        path = folder / f"{table}.csv"
        connection.execute(f"COPY {table} TO '{path}' (FORMAT csv, HEADER false)")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
