"""Rows of tables that are a person's, and how history leaves a Delta table."""

from __future__ import annotations

import re
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.context import RunContext
from jobs.erasure.person import ID_COLUMNS, Person, address_pattern, plain_part
from jobs.lake import folders
from jobs.lake.locks import require_lock_not_lost
from jobs.lake.tables import LakeTable
from jobs.runs import lock_of
from jobs.spark import local_rows, session_settings

MARK = "erasure"
LOG_FILE = re.compile(r"\.?(\d{20})\..*")
# What else VACUUM needs to be told to remove all that the newest version does not need, and to write no log of itself.
VACUUM_NOW = {
    "spark.databricks.delta.retentionDurationCheck.enabled": "false",
    "spark.databricks.delta.vacuum.logging.enabled": "false",
}


def persons_rows(rows: DataFrame, person: Person) -> DataFrame:
    """The rows that have an identifier of the person in its column, or an address anywhere in their texts.

    What names the person travels as rows of a table, so that it stands in no plan that Spark shows or logs.
    """
    kinds = (T.StringType, T.ArrayType, T.StructType, T.MapType)
    texts = [F.col(f"`{c.name}`") for c in rows.schema if isinstance(c.dataType, kinds)]
    if not texts:
        return rows.limit(0)
    clues: list[tuple[str, str, str]] = [
        ("email", plain_part(email), address_pattern(email)) for email in person.emails
    ]
    clues += [(column, value, "") for column, values in person.ids.items() for value in values]
    known = local_rows(rows.sparkSession, clues, "_clue string, _value string, _pattern string")
    named = F.expr("_clue = 'email' AND contains(lower(_text), _value) AND _text RLIKE _pattern")
    for column in ID_COLUMNS:
        if column in rows.columns:
            named = named | F.expr(f"_clue = '{column}' AND _value = `{column}`")
    searched = rows.withColumn("_text", F.to_json(F.struct(*texts)))
    return searched.join(F.broadcast(known), named, "left_semi").drop("_text")


def begin_anew(table: LakeTable) -> None:
    """Make a version that says nothing of any row, so that the ones before can go."""
    nothing = local_rows(table.spark, [], table.read().schema)
    table.append(nothing, MARK, table.version() + 1)


def remove_history(run: RunContext, table: LakeTable) -> None:
    """Leave of a table only what its newest version needs: no older data file, no older entry of its log.

    The newest version has to be one of `begin_anew`, and everything that follows the table has to have followed it.
    After a kill, doing it again ends in the same state.
    """
    with run.locks.hold(lock_of(run, table)):
        require_lock_not_lost(table.uri)
        with session_settings(run.spark, VACUUM_NOW):
            table.vacuum(0)
        # A checkpoint holds what is there now; the entries before it are then needed for history only.
        jvm: Any = run.spark.sparkContext._jvm
        log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(run.spark._jsparkSession, table.uri)
        newest = table.version()
        names = sorted(folders.file_names(run.spark, f"{table.uri}/_delta_log"))
        # Of every tenth version `begin_anew` has made one. Spark leaves that one, but notes the columns of its own, by
        # which delta-rs finds no numbers of rows in it.
        if f"{newest:020d}.checkpoint.parquet" not in names:
            log.checkpoint()
        for name in names:
            found = LOG_FILE.fullmatch(name)
            if found and int(found[1]) < newest:
                folders.remove(run.spark, f"{table.uri}/_delta_log/{name}")
        jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
