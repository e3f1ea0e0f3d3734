"""Scoring texts with a linear model over TF-IDF weighted n-grams, and the pieces that training shares with it.

A text's feature for a term t that occurs in it, however often, is

    x_t = idf_t · ratio_t / ‖(idf_u · ratio_u) over all terms u of the text‖₂
    idf_t = ln((documents + 1) / (positive_t + negative_t + 1))
    ratio_t = ln((positive_t + 1) / positive_mass) − ln((negative_t + 1) / negative_mass)

where positive_t and negative_t count the training texts of each class with the term: the log-count ratio of NBSVM
(Wang and Manning 2012, https://aclanthology.org/P12-2018), on binary TF-IDF with unit length. A logistic regression
weighs the features; its margin is calibrated (Platt 1999) after it was shrunk for short texts.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.transforms.text import ENGLISH_TEXT, ngram_hashes, term_hash, text_statistics

# In a text of n tokens the margin counts n / (n + 11). Windows of 6, 12, 25 and 50 tokens out of reviews, scored by
# models that had not seen them, deserved 0.43, 0.54, 0.66 and 0.81 of their margin (docs/decisions/sentiment-model.md).
EVIDENCE_TOKENS = 11
# A judgement is called confident from this probability on, for either side.
CONFIDENT = 0.8
TOP_TERMS = 10
# A text with more tokens shows terms of the model's stronger half only; 1 of 400 such film reviews has fewer than ten.
SHORT_TEXT = 100
# Weights are added up in whole units, exactly, so that no sum depends on its order: a text has 30,000 n-grams at most.
UNIT = 1e-11
# In place of an n-gram's hash.
NO_TERM = 0


@dataclass(frozen=True)
class Calibration:
    """logit P(positive) = slope · margin · n / (n + EVIDENCE_TOKENS) + offset, for a text of n tokens."""

    slope: float
    offset: float


@dataclass(frozen=True)
class SentimentModel:
    """A trained model: what scoring needs of it.

    terms: term string, positive bigint, negative bigint, weight double; one row per n-gram. weight is the logistic
    regression's coefficient for the term's feature. documents, positive_mass, negative_mass: see the module's formulas.
    prior: share of positive texts in training, the probability of a text that cannot be judged.
    """

    name: str
    version: str
    documents: int
    positive_mass: float
    negative_mass: float
    intercept: float
    calibration: Calibration
    prior: float
    terms: DataFrame


def term_scale(model: SentimentModel) -> Column:
    """idf · ratio of a row of `model.terms`, double."""
    idf = F.log((F.lit(model.documents) + 1) / (F.col("positive") + F.col("negative") + 1))
    ratio = F.log((F.col("positive") + 1) / F.lit(model.positive_mass)) - F.log(
        (F.col("negative") + 1) / F.lit(model.negative_mass)
    )
    return idf * ratio


def score(reviews: DataFrame, text: str, model: SentimentModel, key: str, partitions: int) -> DataFrame:
    """The reviews, their text replaced by what the model says of it.

    Grain: one row per review, as `key` identifies it. Adds word_count and character_count bigint, text_kind string (see
    `text_statistics`), margin double, sentiment_probability double, positive_review boolean (null when the text cannot
    be judged), is_confident boolean, top_terms array<struct<term string, weight double>>: the terms that moved the
    probability most, each with what it adds to the logit; none where the text cannot be judged.

    The texts are spread by key over so many partitions first: a review's n-grams then stay in one task from text to
    sum, whatever the number of reviews, and the order of its sums is the order of its n-grams.
    """
    keep = [name for name in reviews.columns if name != text]
    counted = text_statistics(reviews.repartition(partitions, key), text)
    statistics = ["word_count", "character_count", "text_kind"]
    # explode_outer: with explode, Spark infers a filter that repeats the whole expression, tokens and all, many times.
    # Of a column, not of the expression: functions over arrays are interpreted, and so would be all that is done in the
    # same step, for every n-gram.
    hashes = F.concat(F.expr(ngram_hashes("tokens")), F.array(F.lit(NO_TERM).cast("bigint")))
    grams = counted.select(
        *keep, *statistics, F.size("tokens").alias("_tokens"), hashes.alias("_hashes")
    ).select(*keep, *statistics, "_tokens", F.explode_outer("_hashes").alias("_hash"))
    known = model.terms.withColumn("_scale", term_scale(model)).select(
        term_hash("term").alias("_hash"),
        "term",
        _units(F.col("weight") * F.col("_scale")).alias("_weight"),
        _units(F.col("_scale") * F.col("_scale")).alias("_square"),
    )
    (strong,) = known.agg(F.percentile_approx(F.abs("_weight"), 0.5)).collect()[0]
    # Every review finds this row, so that a review without a known term is not lost, and unknown n-grams can be dropped
    # by an inner join before they are summed up: four of five are.
    none = model.terms.sparkSession.range(1).select(
        F.lit(NO_TERM).cast("bigint").alias("_hash"),
        F.lit(None).cast("string").alias("term"),
        F.lit(0).cast("bigint").alias("_weight"),
        F.lit(0).cast("bigint").alias("_square"),
    )
    # Spark compiles sums, but collects one object at a time. So the weak terms, four of five that a text has, are first
    # summed up without their names. What else is known of a review goes with one row of it: keys are compared often.
    named = F.when((F.col("_tokens") <= SHORT_TEXT) | (F.abs("_weight") >= strong), F.col("term"))
    rest = [name for name in (*keep, *statistics, "_tokens") if name != key]
    once = F.when(F.col("_hash") == NO_TERM, F.struct(*rest))
    found = F.when(F.col("_term").isNotNull(), F.struct(-F.abs("_weight"), "_term", "_weight"))
    sums = (
        grams.join(F.broadcast(known.unionByName(none)), "_hash", "inner")
        .groupBy(key, named.alias("_term"), once.alias("_rest"))
        .agg(F.sum("_weight").alias("_weight"), F.sum("_square").alias("_square"))
        .groupBy(key)
        .agg(
            F.any_value("_rest", ignoreNulls=True).alias("_rest"),
            (F.sum("_weight") * UNIT).alias("_sum"),
            F.sqrt(F.sum("_square") * UNIT).alias("_norm"),
            F.slice(F.sort_array(F.collect_list(found)), 1, TOP_TERMS).alias("_top"),
        )
        .select(key, "_rest.*", "_sum", "_norm", "_top")
    )
    return _judged(sums, model).select(
        *keep,
        *statistics,
        "margin",
        "sentiment_probability",
        "positive_review",
        "is_confident",
        "top_terms",
    )


def _units(number: Column) -> Column:
    return F.round(number / UNIT).cast("bigint")


def _judged(sums: DataFrame, model: SentimentModel) -> DataFrame:
    slope, offset = F.lit(model.calibration.slope), F.lit(model.calibration.offset)
    evidence = F.col("_tokens") / (F.col("_tokens") + EVIDENCE_TOKENS)
    margin = F.coalesce(F.try_divide("_sum", "_norm"), F.lit(0.0)) + model.intercept
    judged = F.col("text_kind") == ENGLISH_TEXT
    logit = slope * F.col("margin") * evidence + offset
    probability = F.col("sentiment_probability")
    shown = F.when(judged, F.col("_top")).otherwise(F.slice("_top", 1, 0))
    added = F.transform(
        shown,
        lambda t: F.struct(
            t["_term"].alias("term"),
            (t["_weight"] * UNIT * slope * evidence / F.col("_norm")).alias("weight"),
        ),
    )
    return (
        sums.withColumn("margin", margin)
        .withColumn(
            "sentiment_probability", F.when(judged, 1 / (1 + F.exp(-logit))).otherwise(F.lit(model.prior))
        )
        .withColumn("positive_review", F.when(judged, probability >= 0.5))
        .withColumn("is_confident", judged & (F.greatest(probability, 1 - probability) >= CONFIDENT))
        .withColumn("top_terms", added)
    )
