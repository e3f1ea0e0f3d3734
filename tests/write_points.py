"""Every place where a job writes, and a process that dies at one of them.

A write is a commit to a table of the lake, a file put there or removed, a statement or commit in the warehouse. Between
two of them nothing that outlives the process changes, except locks: those of a dead process stay as it left them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from delta.tables import DeltaOptimizeBuilder, DeltaTable
from pyspark.sql import DataFrameWriter, SparkSession

import jobs.context
from jobs import cli
from jobs.lake import folders
from jobs.lake.locks import process_name
from jobs.lake.objects import LocalStore, S3Store
from jobs.lake.tables import LakeTable
from jobs.warehouse import postgres_connection, postgres_publication


class Killed(BaseException):
    """Stands for the end of the process. No `except Exception` sees it."""


class WritePoints:
    """Counts writes by what they do; before write `die_at` (from 1) calls `die`, after which nothing is written.

    outlives_it: `die` does harm to something else, and the process goes on.
    """

    def __init__(
        self, die_at: int | None = None, die: Callable[[], None] | None = None, outlives_it: bool = False
    ) -> None:
        self.die_at, self.die, self.outlives_it = die_at, die or self._raise, outlives_it
        self.names: list[str] = []
        self.dead = False

    def __call__(self, name: str, write: Callable[[], Any]) -> Any:
        if self.dead:
            # What `finally` tries to write; a process that ended would not.
            raise Killed(name)
        self.names.append(name)
        if len(self.names) == self.die_at:
            self.dead = not self.outlives_it
            self.die()
        return write()

    def unless_dead(self, write: Callable[[], Any]) -> Any:
        if self.dead:
            raise Killed
        return write()

    def _raise(self) -> None:
        raise Killed(self.names[-1])

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put this in the way of all writes of this process."""
        self._tables(patch)
        self._files(patch)
        self._warehouse(patch)

    def _tables(self, patch: pytest.MonkeyPatch) -> None:
        def wrap(name: str, is_write: Callable[[LakeTable], bool] = lambda _: True) -> None:
            original = getattr(LakeTable, name)

            def write(table: LakeTable, *args: Any, **kwargs: Any) -> Any:
                def now() -> Any:
                    return original(table, *args, **kwargs)

                short = "/".join(table.uri.split("/")[-2:])
                return self(f"{name} {short}", now) if is_write(table) else now()

            patch.setattr(LakeTable, name, write)

        wrap("ensure", lambda table: not table.exists() or not table.is_declared())
        for name in ("add", "append", "replace_where", "overwrite", "merge", "remove"):
            wrap(name)
        sql, vacuum = SparkSession.sql, DeltaTable.vacuum
        compact = DeltaOptimizeBuilder.executeCompaction

        def run_sql(session: SparkSession, text: str, *args: Any, **kwargs: Any) -> Any:
            changes = "SET TBLPROPERTIES" in text
            write = lambda: sql(session, text, *args, **kwargs)  # noqa: E731
            return self(f"alter {text[:60]}", write) if changes else write()

        patch.setattr(SparkSession, "sql", run_sql)
        patch.setattr(DeltaTable, "vacuum", lambda *a, **k: self("vacuum", lambda: vacuum(*a, **k)))
        patch.setattr(
            DeltaOptimizeBuilder, "executeCompaction", lambda b: self("compact", lambda: compact(b))
        )

    def _files(self, patch: pytest.MonkeyPatch) -> None:
        for kind in (LocalStore, S3Store):
            put, swap = kind.put, kind.swap

            def write(store: Any, source: Any, path: str, *args: Any, put: Any = put) -> None:
                self(f"put {path}", lambda: put(store, source, path, *args))

            def change(*args: Any, swap: Any = swap) -> Any:
                return self.unless_dead(lambda: swap(*args))

            patch.setattr(kind, "put", write)
            patch.setattr(kind, "swap", change)
        parquet, remove = DataFrameWriter.parquet, folders.remove

        def write_parquet(writer: Any, uri: str, *args: Any) -> None:
            self(f"parquet {uri.split('/')[-2]}", lambda: parquet(writer, uri, *args))

        def remove_folder(spark: SparkSession, uri: str) -> None:
            # Tables that are removed are counted as such.
            self(f"remove {uri.split('/')[-1]}", lambda: remove(spark, uri))

        patch.setattr(DataFrameWriter, "parquet", write_parquet)
        patch.setattr(folders, "remove", remove_folder)

    def _warehouse(self, patch: pytest.MonkeyPatch) -> None:
        points = self

        class Cursor(psycopg2.extensions.cursor):
            def execute(self, query: Any, arguments: Any = None) -> None:
                text = query if isinstance(query, str) else query.as_string(self)
                write = lambda: super(Cursor, self).execute(query, arguments)  # noqa: E731
                reads = text.lstrip().upper().startswith(("SELECT", "SET ", "SAVEPOINT"))
                points.unless_dead(write) if reads else points(f"sql {text[:60]}", write)

        class Connection(psycopg2.extensions.connection):
            def commit(self) -> None:
                points("commit", super().commit)

            def rollback(self) -> None:
                points.unless_dead(super().rollback)

        class Module:
            def connect(self, *arguments: Any, **options: Any) -> Any:
                factories = {"connection_factory": Connection, "cursor_factory": Cursor}
                return points.unless_dead(lambda: psycopg2.connect(*arguments, **options, **factories))

            def __getattr__(self, name: str) -> Any:
                return getattr(psycopg2, name)

        copy = postgres_publication.copy_rows
        patch.setattr(postgres_connection, "psycopg2", Module())
        patch.setattr(
            postgres_publication,
            "copy_rows",
            lambda load, *a: self(f"copy {load.table.name}", lambda: copy(load, *a)),
        )


@contextmanager
def dying(points: WritePoints) -> Iterator[None]:
    """Run a block as a process of its own that ends at a write: for others, it is not there any more."""
    with pytest.MonkeyPatch.context() as patch:
        points.install(patch)
        # The name of a process that had the same number before this one.
        patch.setattr(jobs.context, "process_name", lambda pid: process_name(pid).rpartition("/")[0] + "/0")
        yield


def main(arguments: list[str]) -> int:
    """`python -m tests.write_points N COMMAND …`: run a command, killed by the kernel at its N-th write."""
    with pytest.MonkeyPatch.context() as patch:
        WritePoints(int(arguments[0]), lambda: os.kill(os.getpid(), signal.SIGKILL)).install(patch)
        return cli.main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
