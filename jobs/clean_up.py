"""Remove the intermediates of jobs that are through: everything below `work/`.

Grain:    the folder.
Inputs:   none.
Outputs:  none.
Re-run:   safe at any time; what a job still needs, it makes again. Run it last, after all jobs succeeded: after a
          failure the intermediates show what went in, and the next try goes on from them.
Example:  spark-submit jobs/clean_up.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.context import job_main, open_run, parser
from jobs.lake.intermediates import remove_intermediates
from jobs.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Clean up; there are no arguments."""
    parser(__doc__, "clean-up").parse_args(argv)

    def body() -> None:
        with open_run("clean-up", Settings.from_env()) as run:
            remove_intermediates(run)

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
