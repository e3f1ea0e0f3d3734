"""user-analytics: the command that a user types, with an empty lake on the same disk."""

import os
import subprocess
import sys

from benchmarks import star_schema

COMMAND = [sys.executable, "-m", "jobs", "run", "--feeds", "logs"]


def main() -> None:
    task = star_schema.read_task(__doc__)
    raw = task.work / "lake" / "raw" / "logs"
    raw.mkdir(parents=True)
    os.link(task.input, raw / task.input.name)
    subprocess.run(
        COMMAND,
        env=os.environ | {"LAKE_URI": str(task.work / "lake"), "WAREHOUSE_URL": task.warehouse},
        check=True,
    )


if __name__ == "__main__":
    main()
