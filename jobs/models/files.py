"""A sentiment model as text: `model.json` (figures, parameters, measures) and `terms.tsv.gz` (one n-gram a line).

The same form is shipped with the project and written next to every trained model in the lake.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from jobs.errors import ConfigurationError
from jobs.lake.objects import ObjectStore
from jobs.resources import project_root
from jobs.spark import session_settings
from jobs.transforms.sentiment import Calibration, SentimentModel

SHIPPED = project_root() / "jobs" / "models" / "film_reviews"
DESCRIPTION, TERMS, CARD = "model.json", "terms.tsv.gz", "MODEL_CARD.md"
LAKE_PREFIX = "models/sentiment"
# Of both files; a model of another one may mean something else by the same figures.
FORMAT = 1
# What a file that is cut off or overwritten raises when it is read.
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, ValueError, IndexError)
OTHERWISE = "make it anew with train-sentiment --again, remove its folder, or score with --model shipped"
HEADER = "term\tpositive\tnegative\tweight"


@dataclass(frozen=True)
class Terms:
    """The terms of a model, in order: text, training texts of either class with it, coefficient."""

    term: list[str]
    positive: np.typing.NDArray[np.int64]
    negative: np.typing.NDArray[np.int64]
    weight: np.typing.NDArray[np.float64]

    def as_arrow(self) -> pa.Table:
        return pa.table(
            {"term": self.term, "positive": self.positive, "negative": self.negative, "weight": self.weight}
        )


def write_terms(terms: Terms, file: Path, digits: int) -> None:
    """Write the terms, weights with so many significant digits; 17 keep a double as it is. Same terms, same bytes."""
    rows = zip(
        terms.term, terms.positive.tolist(), terms.negative.tolist(), terms.weight.tolist(), strict=True
    )
    lines = (
        f"{term}\t{positive}\t{negative}\t{weight:.{digits}g}" for term, positive, negative, weight in rows
    )
    with (
        file.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=9, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text,
    ):
        text.write(HEADER + "\n")
        text.writelines(line + "\n" for line in lines)


def read_terms(stream: IO[bytes], name: str) -> Terms:
    """Read what `write_terms` wrote."""
    with gzip.open(stream, "rt", encoding="utf-8", newline="\n") as text:
        if text.readline().rstrip("\n") != HEADER:
            raise ConfigurationError(
                f"{name}: expected the columns {HEADER.split()}; write it with train-sentiment"
            )
        columns = list(zip(*(line.rstrip("\n").split("\t") for line in text), strict=True)) or [
            (),
            (),
            (),
            (),
        ]
    return Terms(
        list(columns[0]),
        np.array(columns[1], dtype=np.int64),
        np.array(columns[2], dtype=np.int64),
        np.array(columns[3], dtype=np.float64),
    )


def as_model(spark: SparkSession, description: Mapping[str, Any], terms: Terms) -> SentimentModel:
    """The model that a description and its terms make."""
    return SentimentModel(
        name=description["name"],
        version=description["version"],
        documents=description["documents"],
        positive_mass=description["positive_mass"],
        negative_mass=description["negative_mass"],
        intercept=description["intercept"],
        calibration=Calibration(**description["calibration"]),
        prior=description["prior"],
        terms=_as_rows(spark, terms),
    )


def _as_rows(spark: SparkSession, terms: Terms) -> DataFrame:
    # Small tables become a part of the plan, and every rule of Spark's optimizer looks at each of their rows.
    with session_settings(spark, {"spark.sql.execution.arrow.localRelationThreshold": "0"}):
        return spark.createDataFrame(terms.as_arrow())


def shipped_model(spark: SparkSession, folder: Path = SHIPPED) -> SentimentModel:
    """The compact model that comes with the project, or one that `train-sentiment --export` wrote."""
    with (folder / TERMS).open("rb") as stream:
        terms = read_terms(stream, str(folder / TERMS))
    return as_model(spark, json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")), terms)


def lake_models(store: ObjectStore) -> list[str]:
    """The versions of the models in the lake, the one trained last at the end."""
    found = [file for file in store.list(LAKE_PREFIX) if file.path.endswith(f"/{DESCRIPTION}")]
    return [
        file.path.split("/")[-2] for file in sorted(found, key=lambda file: (file.modified_at, file.path))
    ]


def describe_lake_model(store: ObjectStore, version: str) -> dict[str, Any]:
    """`model.json` of a model in the lake. Raises ConfigurationError when it is damaged or of another format."""
    path = f"{LAKE_PREFIX}/{version}/{DESCRIPTION}"
    with _whole(path), store.open(path) as stream:
        description: dict[str, Any] = json.loads(stream.read())
    form = description.get("format") if isinstance(description, dict) else None
    if form != FORMAT:
        raise ConfigurationError(f"{path}: of format {form}, not {FORMAT}; {OTHERWISE}")
    return description


@contextmanager
def _whole(path: str) -> Iterator[None]:
    """Name the file of a model that turns out to be damaged while it is read."""
    try:
        yield
    except DAMAGED as error:
        raise ConfigurationError(f"{path}: damaged ({error}); {OTHERWISE}") from None


def shipped_version() -> str:
    """The version of the model that comes with the project."""
    return str(json.loads((SHIPPED / DESCRIPTION).read_text(encoding="utf-8"))["version"])


def lake_model(spark: SparkSession, store: ObjectStore, version: str) -> SentimentModel:
    """A model of the lake, by version."""
    path = f"{LAKE_PREFIX}/{version}/{TERMS}"
    with _whole(path), store.open(path) as stream:
        # A whole read: the stream of an object store need not be seekable.
        terms = read_terms(io.BytesIO(stream.read()), path)
    return as_model(spark, describe_lake_model(store, version), terms)


def chosen_version(store: ObjectStore, wanted: str = "latest") -> str:
    """wanted: `latest` (the last one trained in this lake, else the shipped one), `shipped`, or a version.

    Raises ConfigurationError naming the known versions when there is no such model.
    """
    if wanted == "shipped":
        return shipped_version()
    versions = lake_models(store)
    if wanted == "latest":
        return versions[-1] if versions else shipped_version()
    if wanted not in versions:
        raise ConfigurationError(
            f"--model {wanted}: the lake has {', '.join(versions) or 'no model'}; use one of them, latest or shipped"
        )
    return wanted


def load_model(spark: SparkSession, store: ObjectStore, version: str) -> SentimentModel:
    """The model of a version that `chosen_version` gave."""
    return shipped_model(spark) if version == shipped_version() else lake_model(spark, store, version)


def put_files(store: ObjectStore, folder: Path, names: Iterable[str], version: str) -> None:
    """Upload files of a local folder to the model's place in the lake, in the order given."""
    for name in names:
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        store.put(folder / name, f"{LAKE_PREFIX}/{version}/{name}", digest, True, lambda sent: None)
