"""Text columns to typed columns. Every function gives null for what it cannot read, and never fails.

Pure column expressions of Spark's own functions, so that they run inside Spark's generated code.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
US_DATE = r"^\d{1,2}/\d{1,2}/\d{4}$"
# Java's \s is the white space of ASCII, and its $ stands before a last U+0085 or U+2028, too. An address with a blank
# that nobody sees would be another user.
UNSEEN = r"\x01-\x20\x7f-\xa0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
EMAIL = rf'^[^@{UNSEEN}"(),:;<>\[\]\\]+@([^@{UNSEEN}"(),.:;<>\[\]\\]+\.)+[^@{UNSEEN}"(),.:;<>\[\]\\]+\z'
ISO_DATE = r"^\d{4}-\d{2}-\d{2}$"
US_DATE_TIME = r"^\d{1,2}/\d{1,2}/(?!0000)\d{4} \d{1,2}:\d{2}(:\d{2})?$"
# How an instant ends that says for sure which offset it has. Of abbreviations Java knows other ones than their writers:
# BST is Bangladesh, AST Alaska, and PST is an hour less in summer.
CLEAR_OFFSET = r"([0-9.]|[0-9 .](Z|UTC?|GMT)|/[A-Za-z_-]+)\z"
HASHED = (
    r"^([0-9a-fA-F]{32}|[0-9a-fA-F]{64}"
    r"|\$2[abxy]?\$\d{2}\$[./A-Za-z0-9]{53}"
    r"|\$argon2(id|i|d)\$(v=\d+\$)?m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,172})\z"
)


WHITE_SPACE = " \t\r\n\u00a0"
# The first and the last instant of the years 1 to 9999, in microseconds.
FIRST_INSTANT, LAST_INSTANT = -62_135_596_800_000_000, 253_402_300_799_999_999


def blank_to_null(value: Column) -> Column:
    """The text without white space at its ends; null when nothing is left."""
    # Trimming goes through the whole text; a look at its ends is cheaper, and most texts need no more: they begin and
    # end with a visible character of ASCII, which is a comparison of one byte each.
    needs_none = value.between("!", "~") & _is_between(_octets(value, -1, 1), b"!", b"~")
    trimmed = F.btrim(value, F.lit(WHITE_SPACE))
    return F.when(needs_none, value).when(trimmed != "", trimmed)


def text(value: Column) -> Column:
    """string → string, trimmed. A JSON object or array is not a text and gives null, nor is what spans lines."""
    is_nested = F.startswith(value, F.lit("{")) | F.startswith(value, F.lit("["))
    return F.when(~is_nested & ~F.contains(value, F.lit("\n")), value)


def lower_text(value: Column) -> Column:
    """string → the same as `text`, in lower case."""
    return F.lower(text(value))


def free_text(value: Column) -> Column:
    """string → the same string: prose may begin with any character."""
    return value


def identifier(value: Column) -> Column:
    """string → string. Numbers that went through a spreadsheet lose their decimals: `17850.0` is `17850`."""
    # Few texts end so; a regular expression for each would take longer than all else here.
    has_decimals = F.endswith(value, F.lit("0")) & value.rlike(r"^\d+\.0+$")
    return F.when(has_decimals, F.substring_index(value, ".", 1)).otherwise(text(value))


def email_address(value: Column) -> Column:
    """string → string, an e-mail address in lower case. Quoted names and addresses in brackets give null."""
    return F.when(value.rlike(EMAIL), F.lower(value))


def tags(value: Column) -> Column:
    """string → array<string>: names separated by `,`, `;` or `|`, with or without brackets and quotes around.

    In lower case, trimmed, each once, in their order; an empty array where there is none, also for null. What JSON
    writes with a backslash is what it stands for: `["caf\\u00e9"]`, as Python writes it, is café.
    """
    # One pair of brackets: what follows an array, from_json passes over.
    is_escaped = F.contains(value, F.lit("\\")) & value.rlike(r"^\s*\[[^\[\]]*\]\s*$")
    written_out = F.when(is_escaped, F.array_join(F.from_json(value, "array<string>"), ","))
    plain = F.regexp_replace(F.lower(F.coalesce(written_out, value)), r'[\[\]{}"\x00]', "")
    names = F.transform(F.split(plain, "[,;|]"), _tag)
    named = F.array_distinct(F.filter(names, lambda name: name != ""))
    return F.coalesce(named, F.array().cast("array<string>"))


def _tag(name: Column) -> Column:
    """One of the names, without white space and single quotes around it; Python writes a list as `['a', 'b']`."""
    return F.btrim(
        F.regexp_replace(F.btrim(name, F.lit(WHITE_SPACE)), "(?s)^'(.*)'$", "$1"), F.lit(WHITE_SPACE)
    )


def _octets(value: Column, start: int, length: Column | int) -> Column:
    """Some of the text's bytes, from the first (1) or the last one (-1) on; of a text, Spark counts the characters."""
    return F.substring(value.cast("binary"), F.lit(start), F.lit(length))


def _is_between(octet: Column, first: bytes, last: bytes) -> Column:
    return octet.between(F.lit(first), F.lit(last))


def iso_timestamp(value: Column) -> Column:
    """string → timestamp from ISO 8601 date and time, with or without fraction and offset; UTC when none.

    Impossible dates (2025-02-30), epoch numbers, dates without a time, times of day, abbreviated time zones but UTC and
    GMT, and instants outside of the years 1 to 9999, which not every warehouse can store, give null.
    """
    # Without its Z it is the same instant, for which Spark looks up no time zone.
    last, one_before = _octets(value, -1, 1), _octets(value, -2, 1)
    is_zulu = (last == F.lit(b"Z")) & _is_between(one_before, b"0", b"9")
    without_z = F.when(is_zulu, _octets(value, 1, F.octet_length(value) - 1).cast("string")).otherwise(value)
    looks_iso = (
        F.octet_length(value).between(16, 40)
        & (_octets(value, 5, 1) == F.lit(b"-"))
        & (_octets(value, 8, 1) == F.lit(b"-"))
        & _octets(value, 11, 1).isin(b"T", b" ")
        # Most end in a digit, with or without a Z; a regular expression for each would take longer than all else here.
        & (_is_between(last, b"0", b"9") | is_zulu | value.rlike(CLEAR_OFFSET))
    )
    # ISO 8601 also knows offsets without a colon (+0200) and times with an offset but no seconds, Spark's cast neither.
    in_full = F.regexp_replace(value, r"([+-]\d{2})(\d{2})$", "$1:$2")
    in_full = F.regexp_replace(in_full, r"^(.{13}:\d{2})(Z|[+-]\d{2}(:\d{2})?)$", "$1:00$2")
    instant = F.coalesce(without_z.try_cast("timestamp"), in_full.try_cast("timestamp"))
    bounds = (F.timestamp_micros(F.lit(micros)) for micros in (FIRST_INSTANT, LAST_INSTANT))
    # Both bounds are asked of the instant itself, so that Spark computes it once for all three places.
    return F.when(looks_iso & instant.between(*bounds), instant)


def us_or_iso_timestamp(value: Column) -> Column:
    """string → timestamp from `12/1/2010 8:26` (month first) or ISO 8601."""
    us = F.when(
        value.rlike(US_DATE_TIME),
        F.coalesce(
            F.try_to_timestamp(value, F.lit("M/d/yyyy H:mm")),
            F.try_to_timestamp(value, F.lit("M/d/yyyy H:mm:ss")),
        ),
    )
    return F.coalesce(us, iso_timestamp(value))


def timestamp_or_date(value: Column) -> Column:
    """string → timestamp as `us_or_iso_timestamp`; a date alone (`2024-03-01`, `3/1/2024`) is its midnight, UTC."""
    date = F.when(value.rlike(ISO_DATE), value.try_cast("timestamp")).when(
        value.rlike(US_DATE), F.try_to_timestamp(value, F.lit("M/d/yyyy"))
    )
    return F.when(F.year(date) >= 1, date).otherwise(us_or_iso_timestamp(value))


def password_hash(value: Column) -> Column:
    """string → the same string where it is an MD5, SHA-256 (both in hexadecimal), bcrypt or argon2 hash."""
    return F.when(value.rlike(HASHED), value)


def iso_date(value: Column) -> Column:
    """string → date from an ISO 8601 date; of a date with a time, the day in UTC."""
    alone = F.when(value.rlike(ISO_DATE), value.try_cast("date"))
    return F.when(F.year(alone) >= 1, alone).otherwise(iso_timestamp(value).cast("date"))


def decimal(value: Column, precision: int = 18, scale: int = 4) -> Column:
    """string → decimal(precision, scale), exact: more decimals than the scale holds, NaN and infinity give null.

    From the thirteenth decimal on there is only a spreadsheet's noise (2.5500000000000003), which is rounded away.
    """
    wide = F.when(value.rlike(NUMBER), value.try_cast("decimal(38,12)"))
    narrow = wide.try_cast(f"decimal({precision},{scale})")
    return F.when(narrow == wide, narrow)


def integer(value: Column) -> Column:
    """string → bigint; `6`, `6.0` and `1e3` are integers, `6.5` and `NaN` are not."""
    wide = F.when(value.rlike(NUMBER), value.try_cast("decimal(38,12)"))
    return F.when(wide == F.floor(wide), wide.try_cast("bigint"))
