"""Have every Python that Spark starts import PySpark from its folder, rather than from archives.

    .venv/bin/python jars/import_from_folders.py

Spark puts archives first on the path of the Python processes that it starts, workers and drivers of `spark-submit`:
PySpark's and Py4J's sources (python/lib/*.zip), and one of its jars. Python compiles what it imports from them at every
start, and a worker reads their tables of contents again for every task. All that they hold stands in this environment,
compiled; so a line that Python runs as it starts (a .pth file, see the module `site`) takes those of this environment's
own PySpark off the path. Another Spark's stay. docs/decisions/speed.md has what it saves.
"""

from __future__ import annotations

import sys

from fetch import pyspark_home

FILE = "pyspark_from_its_folder.pth"
LINE = (
    "import os, sys; "
    "sys.path[:] = [p for p in sys.path if not os.path.realpath(p).startswith({inside!r})]; "
    "sys.path_importer_cache.clear()\n"
)


def main() -> int:
    """Write the line beside PySpark."""
    spark = pyspark_home().resolve()
    (spark.parent / FILE).write_text(LINE.format(inside=f"{spark}/"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
