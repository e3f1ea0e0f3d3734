"""Plain text, tokens, n-grams and the kind of a text."""

from __future__ import annotations

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from jobs.transforms.text import MAX_CHARACTERS, ngram_hashes, ngrams, term_hash, text_statistics

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("compiled")]


def statistics(spark: SparkSession, *texts: str | None) -> list[Row]:
    frame = spark.createDataFrame(list(enumerate(texts)), "id int, review string")
    return text_statistics(frame, "review").sort("id").collect()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("I didn’t LIKE it", ["i", "didn't", "like", "it"]),
        ("It isn't bad,<br /><br />not at all!!", ["it", "isn't", "bad", ",", "not", "at", "all", "!!"]),
        ("8/10, or 7.5 ...", ["8/10", ",", "or", "7.5", "..."]),
        ("&quot;Good&quot; &amp; don&#39;t", ["good", "don't"]),
        ("a < b and c > d", ["a", "<", "b", "and", "c", ">", "d"]),
        ("Léa naïve café", ["léa", "naïve", "café"]),
        ("“wow” 👍❤️", ['"', "wow", '"', "👍", "❤"]),
        ("rock'n'roll '90s", ["rock'n'roll", "'", "90s"]),
    ],
)
def test_tokens(spark: SparkSession, text: str, tokens: list[str]) -> None:
    (row,) = statistics(spark, text)
    assert row.tokens == tokens


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("A wonderful film about two sisters.", "english"),
        ("Great!", "english"),
        ("Superb", "english"),
        ("10/10", "english"),
        ("Léa et les Corbeaux is the best film that I saw this year.", "english"),
        (None, "empty"),
        (" \n ", "empty"),
        ("<br /><br>", "empty"),
        ("👍👍❤️", "no_words"),
        ("?!...", "no_words"),
        ("10", "no_words"),
        ("Una película preciosa, la vería otra vez.", "other_language"),
        ("Leider war Midnight Ferry ziemlich langweilig.", "other_language"),
        ("「Midnight Ferry」はとても面白かったです。", "other_language"),
        ("Очень скучный фильм", "other_language"),
        ("Hyvin kaunis elokuva jossa upea tarina sekä mainiot näyttelijät", "other_language"),
    ],
)
def test_kind_of_text(spark: SparkSession, text: str | None, kind: str) -> None:
    (row,) = statistics(spark, text)
    assert row.text_kind == kind


def test_words_and_characters_are_counted_without_html(spark: SparkSession) -> None:
    (row,) = statistics(spark, "<p>Not bad: 8/10!</p>")
    assert (row.word_count, row.character_count) == (3, len("Not bad: 8/10!"))
    assert "review" not in row


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 1 of 10 films, and isn't 7.5 enough?!", 9),
        ("… – « » 😀 (*) {[|]} ~ ^ _ @ ; < = > : / # ¿", 0),
        ("Ĝi estas tre bona filmo", 5),
        ("очень скучный фильм ١٢", 4),
        ("z{a}", 2),
        ("", 0),
    ],
)
def test_words_are_tokens_with_a_letter_or_digit(spark: SparkSession, text: str, words: int) -> None:
    (row,) = statistics(spark, text)
    assert row.word_count == words


def test_text_beyond_the_limit_is_not_read(spark: SparkSession) -> None:
    (row,) = statistics(spark, "good " * MAX_CHARACTERS)
    assert row.word_count == MAX_CHARACTERS / len("good ")


def test_ngrams_are_distinct_and_end_with_the_text(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(["a", "b", "a", "b"],), (["a"],), ([],)], "tokens array<string>")
    found = [row.g for row in frame.select(F.expr(ngrams("tokens")).alias("g")).collect()]
    assert found == [["a", "b", "a b", "b a", "a b a", "b a b"], ["a"], []]


def test_hashes_are_those_of_the_terms(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(["not", "a", "good", "film", "."],), (["not"],)], "tokens array<string>")
    both = frame.select(
        F.expr(ngram_hashes("tokens")).alias("hashes"), F.explode(F.expr(ngrams("tokens"))).alias("term")
    ).select("hashes", "term", term_hash("term").alias("hash"))
    rows = both.groupBy("hashes").agg(F.collect_set("hash").alias("from_terms")).collect()
    assert len(rows) == 2
    assert all(sorted(row.hashes) == sorted(row.from_terms) for row in rows)
