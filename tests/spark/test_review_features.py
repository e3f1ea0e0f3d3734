"""movie_review follows staged reviews and the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pyspark.sql import Row, SparkSession

import jobs.build_review_features as job
from jobs.build_review_features import build_review_features
from jobs.feeds.reviews import REVIEWS
from jobs.models.files import shipped_model
from jobs.transforms.sentiment import SentimentModel
from tests.lakes import Lake

pytestmark = pytest.mark.spark

PRAISE = "1 | An excellent film, wonderful and moving, one of the best I have seen. Superb acting! | r1"
BLAME = "2 | Awful. The worst waste of time, boring and badly acted; the plot makes no sense at all. | r2"
SPANISH = "2 | Una película preciosa, la vería otra vez. | r3"
EMOJI = "3 | 👍👍 | r4"


@pytest.fixture(scope="module")
def model(spark: SparkSession) -> SentimentModel:
    """A few terms of the shipped model: quick to broadcast."""
    whole = shipped_model(spark)
    few = whole.terms.where("term RLIKE '^(excellent|wonderful|best|superb|awful|worst|waste|boring|badly)$'")
    return replace(whole, terms=spark.createDataFrame(few.collect(), few.schema))


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch, model: SentimentModel) -> None:
    monkeypatch.setattr(job, "chosen_version", lambda *_: model.version)
    monkeypatch.setattr(job, "load_model", lambda *_: model)


def reviews(lake: Lake) -> dict[str, Row]:
    return {row.review_id: row for row in lake.mart("movie_review").read().collect()}


def test_every_review_has_one_row(spark: SparkSession, tmp_lake: str, model: SentimentModel) -> None:
    lake = Lake(spark, tmp_lake)
    lake.stage(REVIEWS, 1, PRAISE, BLAME, SPANISH, EMOJI)
    run = lake.run()
    assert build_review_features(run) is True
    rows = reviews(lake)

    praise, blame = rows["r1"], rows["r2"]
    assert (praise.customer_id, praise.positive_review, praise.text_kind) == ("1", True, "english")
    assert (blame.customer_id, blame.positive_review) == ("2", False)
    assert praise.sentiment_probability > 0.5 > blame.sentiment_probability
    assert {t.term for t in praise.top_terms} == {"excellent", "wonderful", "best", "superb"}
    assert all(t.weight > 0 for t in praise.top_terms)
    assert (praise.word_count, praise.character_count) == (15, len(PRAISE.split("|")[1].strip()))
    assert (praise.model_name, praise.model_version) == (model.name, model.version)
    assert praise.scored_at.timestamp() == pytest.approx(run.started_at.timestamp(), abs=1)

    assert (rows["r3"].text_kind, rows["r4"].text_kind) == ("other_language", "no_words")
    for row in (rows["r3"], rows["r4"]):
        assert (row.positive_review, row.is_confident) == (None, False)
        assert (row.sentiment_probability, row.top_terms) == (model.prior, [])


def test_only_what_is_new_or_changed_is_scored(spark: SparkSession, tmp_lake: str) -> None:
    lake = Lake(spark, tmp_lake)
    lake.stage(REVIEWS, 1, PRAISE, BLAME)
    build_review_features(lake.run())
    before, version = reviews(lake), lake.mart("movie_review").version()
    assert build_review_features(lake.run()) is False
    assert lake.mart("movie_review").version() == version

    lake.stage(REVIEWS, 2, SPANISH)
    build_review_features(lake.run())
    assert lake.changed("movie_review", version) == [False]
    version = lake.mart("movie_review").version()

    # The file comes again: one review says the opposite now, and one is gone.
    lake.stage(
        REVIEWS,
        1,
        PRAISE.replace("excellent", "awful").replace("wonderful", "boring").replace("best", "worst"),
    )
    build_review_features(lake.run())
    after = reviews(lake)
    assert sorted(after) == ["r1", "r3"]
    assert after["r1"].sentiment_probability < before["r1"].sentiment_probability
    assert lake.changed("movie_review", version) == [False, True]


def test_another_model_scores_all_again_and_so_does_going_back(
    spark: SparkSession, tmp_lake: str, model: SentimentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(spark, tmp_lake)
    lake.stage(REVIEWS, 1, PRAISE, BLAME)
    for version in ("a", "b", "a"):
        monkeypatch.setattr(job, "chosen_version", lambda *_, v=version: v)
        monkeypatch.setattr(job, "load_model", lambda *_, v=version: replace(model, version=v))
        assert build_review_features(lake.run()) is True
        assert {row.model_version for row in reviews(lake).values()} == {version}
        assert build_review_features(lake.run()) is False
    lake.stage(REVIEWS, 2, SPANISH)
    build_review_features(lake.run())
    assert len(reviews(lake)) == 3


def test_nothing_staged_is_nothing_to_do(spark: SparkSession, tmp_lake: str) -> None:
    assert build_review_features(Lake(spark, tmp_lake).run()) is False
