"""Folders and files of the lake through Hadoop's file systems, which Spark itself writes by, wherever the lake is."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession


def exists(spark: SparkSession, uri: str) -> bool:
    """Whether there is such a folder or file."""
    files, path = _opened(spark, uri)
    return bool(files.exists(path))


def file_names(spark: SparkSession, uri: str) -> list[str]:
    """The names of the files in a folder."""
    files, path = _opened(spark, uri)
    return [file.getPath().getName() for file in files.listStatus(path)]


def files_below(spark: SparkSession, uri: str) -> list[str]:
    """The paths, relative to a folder, of all files in it and below, also of those that Spark passes over."""
    files, path = _opened(spark, uri)
    if not files.exists(path):
        return []
    base = files.resolvePath(path).toUri().getPath().rstrip("/") + "/"
    found, listed = [], files.listFiles(path, True)
    while listed.hasNext():
        found.append(listed.next().getPath().toUri().getPath().removeprefix(base))
    return sorted(found)


def remove(spark: SparkSession, uri: str) -> None:
    """Remove a folder with all that is in it."""
    files, path = _opened(spark, uri)
    files.delete(path, True)


def _opened(spark: SparkSession, uri: str) -> tuple[Any, Any]:
    jvm: Any = spark.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(uri)
    return path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()), path
