"""Counting n-grams, checked by eye."""

from itertools import pairwise

import pyarrow as pa
import pytest

from jobs.errors import ConfigurationError
from jobs.models import ngrams
from jobs.models.ngrams import count_ngrams, ngram_names, number_words

TEXTS = [["not", "a", "good", "film"], ["a", "good", "film", "!"], [], ["good"], ["a", "good", "a", "good"]]


def counted(texts: list[list[str]], min_texts: int) -> tuple[list[str], list[set[str]]]:
    tokens, words = number_words(pa.array(texts, pa.list_(pa.string())))
    terms, start, of_text = count_ngrams(tokens, len(words), min_texts)
    names = ngram_names(terms, words)
    return names, [{names[i] for i in of_text[a:b]} for a, b in pairwise(start)]


def test_what_two_texts_contain() -> None:
    names, of_text = counted(TEXTS, 2)
    assert names == ["a", "a good", "a good film", "film", "good", "good film"]
    assert of_text == [set(names), set(names), set(), {"good"}, {"a", "a good", "good"}]


def test_terms_are_in_the_order_of_the_alphabet() -> None:
    text = ["a", "a'b", "!", "é", "a", "ab", "a'b", "!", "é", "ab", "𝄞", "𝄞", "!"]
    names, _ = counted([text], 1)
    assert names == sorted(names)
    assert {"a", "a a'b", "a a'b !", "ab 𝄞 𝄞", "𝄞 𝄞 !"} <= set(names)


def test_words_that_occur_once_are_in_no_term() -> None:
    assert counted([["a", "b", "a", "c"], ["a"]], 1) == (["a"], [{"a"}, {"a"}])


def test_nothing_to_count() -> None:
    assert counted([], 2) == ([], [])
    assert counted([[], []], 2) == ([], [set(), set()])


def test_more_words_than_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "MAX_WORDS", 1)
    with pytest.raises(ConfigurationError, match="2 different words"):
        counted([["a", "b", "a", "b"]], 1)
