"""Train a sentiment model on labelled reviews, measure it, and keep it in the lake with its model card.

Grain:    one model per run, named by a hash of its data and parameters.
Inputs:   --labels CSV: `text,label` (pos/neg, positive/negative, 1/0) or `text,rating`; optional `group`, e.g. a film:
          texts of one group never stand on both sides of a split. Or `id_review,label`, joined with --reviews: a CSV
          with `id_review,review_str`, or `staged` for the reviews of the lake.
Outputs:  `models/sentiment/<version>/`: `pipeline` (Spark ML), `terms.tsv.gz`, `MODEL_CARD.md`, `model.json`; the
          last one written makes the model visible. --export writes the text form to a local folder, too.
Re-run:   same data and parameters, same version and the same weights to the last digit; a version that is there is
          trained again only for --again.
Example:  spark-submit jobs/train_sentiment.py --labels labels.csv --reviews staged
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.console import log
from jobs.context import RunContext, job_main, open_run, parser
from jobs.datasets import Dataset
from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.feeds.reviews import REVIEWS
from jobs.lake.staging import staging_table
from jobs.models import training
from jobs.models.card import model_card
from jobs.models.files import (
    CARD,
    DESCRIPTION,
    FORMAT,
    LAKE_PREFIX,
    TERMS,
    Terms,
    as_model,
    lake_models,
    put_files,
    read_terms,
    write_terms,
)
from jobs.models.short_sentences import NEGATIVE, POSITIVE, UNDECIDABLE
from jobs.models.training import Parameters, Scored
from jobs.runs import recorded
from jobs.settings import Settings
from jobs.spark import kept_on_disk, local_rows
from jobs.transforms.sentiment import SentimentModel, score

# Part of the version: raised when the same texts and parameters give other weights, if only in the last digits.
FITTING = 2
COMPACT_TERMS = 100_000
TEXT = ("text", "review", "review_str")
IDENTIFIER = ("id_review", "review_id")
POSITIVE_LABELS = ("pos", "positive", "1", "true")
NEGATIVE_LABELS = ("neg", "negative", "0", "false")
TELLING_TERMS = 25
TELLING_TEXTS = 50


def train(
    run: RunContext,
    labelled: DataFrame,
    model_name: str,
    parameters: Parameters,
    provenance: str,
    export: Path | None,
) -> str:
    """Train, measure and keep a model. labelled: text string, label double, group string. Gives the version."""
    version, texts, duplicates, grouped = _identify(labelled, parameters)
    log.info("train: %s texts, version %s", f"{texts:,}", version)
    rows = training.prepared(labelled, parameters)
    with kept_on_disk(rows):
        all_texts, counts = training.read_texts(rows, parameters.folds)
    _refuse_unmeasurable(all_texts, parameters.folds)
    log.info("train: %s terms in two texts and more", f"{len(counts.terms):,}")

    folds, held_out = list(range(parameters.folds)), parameters.folds
    out_of_fold: list[Scored] = []
    for part in [*folds, held_out]:
        others = [fold for fold in folds if fold != part]
        weighing = training.weigh(counts, others, parameters)
        weights, intercept = training.fit(all_texts, others, weighing, parameters)
        result = training.scored(all_texts, part, weighing, weights, intercept)
        out_of_fold.append(result)
        name = "held-out part" if part == held_out else f"fold {part + 1}"
        log.info("train: %s: %.2f %% right", name, 100 * result.accuracy)
    everything = [*folds, held_out]
    final = training.weigh(counts, everything, parameters)
    weights, intercept = training.fit(all_texts, everything, final, parameters)
    terms, scale = training.terms_of(counts, final, weights), final.scale[final.keep]

    crossed = training.joined(out_of_fold[:-1])
    fold_accuracy = [result.accuracy for result in out_of_fold[:-1]]
    calibration = training.joined(out_of_fold).calibration()
    description: dict[str, Any] = {
        "name": model_name,
        "version": version,
        "format": FORMAT,
        "provenance": provenance,
        "parameters": parameters.as_dict(),
        "documents": final.documents,
        "duplicates": duplicates,
        "grouped": grouped,
        "terms": len(terms.term),
        "positive_mass": final.positive_mass,
        "negative_mass": final.negative_mass,
        "intercept": intercept,
        "calibration": {"slope": calibration.slope, "offset": calibration.offset},
        "prior": float(crossed.label.sum() + out_of_fold[-1].label.sum()) / texts,
        "fold_accuracy": fold_accuracy,
        "fold_deviation": float(np.std(fold_accuracy, ddof=1)),
        # The folds are calibrated on their own scores: two parameters, fitted on thousands of texts. The held-out part
        # is calibrated on the folds.
        "cross_validation": crossed.calibrated(crossed.calibration()).as_dict(),
        "held_out": out_of_fold[-1].calibrated(crossed.calibration()).as_dict(),
        "telling": _telling(terms, scale),
    }
    pipeline = training.whole_pipeline(
        [
            training.vectorizer(run.spark, terms.term),
            *training.scaler(scale),
            training.regression_model(run.spark, weights, intercept),
        ]
    )
    _keep(run, description, terms, pipeline, export)
    return version


def _keep(
    run: RunContext, description: dict[str, Any], terms: Terms, pipeline: PipelineModel, export: Path | None
) -> None:
    version = description["version"]
    pipeline.write().overwrite().save(run.settings.lake_path(LAKE_PREFIX, version, "pipeline"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_terms(terms, folder / TERMS, 6 if description["parameters"]["max_terms"] else 17)
        # What is measured is the model as it will be read.
        with (folder / TERMS).open("rb") as stream:
            read = as_model(run.spark, description, read_terms(stream, TERMS))
        description["short"] = short_texts(run.spark, read)
        (folder / CARD).write_text(model_card(description), encoding="utf-8")
        text = json.dumps(description, indent=1, ensure_ascii=False)
        (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        put_files(run.store, folder, (TERMS, CARD, DESCRIPTION), version)
        if export:
            export.mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
                shutil.copyfile(file, export / file.name)


def short_texts(spark: SparkSession, model: SentimentModel) -> dict[str, Any]:
    """How the model does on the sentences of `jobs.models.short_sentences`."""
    truths = {"positive": POSITIVE, "negative": NEGATIVE, "undecidable": UNDECIDABLE}
    sentences = [(f"{t}-{i}", s, t) for t, all_of in truths.items() for i, s in enumerate(all_of)]
    rows = score(local_rows(spark, sentences, "id string, text string, truth string"), "text", model, "id", 1)
    found = {row.id: row for row in rows.collect()}
    said = [
        {
            "text": text,
            "truth": truth,
            "probability": round(found[key].sentiment_probability, 4),
            "confident": found[key].is_confident,
        }
        for key, text, truth in sentences
    ]
    clear = [s for s in said if s["truth"] != "undecidable"]
    right = [(s["probability"] >= 0.5) == (s["truth"] == "positive") for s in clear]
    return {
        "texts": len(clear),
        "correct": sum(right),
        "confident": sum(s["confident"] for s in clear),
        "confident_wrong": sum(s["confident"] and not r for s, r in zip(clear, right, strict=True)),
        "distance": float(np.mean([abs(s["probability"] - 0.5) for s in clear])),
        "undecidable": len(UNDECIDABLE),
        "undecidable_confident": sum(s["confident"] for s in said if s["truth"] == "undecidable"),
        "sentences": said,
    }


def _identify(labelled: DataFrame, parameters: Parameters) -> tuple[str, int, int, bool]:
    """version, number of texts, how many repeat another, whether groups are given. Stops when there is too little."""
    row = labelled.agg(
        F.count("*").alias("texts"),
        F.count_distinct("text").alias("different"),
        F.count_if(F.col("label") > 0.5).alias("positive"),
        F.count("group").alias("grouped"),
        # The order of the texts does not count; a sum, because a repeated text would cancel itself in an exclusive or.
        F.sum(F.xxhash64("text", "label", "group").cast("decimal(38,0)")).alias("content"),
    ).first()
    if row is None:
        raise ConfigurationError("--labels: no texts")
    least = min(row.positive, row.texts - row.positive)
    if least < 10 * parameters.folds:
        raise ConfigurationError(
            f"--labels: {row.positive} positive and {row.texts - row.positive} negative texts; each side needs at "
            f"least {10 * parameters.folds}"
        )
    seen = json.dumps([FORMAT, FITTING, parameters.as_dict(), row.texts, str(row.content)])
    version = hashlib.sha256(seen.encode()).hexdigest()[:12]
    return version, row.texts, row.texts - row.different, row.grouped > 0


def _refuse_unmeasurable(texts: training.Texts, folds: int) -> None:
    """Stop where nothing could be measured: few groups, or few different texts, do not reach every part."""
    size = np.bincount(texts.part, minlength=folds + 1)
    positive = int(texts.label[texts.part == folds].sum())
    if 0 in size or positive in (0, size[folds]):
        raise ConfigurationError(
            f"--labels: texts that are equal, or of one group, stay together, so that of {folds} folds "
            f"{np.count_nonzero(size[:folds] == 0)} are empty, and the held-out part has {positive} positive and "
            f"{size[folds] - positive} negative texts; give more groups or more different texts"
        )


def _telling(terms: Terms, scale: np.typing.NDArray[np.float64]) -> dict[str, list[tuple[str, float]]]:
    added = np.where(terms.positive + terms.negative >= TELLING_TEXTS, terms.weight * scale, 0.0)
    order = np.argsort(added, kind="stable")
    # Of few texts, fewer terms than that occur in so many: the list is shorter then.
    positive, negative = order[::-1][:TELLING_TERMS], order[:TELLING_TERMS]
    return {
        "positive": [(terms.term[i], round(float(added[i]), 4)) for i in positive if added[i] > 0],
        "negative": [(terms.term[i], round(float(added[i]), 4)) for i in negative if added[i] < 0],
    }


def read_labelled(run: RunContext, labels: str, reviews: str | None, rating_scale: float) -> DataFrame:
    """text string, label double (1 positive, 0 negative), group string, one row per labelled text.

    A rating above 0.6 of the scale is positive, up to 0.4 of it negative, as in Maas et al. 2011; others are left out.
    """
    given = _read_csv(run.spark, labels)
    if reviews is not None:
        given = _joined(run, given, reviews, labels)
    text = _column(given, TEXT, labels)
    group = F.col("group").cast("string") if "group" in given.columns else F.lit(None).cast("string")
    if "label" in given.columns:
        said = F.lower(F.trim("label"))
        label = F.when(said.isin(*POSITIVE_LABELS), 1.0).when(said.isin(*NEGATIVE_LABELS), 0.0)
        strange = given.where(label.isNull()).first()
        if strange:
            raise ConfigurationError(
                f"{labels}: label {strange.label!r}; known are {', '.join((*POSITIVE_LABELS, *NEGATIVE_LABELS))}"
            )
    elif "rating" in given.columns:
        # What writes a missing number as NaN says no more than an empty field; to Spark it is the greatest of all.
        rating = F.nanvl(F.col("rating").try_cast("double"), F.lit(None)) / rating_scale
        label = F.when(rating > 0.6, 1.0).when(rating <= 0.4, 0.0)
    else:
        raise ConfigurationError(
            f"{labels}: needs a column label or rating; found {', '.join(given.columns)}"
        )
    return given.select(F.col(text).alias("text"), label.alias("label"), group.alias("group")).where(
        "label IS NOT NULL AND text IS NOT NULL"
    )


def _joined(run: RunContext, labels: DataFrame, reviews: str, name: str) -> DataFrame:
    key = _column(labels, IDENTIFIER, name)
    if reviews == "staged":
        staged = staging_table(run, REVIEWS)
        if not staged.exists():
            raise ConfigurationError(
                "--reviews staged: no reviews are staged yet; run `user-analytics stage reviews`"
            )
        run.note_table_read(staged)
        texts = staged.read().select("review_id", "review")
    else:
        file = _read_csv(run.spark, reviews)
        texts = file.select(
            F.col(_column(file, IDENTIFIER, reviews)).alias("review_id"),
            F.col(_column(file, TEXT, reviews)).alias("review"),
        )
    # A text beside the id would be another one, or leave it open which is meant.
    given = labels.drop(*TEXT).withColumnRenamed(key, "review_id")
    both = given.join(texts, "review_id", "inner")
    if both.isEmpty():
        raise UserAnalyticsError(f"{name}: no {key} of it occurs among the reviews ({reviews})")
    return both


def _read_csv(spark: SparkSession, path: str) -> DataFrame:
    where = path if "://" in path else Path(path).absolute().as_uri()
    return spark.read.csv(where, header=True, multiLine=True, quote='"', escape='"')


def _column(frame: DataFrame, names: Sequence[str], file: str) -> str:
    for name in names:
        if name in frame.columns:
            return name
    raise ConfigurationError(f"{file}: needs a column {' or '.join(names)}; found {', '.join(frame.columns)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Train a model; the arguments are those of `--help`."""
    arguments = parser(__doc__, "train-sentiment")
    arguments.add_argument(
        "--labels", required=True, metavar="CSV", help="labelled texts, or labels by id_review"
    )
    arguments.add_argument(
        "--reviews", metavar="CSV|staged", help="where the texts are, when --labels has ids only"
    )
    arguments.add_argument("--name", default="film-reviews", help="the model's name (default: %(default)s)")
    arguments.add_argument(
        "--max-terms",
        type=int,
        default=0,
        metavar="N",
        help=f"keep the N most telling terms (the shipped model: {COMPACT_TERMS}); 0 keeps all (default)",
    )
    arguments.add_argument(
        "--rating-scale",
        type=float,
        default=10.0,
        metavar="MAX",
        help="the best rating (default: %(default)g)",
    )
    arguments.add_argument(
        "--provenance", default="", metavar="TEXT", help="where the data comes from, for the card"
    )
    arguments.add_argument("--export", type=Path, metavar="FOLDER", help="write the model as text there, too")
    arguments.add_argument("--again", action="store_true", help="train even if the lake has this version")
    options = arguments.parse_args(argv)
    if options.max_terms < 0 or options.rating_scale <= 0:
        argparse.ArgumentParser.error(arguments, "--max-terms and --rating-scale must not be negative")

    def body() -> None:
        for path in (options.labels, options.reviews or "staged"):
            if path != "staged" and "://" not in path and not Path(path).is_file():
                raise ConfigurationError(f"{path}: there is no such file")
        with (
            open_run("train-sentiment", Settings.from_env()) as run,
            recorded(run),
            run.step("train sentiment") as detail,
        ):
            labelled = read_labelled(run, options.labels, options.reviews, options.rating_scale).persist()
            parameters = Parameters(max_terms=options.max_terms)
            version = _identify(labelled, parameters)[0]
            if version in lake_models(run.store) and not (options.again or options.export):
                log.info("train: the lake has version %s, trained on the same data and parameters", version)
            else:
                with run.heartbeat("train"):
                    provenance = options.provenance or f"Labelled texts from {Path(options.labels).name}."
                    train(run, labelled, options.name, parameters, provenance, options.export)
                run.note_written(Dataset(f"{LAKE_PREFIX}/{version}"))
            detail.append(f"version {version}")
            print(run.settings.lake_path(LAKE_PREFIX, version))  # noqa: T201

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
