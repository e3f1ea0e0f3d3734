"""Fitting and measuring a sentiment model with Spark ML. The formulas stand in `jobs.transforms.sentiment`.

Same data and parameters give the same weights to the last digit: texts are sorted inside two partitions by a hash of
their content. Spark adds the partitions' gradients in the order in which they arrive; for two that order does not
matter, because floating-point addition commutes, and for three it would, because it is not associative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.feature import CountVectorizerModel, ElementwiseProduct, Normalizer, SQLTransformer
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.models.evaluation import Evaluation, Floats, evaluate, platt
from jobs.models.files import Terms
from jobs.transforms.sentiment import CONFIDENT, EVIDENCE_TOKENS, Calibration
from jobs.transforms.text import ngrams, plain_text, tokens

PARTITIONS = 2
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
    iterations: int = 40
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

    def calibrated(self, calibration: Calibration) -> Evaluation:
        logit = calibration.slope * self.evident_margin + calibration.offset
        return evaluate(1 / (1 + np.exp(-logit)), self.label, CONFIDENT)

    def calibration(self) -> Calibration:
        return Calibration(*platt(self.evident_margin, self.label))


def prepared(labelled: DataFrame, parameters: Parameters) -> DataFrame:
    """text string, label double, group string (null: the text itself) → what training needs, one row per text.

    text_key bigint (hash of the tokens), label, tokens bigint (their number), part int, grams array<string>. Texts with
    equal tokens, or of one group, have the same part: 0..folds-1, or folds for the held-out tenth.
    """
    group = F.coalesce(F.xxhash64("group"), F.col("text_key"))
    held_out = F.pmod(F.xxhash64(F.lit(parameters.seed), "_group"), F.lit(HELD_OUT)) == 0
    fold = F.pmod(F.xxhash64(F.lit(parameters.seed + 1), "_group"), F.lit(parameters.folds)).cast("int")
    rows = (
        labelled.repartition(PARTITIONS, "text")
        .withColumn("_plain", F.expr(plain_text("text")))
        .withColumn("_items", F.expr(tokens("_plain")))
        .withColumn("text_key", F.xxhash64(F.array_join("_items", " ")))
        .withColumn("_group", F.when(F.col("group").isNotNull(), group).otherwise(F.col("text_key")))
        .withColumn("part", F.when(held_out, parameters.folds).otherwise(fold))
        .select("text_key", "label", F.size("_items").alias("tokens"), "part", "_items")
    )
    return (
        rows.repartition(PARTITIONS, "text_key")
        .sortWithinPartitions("text_key", "label")
        .select("text_key", "label", "tokens", "part", F.expr(ngrams("_items")).alias("grams"))
    )


def count_terms(texts: DataFrame, folds: int) -> Counts:
    """Count every term that at least MIN_TEXTS of the prepared texts contain, by class and part."""
    sides = {"positive": F.col("label") > 0.5, "negative": F.col("label") <= 0.5}
    columns = [
        F.count_if(side & (F.col("part") == part)).alias(f"{name}{part}")
        for name, side in sides.items()
        for part in range(folds + 1)
    ]
    table = (
        texts.select("label", "part", F.explode_outer("grams").alias("term"))
        .where("term IS NOT NULL")
        .groupBy("term")
        .agg(*columns, F.count("*").alias("texts"))
        .where(F.col("texts") >= MIN_TEXTS)
        .drop("texts")
        .toArrow()
    )
    names = table.column("term").to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)

    def counts(side: str) -> npt.NDArray[np.int64]:
        parts = [table.column(f"{side}{part}").to_numpy() for part in range(folds + 1)]
        return np.stack(parts, axis=1)[order] if names else np.zeros((0, folds + 1), np.int64)

    sizes = {row.part: row["count"] for row in texts.groupBy("part").count().collect()}
    return Counts(
        [names[i] for i in order],
        counts("positive"),
        counts("negative"),
        np.array([sizes.get(part, 0) for part in range(folds + 1)]),
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


def fit(presence: DataFrame, scale: Floats, parameters: Parameters) -> LogisticRegressionModel:
    """Logistic regression on scaled presence."""
    texts = presence.count()
    regression = LogisticRegression(
        featuresCol="features",
        labelCol="label",
        maxIter=parameters.iterations,
        tol=parameters.tolerance,
        regParam=1 / (parameters.C * texts),
        standardization=False,
    )
    features = PipelineModel(scaler(scale)).transform(presence).select("label", "features")
    # Cut off where the features came from: every iteration is a Spark job, and would send the vocabulary along.
    features = features.localCheckpoint()
    model: LogisticRegressionModel = regression.fit(features)
    return model


def scored(presence: DataFrame, scale: Floats, model: LogisticRegressionModel) -> Scored:
    """The margins that a model gives texts, in a fixed order."""
    table = (
        model.transform(PipelineModel(scaler(scale)).transform(presence))
        .select("text_key", "label", "tokens", vector_to_array(F.col("rawPrediction"))[1].alias("margin"))
        .sort("text_key", "label")
        .toArrow()
    )
    count = table.column("tokens").to_numpy().astype(np.float64)
    return Scored(
        table.column("label").to_numpy(),
        table.column("margin").to_numpy(),
        count / (count + EVIDENCE_TOKENS),
    )


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


def terms_of(counts: Counts, weighing: Weighing, model: LogisticRegressionModel) -> Terms:
    """The terms that a model keeps, with their coefficients; model's features are just these, in order."""
    kept = np.flatnonzero(weighing.keep)
    return Terms(
        [counts.terms[i] for i in kept],
        weighing.positive[kept],
        weighing.negative[kept],
        np.asarray(model.coefficients.toArray()),
    )
