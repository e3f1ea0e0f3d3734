"""Text to typed values: what is read as what, and what is not read at all (None)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from jobs.transforms import parsing

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("compiled")]
Parser = Callable[[Column], Column]


def parsed(spark: SparkSession, parser: Parser, texts: Sequence[str | None]) -> list[Any]:
    """Every text through blank_to_null and the parser, as staging does it, in one DataFrame."""
    frame = spark.createDataFrame(list(enumerate(texts)), "n int, value string")
    value = parser(parsing.blank_to_null(F.col("value"))).alias("value")
    return [row.value for row in sorted(frame.select("n", value).collect())]


def utc(*parts: int) -> datetime:
    return datetime(*parts)  # noqa: DTZ001 - Spark gives UTC without a zone, as the session's zone is UTC


TIMESTAMPS = {
    # With and without offset and fraction.
    "2025-05-13T23:30:47": utc(2025, 5, 13, 23, 30, 47),
    "2025-05-13T23:30:47.448076": utc(2025, 5, 13, 23, 30, 47, 448076),
    "2025-05-13T23:30:47.448": utc(2025, 5, 13, 23, 30, 47, 448000),
    "2025-05-13 23:30:47": utc(2025, 5, 13, 23, 30, 47),
    "2025-05-13T23:30": utc(2025, 5, 13, 23, 30),
    "  2025-05-13T23:30:47\t": utc(2025, 5, 13, 23, 30, 47),
    "2025-05-13T23:30:47Z": utc(2025, 5, 13, 23, 30, 47),
    "2025-05-13T23:30:47+02:00": utc(2025, 5, 13, 21, 30, 47),
    "2025-05-13T23:30:47+0200": utc(2025, 5, 13, 21, 30, 47),
    "2025-05-13T23:30:47.5-05:30": utc(2025, 5, 14, 5, 0, 47, 500000),
    "2025-05-13T23:30:47.5-0530": utc(2025, 5, 14, 5, 0, 47, 500000),
    "2025-05-13T23:30Z": utc(2025, 5, 13, 23, 30),
    "2025-05-13T23:30+02:00": utc(2025, 5, 13, 21, 30),
    "2025-05-13 23:30-0530": utc(2025, 5, 14, 5, 0),
    "2025-05-13T23:30+02": utc(2025, 5, 13, 21, 30),
    "2025-05-13T23Z": None,
    "2025-05-13T23:60Z": None,
    "2025-05-13T23:30+25:00": None,
    # Names of time zones: an abbreviation is another zone to Java than to whoever wrote it.
    "2025-05-13 23:30:47 UTC": utc(2025, 5, 13, 23, 30, 47),
    "2025-05-13 23:30:47.5 GMT": utc(2025, 5, 13, 23, 30, 47, 500000),
    "2025-05-13 23:30:47 UTC+2": utc(2025, 5, 13, 21, 30, 47),
    "2025-05-13 23:30:47 -0530": utc(2025, 5, 14, 5, 0, 47),
    "2025-05-13 23:30:47 Europe/Berlin": utc(2025, 5, 13, 21, 30, 47),
    "2025-05-13T23:30:47.Z": utc(2025, 5, 13, 23, 30, 47),
    **{f"2025-05-13 23:30:47 {name}": None for name in ("BST", "PST", "AST", "IST", "CST", "CET", "NZ")},
    # Finer than a microsecond is cut off.
    "2025-05-13T23:30:47.123456789Z": utc(2025, 5, 13, 23, 30, 47, 123456),
    # The calendar.
    "2024-02-29T00:00:00": utc(2024, 2, 29),
    "2000-02-29T12:00:00": utc(2000, 2, 29, 12),
    "2023-02-29T00:00:00": None,
    "1900-02-29T00:00:00": None,
    "2025-02-30T10:00:00": None,
    "2025-02-30T10:00:00+0200": None,
    "2025-13-01T10:00:00": None,
    "2025-04-31T10:00:00": None,
    "2025-01-01T25:00:00": None,
    "2025-01-01T10:61:00": None,
    # Outside of what warehouses store.
    "0000-01-01T00:00:00": None,
    "0002-01-01T00:00:00": utc(2, 1, 1),
    "0001-01-01T00:00:00+00:01": None,
    "9999-12-31T23:59:59": utc(9999, 12, 31, 23, 59, 59),
    "9999-12-31T23:59:59.999999": utc(9999, 12, 31, 23, 59, 59, 999999),
    "9999-12-31T23:59:59-05:00": None,
    # No instant, or none that is meant.
    "2025-05-13": None,
    "23:30:47": None,
    "1747179047448": None,
    "1747179047": None,
    "20250513T233047Z": None,
    "13.05.2025 23:30": None,
    "5/13/2025 23:30": None,
    "yesterday": None,
    "now": None,
    "2025-05-13T23:30:47 or so": None,
    "NaN": None,
    "": None,
    "   ": None,
}

US_TIMESTAMPS = {
    "12/1/2010 8:26": utc(2010, 12, 1, 8, 26),
    "12/01/2010 08:26": utc(2010, 12, 1, 8, 26),
    "1/31/2011 18:05:59": utc(2011, 1, 31, 18, 5, 59),
    "2/29/2012 0:00": utc(2012, 2, 29),
    "2/29/2011 0:00": None,
    "2/30/2011 8:00": None,
    "13/1/2010 8:26": None,
    "12/1/2010 24:30": None,
    "12/1/2010": None,
    "12/1/10 8:26": None,
    "1/2/0001 0:00": utc(1, 1, 2),
    "12/31/9999 23:59:59": utc(9999, 12, 31, 23, 59, 59),
    # No warehouse has a year 0.
    "12/31/0000 23:59": None,
    "1/1/0000 0:00:00": None,
    "2010-12-01T08:26:00": utc(2010, 12, 1, 8, 26),
    "2010-12-01 08:26:00+01:00": utc(2010, 12, 1, 7, 26),
    "40513.35": None,
}

DECIMALS = {
    "2.55": Decimal("2.5500"),
    "0": Decimal("0.0000"),
    "-11062.06": Decimal("-11062.0600"),
    "+1.5": Decimal("1.5000"),
    ".5": Decimal("0.5000"),
    "5.": Decimal("5.0000"),
    "1e3": Decimal("1000.0000"),
    "1.5E-3": Decimal("0.0015"),
    "0.00010": Decimal("0.0001"),
    "99999999999999.9999": Decimal("99999999999999.9999"),
    "100000000000000": None,
    "0.00001": None,
    # A spreadsheet's noise beyond the twelfth decimal is no decimal.
    "2.5500000000000003": Decimal("2.5500"),
    "1e999": None,
    "NaN": None,
    "Infinity": None,
    "-inf": None,
    "1,5": None,
    "1 000": None,
    "£2.55": None,
    "0x1F": None,
    "2.55d": None,
    "--1": None,
    "": None,
}

INTEGERS = {
    "6": 6,
    "-6": -6,
    "+6": 6,
    "6.0": 6,
    "17850.0": 17850,
    "1e3": 1000,
    "007": 7,
    "9223372036854775807": 9223372036854775807,
    "9223372036854775808": None,
    "1e30": None,
    "6.5": None,
    "NaN": None,
    "six": None,
    "true": None,
    "": None,
}

IDENTIFIERS = {
    "17850": "17850",
    "17850.0": "17850",
    "17850.00": "17850",
    " 17850.0 ": "17850",
    "17850.5": "17850.5",
    "007": "007",
    "C536379": "C536379",
    "user_8": "user_8",
    "v1.0": "v1.0",
    "ünï-日本": "ünï-日本",
    "\u00a0x\u00a0": "x",
    '{"id": 5}': None,
    "[5]": None,
    "two\nlines": None,
    "": None,
    " \t ": None,
}

DATES = {
    "2024-02-29": date(2024, 2, 29),
    " 2024-02-29 ": date(2024, 2, 29),
    "2024-02-29T23:30:00": date(2024, 2, 29),
    "2024-02-29T23:30:00-05:00": date(2024, 3, 1),
    "2023-02-29": None,
    "0000-01-01": None,
    "2024-2-9": None,
    "29.02.2024": None,
    "2/29/2024": None,
    "20240229": None,
}
EMAILS = {
    "ann@example.com": "ann@example.com",
    " Ann.Of+shop@Mail.Example.CO.UK ": "ann.of+shop@mail.example.co.uk",
    "jürgen@müller.de": "jürgen@müller.de",
    "ann": None,
    "ann@": None,
    "@example.com": None,
    "ann@example": None,
    "ann@example..com": None,
    "ann@.com": None,
    "ann@exam ple.com": None,
    "ann@example.com, bob@example.com": None,
    "Ann <ann@example.com>": None,
    "ann@[192.168.0.1]": None,
    "ann@@example.com": None,
    "ann@example.com\u0085": None,
    "ann@example.com\u2028": None,
    "ann@example.com\u200b": None,
    "ann\u00a0lee@example.com": None,
    "ann@exam\u3000ple.com": None,
    "ann\u200d@example.com": "ann\u200d@example.com",
}
HASHES = {"5f4dcc3b5aa765d61d8327deb882cf99": "5f4dcc3b5aa765d61d8327deb882cf99"} | {
    f"5f4dcc3b5aa765d61d8327deb882cf99{end}": None for end in ("\u0085", "\u2028", "0")
}


@pytest.mark.parametrize(
    ("parser", "table"),
    [
        pytest.param(parsing.iso_timestamp, TIMESTAMPS, id="iso_timestamp"),
        pytest.param(parsing.us_or_iso_timestamp, US_TIMESTAMPS, id="us_or_iso_timestamp"),
        pytest.param(parsing.decimal, DECIMALS, id="decimal"),
        pytest.param(parsing.integer, INTEGERS, id="integer"),
        pytest.param(parsing.identifier, IDENTIFIERS, id="identifier"),
        pytest.param(parsing.iso_date, DATES, id="iso_date"),
        pytest.param(parsing.email_address, EMAILS, id="email_address"),
        pytest.param(parsing.password_hash, HASHES, id="password_hash"),
    ],
)
def test_parsing(spark: SparkSession, parser: Parser, table: dict[str, Any]) -> None:
    found = parsed(spark, parser, [*table, None])
    assert dict(zip(table, found, strict=False)) == table
    assert found[-1] is None


def test_free_text_keeps_everything_but_white_space_at_its_ends(spark: SparkSession) -> None:
    texts = ["  {curly}  ", "[sic] a\nb", '"quoted"', "\n", " "]
    assert parsed(spark, parsing.free_text, texts) == ["{curly}", "[sic] a\nb", '"quoted"', None, None]


def test_tags_are_names_in_lower_case_each_once(spark: SparkSession) -> None:
    texts = {
        "mobile": ["mobile"],
        "Mobile, first visit;SALE|mobile": ["mobile", "first visit", "sale"],
        '["b", "a"]': ["b", "a"],
        "{b,a}": ["b", "a"],
        "['b', ' it''s', '']": ["b", "it''s"],
        "rock 'n', 'til, don't": ["rock 'n'", "'til", "don't"],
        "a,\tb, \r\nA\u00a0": ["a", "b"],
        "Ä, 東京": ["ä", "東京"],
        # What Python's json.dumps makes of "Café", of a "b", and of two tags in one.
        '["Caf\\u00e9", "a \\"b\\"", "c, d"]': ["café", "a b", "c", "d"],
        '["a\\tb\\u00E4"] [c]': ["a\\tb\\u00e4 c"],
        "[a\\u00e9]": ["a\\u00e9"],
        " , ;": [],
        "[]": [],
        "": [],
    }
    assert parsed(spark, parsing.tags, [*texts, None]) == [*texts.values(), []]


# -- properties: many examples in one DataFrame ------------------------------------------------------------

few = settings(
    max_examples=8, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
instants = st.datetimes(datetime(2, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@few
@given(st.lists(st.tuples(instants, offsets), min_size=20, max_size=60))
def test_an_instant_is_the_same_whatever_its_offset(
    spark: SparkSession, written: list[tuple[datetime, timezone]]
) -> None:
    texts = [at.astimezone(offset).isoformat() for at, offset in written]
    expected = [at.replace(tzinfo=None) for at, _ in written]
    assert parsed(spark, parsing.iso_timestamp, texts) == expected


@few
@given(st.lists(st.integers(-(10**17), 10**17), min_size=20, max_size=60))
def test_decimals_and_integers_are_exact(spark: SparkSession, tens_of_thousandths: list[int]) -> None:
    numbers = [Decimal(n).scaleb(-4) for n in tens_of_thousandths]
    texts = [f"{n:f}" for n in numbers]
    assert parsed(spark, parsing.decimal, texts) == numbers
    assert parsed(spark, parsing.integer, texts) == [int(n) if n == math.floor(n) else None for n in numbers]


@few
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=30, max_size=60))
def test_no_text_makes_a_parser_fail_and_blank_is_nothing(spark: SparkSession, texts: list[str]) -> None:
    frame = spark.createDataFrame(list(enumerate(texts)), "n int, value string")
    value = parsing.blank_to_null(F.col("value"))
    parsers = (parsing.iso_timestamp, parsing.us_or_iso_timestamp, parsing.decimal, parsing.integer)
    columns = [p(value).alias(f"p{i}") for i, p in enumerate(parsers)]
    rows = sorted(frame.select("n", value.alias("value"), *columns).collect())
    assert [row.value for row in rows] == [text.strip(" \t\r\n\u00a0") or None for text in texts]
