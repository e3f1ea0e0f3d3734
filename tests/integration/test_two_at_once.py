"""The same job started twice, on a folder and on an object store; and what Delta's log store does without a lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import SparkSession

from jobs.build_star_schema import build_star_schema
from jobs.lake.locks import TableLocks, holders
from jobs.lake.objects import object_store
from jobs.lake.tables import LakeTable
from jobs.settings import Settings
from jobs.spark import _configure_object_store
from jobs.upload_files import upload
from tests.lakes import STAR, Lake
from tests.records import event, json_lines
from tests.services import ObjectStore
from tests.staging import RawZone

pytestmark = [pytest.mark.spark, pytest.mark.integration]


class Driver:
    """Delta's log store for S3 as one driver has it: locks and caches of its own, though in this process."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        self.jvm: Any = spark.sparkContext._jvm
        self.gateway: Any = spark.sparkContext._gateway
        ensure_callback_server_started(self.gateway)
        _configure_object_store(spark, settings)
        self.configuration = spark.sparkContext._jsc.hadoopConfiguration()
        loaded = self.jvm.java.lang.Class.forName("io.delta.storage.S3SingleDriverLogStore")
        jar = loaded.getProtectionDomain().getCodeSource().getLocation()
        # Classes loaded anew have statics of their own, as in another process.
        urls = self._array("java.net.URL", jar)
        loader = self.jvm.org.apache.spark.util.ChildFirstURLClassLoader(urls, loaded.getClassLoader())
        self.kind = loader.loadClass(loaded.getName())
        kinds = self._array("java.lang.Class", self.configuration.getClass())
        self.log_store = self.kind.getConstructor(kinds).newInstance(
            self._array("java.lang.Object", self.configuration)
        )

    def write(self, path: str, actions: Actions) -> None:
        """What a transaction of Delta ends with: write this version of the log, which must not be there yet."""
        # By reflection, because py4j takes classes of one name for one class.
        [write] = [method for method in self.kind.getMethods() if method.getName() == "write"]
        arguments = self.jvm.java.util.ArrayList()
        for value in (self.jvm.org.apache.hadoop.fs.Path(path), actions, False, self.configuration):
            arguments.add(value)
        write.invoke(self.log_store, arguments.toArray())

    def _array(self, kind: str, *values: Any) -> Any:
        element = self.jvm
        for part in kind.split("."):
            element = getattr(element, part)
        array = self.gateway.new_array(element, len(values))
        for number, value in enumerate(values):
            array[number] = value
        return array


class Log:
    """The transaction log of a table, without Spark."""

    def __init__(self, minio: ObjectStore, settings: Settings, table: str) -> None:
        self.client, self.bucket = minio.client(), settings.lake_uri.removeprefix("s3a://")
        self.folder = f"{table}/_delta_log/"
        self.uri = settings.lake_path(table, "_delta_log")

    def versions(self) -> list[str]:
        """What each version says."""
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.folder).get("Contents", [])
        bodies = [self.client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"] for item in found]
        return [body.read().decode().strip() for body in bodies]

    def commit(self, driver: Driver, action: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Commit the next version. meanwhile: what happens in the world while it is being written."""
        driver.write(f"{self.uri}/{len(self.versions()):020d}.json", Actions(action, meanwhile))


class Actions:
    """One action of a commit, as an iterator of Java's, during which something else happens."""

    def __init__(self, action: str, meanwhile: Callable[[], object]) -> None:
        self.left, self.meanwhile = [action], meanwhile

    def hasNext(self) -> bool:  # noqa: N802 - Java's name
        return bool(self.left)

    def next(self) -> str:
        self.meanwhile()
        return self.left.pop()

    class Java:
        implements = ("java.util.Iterator",)


def test_without_the_lock_a_commit_of_two_drivers_is_lost_and_with_it_none(
    spark: SparkSession, minio: ObjectStore
) -> None:
    lake = {**minio.environment(), "LAKE_URI": f"s3a://{minio.make_bucket()}"}
    settings = Settings.from_env(lake)
    first, second = Driver(spark, settings), Driver(spark, settings)

    # The log store looks whether the version is there, then writes it; another driver may come between.
    log = Log(minio, settings, "unlocked")
    log.commit(first, "first", meanwhile=lambda: log.commit(second, "second"))
    assert log.versions() == ["first"], "the second one was told that it had committed"

    # The same with the lock: the second one, started at the same moment, waits until the first has written.
    log, waiting = Log(minio, settings, "locked"), []
    with ThreadPoolExecutor(1) as pool:

        def commit_second() -> None:
            with TableLocks(object_store(settings), settings.lake_uri, "second", "2", 60).hold("locked"):
                log.commit(second, "second")

        with TableLocks(object_store(settings), settings.lake_uri, "first", "1", 60).hold("locked"):
            log.commit(first, "first", meanwhile=lambda: waiting.append(pool.submit(commit_second)))
        waiting[0].result(60)
    assert log.versions() == ["first", "second"]


@pytest.mark.parametrize("where", ["folder", "object store"])
def test_a_job_started_twice_ends_as_one(
    spark: SparkSession, minio: ObjectStore, tmp_path: Path, tmp_lake: str, where: str
) -> None:
    environment = {}
    if where == "object store":
        tmp_lake = f"s3a://{minio.make_bucket()}/lake"
        environment = minio.environment()
    # Sessions of their own: Delta takes a transaction's identifier from the session.
    zones = [RawZone(spark.newSession(), tmp_lake, "logs", environment) for _ in range(2)]
    _configure_object_store(spark, zones[0].settings)
    file = tmp_path / "day.jsonl"
    file.write_text(json_lines(event("a"), event("b"), event("b"), "garbage"))
    upload(zones[0].store, "logs", [file])

    def job(zone: RawZone) -> int:
        read = zone.stage().total("records_read")
        build_star_schema(zone.run())
        return read

    with ThreadPoolExecutor(2) as pool:
        read = list(pool.map(job, zones))
    assert sorted(read) == [0, 4], "one staged, the other found nothing left to do"
    assert zones[0].counts() == {"day.jsonl": (4, 2, 1, 1)}
    assert zones[0].rows("user_id") == [("a",), ("b",)]
    assert zones[0].rejected() == [("day.jsonl", ("malformed_json",), "garbage")]
    lake = Lake(spark, tmp_lake)
    assert [len(lake.rows(name)) for name in STAR] == [2, 1, 1, 1, 2]
    assert holders(zones[0].store) == []


def test_without_locks_a_job_started_twice_adds_records_twice(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the locks are for, also where Delta loses no commit: both look at what is new before either notes it."""
    monkeypatch.setattr(TableLocks, "hold", lambda *_: nullcontext())
    zones = [RawZone(spark, tmp_lake, "logs") for _ in range(2)]
    zones[0].put({"day.jsonl": json_lines(event("a"))})
    append, other = LakeTable.append, [zones[1]]

    def late(table: LakeTable, *arguments: Any) -> None:
        if other and table.uri.endswith("/staging/logs"):
            other.pop().stage()
        append(table, *arguments)

    monkeypatch.setattr(LakeTable, "append", late)
    zones[0].stage()
    assert zones[0].rows("user_id") == [("a",), ("a",)]
