"""Counting the n-grams of texts in NumPy: exact, without hashes, and in the order of the alphabet.

Words are numbered from 1 in the order of the alphabet, and an n-gram of up to three is one integer, its words' numbers
being its digits, 0 for a word that is not there. As no word has a character before the space that joins them, the
integers are in the same order as the n-grams' texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.errors import ConfigurationError
from jobs.transforms.text import MAX_ORDER

Integers = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]
# Three digits to such a base fit into 64 bits.
MAX_WORDS = 2**21 - 2


@dataclass(frozen=True)
class Tokens:
    """Texts as the numbers of their words, 0 for one that occurs once: text i has words[start[i]:start[i + 1]]."""

    start: Integers
    words: Integers


def number_words(texts: pa.ListArray) -> tuple[Tokens, list[str]]:
    """Number the words of tokenised texts (list<string>). Also gives them, number 1 first.

    Raises ConfigurationError for more words than can be numbered.
    """
    start = texts.offsets.to_numpy().astype(np.int64)
    encoded = texts.flatten().dictionary_encode()
    positions = encoded.indices.to_numpy(zero_copy_only=False)
    repeated = np.flatnonzero(np.bincount(positions, minlength=len(encoded.dictionary)) > 1)
    if len(repeated) > MAX_WORDS:
        raise ConfigurationError(f"{len(repeated):,} different words: train on a sample of the texts")
    spelled = [str(word) for word in encoded.dictionary.take(pa.array(repeated)).to_pylist()]
    order = sorted(range(len(spelled)), key=spelled.__getitem__)
    numbers = np.zeros(len(encoded.dictionary), np.int64)
    numbers[repeated[order]] = np.arange(1, len(order) + 1)
    return Tokens(start - start[0], numbers[positions]), [spelled[i] for i in order]


def count_ngrams(tokens: Tokens, words: int, min_texts: int) -> tuple[Integers, Integers, Places]:
    """The distinct 1- to 3-grams that at least so many texts contain, and which of them each text contains.

    Gives terms, start and of_text: text i contains terms[of_text[start[i]:start[i + 1]]].
    """
    texts = [
        _ngrams(tokens.words[first:last], words + 1)
        for first, last in zip(tokens.start[:-1], tokens.start[1:], strict=True)
    ]
    ends = np.cumsum([len(ngrams) for ngrams in texts], dtype=np.int64)
    every = np.concatenate([*texts, np.zeros(0, np.int64)])
    texts = np.split(every, ends)[:-1]  # the same numbers, no copy
    terms, frequency = np.unique(every, return_counts=True)
    terms = terms[frequency >= min_texts]
    of_text = [_places(ngrams, terms) for ngrams in texts]
    start = np.concatenate([[0], np.cumsum([len(found) for found in of_text], dtype=np.int64)])
    return terms, start, np.concatenate([*of_text, np.zeros(0, np.int32)])


def ngram_names(terms: Integers, words: list[str]) -> list[str]:
    """The texts of n-grams, their words joined by a space."""
    base = len(words) + 1
    spelled = np.array(["", *words], object)
    digits = [spelled[terms // base**i % base] for i in reversed(range(MAX_ORDER))]
    return [" ".join(filter(None, ngram)) for ngram in zip(*digits, strict=True)]


def _ngrams(text: Integers, base: int) -> Integers:
    known = text > 0
    singles = text * base**2
    pairs = singles[:-1] + text[1:] * base
    triples = pairs[:-1] + text[2:]
    known_pairs = known[:-1] & known[1:]
    return np.unique(
        np.concatenate([singles[known], pairs[known_pairs], triples[known_pairs[:-1] & known[2:]]])
    )


def _places(ngrams: Integers, terms: Integers) -> Places:
    """Where those n-grams that are terms stand among them."""
    places = np.searchsorted(terms, ngrams)
    inside = places < len(terms)
    places, ngrams = places[inside], ngrams[inside]
    known: Places = places[terms[places] == ngrams].astype(np.int32)
    return known
