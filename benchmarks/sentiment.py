"""Training and scoring reviews beside scikit-learn, on the same texts, tokens and n-grams.

    python -m benchmarks.sentiment --texts reviews.csv.gz --labels labels.csv
    python -m benchmarks.sentiment --sizes 25000 250000 --only score

Each contender is a process of its own on one core (Spark as local[1]). Two times are taken of its work, start-up left
out: seconds on the clock, and seconds of processor of the whole process tree, which other programs on the machine
disturb less. Texts are repeated with new ids up to the size asked for. `scripts/setup.sh bench` installs scikit-learn.

- score: texts to probabilities. Both use the terms of the shipped model. Ours also takes out HTML, looks at the
  language and shrinks short texts, without which it has no probability; as the job does it ("with all columns"), it
  counts words and characters, too, and explains each score by its top terms.
- train: texts to a fitted model, 1- to 3-grams in at least two texts, one fit without cross-validation.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

# Python's `re` has no classes of Unicode properties; `\w` and `[^\w\s]` come to the same tokens on English reviews.
TOKEN_PATTERN = r"\d+(?:[./]\d+)+|\w+(?:'\w+)*|[!?.]+|[^\w\s]"  # noqa: S105
PARTS = ("train", "score")


class Clock:
    """Seconds on the clock and seconds of processor of this process and its children, since it was made."""

    def __init__(self) -> None:
        self.began, self.cpu = time.perf_counter(), self._cpu()

    def _cpu(self) -> float:
        me = psutil.Process()
        times = [p.cpu_times() for p in (me, *me.children(recursive=True))]
        return sum(t.user + t.system for t in times)

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self.began, "cpu_seconds": self._cpu() - self.cpu}


def ours_score(folder: Path, size: int) -> dict[str, Any]:
    return _score(folder, size, ["sentiment_probability"])


def ours_score_all(folder: Path, size: int) -> dict[str, Any]:
    return _score(
        folder, size, ["sentiment_probability", "word_count", "character_count", "text_kind", "top_terms"]
    )


def _score(folder: Path, size: int, columns: Sequence[str]) -> dict[str, Any]:
    from pyspark.sql import functions as F

    from jobs.build_review_features import REVIEWS_PER_TASK, top_terms_in_memory
    from jobs.models.files import shipped_model
    from jobs.transforms.sentiment import score

    spark = _session(folder)
    reviews = spark.read.parquet(str(folder / f"texts-{size}.parquet")).select("review_id", "review")
    # The first text takes the start of Spark's code generation with it.
    model = shipped_model(spark)
    score(reviews.limit(10), "review", model, "review_id", 1).collect()
    clock = Clock()
    with top_terms_in_memory(spark):
        result = score(reviews, "review", shipped_model(spark), "review_id", -(-size // REVIEWS_PER_TASK))
        # Something of every column, so that none is left out.
        whole = (F.bit_xor(F.xxhash64(name)) for name in columns)
        row = result.agg(F.count("*"), F.avg("sentiment_probability"), *whole).collect()[0]
    return {**clock.read(), "rows": row[0], "mean": row[1]}


def sklearn_score(folder: Path, size: int) -> dict[str, Any]:
    import numpy as np
    import pyarrow.parquet as pq
    from scipy import sparse

    from jobs.models.files import DESCRIPTION, SHIPPED, TERMS, read_terms

    vectorizer = _vectorizer()
    texts = pq.read_table(folder / f"texts-{size}.parquet", columns=["review"]).column(0).to_pylist()
    clock = Clock()
    with (SHIPPED / TERMS).open("rb") as stream:
        terms = read_terms(stream, TERMS)
    d = json.loads((SHIPPED / DESCRIPTION).read_text())
    ratio = np.log((terms.positive + 1) / d["positive_mass"]) - np.log(
        (terms.negative + 1) / d["negative_mass"]
    )
    scale = np.log((d["documents"] + 1) / (terms.positive + terms.negative + 1)) * ratio
    vectorizer.vocabulary = {term: i for i, term in enumerate(terms.term)}
    vectorizer.use_idf = False
    vectorizer.norm = None
    vectorizer.fit([""])
    total = 0.0
    # In pieces: the matrix of 250,000 texts at once needs gigabytes.
    for start in range(0, len(texts), 25_000):
        presence = vectorizer.transform(texts[start : start + 25_000])
        scaled = presence @ sparse.diags(scale)
        norm = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())
        margin = (scaled @ terms.weight) / np.maximum(norm, 1e-12) + d["intercept"]
        logit = d["calibration"]["slope"] * margin + d["calibration"]["offset"]
        total += float((1 / (1 + np.exp(-logit))).sum())
    return {**clock.read(), "rows": len(texts), "mean": total / len(texts)}


def ours_train(folder: Path, size: int) -> dict[str, Any]:
    from jobs.models import training
    from jobs.spark import kept_on_disk

    spark = _session(folder)
    texts = spark.read.parquet(str(folder / f"texts-{size}.parquet")).selectExpr(
        "review AS text", "label", "CAST(NULL AS string) AS `group`"
    )
    texts.limit(10).collect()
    clock, parameters = Clock(), training.Parameters(folds=1)
    rows = training.prepared(texts, parameters)
    with kept_on_disk(rows):
        in_order, counts = training.read_texts(rows, parameters.folds)
    weighing = training.weigh(counts, [0, 1], parameters)
    training.fit(in_order, [0, 1], weighing, parameters)
    return {**clock.read(), "terms": int(weighing.keep.sum())}


def sklearn_train(folder: Path, size: int) -> dict[str, Any]:
    import pyarrow.parquet as pq
    from sklearn.linear_model import LogisticRegression

    table = pq.read_table(folder / f"texts-{size}.parquet", columns=["review", "label"])
    texts, labels = table.column(0).to_pylist(), table.column(1).to_pylist()
    clock = Clock()
    vectorizer = _vectorizer()
    features = vectorizer.fit_transform(texts)
    model = LogisticRegression(C=40.0, max_iter=100).fit(features, labels)
    return {**clock.read(), "terms": features.shape[1], "iterations": int(model.n_iter_[0])}


CONTENDERS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "ours train": ours_train,
    "scikit-learn train": sklearn_train,
    "ours score": ours_score,
    "ours with all columns score": ours_score_all,
    "scikit-learn score": sklearn_score,
}


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 3), min_df=2, binary=True, token_pattern=TOKEN_PATTERN)


def _session(folder: Path) -> Any:
    from jobs.settings import Settings
    from jobs.spark import get_session

    return get_session(
        "benchmark",
        Settings.from_env(
            {
                "LAKE_URI": str(folder / "lake"),
                "SPARK_MASTER": "local[1]",
                "SPARK_DRIVER_MEMORY": "4g",
                "LOG_FOLDER": str(folder),
            }
        ),
    )


def write_texts(folder: Path, size: int, texts: Path | None, labels: Path | None) -> None:
    """texts-<size>.parquet: review_id, review, label; given texts or made-up ones, repeated up to the size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    given = _read(texts, labels) if texts else _made_up()
    rows = [(str(i), *given[i % len(given)]) for i in range(size)]
    names = ["review_id", "review", "label"]
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})
    pq.write_table(table, folder / f"texts-{size}.parquet", row_group_size=25_000)


def _read(texts: Path, labels: Path | None) -> list[tuple[str, float]]:
    positive: dict[str, float] = {}
    if labels:
        with labels.open(encoding="utf-8", newline="") as file:
            positive = {row["id_review"]: float(row["label"] == "pos") for row in csv.DictReader(file)}
    with (gzip.open if texts.suffix == ".gz" else open)(texts, "rt", encoding="utf-8", newline="") as stream:
        return [
            (r["review_str"], positive.get(r["id_review"], i % 2))
            for i, r in enumerate(csv.DictReader(stream))
        ]


def _made_up(number: int = 5_000) -> list[tuple[str, float]]:
    from jobs.samples.reviews import BAD, FILMS, GOOD, OPENINGS

    rng = random.Random(4)
    texts = []
    for i in range(number):
        parts = [
            rng.choice(OPENINGS).format(film=rng.choice(FILMS)),
            *rng.choices(GOOD if i % 2 else BAD, k=20),
        ]
        texts.append((" ".join(parts), float(i % 2)))
    return texts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the contenders in turn and print a table in Markdown."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--texts", type=Path, help="CSV with id_review, review_str; made-up reviews without it"
    )
    arguments.add_argument("--labels", type=Path, help="CSV with id_review, label")
    arguments.add_argument("--sizes", type=int, nargs="+", default=[25_000, 250_000], help="for scoring")
    arguments.add_argument("--only", choices=PARTS)
    arguments.add_argument("--folder", type=Path, default=Path("build/benchmarks/sentiment"))
    arguments.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = arguments.parse_args(argv)
    if options.contender:
        print(json.dumps(CONTENDERS[options.contender](options.folder, options.sizes[0])))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    work = [("train", options.sizes[0])] + [("score", size) for size in options.sizes]
    print("| work | texts | contender | seconds | processor seconds | texts per processor second | |")
    print("|---|--:|---|--:|--:|--:|---|")
    for part, size in work:
        if options.only and part != options.only:
            continue
        write_texts(options.folder, size, options.texts, options.labels)
        for name in CONTENDERS:
            if name.endswith(part):
                result = _run(name, size, options.folder)
                cpu = result.pop("cpu_seconds")
                rest = ", ".join(
                    f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v:,}" for k, v in result.items()
                )
                rest = rest.split(", ", 1)[1]
                print(
                    f"| {part} | {size:,} | {name.removesuffix(' ' + part)} | {result['seconds']:.1f} | {cpu:.1f} "
                    f"| {size / cpu:,.0f} | {rest} |",
                    flush=True,
                )
    return 0


def _run(name: str, size: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.sentiment", "--contender", name, "--sizes", str(size)]
    done = subprocess.run([*command, "--folder", str(folder)], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    sys.exit(main())
