"""Sessions start with the classes that set-up stored (jars/share_classes.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_archive_of_classes_is_mapped_into_the_jvm(spark: SparkSession) -> None:
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    process = jvm.java.lang.ProcessHandle.current().pid()
    assert "shared-classes.jsa" in Path(f"/proc/{process}/maps").read_text()
