"""The Spark session, with the settings that these jobs rely on and the reason for each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import pyarrow as pa
from pyspark import SparkContext, StorageLevel
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from pyspark.sql.conversion import LocalDataToArrowConversion
from pyspark.sql.pandas.types import to_arrow_schema

from jobs.errors import ConfigurationError
from jobs.settings import Settings

LOG_CONFIGURATION = Path(__file__).with_name("log4j2.properties")
# Planning takes one core, and small data keep no more than another one busy.
AT_ONCE = 2
# With later ones, Hadoop reads no file: they have no `Subject.getSubject` any more.
NEWEST_JAVA = 22
# So many rows become a part of Spark's plans, instead of being kept on disk or read by its tasks, and are written
# without those (docs/decisions/small-tables.md).
FEW_ROWS, FEW_BYTES = 50_000, 16 * 1024 * 1024
Item = TypeVar("Item")
Result = TypeVar("Result")

# Warming up costs more than it brings while there is little to do: with the JVM's first compiler alone, a run over
# the sample takes half the processor time, but one over 2 million lines 1.3 times as long. With that compiler alone the
# JVM keeps 48 MB for what it compiled, which is soon full: it then throws methods away and compiles them again.
LITTLE_BYTES = 16 * 1024 * 1024
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m"
# Some hundred plans over a few rows each: writing and compiling a class for every expression of every task takes
# longer than interpreting them, and so does every further partition.
SMALL_PLANS = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.shuffle.partitions": "2",
}
# Every plan brings new classes and short-lived objects; from the default sizes on, the JVM collects once a second.
COLLECTOR = "-XX:+UseParallelGC -XX:MetaspaceSize=256m -Xms768m -XX:NewSize=384m"
# The JVM leaves methods of more than 8,000 bytes to its interpreter, many times slower. What Spark writes for a feed's
# rules soon has more. Compiling a second time what plans need took half of all processor time: only what runs ten times
# as often as by default is worth it, and what waits for that is not slowed down by profiling. Of large methods less is
# inlined (325 bytes by default): compiling takes a quarter less, and what comes of it is as fast.
LONG_RUN = (
    "-XX:-DontCompileHugeMethods -XX:+IgnoreUnrecognizedVMOptions -XX:Tier3DelayOn=0 "
    "-XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000 "
    "-XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000 -XX:FreqInlineSize=150"
)


def get_session(app_name: str, settings: Settings, small: bool = False, quick: bool = False) -> SparkSession:
    """The running session, or a new one.

    quick: an early start matters more than speed later on. small: it does, and there are few data.
    Under `spark-submit` the master and memory given there hold. Otherwise SPARK_MASTER, or all cores of this
    machine. The object store's keys go to Spark's in-memory Hadoop configuration only: never into arguments.

    Raises ConfigurationError when there is no Java that Spark can run in.
    """
    builder = SparkSession.builder.appName(app_name)
    if not is_submitted() and not has_started():
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        master = settings.spark_master or "local[*]"
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            # One small machine: no page to serve, and few, larger partitions.
            builder = (
                builder.config("spark.ui.enabled", "false")
                # Of what the page would show, the driver keeps a thousand plans all the same.
                .config("spark.ui.retainedJobs", "20")
                .config("spark.ui.retainedStages", "20")
                .config("spark.ui.retainedTasks", "1000")
                .config("spark.sql.ui.retainedExecutions", "5")
                .config("spark.sql.shuffle.partitions", "16")
                # Of a few cores, none should wait at the end for another's last 128 MB.
                .config("spark.sql.files.maxPartitionBytes", "32m")
                # 4 MB by default, so that a task reads eight small files at most.
                .config("spark.sql.files.openCostInBytes", "256k")
                # Of more than 32 files, each is looked at by a task of its own otherwise, up to 10,000 of them.
                .config("spark.sql.sources.parallelPartitionDiscovery.parallelism", "32")
            )
        Path(settings.log_folder).mkdir(parents=True, exist_ok=True)
        builder = (
            builder.master(master)
            .config("spark.driver.memory", settings.driver_memory)
            .config(
                "spark.driver.extraJavaOptions",
                # Spark takes the options apart as a shell does: a folder's name may hold spaces and quotes.
                f"{quote(f'-Dlog4j2.configurationFile=file:{LOG_CONFIGURATION}')} "
                f"{quote(f'-DlogFile={settings.log_folder}/spark.log')} -Duser.timezone=UTC {COLLECTOR} "
                + (QUICK_START if small or quick else LONG_RUN),
            )
            .config("spark.ui.showConsoleProgress", "false")
        )
    builder = (
        builder.config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        # Times are UTC everywhere; a value without an offset is UTC.
        .config("spark.sql.session.timeZone", "UTC")
        # 50 by default. Every task that replays a table's log writes the text of its classes anew, which takes longer
        # than replaying some thousand files.
        .config("spark.databricks.delta.snapshotPartitions", "1")
        # Marts and the warehouse follow every table through its change data feed.
        .config("spark.databricks.delta.properties.defaults.enableChangeDataFeed", "true")
        # The log is read back in the same second by the next step; asynchronous updates buy nothing.
        .config("spark.databricks.delta.stalenessLimit", "0")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        # Ten more messages between Python and the JVM for every column, to name its line of Python in errors.
        .config("spark.python.sql.dataFrameDebugging.enabled", "false")
        # Spark's default, INT96, takes longer, and others read its instants as of 1677 to 2262.
        .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        # Dictionaries of texts took a third of the time of writing and longer to read; zstd without them takes no more
        # room. These two columns have a few values each, and are counted by at every staging.
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.hadoop.parquet.compression.codec.zstd.level", "1")
        .config("spark.hadoop.parquet.enable.dictionary", "false")
        .config("spark.hadoop.parquet.enable.dictionary#_file_id", "true")
        .config("spark.hadoop.parquet.enable.dictionary#_delivered_at", "true")
        # Delta reads its change data feed by way of Java's older classes otherwise, which have no 5 to 14 October 1582.
        .config("spark.sql.datetime.java8API.enabled", "true")
        # Keys of a day's batch against the keys of a large table: ship the small side rather than sort both.
        .config("spark.sql.autoBroadcastJoinThreshold", str(64 * 1024 * 1024))
        .config("spark.sql.adaptive.autoBroadcastJoinThreshold", str(64 * 1024 * 1024))
        # A batch is kept on disk for a few reads: trying compression schemes on it costs more than it saves.
        .config("spark.sql.inMemoryColumnarStorage.compressed", "false")
        # No sort where a hash table per partition does.
        .config("spark.sql.join.preferSortMergeJoin", "false")
        .config("spark.driver.maxResultSize", "512m")
    )
    spark = _started(builder, settings)
    if small:
        for name, value in SMALL_PLANS.items():
            spark.conf.set(name, value)
    _configure_object_store(spark, settings)
    return spark


def _started(builder: SparkSession.Builder, settings: Settings) -> SparkSession:
    try:
        spark = builder.getOrCreate()
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        # What Java had to say stands on standard error already.
        raise ConfigurationError(
            f"Spark's Java did not start, JAVA_HOME={os.environ.get('JAVA_HOME') or '(not set)'}, "
            f"SPARK_DRIVER_MEMORY={settings.driver_memory}; `user-analytics doctor` looks for what is wrong"
        ) from None
    jvm: Any = spark.sparkContext._jvm
    # Delta's vacuum prints how much it deleted; standard output is for what the command was asked for.
    jvm.java.lang.System.setOut(jvm.java.lang.System.err)
    # Java makes small letters of texts beyond ASCII by the language of whoever runs it: in Turkish, I becomes ı.
    jvm.java.util.Locale.setDefault(jvm.java.util.Locale.ENGLISH)
    version = jvm.java.lang.Runtime.version()
    if version.feature() > NEWEST_JAVA:
        raise ConfigurationError(
            f"Spark's Java is {version.toString()}, with which it reads no files: use Java 17 or 21"
        )
    return spark


def some_at_once(do: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do something with each item in one session, with two at once; the results are in the order of the items.

    The first error, in that order, is raised when what is under way has ended; no other item is begun.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(do, items))


def local_rows(spark: SparkSession, rows: Iterable[Sequence[Any]], schema: T.StructType | str) -> DataFrame:
    """A few rows of this process as a DataFrame, values in the order of the schema.

    By way of Arrow they become a part of the plan. `createDataFrame` from tuples would start Python workers to pass
    them on, again whenever they are read.
    """
    structure: Any = T.StructType.fromDDL(schema) if isinstance(schema, str) else schema
    data = list(rows)
    if data:
        table = LocalDataToArrowConversion.convert(data, structure, False)
    else:
        table = to_arrow_schema(structure).empty_table()
    return spark.createDataFrame(table, structure)


def rows_in_plan(spark: SparkSession, rows: pa.Table, schema: T.StructType) -> DataFrame:
    """Few rows as a part of Spark's plans, all of them.

    Given in several chunks, Spark reads up to one that has no rows, and leaves out those that follow, without a word.
    Columns without any chunk, as delta-rs gives them of no rows, it cannot take apart where they are lists.
    """
    return spark.createDataFrame(
        rows.combine_chunks() if rows.num_rows else rows.schema.empty_table(), schema
    )


@contextmanager
def session_settings(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Have Spark's settings inside the block, and what was there before after it."""
    before = {name: spark.conf.get(name, None) for name in values}
    for name, value in values.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, earlier in before.items():
            if earlier is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, earlier)


def is_few(rows: float, size_bytes: int) -> bool:
    """Whether so many rows are few."""
    return rows <= FEW_ROWS and size_bytes <= FEW_BYTES


def if_few(rows: DataFrame, bound: DataFrame | None = None) -> pa.Table | None:
    """All rows where they are few; None where they are not, by Spark's estimate or as it turns out.

    bound: what these rows are a part of, for the estimate; that of a join is far too high.
    """
    plan: Any = (rows if bound is None else bound)._jdf.queryExecution().optimizedPlan()
    if not is_few(0, plan.stats().sizeInBytes()):
        return None
    found = rows.limit(FEW_ROWS + 1).toArrow()
    return found if is_few(found.num_rows, found.nbytes) else None


def in_plan_if_few(rows: DataFrame, bound: DataFrame | None = None) -> DataFrame | None:
    """The same rows as a part of the plan, computed once and for all, where they are few; arguments as of `if_few`."""
    few = if_few(rows, bound)
    return None if few is None else rows_in_plan(rows.sparkSession, few, rows.schema)


@contextmanager
def computed_once(rows: DataFrame, bound: DataFrame | None = None) -> Iterator[DataFrame]:
    """Rows to be read several times inside the block: few as a part of the plan, others kept on disk.

    bound: as of `if_few`.
    """
    few = in_plan_if_few(rows, bound)
    if few is not None:
        yield few
        return
    with kept_on_disk(rows):
        # Spark plans a join by the size of what is kept, which it knows when all of it is there. Without, it has moved
        # every row of the larger side about before it sees that the smaller one could have been sent to them.
        number = rows.count()
        # They may come from far more partitions, each of which would be a task for a few rows, or a file.
        yield rows.coalesce(max(1, number // FEW_ROWS))


@contextmanager
def kept_on_disk(rows: DataFrame) -> Iterator[None]:
    """Compute rows once inside the block, however often they are read there."""
    rows.persist(StorageLevel.DISK_ONLY)
    try:
        yield
    finally:
        rows.unpersist()


def own_session(spark: SparkSession) -> SparkSession:
    """Another session over the same engine, with this one's settings, which may then be changed in it alone."""
    session: Any = spark._jsparkSession
    return SparkSession(spark.sparkContext, session.cloneSession())


def is_submitted() -> bool:
    """Whether `spark-submit` started this process, and Java before it, by its own options."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def has_started() -> bool:
    """Whether this process has a Spark session, whichever thread started it."""
    return SparkContext._active_spark_context is not None


def jvm_pid(spark: SparkSession) -> int:
    """The number of the process that Spark's driver runs in: it outlives a Python that was killed for a moment."""
    jvm: Any = spark.sparkContext._jvm
    return int(jvm.java.lang.ProcessHandle.current().pid())


def java_has_ended() -> bool:
    """Whether the Java process that this one started for Spark is gone: killed, or stopped by itself without memory."""
    process = getattr(SparkContext._gateway, "proc", None)
    return process is not None and process.poll() is not None


def _configure_object_store(spark: SparkSession, settings: Settings) -> None:
    if settings.lake_is_local:
        return
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    values = {
        "fs.s3a.endpoint": settings.s3_endpoint,
        "fs.s3a.endpoint.region": settings.s3_region,
        "fs.s3a.access.key": settings.s3_access_key,
        "fs.s3a.secret.key": settings.s3_secret_key,
        "fs.s3a.session.token": settings.s3_session_token,
        # Buckets of MinIO and its like are paths, not host names.
        "fs.s3a.path.style.access": "true" if settings.s3_endpoint else None,
        # A wrong key or address should fail in seconds, not after S3A's default of minutes.
        "fs.s3a.attempts.maximum": "3",
        "fs.s3a.retry.limit": "3",
        "fs.s3a.connection.establish.timeout": "15s",
        # The parts of a file that is being written are buffered in arrays instead of local files.
        "fs.s3a.fast.upload.buffer": "bytebuffer",
    }
    provider = "fs.s3a.aws.credentials.provider"
    if settings.s3_session_token:
        values[provider] = "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider"
    elif not settings.s3_access_key and list(hadoop.getPropertySources(provider)) == ["core-default.xml"]:
        # As boto3 does, which the raw files are listed with; by default, S3A knows no profiles.
        values[provider] = "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
    for name, value in values.items():
        if value is not None:
            hadoop.set(name, value)
