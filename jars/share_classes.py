"""Store the classes that Spark and Delta load, parsed and checked, so that every later start takes them from a file.

    .venv/bin/python jars/share_classes.py

The JVM calls this class data sharing (JEP 350); docs/decisions/speed.md has what it saves. The archive fits one JVM
and one set of jars: with others the JVM starts as without it. It is made anew when either changed, by a session that
does in small what the jobs do: JSON lines and CSV read, a Delta table made, merged and followed. Java 21 would store it
and never take it: Spark names one jar twice on its class path, which that version leaves out when it stores, and not
when it compares.

Only pyspark and delta are used: this runs before anything of the project is installed. Without an archive all works,
only slower; so a failure here is said and passes.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fetch import pyspark_home

ARCHIVE = "shared-classes.jsa"
SECONDS = 300


def java_version() -> bytes:
    """All that the JVM says of its version."""
    java = Path(os.environ["JAVA_HOME"]) / "bin" / "java"
    return subprocess.run([java, "-XshowSettings:none", "-version"], capture_output=True, check=True).stderr


def fingerprint(spark: Path, version: bytes) -> str:
    """What the archive depends on: the JVM, the jars, and what this program loads."""
    jars = [
        f"{jar.name} {jar.stat().st_size} {jar.stat().st_mtime_ns}"
        for jar in sorted(spark.glob("jars/*.jar"))
    ]
    parts = [str(spark).encode(), version, "\n".join(jars).encode(), Path(__file__).read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def load_classes(folder: Path) -> None:
    """Do in small what the jobs do, in a session of its own, and end its JVM."""
    from delta.tables import DeltaTable
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        # Its bars would be all that is said of a failure.
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.codegen.wholeStage", "false")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.databricks.delta.snapshotPartitions", "2")
        .config("spark.databricks.delta.properties.defaults.enableChangeDataFeed", "true")
        .getOrCreate()
    )
    (folder / "in.json").write_text(
        "".join(f'{{"id": {n}, "at": "2026-01-01", "x": {{"y": "z"}}}}\n' for n in range(9))
    )
    (folder / "in.csv").write_text("id,at\n1,2026-01-01\n")
    lines = spark.read.text(str(folder / "in.json")).select(
        F.from_json("value", "id bigint, at string, x struct<y string>").alias("r")
    )
    rows = lines.select("r.id", F.to_timestamp("r.at").alias("at"), F.xxhash64("r.x.y").alias("hash"))
    names = spark.read.csv(
        str(folder / "in.csv"), header=True, schema="id bigint, at timestamp", multiLine=True
    )
    table = str(folder / "table")
    DeltaTable.createIfNotExists(spark).location(table).addColumns(rows.schema).execute()
    rows.write.format("delta").mode("append").option("txnAppId", "a").option("txnVersion", "1").save(table)
    delta = DeltaTable.forPath(spark, table)
    changed = names.withColumn("hash", F.lit(1).cast("bigint"))
    delta.alias("t").merge(
        changed.alias("s"), "s.id = t.id"
    ).whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
    changes = (
        spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 1).load(table)
    )
    changes.groupBy("_change_type").agg(F.count("*"), F.max("at")).collect()
    rows.limit(3).write.format("delta").mode("overwrite").option("replaceWhere", "id >= 0").save(table)
    spark.read.format("delta").option("versionAsOf", 1).load(table).join(F.broadcast(names), "id").collect()
    jvm = spark.sparkContext._jvm
    for name in (
        "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "org.apache.spark.ml.classification.LogisticRegression",
    ):
        jvm.java.lang.Class.forName(name)
    gateway = spark.sparkContext._gateway
    spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(SECONDS)


def main() -> int:
    """Make the archive unless the one that is there fits."""
    if sys.argv[1:2] == ["load"]:
        load_classes(Path(sys.argv[2]))
        return 0
    spark = pyspark_home()
    archive, stamp = spark / ARCHIVE, spark / f"{ARCHIVE}.made-for"
    version = java_version()
    wanted = fingerprint(spark, version)
    if archive.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return 0
    stamp.unlink(missing_ok=True)
    archive.unlink(missing_ok=True)
    if not re.search(rb'version "17[".]', version):
        return 0
    print("setup: storing the classes that Spark loads, for quick starts (half a minute) …", flush=True)
    with tempfile.TemporaryDirectory() as work:
        made = Path(work) / ARCHIVE
        done = subprocess.run(
            [sys.executable, __file__, "load", work],
            env={**os.environ, "SPARK_SUBMIT_OPTS": f"-XX:ArchiveClassesAtExit={made}"},
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0 or not made.is_file():
            # The JVM warns on standard output.
            said = " ".join((done.stderr + done.stdout).split())
            print(f"setup: not stored, Spark will start more slowly: {said[-300:]}", file=sys.stderr)
            return 0
        # Beside the jars, under its name only when whole.
        partial = archive.with_suffix(".partial")
        partial.write_bytes(made.read_bytes())
        partial.replace(archive)
    stamp.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
