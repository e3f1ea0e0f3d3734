"""Build movie_review from staged reviews: sentiment, the terms that decided it, and text statistics.

Grain:    one row per review.
Inputs:   what changed in `staging/reviews` since the last build; a sentiment model: the one trained last in this lake,
          else the one that ships with the project (--model).
Outputs:  Delta table `marts/movie_review`.
Re-run:   safe at any time; the table's log says which staging version it holds. New and changed reviews are scored;
          when the model is another one than before, all are scored again.
Example:  spark-submit jobs/build_review_features.py --model shipped
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.console import log
from jobs.context import RunContext, parser, writes
from jobs.feeds.reviews import REVIEWS
from jobs.lake.marts import apply_changes, changes_since, declared, mart_table
from jobs.lake.staging import staging_table
from jobs.lake.tables import LakeTable
from jobs.models.files import chosen_version, load_model
from jobs.runs import one_step
from jobs.spark import session_settings
from jobs.transforms.sentiment import SentimentModel, score

MART = "movie_review"
# So many reviews a task: their n-grams' sums and top terms stay in memory, some 50 MB, whatever the number of reviews.
REVIEWS_PER_TASK = 5_000
MODEL_PROPERTY = "userAnalytics.scoredBy"
SCORED_BY = f"{REVIEWS.name} scored by "


@writes(f"marts/{MART}")
def build_review_features(run: RunContext, wanted: str = "latest") -> bool:
    """Bring movie_review up to the present version of staged reviews and the wanted model. Gives whether it changed."""
    reviews = staging_table(run, REVIEWS)
    if not reviews.exists():
        log.info("reviews: none staged yet")
        return False
    version = chosen_version(run.store, wanted)
    mart = mart_table(run, declared(MART)).ensure()
    source = f"{SCORED_BY}{_scorer(mart, version)}"
    changes = changes_since(mart, source, reviews, declared(MART).primary_key)
    if changes is None:
        log.info("reviews: up to date")
        return False

    model = load_model(run.spark, run.store, version)
    partitions = max(1, -(-changes.rows.count() // REVIEWS_PER_TASK))

    def transform(rows: DataFrame) -> DataFrame:
        return review_features(rows, model, run.started_at, partitions)

    with run.heartbeat("reviews"), top_terms_in_memory(run.spark):
        apply_changes(run, mart, reviews, changes, transform, declared(MART).primary_key)
    log.info("reviews: built from version %d of staged reviews by model %s", changes.version, model.version)
    return True


def review_features(reviews: DataFrame, model: SentimentModel, now: datetime, partitions: int) -> DataFrame:
    """Staged reviews → movie_review, see `sql/movie_review.sql`.

    Grain: one row per review_id. A `_deleted` column passes through.
    """
    columns = ["review_id", "customer_id", "review", *(["_deleted"] if "_deleted" in reviews.columns else [])]
    return (
        score(reviews.select(*columns), "review", model, "review_id", partitions)
        .withColumn("model_name", F.lit(model.name))
        .withColumn("model_version", F.lit(model.version))
        .withColumn("scored_at", F.lit(now))
    )


def _scorer(mart: LakeTable, model: str) -> str:
    """The model, and since which version of the mart it scores: going back to an old model scores all again, too."""
    known = mart.properties().get(MODEL_PROPERTY, "")
    if known.split("@")[0] == model:
        return known
    scorer = f"{model}@{mart.version()}"
    mart.spark.sql(f"ALTER TABLE delta.`{mart.uri}` SET TBLPROPERTIES ('{MODEL_PROPERTY}' = '{scorer}')")
    return scorer


def scoring_model(mark: str) -> str:
    """The version of the model, out of the name under which movie_review notes what it was made from."""
    return mark.removeprefix(SCORED_BY).split("@")[0]


@contextmanager
def top_terms_in_memory(spark: SparkSession) -> Iterator[None]:
    """Let Spark collect a review's terms in a hash table; from 128 reviews a task on it would sort all n-grams."""
    threshold = {"spark.sql.objectHashAggregate.sortBased.fallbackThreshold": str(4 * REVIEWS_PER_TASK)}
    with session_settings(spark, threshold):
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Build movie_review; the arguments are those of `--help`."""
    arguments = parser(__doc__, "build-review-features")
    arguments.add_argument(
        "--model",
        default="latest",
        metavar="VERSION",
        help="latest: the model trained last in this lake, else the shipped one (default); shipped; or a version",
    )
    options = arguments.parse_args(argv)
    return one_step("build-review-features", lambda run: build_review_features(run, options.model))


if __name__ == "__main__":
    sys.exit(main())
