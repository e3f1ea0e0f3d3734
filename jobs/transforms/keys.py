"""Keys computed from business keys: the same on every run, on every cluster, and after a rebuild from raw.

xxHash64 (Collet, https://xxhash.com) as Spark implements it, seed 42. Two of them with different salts make the 128
bits that tell records apart; one, without its sign, makes a dimension's key.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import KeyCollision

KEY = ("_key_hi", "_key_lo")


def record_key(columns: Sequence[Column], nullable: Sequence[Column] = ()) -> dict[str, Column]:
    """`_key_hi` and `_key_lo`, bigint: 128 bits over the columns.

    xxHash64 passes over nulls, so for columns that may be null, being null is hashed as well: ('a', null) and
    (null, 'a') differ.
    """
    parts = [*columns, *(column.isNull() for column in nullable)]
    return {name: F.xxhash64(F.lit(salt), *parts) for name, salt in zip(KEY, ("hi", "lo"), strict=True)}


def surrogate_key(business_key: Column) -> Column:
    """string → bigint ≥ 0, the key of a dimension's row; null stays null."""
    return F.when(business_key.isNotNull(), F.xxhash64(business_key).bitwiseAND(F.lit(0x7FFF_FFFF_FFFF_FFFF)))


def time_ordered_id(instant: Column, hi: Column, lo: Column) -> Column:
    """timestamp and 128 bits of a record's key → UUID of version 8 (RFC 9562, section 5.8) as text.

    The first 48 bits are the instant in milliseconds, so that a warehouse's index over new rows is touched in one
    place; 74 of the remaining bits come from the key.
    """
    time = F.lpad(F.lower(F.hex(F.unix_millis(instant).bitwiseAND(F.lit(0xFFFF_FFFF_FFFF)))), 12, "0")
    high = F.lpad(F.lower(F.hex(hi)), 16, "0")
    low = F.lpad(F.lower(F.hex(lo)), 16, "0")
    # The variant's two bits are 10: the hexadecimal digit is one of 8, 9, a, b.
    variant = F.substring(F.lit("89ab"), F.pmod(lo, F.lit(4)).cast("int") + 1, F.lit(1))
    return F.concat(
        F.substring(time, 1, 8),
        F.lit("-"),
        F.substring(time, 9, 4),
        F.lit("-8"),
        F.substring(high, 1, 3),
        F.lit("-"),
        variant,
        F.substring(high, 4, 3),
        F.lit("-"),
        F.substring(low, 1, 12),
    )


def require_distinct(members: DataFrame, key: str, business_key: str, table: str) -> None:
    """Stop with KeyCollision if two business keys share a key. members: distinct (key, business key) pairs."""
    clash = (
        members.groupBy(key)
        .agg(
            F.min(business_key).alias("a"),
            F.max(business_key).alias("b"),
        )
        .where("a <> b")
        .first()
    )
    if clash:
        raise KeyCollision(
            f"{table}: {business_key} {clash.a!r} and {clash.b!r} have the same {key} {clash[key]}; nothing was "
            "written. Rename one of them in the source, and report this: it is expected once in 2^63 pairs"
        )
