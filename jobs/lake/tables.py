"""Delta tables of the lake: made from a declared schema, read at a version, changed in single commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
from delta.tables import DeltaTable
from deltalake.exceptions import DeltaError
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.causes import root_cause
from jobs.column_lineage import named_in_plan
from jobs.console import log
from jobs.errors import UserAnalyticsError
from jobs.lake import delta_log, folders
from jobs.lake.delta_log import CHANGE, COMMIT
from jobs.lake.locks import require_lock_not_lost
from jobs.lake.objects import ObjectStore
from jobs.settings import Settings
from jobs.spark import if_few, is_few, own_session, rows_in_plan, session_settings

# What Spark raises where files of an old version were removed.
GONE = (PySparkException, Py4JJavaError)
BEFORE_UPDATE = "update_preimage"
# So many versions are asked one by one for their size.
FEW_VERSIONS = 20


class Lake(Protocol):
    """Where the tables are, and the session that works on them, which may start when it is first asked for."""

    @property
    def spark(self) -> SparkSession: ...
    @property
    def settings(self) -> Settings: ...


@dataclass(frozen=True)
class LakeTable:
    """One Delta table at an address, with the schema it should have.

    What its log says is read without Spark. So are few rows, and added: by `few_rows`, `few_added` and `add` in this
    process; by `read`, `changes` and `append` for Spark's plans, which then hold the rows themselves.

    looked_up_by: columns whose least and greatest value Delta notes for every file, so that a query on them opens few
    files. Noting them for every column takes a quarter of the time of writing.
    """

    lake: Lake
    uri: str
    schema: T.StructType
    partitioned_by: tuple[str, ...] = ()
    comment: str = ""
    looked_up_by: tuple[str, ...] = ()

    @property
    def spark(self) -> SparkSession:
        return self.lake.spark

    def exists(self) -> bool:
        """Whether the table has a first version; a process that died while it made it leaves an empty log."""
        return self._found() is not None

    def ensure(self) -> LakeTable:
        """Create the table, or add columns that were declared since. Any other difference stops the job."""
        found = self._found()
        if found is None:
            require_lock_not_lost(self.uri)
            looked_up: dict[str, str | None] = {"delta.dataSkippingStatsColumns": ",".join(self.looked_up_by)}
            delta_log.create(
                *(self.uri, self.lake.settings, self.schema, self.comment, self.partitioned_by),
                looked_up if self.looked_up_by else {},
            )
            return self
        there = {f.name: f.dataType for f in delta_log.spark_schema(found)}
        for column in self.schema:
            if column.name in there and there[column.name].simpleString() != column.dataType.simpleString():
                raise UserAnalyticsError(
                    f"{self.uri}: column {column.name} is {there[column.name].simpleString()}, declared as "
                    f"{column.dataType.simpleString()}; only new columns are added on their own. "
                    f"{self._how_to_rebuild()}"
                )
        if new := [column for column in self.schema if column.name not in there]:
            require_lock_not_lost(self.uri)
            delta_log.add_columns(found, new)
            zone, name = self.uri.split("/")[-2:]
            if zone in ("staging", "marts") and not name.startswith("_"):
                # What was applied is not applied again, so nothing else would fill them.
                log.warning(
                    "%s/%s: column %s added, empty in the rows that are there; `user-analytics reset %s/%s` and a run "
                    "make them anew",
                    *(zone, name, ", ".join(column.name for column in new), zone, name),
                )
        return self

    def is_declared(self) -> bool:
        """Whether the table has all declared columns already, as they are declared."""
        there = {f.name: f.dataType.simpleString() for f in delta_log.spark_schema(self._log())}
        return all(there.get(c.name) == c.dataType.simpleString() for c in self.schema)

    def column_names(self) -> list[str]:
        """The columns that the table has, declared or not."""
        return list(delta_log.spark_schema(self._log()).names)

    def properties(self) -> dict[str, str]:
        """The table's properties, as Delta notes them."""
        return dict(self._log().metadata().configuration)

    def remove(self) -> None:
        """Remove the table with its history; one that is made later has another identity."""
        require_lock_not_lost(self.uri)
        folders.remove(self.spark, self.uri)
        jvm: Any = self.spark.sparkContext._jvm
        path = jvm.org.apache.hadoop.fs.Path(self.uri)
        jvm.org.apache.spark.sql.delta.DeltaLog.invalidateCache(self.spark._jsparkSession, path)

    def read(self, version: int | None = None) -> DataFrame:
        """The rows of a version, by default the newest; those of a small table become a part of Spark's plan."""
        if (few := self._if_small(version)) is not None:
            return few
        reader = self.spark.read.format("delta")
        if version is not None:
            # One that is gone is no defect; callers know what to do without it.
            return reader.option("versionAsOf", version).load(self.uri)
        with self._named():
            return reader.load(self.uri)

    def version(self) -> int:
        """The newest version's number."""
        return int(self._log().version())

    def table_id(self) -> str:
        """The identity that Delta gave the table when it was made; a rebuilt table has another."""
        return str(self._log().metadata().id)

    def applied(self, source: str) -> int | None:
        """The version of a source that the last `append` or `merge` naming it had applied; None if none had."""
        return self._log().transaction_version(source)

    def has_applied(self, source: str, version: int) -> bool:
        """Whether this version of a source is the one that was applied last.

        Raises UserAnalyticsError when it was a later one: Delta would skip what is made from this one in silence.
        """
        applied = self.applied(source)
        if applied is not None and applied > version:
            raise UserAnalyticsError(
                f"{self.uri}: made from version {applied} of {source.partition(':')[0]}, of which only {version} are "
                f"there. Was the lake restored from a backup? {self._how_to_rebuild()}"
            )
        return applied == version

    def few_rows(self) -> pa.Table:
        """All rows of a small table, without Spark."""
        with self._readable():
            return delta_log.all_rows(self._log(), self.schema)

    def query(self, text: str, version: int | None = None) -> list[dict[str, Any]]:
        """The few rows that a query in SQL over this table, there known as `t`, gives without Spark.

        version: of the table; by default the newest.
        """
        with self._readable():
            rows: list[dict[str, Any]] = delta_log.query(self._log(version), text).to_pylist()
        return rows

    def counts_by(self, column: str, values: Sequence[int] | None = None) -> dict[int, int]:
        """The number of rows for every value of a column of whole numbers, or for those given, that has some.

        Without Spark; a table that is not there has none.
        """
        if not self.exists():
            return {}
        where = "" if values is None else f" WHERE {column} IN ({', '.join(map(str, values))})"
        found = self.query(f"SELECT {column}, count(*) AS records FROM t{where} GROUP BY {column}")
        return {row[column]: row["records"] for row in found}

    def has_rows(self) -> bool:
        """Whether the table has any row."""
        return bool(self.query("SELECT 1 AS one FROM t LIMIT 1"))

    def few_count(self) -> int:
        """The number of rows of a small table, without Spark."""
        return int(self._log().count())

    def few_added(self, after: int, until: int) -> pa.Table | None:
        """The rows that came to a small table in the versions after..until, without Spark.

        `after` itself is excluded. None where rows were changed or removed, too, or the history is gone.
        """
        try:
            return delta_log.added_rows(self._log(), self.schema, after, until)
        except Exception as error:  # for a file that is gone, Arrow has no other class
            log.debug("%s: %s", self.uri, error)
            return None

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Append a few rows, values in the order of the schema, in one commit, without Spark."""
        self._add(delta_log.as_arrow(self.schema, rows))

    def _add(self, rows: pa.Table, source: str | None = None, version: int | None = None) -> None:
        require_lock_not_lost(self.uri)
        try:
            delta_log.append(self._log(), rows, source, version)
        except DeltaError as error:
            # Its further lines quote rows.
            raise UserAnalyticsError(
                f"{self.uri}: rows cannot be added: {str(error).splitlines()[0]}"
            ) from None

    def transactions(self, store: ObjectStore) -> dict[str, tuple[int, datetime | None]]:
        """For every source that a commit named: the version of it that was applied last, and when."""
        folder = self.uri.removeprefix(f"{self.lake.settings.lake_uri}/")
        known = delta_log.transactions(store, folder, self.version())
        return self._transactions() if known is None else known

    def _transactions(self) -> dict[str, tuple[int, datetime | None]]:
        found = self._snapshot().setTransactions()
        marks = (found.apply(i) for i in range(found.size()))
        return {
            str(mark.appId()): (
                int(mark.version()),
                datetime.fromtimestamp(int(at.get()) / 1000, UTC)
                if (at := mark.lastUpdated()).isDefined()
                else None,
            )
            for mark in marks
        }

    def committed_at(self, version: int) -> datetime | None:
        """When a version was committed, by the clock of who did; None where the log no longer has its entry."""
        behind = self.version() - version + 1
        commits = self._log().history(behind)
        if len(commits) < behind or (milliseconds := commits[-1].get("timestamp")) is None:
            return None
        return datetime.fromtimestamp(milliseconds / 1000, UTC)

    def last_commit_appended(self) -> bool:
        """Whether the newest commit only added rows."""
        found = self._log().history(1)
        if not found:
            # A file of no bytes, as a power failure leaves it.
            return False
        (commit,) = found
        return bool(commit["operation"] == "WRITE" and commit["operationParameters"].get("mode") == "Append")

    def append(self, rows: DataFrame, source: str | None = None, version: int | None = None) -> None:
        """Append rows in one commit. With a source and version, the commit happens once however often it is tried.

        Raises UserAnalyticsError when a later version of the source was applied, see `has_applied`.
        """
        if self._is_done(source, version):
            return
        aligned = self._aligned(rows)
        few = if_few(aligned)
        if few is not None:
            self._add(few, source, version)
            return
        require_lock_not_lost(self.uri)
        writer = aligned.write.format("delta").mode("append")
        if source is not None:
            writer = writer.option("txnAppId", source).option("txnVersion", str(version))
        writer.save(self.uri)

    def replace_where(self, rows: DataFrame, condition: str) -> None:
        """Replace the rows that fulfil a condition, in one commit."""
        require_lock_not_lost(self.uri)
        self._aligned(rows).write.format("delta").mode("overwrite").option("replaceWhere", condition).save(
            self.uri
        )

    def merge(
        self,
        rows: DataFrame,
        condition: str,
        clauses: Callable[[Any], Any],
        source: str | None = None,
        version: int | None = None,
    ) -> None:
        """MERGE rows, known as `s`, into this table, known as `t`, in one commit. clauses: adds what to do when.

        With a source and version, the commit happens once however often it is tried, as that of `append`.
        """
        if self._is_done(source, version):
            return
        require_lock_not_lost(self.uri)
        spark = self.spark
        if source is not None:
            # MERGE takes them from nowhere but its session's settings, which other threads must not have.
            spark = own_session(spark)
            spark.conf.set("spark.databricks.delta.write.txnAppId", source)
            spark.conf.set("spark.databricks.delta.write.txnVersion", str(version))
        begun = DeltaTable.forPath(spark, self.uri).alias("t").merge(rows.alias("s"), condition)
        clauses(begun).execute()

    def overwrite(self, rows: DataFrame, source: str, version: int) -> None:
        """Replace all rows in one commit, which happens once however often it is tried, as that of `append`."""
        if self._is_done(source, version):
            return
        require_lock_not_lost(self.uri)
        writer = self._aligned(rows).write.format("delta").mode("overwrite")
        writer.option("txnAppId", source).option("txnVersion", str(version)).save(self.uri)

    def _how_to_rebuild(self) -> str:
        zone, name = self.uri.split("/")[-2:]
        if zone not in ("staging", "marts") or name.startswith("_"):
            return "Move the table away and run again to rebuild it"
        # Moved away alone, it would not come back whole: the ledger, or a table beside it, says that all is there.
        return f"`user-analytics reset {zone}/{name}` removes it with what belongs to it; then run again to rebuild it"

    def _is_done(self, source: str | None, version: int | None) -> bool:
        return source is not None and version is not None and self.has_applied(source, version)

    def changes(self, after: int, until: int, key: Sequence[str]) -> tuple[DataFrame, bool]:
        """What became of each key in the versions after..until; `after` itself is excluded.

        Gives (rows, only_inserts). Where versions only inserted, rows are the new rows; otherwise the last state of
        every changed row, one per key, with `_deleted` boolean. Raises a Spark error when the history is gone, be it
        only the files of one version.
        """
        feed, kinds = self._few_changes(after, until) or self._many_changes(after, until)
        if kinds <= {"insert"}:
            return feed.drop(CHANGE, COMMIT), True
        # Within one commit a key that was deleted and inserted counts as inserted.
        newest = Window.partitionBy(*key).orderBy(F.col(COMMIT).desc(), (F.col(CHANGE) == "delete").asc())
        rows = (
            feed.withColumn("_newest", F.row_number().over(newest))
            .where("_newest = 1")
            .withColumn("_deleted", F.col(CHANGE) == "delete")
            .drop("_newest", CHANGE, COMMIT)
        )
        return rows, False

    def _few_changes(self, after: int, until: int) -> tuple[DataFrame, set[str]] | None:
        """The change data feed, and which kinds of changes are in it; None where they are many, or gone."""
        if until - after > FEW_VERSIONS:
            return None
        try:
            logs = [self._log(version) for version in range(after, until + 1)]
            if not is_few(*delta_log.size_of_changes(logs)):
                return None
            schema = delta_log.spark_schema(logs[-1])
            rows = delta_log.changed_rows(logs[-1], schema, after, until)
        except Exception as error:  # Spark tells whether they are gone, and names what is broken
            log.debug("%s: %s", self.uri, error)
            return None
        rows = rows.filter(pc.field(CHANGE) != BEFORE_UPDATE)
        feed = self._in_plan(rows, T.StructType([*schema, *delta_log.CHANGES]))
        return None if feed is None else (feed, set(pc.unique(rows[CHANGE]).to_pylist()))

    def _many_changes(self, after: int, until: int) -> tuple[DataFrame, set[str]]:
        feed = (
            self.spark.read.format("delta")
            .option("readChangeFeed", "true")
            .option("startingVersion", after + 1)
            .option("endingVersion", until)
            .load(self.uri)
            .where(F.col(CHANGE) != BEFORE_UPDATE)
            .drop("_commit_timestamp")
        )
        # This opens every file of the feed, so that one that was vacuumed is missed here rather than later.
        return feed, {row[CHANGE] for row in feed.select(CHANGE).distinct().collect()}

    def _if_small(self, version: int | None) -> DataFrame | None:
        """The rows of a version of a small table; None where it is not small, or cannot be read."""
        try:
            found = self._log(version)
            if not is_few(*delta_log.size(found)):
                return None
            schema = delta_log.spark_schema(found)
            return self._in_plan(delta_log.all_rows(found, schema), schema)
        except Exception as error:  # Spark names what is broken
            log.debug("%s: %s", self.uri, error)
            return None

    def _in_plan(self, rows: pa.Table, schema: T.StructType) -> DataFrame | None:
        # In a file, a text that comes a thousand times stands once.
        if not is_few(rows.num_rows, rows.nbytes):
            return None
        return rows_in_plan(self.spark, rows, schema).alias(named_in_plan(self.uri))

    def vacuum(self, keep_hours: int) -> None:
        """Remove the data files that no version of the last hours needs."""
        # Spark lists a table's folders in so many tasks, 10,000 by default, however few folders there are.
        tasks = 4 * self.spark.sparkContext.defaultParallelism
        listing = {"spark.sql.sources.parallelPartitionDiscovery.parallelism": str(tasks)}
        with session_settings(self.spark, listing):
            DeltaTable.forPath(self.spark, self.uri).vacuum(keep_hours)

    def _aligned(self, rows: DataFrame) -> DataFrame:
        # The declared columns, in their order; others, such as a helper's, do not reach the table.
        return rows.select(*(F.col(c.name).cast(c.dataType).alias(c.name) for c in self.schema))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Data that cannot be read are an error that says of which table."""
        try:
            yield
        except UserAnalyticsError:
            raise
        except Exception as error:  # Arrow has no other class
            raise UserAnalyticsError(f"{self.uri}: cannot be read: {str(error).splitlines()[0]}") from error

    def _found(self, version: int | None = None) -> deltalake.DeltaTable | None:
        try:
            return delta_log.open_log(self.uri, self.lake.settings, version)
        except (DeltaError, OSError) as error:
            self._broken(error)

    def _log(self, version: int | None = None) -> deltalake.DeltaTable:
        found = self._found(version)
        if found is None:
            raise UserAnalyticsError(f"{self.uri}: there is no such table")
        return found

    def _broken(self, error: Exception) -> NoReturn:
        # Spark's message names the file, once it has to look into all of them.
        with self._named():
            self._transactions()
        reason = str(error).splitlines()[0]
        raise UserAnalyticsError(f"{self.uri}: its Delta log cannot be read: {reason}") from error

    def _snapshot(self) -> Any:
        jvm: Any = self.spark.sparkContext._jvm
        none = getattr(getattr(jvm.scala, "None$"), "MODULE$")
        with self._named():
            log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(self.spark._jsparkSession, self.uri)
            return log.update(False, none, none)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """A log that cannot be read is an error that says of which table; Delta's own does not."""
        try:
            yield
        except GONE as error:
            raise UserAnalyticsError(
                f"{self.uri}: its Delta log cannot be read: {root_cause(error)}"
            ) from error
