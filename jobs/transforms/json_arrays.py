"""JSON arrays to their elements, each as the text that stands there, so that its numbers and names stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from json.decoder import JSONDecoder
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql.pandas.functions import arrow_udf

# So many elements are handed back to Spark at once.
BATCH = 10_000
BYTE_ORDER_MARK = "\ufeff"
SPACE, LINE_BREAK = re.compile(r"[ \t\n\r]*"), re.compile(r"[\n\r]")
# A JSON value from a place on, and where it ends; no type is declared for it. What a number is worth is not asked.
SCAN: Any = getattr(JSONDecoder(parse_int=str, parse_float=str), "scan_once")  # noqa: B009


def elements(text: str) -> Iterator[str]:
    """The elements of a JSON array, each as it stands there, but in one line.

    Raises ValueError, once those before are given, where the text is not one whole array.
    """
    start = _past_space(text, len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0)
    if not text.startswith("[", start):
        raise ValueError(f"no [ at character {start}")
    at = _past_space(text, start + 1)
    goes_on = not text.startswith("]", at)
    while goes_on:
        try:
            _, end = SCAN(text, at)
        except (StopIteration, RecursionError):
            raise ValueError(f"no value at character {at}") from None
        # In a valid JSON text, line breaks stand between its parts only.
        yield LINE_BREAK.sub(" ", text[at:end])
        at = _past_space(text, end)
        goes_on = text.startswith(",", at)
        if goes_on:
            at = _past_space(text, at + 1)
    if not text.startswith("]", at):
        raise ValueError(f"no , or ] at character {at}")
    if _past_space(text, at + 1) < len(text):
        raise ValueError(f"something after the ] at character {at}")


def array_elements(arrays: DataFrame) -> DataFrame:
    """`value`, the text of one JSON array, and `_address` → the same columns. Grain: one row per element.

    A text that is not one whole array stops the job: `array_problem` tells beforehand.
    """
    return arrays.select("value", "_address").mapInArrow(_cut, "value string, _address string")


def array_problem(text: Column) -> Column:
    """The text of a file → why it is not one whole JSON array; null where it is."""
    # The type hints of the function say what kind it is, which PySpark's declarations leave out.
    problem: Any = arrow_udf(_problems, "string")  # type: ignore[call-overload]
    found: Column = problem(text)
    return found


def _cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for raw, address in zip(_bytes(batch["value"]), batch["_address"].to_pylist(), strict=True):
            found = elements(raw.decode())
            while part := list(islice(found, BATCH)):
                yield pa.record_batch(
                    [pa.array(part, pa.string()), pa.array([address] * len(part), pa.string())],
                    ["value", "_address"],
                )


def _problems(texts: pa.Array) -> pa.Array:
    return pa.array([_problem(raw) for raw in _bytes(texts)], pa.string())


def _problem(raw: bytes) -> str | None:
    try:
        for _ in elements(raw.decode()):
            pass
    except UnicodeDecodeError:
        return "holds bytes that are not UTF-8"
    except ValueError as error:
        return f"not one complete JSON array (cut off, or followed by something else?): {error}"
    return None


def _bytes(texts: pa.Array) -> list[bytes]:
    # Arrow takes any bytes of Spark's for UTF-8.
    found: list[bytes] = texts.cast(pa.binary()).to_pylist()
    return found


def _past_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at
