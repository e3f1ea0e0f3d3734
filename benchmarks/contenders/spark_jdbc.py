"""Plain Spark: read.json, dropDuplicates, joins for the keys, JDBC append.

As Spark's own documentation shows it, with the driver's rewritten batches. Needs the
Postgres driver among PySpark's jars (``make setup`` puts it there).
"""

from urllib.parse import urlsplit

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks import star_schema

LINES = (
    "user_id string, timestamp string, action_type string, metadata struct<device: string, location: string>"
)
DIMENSIONS = {
    # column: (table, key column, business key column)
    "user_id": ("dim_users", "user_key", "user_id"),
    "action_type": ("dim_actions", "action_key", "action_type"),
    "device": ("dim_devices", "device_key", "device_type"),
    "location": ("dim_locations", "location_key", "location_name"),
}


def main() -> None:
    task = star_schema.read_task(__doc__)
    star_schema.execute(task.warehouse, star_schema.CONSTRAINED_TABLES)
    spark = (
        SparkSession.builder.master("local[*]")
        .appName("spark_jdbc")
        .config("spark.driver.memory", "4g")
        # The default of 200 on two cores took 98 s for 200,000 lines, most of it connections.
        .config("spark.sql.shuffle.partitions", 8)
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.local.dir", str(task.work))
        .getOrCreate()
    )
    events = read_events(spark, str(task.input)).persist()
    facts = events
    for column, (table, key, business_key) in DIMENSIONS.items():
        dimension = (
            events.select(F.col(column).alias(business_key))
            .where(F.col(business_key).isNotNull())
            .distinct()
            .coalesce(1)
            .withColumn(key, F.monotonically_increasing_id())
            .persist()
        )
        append(dimension.select(key, business_key), table, task.warehouse)
        keys = dimension.withColumnRenamed(business_key, column)
        facts = facts.join(keys, column, "left")
    append(
        facts.select(
            F.expr("uuid()").alias("action_event_id"),
            *(key for _, key, _ in DIMENSIONS.values()),
            "timestamp",
        ),
        "fact_user_actions",
        task.warehouse,
    )
    spark.stop()


def read_events(spark: SparkSession, path: str) -> DataFrame:
    action_type = F.col("action_type")
    is_valid = (
        F.col("user_id").isNotNull()
        & (F.trim(action_type) != "")
        & (F.length(action_type) <= 100)
        & F.col("timestamp").isNotNull()
    )
    return (
        spark.read.schema(LINES)
        .json(path)
        .select(
            "user_id",
            F.try_to_timestamp("timestamp").alias("timestamp"),
            "action_type",
            "metadata.device",
            "metadata.location",
        )
        .where(is_valid)
        .dropDuplicates(["user_id", "timestamp", "action_type"])
    )


def append(rows: DataFrame, table: str, url: str) -> None:
    server = urlsplit(url)
    (
        rows.write.format("jdbc")
        .option("url", f"jdbc:postgresql://{server.hostname}:{server.port or 5432}{server.path}")
        .option("user", server.username or "postgres")
        .option("password", server.password or "")
        .option("driver", "org.postgresql.Driver")
        .option("dbtable", f"{star_schema.SCHEMA}.{table}")
        .option("reWriteBatchedInserts", "true")
        .option("stringtype", "unspecified")  # lets Postgres read the text as uuid
        .option("batchsize", 10_000)
        .mode("append")
        .save()
    )


if __name__ == "__main__":
    main()
