"""DuckDB tuned by hand: the script that our whole way is measured against.

As duckdb_copy, but the tables are made, filled and given their keys in one transaction,
which spares the write-ahead log where wal_level is minimal, and Postgres reads the facts
from a pipe while DuckDB still writes them. (One COPY per core into a bare table, and
files instead of the pipe, were tried at 2 million lines: about a second slower each.)
It keeps no state, checks nothing, and cannot add a second file.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import duckdb
import psycopg2

from benchmarks import star_schema
from benchmarks.contenders import duckdb_transform


def main() -> None:
    task = star_schema.read_task(__doc__)
    source = duckdb.connect()
    source.execute("SET preserve_insertion_order = false")
    duckdb_transform.build(source, task.input)

    pipe = task.work / "rows.pipe"
    os.mkfifo(pipe)
    with closing(psycopg2.connect(task.warehouse)) as warehouse, warehouse.cursor() as cursor:
        cursor.execute(star_schema.BARE_TABLES)
        for table in star_schema.TABLES:
            with ThreadPoolExecutor(1) as pool:
                written = pool.submit(
                    source.execute,
                    f"COPY {table} TO '{pipe}' (FORMAT csv, HEADER false, USE_TMP_FILE false)",
                )
                with pipe.open("rb") as rows:
                    cursor.copy_expert(f"COPY {table} FROM STDIN (FORMAT csv)", rows, size=1 << 20)
                written.result()
        cursor.execute("SET maintenance_work_mem = '1GB'")
        for constraint in star_schema.FACT_CONSTRAINTS:
            cursor.execute(constraint)
        warehouse.commit()


if __name__ == "__main__":
    main()
