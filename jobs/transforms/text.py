"""Review texts → plain text, tokens, n-grams and statistics, in Spark's own functions: no Python runs per row.

`plain_text`, `tokens` and `ngrams` write SQL, so that a saved Spark ML pipeline can hold them as SQLTransformer.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

# The longest of 25,000 film reviews has 13,704 characters; what comes after this many is not read.
MAX_CHARACTERS = 20_000
MAX_ORDER = 3
TOKENS_FOR_LANGUAGE = 100

# The look ahead comes first because most characters begin neither.
TAG_OR_ENTITY = r"(?=[<&])(?:</?[a-zA-Z][^<>]{0,200}+>|&(?:#\d{1,6}+|[a-zA-Z]{2,8}+);)"
# Java asks for classes in the order in which they stand, and for Unicode's properties slowly: plain letters first.
# Possessive repetitions (*+) keep no places to go back to.
IN_WORD = r"[a-z0-9\p{L}\p{M}\p{N}]"
REST_OF_WORD = rf"{IN_WORD}*+(?:'{IN_WORD}++)*+"
RATING = r"\d++(?:[./]\d++)++"
# Ratings and decimals (8/10, 7.5), words with their apostrophes (isn't, l'amour), runs of final marks (!!, ...), and
# every other visible sign on its own. Negations stay words; pairs and triples carry what they negate.
SIGN = r"[^a-z\s\p{Z}\p{C}\p{L}\p{M}\p{N}]"
TOKEN = rf"[a-z\p{{L}}]{REST_OF_WORD}|{RATING}|\p{{N}}{REST_OF_WORD}|[!?.]++|{SIGN}"

# Frequent words that occur in English and hardly elsewhere, and elsewhere but hardly in English: enough to tell English
# prose from other prose, not to name the language.
ENGLISH = tuple(
    """the and of to is it this that was with for are as be have not but you they his her from at by all who an so
    there about or if out some more what when she he movie film my just would had has were how i i'm it's don't
    """.split()
)
OTHER = tuple(
    """el los las una es y que por con para pero muy del su lo nada demasiado más está película como
    le les des est et un dans pour pas qui très avec ce cette une sur mais c'est
    der das und ist ein eine nicht mit sehr ich es den auch sich auf für leider ziemlich schön
    il che di è per non molto gli della sono questo anche
    não uma os muito você isso mas filme
    het een van niet ik dat zijn voor maar
    och det att är inte som på jeg ikke og
    nie jest się że ten bardzo
    bir ve çok bu için
    yang dan ini tidak itu""".split()
)
ENGLISH_TEXT, EMPTY, NO_WORDS, OTHER_LANGUAGE = "english", "empty", "no_words", "other_language"


def plain_text(text: str) -> str:
    """SQL: a column of texts → the same without HTML tags and entities, trimmed, cut at MAX_CHARACTERS; null → ''."""
    cut = f"CASE WHEN length({text}) > {MAX_CHARACTERS} THEN substring({text}, 1, {MAX_CHARACTERS}) ELSE {text} END"
    readable = f"coalesce({cut}, '')"
    # Typographers' quotes are the typist's; numeric ones survive in exported pages. `translate` would go by single
    # characters, many times slower.
    typographic = readable
    for quote, plain in [*((q, "'") for q in "’‘"), *((q, '\\"') for q in "“”„")]:
        typographic = f"""replace({typographic}, "{quote}", "{plain}")"""
    only_ascii = f"octet_length({text}) = length({text})"
    readable = f"CASE WHEN {only_ascii} THEN {readable} ELSE {typographic} END"
    readable = f"""replace(replace({readable}, "&#39;", "'"), "`", "'")"""
    return f"""btrim(regexp_replace({readable}, r"{TAG_OR_ENTITY}", ' '), ' \\t\\r\\n\u00a0')"""


def tokens(plain: str) -> str:
    """SQL: plain text → array<string> of lower-case words, ratings and punctuation marks, in their order."""
    # The spaces before a token are taken with it, so that not every alternative is tried on them.
    return f"""regexp_extract_all(lower({plain}), r" *+({TOKEN})", 1)"""


def ngrams(items: str) -> str:
    """SQL: tokens → array<string> of the distinct 1- to 3-grams, the tokens of one joined by a space."""
    pairs = f"transform({items}, (t, i) -> concat(t, ' ', get({items}, i + 1)))"
    triples = f"transform({items}, (t, i) -> concat(t, ' ', get({items}, i + 1), ' ', get({items}, i + 2)))"
    # Beyond the text's end `get` gives null, and so does what is joined from it.
    return f"array_compact(array_distinct(concat({items}, {pairs}, {triples})))"


def ngram_hashes(items: str) -> str:
    """SQL: tokens → array<bigint> of the distinct hashes of their 1- to 3-grams, as `term_hash` gives them.

    Each token is hashed once (xxHash64), each n-gram from its tokens' hashes: no strings are built, and 64-bit keys
    make the join with the weights cheap. xxHash64 passes over nulls, so a pair or triple over the text's end hashes
    like the shorter n-gram that it is.
    """
    hashes = f"transform({items}, t -> xxhash64(t))"
    pair, triple = "xxhash64(x, get(h, i + 1))", "xxhash64(x, get(h, i + 1), get(h, i + 2))"
    grams = f"flatten(transform(h, (x, i) -> array(xxhash64(x), {pair}, {triple})))"
    # An array of one gives its only element a name, h, so that it is computed once.
    return f"array_distinct(transform(array({hashes}), h -> {grams})[0])"


def term_hash(term: str) -> Column:
    """A 1- to 3-gram as `ngrams` writes it → bigint."""
    parts = F.split(F.col(term), " ")
    tokens = (F.get(parts, F.lit(i)) for i in range(MAX_ORDER))
    return F.xxhash64(*(F.when(token.isNotNull(), F.xxhash64(token)) for token in tokens))


def text_statistics(reviews: DataFrame, text: str) -> DataFrame:
    """The reviews with tokens array<string>, word_count and character_count bigint, text_kind string, without the text.

    Grain: as reviews. word_count counts the tokens that are words, numbers or ratings; character_count what is left
    when HTML was taken out.
    text_kind: `english`, `empty` (nothing visible), `no_words` (emoji, punctuation or numbers, but no rating) or
    `other_language` (a quarter of the letters is not Latin; or frequent words of other languages outnumber English
    ones; or eight words and more without a frequent English one).
    """
    plain = F.col("_plain")
    beginning = F.slice("tokens", 1, TOKENS_FOR_LANGUAGE)
    english = F.size(F.array_intersect(beginning, F.array(*map(F.lit, ENGLISH))))
    other = F.size(F.array_intersect(beginning, F.array(*map(F.lit, OTHER))))
    no_letter = ~plain.rlike(r"\p{L}")
    letters = F.length(F.regexp_replace(plain, r"\P{L}+", ""))
    latin = F.length(F.regexp_replace(plain, r"\P{IsLatin}+", ""))
    # Letters are counted only in the few texts that hold one of another script.
    only_ascii = F.octet_length(plain) == F.length(plain)
    other_script = F.when(
        ~only_ascii & plain.rlike(r"[\p{L}&&[^\p{IsLatin}]]"), (letters - latin) * 4 >= letters
    ).otherwise(False)
    other_words = (other > english) | ((F.col("word_count") >= 8) & (english == 0))
    return (
        reviews.withColumn("_plain", F.expr(plain_text(text)))
        .withColumn("tokens", F.expr(tokens("_plain")))
        .withColumn("word_count", F.size(F.filter("tokens", _has_letter_or_digit)).cast("bigint"))
        .withColumn("character_count", F.length(plain).cast("bigint"))
        .withColumn(
            "text_kind",
            F.when(plain == "", EMPTY)
            .when(no_letter & ~plain.rlike(RATING), NO_WORDS)
            .when(other_script | other_words, OTHER_LANGUAGE)
            .otherwise(ENGLISH_TEXT),
        )
        .drop("_plain", text)
    )


def _has_letter_or_digit(item: Column) -> Column:
    """Whether a token is no sign. Plain letters and digits are told by their order, which is quick."""
    plain_digit = (item >= "0") & (item < ":")
    return F.when(item < "a", plain_digit).otherwise((item < "{") | item.rlike(r"^[\p{L}\p{N}]"))
