"""A random forest that predicts a customer's segment, and what it is worth.

The segment is defined by what a customer ordered, so nothing that comes from orders is a feature, not even whether
there are any: the features are what the customers feed alone says. A segment that would be known from them by
definition cannot be, because the rule does not read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.ml.classification import RandomForestClassifier
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.transforms.customers import SEGMENTS, UNKNOWN

FEATURES = ("age", "is_age_known", "tenure_days", "registration_month", "city")
LEAKAGE = (
    "The label is computed from amounts and numbers of orders, or was delivered. The features come from the customers "
    "feed alone; nothing of an order is among them, not even whether there is one."
)
# A category each; all other cities share one. Spark needs a bin per category.
CITIES = 30
TREES, DEPTH, MIN_CUSTOMERS_PER_LEAF = 30, 5, 5
# Every fifth customer, by a hash of the id: the same ones whatever else is there.
TEST_SHARE = 5


def features(customers: DataFrame, cities: Sequence[str]) -> DataFrame:
    """Enriched customers → customer_id string, is_test boolean, label double (position in SEGMENTS), features vector.

    cities: those that are a category of their own. Grain: one row per customer.
    """
    city = _position(F.coalesce("city", F.lit(UNKNOWN)), cities, "city", [*cities, "other"])
    # The day that tenure is counted to comes from the data: a run today and one tomorrow see the same.
    last_day = F.lit(customers.agg(F.max("registration_date")).first()[0])  # type: ignore[index]
    columns = customers.select(
        "customer_id",
        _is_test().alias("is_test"),
        _position(F.col("customer_segment"), SEGMENTS, "label", SEGMENTS),
        F.coalesce("age", F.lit(-1)).cast("double").alias("age"),
        F.col("age").isNotNull().cast("double").alias("is_age_known"),
        F.date_diff(last_day, "registration_date").cast("double").alias("tenure_days"),
        F.month("registration_date").cast("double").alias("registration_month"),
        city,
    )
    assembled = VectorAssembler(inputCols=list(FEATURES), outputCol="features").transform(columns)
    return assembled.select("customer_id", "is_test", "label", "features")


def most_common_cities(customers: DataFrame) -> list[str]:
    """The cities with most customers, at most CITIES; of equal ones the first by name."""
    counted = customers.groupBy(F.coalesce("city", F.lit(UNKNOWN)).alias("city")).count()
    return [row.city for row in counted.orderBy(F.col("count").desc(), "city").limit(CITIES).collect()]


def _is_test() -> Column:
    return F.pmod(F.xxhash64("customer_id"), F.lit(TEST_SHARE)) == 0


def _position(value: Column, names: Sequence[str], column: str, categories: Sequence[str]) -> Column:
    """The position of a name among names, as a category that Spark's trees know; behind the last for any other."""
    place = F.array_position(F.array(*map(F.lit, names)), value)
    number = F.when(place > 0, place - 1).otherwise(len(names)).cast("double")
    return number.alias(column, metadata={"ml_attr": {"type": "nominal", "vals": list(categories)}})


def train_and_measure(customers: DataFrame, seed: int) -> dict[str, Any] | None:
    """Train on four customers of five and measure on the fifth. None when there are not two segments to learn from,
    or nobody to measure on.

    Gives the content of `model_results.json`. The same customers and seed give the same results.
    """
    learners = customers.where(~_is_test()).count()
    if learners < 2:
        return None
    # Spark makes no more bins than it has rows to learn from, and `other` needs one, too.
    cities = most_common_cities(customers)[: learners - 1]
    # One partition in order of ids: the forest's samples depend on where a row stands.
    rows = features(customers, cities)
    rows = rows.repartition(1).sortWithinPartitions("customer_id").persist()
    try:
        counts = {
            (r.is_test, r.label): r["count"] for r in rows.groupBy("is_test", "label").count().collect()
        }
        learnt = {label: n for (is_test, label), n in counts.items() if not is_test}
        measured = {label: n for (is_test, label), n in counts.items() if is_test}
        if len(learnt) < 2 or not measured:
            return None
        forest = RandomForestClassifier(
            numTrees=TREES,
            maxDepth=DEPTH,
            maxBins=CITIES + 2,
            minInstancesPerNode=MIN_CUSTOMERS_PER_LEAF,
            seed=seed,
        )
        model = forest.fit(rows.where("NOT is_test"))
        judged = model.transform(rows.where("is_test")).groupBy("label", "prediction").count().collect()
    finally:
        rows.unpersist()
    confusion = {(SEGMENTS[int(r.label)], SEGMENTS[int(r.prediction)]): r["count"] for r in judged}
    # Of equally common segments the first of SEGMENTS.
    majority = SEGMENTS[int(max(sorted(learnt), key=lambda label: learnt[label]))]
    importance = zip(FEATURES, model.featureImportances.toArray().tolist(), strict=True)
    return {
        **measures(confusion, majority),
        "feature_importance": dict(sorted(importance, key=lambda pair: -pair[1])),
        "train_samples": sum(learnt.values()),
        "test_samples": sum(measured.values()),
        "seed": seed,
        "model": {"kind": "random forest", "trees": TREES, "depth": DEPTH, "features": list(FEATURES)},
        "leakage": LEAKAGE,
    }


def measures(confusion: Mapping[tuple[str, str], int], majority: str) -> dict[str, Any]:
    """(true segment, predicted segment) → number: accuracy, the accuracy of always saying the majority of the training
    customers, precision and recall per segment (null where there is nothing to divide by), and the numbers.
    """
    total = sum(confusion.values())
    per_segment = {}
    for name in SEGMENTS:
        right = confusion.get((name, name), 0)
        said = sum(n for (_, predicted), n in confusion.items() if predicted == name)
        true = sum(n for (truth, _), n in confusion.items() if truth == name)
        per_segment[name] = {
            "precision": right / said if said else None,
            "recall": right / true if true else None,
            "samples": true,
        }
    return {
        "accuracy": sum(n for (truth, predicted), n in confusion.items() if truth == predicted) / total,
        "majority_baseline": per_segment[majority]["samples"] / total,  # type: ignore[operator]
        "majority_segment": majority,
        "per_segment": per_segment,
        "confusion": [
            {"segment": truth, "predicted": predicted, "customers": n}
            for (truth, predicted), n in sorted(confusion.items())
        ],
    }
