"""Plain Spark with its load tuned by hand: what Spark itself takes, whatever else a suite does.

As spark_jdbc, but Spark writes CSV, and PostgreSQL reads it into bare tables that get their keys afterwards, all in
one transaction. It has our session's settings. It keeps no state, checks nothing, and cannot add a second file.
"""

from contextlib import closing
from pathlib import Path

import psycopg2
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from benchmarks import star_schema
from benchmarks.contenders.spark_jdbc import DIMENSIONS, read_events
from jobs.settings import Settings
from jobs.spark import get_session

# The id begins with the event's time, as ours does: it keeps the primary key's index local.
EVENT_ID = """
    lpad(lower(hex(unix_millis(timestamp))), 12, '0')
    || substr(md5(concat_ws('|', user_id, action_type, unix_micros(timestamp))), 1, 20)
"""


def main() -> None:
    task = star_schema.read_task(__doc__)
    spark = get_session("spark_bare", Settings.from_env())
    events = read_events(spark, str(task.input)).persist()
    folders = {}
    facts = events
    for column, (table, key, business_key) in DIMENSIONS.items():
        members = (
            events.select(F.col(column).alias(business_key)).where(F.col(business_key).isNotNull()).distinct()
        )
        ordered = Window.orderBy(business_key)
        dimension = members.select(F.row_number().over(ordered).alias(key), business_key).persist()
        folders[table] = _written(dimension, task.work / table)
        facts = facts.join(F.broadcast(dimension.withColumnRenamed(business_key, column)), column, "left")
    keys = [key for _, key, _ in DIMENSIONS.values()]
    rows = facts.select(F.expr(EVENT_ID), *keys, "timestamp")
    folders["fact_user_actions"] = _written(rows, task.work / "fact_user_actions")
    spark.stop()
    with closing(psycopg2.connect(task.warehouse)) as warehouse, warehouse.cursor() as cursor:
        cursor.execute(star_schema.BARE_TABLES)
        for table in star_schema.TABLES:
            for path in sorted(folders[table].glob("*.csv")):
                with path.open("rb") as file:
                    cursor.copy_expert(f"COPY {table} FROM STDIN (FORMAT csv)", file, size=1 << 20)
        cursor.execute("SET maintenance_work_mem = '1GB'")
        for constraint in star_schema.FACT_CONSTRAINTS:
            cursor.execute(constraint)
        warehouse.commit()


def _written(rows: DataFrame, folder: Path) -> Path:
    rows.write.option("timestampFormat", "yyyy-MM-dd HH:mm:ss.SSSSSSXXX").csv(str(folder))
    return folder


if __name__ == "__main__":
    main()
