"""Keys computed from business keys: the same on every run, on every cluster, and after a rebuild from raw.

xxHash64 (Collet, https://xxhash.com) as Spark implements it, seed 42. Two of them with different salts make the 128
bits that tell records apart; one, without its sign, makes a dimension's key.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

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
    early = _bits(F.shiftleft(F.unix_millis(instant), 16), F.lit(0x8000), F.shiftrightunsigned(hi, 52))
    more = F.shiftleft(F.shiftrightunsigned(hi, 40).bitwiseAND(F.lit(0xFFF)), 48)
    variant = _bits(F.lit(-(2**63)), F.shiftleft(lo.bitwiseAND(F.lit(3)), 60))
    late = _bits(variant, more, F.shiftrightunsigned(lo, 16))
    # Two digits for each octet, with a dash behind the fourth, sixth, eighth and tenth.
    # Of `hex` the letters would be capitals, and Spark's first `lower` goes through all of Unicode: one second.
    plain, dashed = (F.split(F.lit(",".join(f"{n:02x}{end}" for n in range(256))), ",") for end in ("", "-"))
    octets = [(bits, place) for bits in (early, late) for place in range(56, -8, -8)]
    return F.concat(
        *(
            F.get(
                dashed if n in (3, 5, 7, 9) else plain,
                F.shiftright(bits, place).bitwiseAND(F.lit(0xFF)).cast("int"),
            )
            for n, (bits, place) in enumerate(octets)
        )
    )


def _bits(*parts: Column) -> Column:
    return reduce(lambda a, b: a.bitwiseOR(b), parts)


def hash_id(business_key: Column) -> Column:
    """string → UUID of version 8 as text: 122 bits of SHA-256, of which nobody can make two texts share them."""
    digest = F.sha2(business_key, 256)
    variant = F.substring(
        F.lit("89ab"), F.conv(F.substring(digest, 16, 1), 16, 10).cast("int") % 4 + 1, F.lit(1)
    )
    return F.concat(
        F.substring(digest, 1, 8),
        F.lit("-"),
        F.substring(digest, 9, 4),
        F.lit("-8"),
        F.substring(digest, 13, 3),
        F.lit("-"),
        variant,
        F.substring(digest, 17, 3),
        F.lit("-"),
        F.substring(digest, 20, 12),
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
