"""Fitting and measuring a sentiment model. The formulas stand in `jobs.transforms.sentiment`.

Spark reads the texts and tokenises them; the tokens then come to the driver, where n-grams are counted and the
regressions are fitted, 12 KB a text. Texts are sorted by a hash of their content, so that neither their order
in the file nor the partitioning changes the last digit of a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegressionModel
from pyspark.ml.common import _py2java
from pyspark.ml.feature import CountVectorizerModel, ElementwiseProduct, Normalizer, SQLTransformer
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.models.evaluation import Evaluation, Floats, evaluate, platt
from jobs.models.files import Terms
from jobs.models.ngrams import count_ngrams, ngram_names, number_words
from jobs.models.regression import SparseRows, fit_logistic, row_sums
from jobs.transforms.sentiment import CONFIDENT, EVIDENCE_TOKENS, Calibration
from jobs.transforms.text import ngrams, plain_text, tokens

# Compressed files are read in one piece; from there on the work is spread.
TASKS = 16
# A term must occur in so many training texts.
MIN_TEXTS = 2
# One group of texts in so many is held out.
HELD_OUT = 10


@dataclass(frozen=True)
class Parameters:
    """What a model depends on besides its data. C: inverse of the L2 penalty, as in LIBLINEAR and scikit-learn.

    max_terms: keep so many terms, 0 all. Chosen by cross-validation, see docs/decisions/sentiment-model.md.
    """

    max_terms: int = 0
    C: float = 40.0
    iterations: int = 60
    tolerance: float = 1e-5
    folds: int = 5
    seed: int = 20110619
    min_texts: int = MIN_TEXTS
    evidence_tokens: int = EVIDENCE_TOKENS

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Counts:
    """How many texts of either class contain a term, by part: the folds, then the held-out part. terms are sorted."""

    terms: list[str]
    positive: npt.NDArray[np.int64]
    negative: npt.NDArray[np.int64]
    texts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Texts:
    """The texts in a fixed order, and the counted terms in them: text i has terms[start[i]:start[i + 1]]."""

    label: Floats
    part: npt.NDArray[np.int64]
    evidence: Floats
    start: npt.NDArray[np.int64]
    terms: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Weighing:
    """What a set of parts makes of the terms: kept or not, idf · ratio (0 where not kept), and what is behind it."""

    keep: npt.NDArray[np.bool_]
    scale: Floats
    positive: npt.NDArray[np.int64]
    negative: npt.NDArray[np.int64]
    documents: int
    positive_mass: float
    negative_mass: float


@dataclass(frozen=True)
class Scored:
    """Margins of texts from a model that was trained without them. evidence: n / (n + EVIDENCE_TOKENS)."""

    label: Floats
    margin: Floats
    evidence: Floats

    @property
    def evident_margin(self) -> Floats:
        return self.margin * self.evidence

    @property
    def accuracy(self) -> float:
        """The share on the right side of zero."""
        return float(((self.margin > 0) == (self.label > 0.5)).mean())

    def calibrated(self, calibration: Calibration) -> Evaluation:
        logit = calibration.slope * self.evident_margin + calibration.offset
        return evaluate(1 / (1 + np.exp(-logit)), self.label, CONFIDENT)

    def calibration(self) -> Calibration:
        return Calibration(*platt(self.evident_margin, self.label))


def prepared(labelled: DataFrame, parameters: Parameters) -> DataFrame:
    """text string, label double, group string (null: the text itself) → what training needs, one row per text.

    text_key bigint (hash of the tokens), label, part int, items array<string> (the tokens). Texts of one group have
    the same part, and so do those without a group that have equal tokens: 0..folds-1, or folds for the held-out tenth.
    """
    group = F.coalesce(F.xxhash64("group"), F.col("text_key"))
    held_out = F.pmod(F.xxhash64(F.lit(parameters.seed), "_group"), F.lit(HELD_OUT)) == 0
    fold = F.pmod(F.xxhash64(F.lit(parameters.seed + 1), "_group"), F.lit(parameters.folds)).cast("int")
    return (
        labelled.repartition(TASKS, "text")
        .withColumn("_plain", F.expr(plain_text("text")))
        .withColumn("items", F.expr(tokens("_plain")))
        .withColumn("text_key", F.xxhash64(F.array_join("items", " ")))
        .withColumn("_group", F.when(F.col("group").isNotNull(), group).otherwise(F.col("text_key")))
        .withColumn("part", F.when(held_out, parameters.folds).otherwise(fold))
        .select("text_key", "label", "part", "items")
    )


def read_texts(texts: DataFrame, folds: int) -> tuple[Texts, Counts]:
    """Bring the prepared texts to the driver, and count every term that at least MIN_TEXTS of them contain."""
    table = (
        texts.select("text_key", "label", "part", "items")
        .toArrow()
        .sort_by([("text_key", "ascending"), ("label", "ascending")])
    )
    label = table.column("label").to_numpy()
    part = table.column("part").to_numpy().astype(np.int64)
    tokens, words = number_words(table.column("items").combine_chunks())
    terms, start, of_text = count_ngrams(tokens, len(words), MIN_TEXTS)
    size = np.diff(tokens.start).astype(np.float64)
    # One count for each term, side and part.
    sides = 2 * (folds + 1)
    side = np.repeat(part + np.where(label > 0.5, 0, folds + 1), np.diff(start))
    counts = np.bincount(of_text.astype(np.int64) * sides + side, minlength=len(terms) * sides).reshape(
        -1, sides
    )
    return (
        Texts(label, part, size / (size + EVIDENCE_TOKENS), start, of_text),
        Counts(
            ngram_names(terms, words),
            counts[:, : folds + 1],
            counts[:, folds + 1 :],
            np.bincount(part, minlength=folds + 1),
        ),
    )


def weigh(counts: Counts, parts: Sequence[int], parameters: Parameters) -> Weighing:
    """idf · log-count ratio of every term, from the texts of some parts."""
    positive = counts.positive[:, parts].sum(axis=1)
    negative = counts.negative[:, parts].sum(axis=1)
    frequency = positive + negative
    documents = int(counts.texts[list(parts)].sum())
    keep = frequency >= parameters.min_texts
    positive_mass = float((positive[keep] + 1).sum())
    negative_mass = float((negative[keep] + 1).sum())
    ratio = np.log((positive + 1) / positive_mass) - np.log((negative + 1) / negative_mass)
    if 0 < parameters.max_terms < int(keep.sum()):
        strength = np.where(keep, np.abs(ratio) * np.sqrt(frequency), -1.0)
        # Stable: terms of equal strength are taken in the order of the alphabet.
        keep = np.zeros_like(keep)
        keep[np.argsort(-strength, kind="stable")[: parameters.max_terms]] = True
    scale = np.where(keep, np.log((documents + 1) / (frequency + 1)) * ratio, 0.0)
    keep &= scale != 0
    return Weighing(keep, scale, positive, negative, documents, positive_mass, negative_mass)


def vectorizer(spark: SparkSession, vocabulary: Sequence[str]) -> CountVectorizerModel:
    """grams → the vector of those in the vocabulary, 1.0 each.

    CountVectorizer itself would order equally frequent terms by chance, and `from_vocabulary` sends a million terms one
    by one (0.1 ms each); one long text, split on the other side, takes a second.
    """
    jvm: Any = spark._jvm
    words = jvm.java.util.regex.Pattern.compile("\n").split("\n".join(vocabulary))
    model = CountVectorizerModel(jvm.org.apache.spark.ml.feature.CountVectorizerModel("ngrams", words))
    return model.setInputCol("grams").setOutputCol("presence").setBinary(True)


def scaler(scale: Floats) -> list[Any]:
    """The stages from presence to features: idf · ratio, then unit length."""
    product = ElementwiseProduct(scalingVec=Vectors.dense(scale), inputCol="presence", outputCol="scaled")
    return [product, Normalizer(p=2.0, inputCol="scaled", outputCol="features")]


def features(texts: Texts, parts: Sequence[int], weighing: Weighing) -> SparseRows:
    """The features of the texts of some parts: idf · ratio of the terms that a text contains, at unit length."""
    chosen = np.isin(texts.part, parts)
    owner = np.repeat(np.arange(len(texts.label)), np.diff(texts.start))
    wanted = chosen[owner] & weighing.keep[texts.terms]
    terms, owner = texts.terms[wanted], owner[wanted]
    lengths = np.bincount(owner, minlength=len(texts.label))[chosen]
    start = np.concatenate([[0], np.cumsum(lengths)])
    values = weighing.scale[terms]
    norm = np.sqrt(row_sums(values * values, start))
    columns = (np.cumsum(weighing.keep) - 1).astype(np.int32)[terms]
    return SparseRows(start, columns, values / np.repeat(norm, lengths), int(weighing.keep.sum()))


def fit(
    texts: Texts, parts: Sequence[int], weighing: Weighing, parameters: Parameters
) -> tuple[Floats, float]:
    """Coefficients of the kept terms, and the intercept, from the texts of some parts."""
    label = texts.label[np.isin(texts.part, parts)]
    rows = features(texts, parts, weighing)
    return fit_logistic(rows, label, parameters.C, parameters.iterations, parameters.tolerance)


def scored(texts: Texts, part: int, weighing: Weighing, weights: Floats, intercept: float) -> Scored:
    """The margins that a model gives the texts of a part."""
    chosen = texts.part == part
    return Scored(
        texts.label[chosen],
        features(texts, [part], weighing).times(weights) + intercept,
        texts.evidence[chosen],
    )


def regression_model(spark: SparkSession, weights: Floats, intercept: float) -> LogisticRegressionModel:
    """Spark ML's form of the fitted regression, which Spark ML itself has no public way to make."""
    jvm: Any = spark._jvm
    vector = _py2java(spark.sparkContext, Vectors.dense(weights))
    model = jvm.org.apache.spark.ml.classification.LogisticRegressionModel("sentiment", vector, intercept)
    return LogisticRegressionModel(model)


def joined(parts: Sequence[Scored]) -> Scored:
    return Scored(
        np.concatenate([p.label for p in parts]),
        np.concatenate([p.margin for p in parts]),
        np.concatenate([p.evidence for p in parts]),
    )


def whole_pipeline(stages: Sequence[Any]) -> PipelineModel:
    """A pipeline that reads a column `text`, from HTML to margin, for whoever scores with Spark ML itself."""
    columns = {"plain": plain_text("text"), "tokens": tokens("plain"), "grams": ngrams("tokens")}
    reading = [
        SQLTransformer(statement=f"SELECT *, {value} AS {name} FROM __THIS__")  # noqa: S608
        for name, value in columns.items()
    ]
    return PipelineModel([*reading, *stages])


def terms_of(counts: Counts, weighing: Weighing, weights: Floats) -> Terms:
    """The terms that a model keeps, with their coefficients."""
    kept = np.flatnonzero(weighing.keep)
    return Terms(
        [counts.terms[i] for i in kept],
        weighing.positive[kept],
        weighing.negative[kept],
        weights,
    )
