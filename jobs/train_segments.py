"""Train a random forest on the customers' segments, and say what it is worth.

Grain:    one model over all customers.
Inputs:   enriched customers (see `jobs/enrich_customers.py`), which are made here where they are not there.
Outputs:  `results/model_results.json` in the lake: accuracy beside that of always guessing the most common segment,
          precision and recall per segment, feature importance, sample counts, seed, and how leakage was excluded;
          where there are too few customers to learn from, that `problem`.
Re-run:   safe at any time; trained anew when customers or orders have changed, or with another seed.
Example:  spark-submit jobs/train_segments.py --seed 7
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from jobs.console import log
from jobs.context import RunContext, parser, writes
from jobs.datasets import Dataset
from jobs.enrich_customers import enrich_customers, staged
from jobs.lake.intermediates import FOLDER as WORK
from jobs.lake.results import read_result, write_result
from jobs.models.segments import train_and_measure
from jobs.runs import one_step

RESULT = "model_results.json"
SEED = 7


@writes(WORK)
def train_segments(run: RunContext, seed: int = SEED) -> bool:
    """Train on the present customers and write the results. Gives whether there was anything to do."""
    source = staged(run)
    if not source.customers.is_there:
        log.info("segments: no customers staged yet")
        return False
    made_from = {"tables": source.name, "version": source.version}
    last = read_result(run.store, RESULT)
    if last and (last["made_from"], last["seed"]) == (made_from, seed):
        log.info("segments: up to date")
        return False
    with run.heartbeat("segments"):
        results = train_and_measure(enrich_customers(run, source), seed)
    # That there is no model is a result, too: what is there may be of other customers, and nothing is tried again.
    problem = {"problem": "too few customers, or all in one segment; nothing was trained", "seed": seed}
    write_result(run.store, RESULT, {**(results or problem), "made_from": made_from})
    run.note_written(Dataset(f"results/{RESULT}"))
    if results is None:
        log.warning("segments: %s", problem["problem"])
        return True
    log.info(
        "segments: accuracy %.1f %% on %d customers, %.1f %% by always saying %s",
        100 * results["accuracy"],
        results["test_samples"],
        100 * results["majority_baseline"],
        results["majority_segment"],
    )
    return True


def seed(text: str) -> int:
    """A seed as Spark takes it, a whole number of 64 bits, for argparse."""
    if not re.fullmatch(r"[+-]?\d{1,19}", text) or not -(2**63) <= int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 64 bits")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the arguments are those of `--help`."""
    arguments = parser(__doc__, "train-segments")
    arguments.add_argument("--seed", type=seed, default=SEED, help="of the forest (default: %(default)s)")
    options = arguments.parse_args(argv)
    return one_step("train-segments", lambda run: train_segments(run, options.seed))


if __name__ == "__main__":
    sys.exit(main())
