"""Raw files harmed at random: bits flipped, lines cut, types swapped."""

from __future__ import annotations

import os
import random
import time
from datetime import datetime, timedelta

import pytest

from tests.records import event, json_lines, purchase, purchases

BEGIN = datetime(2024, 1, 1)  # noqa: DTZ001 - written without an offset, as sources do


def logs(count: int) -> str:
    times = ((BEGIN + timedelta(seconds=n // 3)).isoformat() for n in range(count))
    return json_lines(*(event(f"u{n % 97}", timestamp=at) for n, at in enumerate(times)))


def invoices(count: int) -> str:
    return purchases(*(purchase(InvoiceNo=str(n // 5), StockCode=f"S{n % 7}") for n in range(count)))


def swap_type(line: bytes, chance: random.Random) -> bytes:
    """Something of another type where a value was."""
    old = chance.choice([b'"view"', b'"x"', b"2.55", b"17850", b"2024", b"null", b"{", b","])
    new = chance.choice([b"17", b"[1, 2]", b"null", b'"text"', b"{}", b"1e400", b"-", b"NaN", b"true", b""])
    return line.replace(old, new, 1)


def cut(line: bytes, chance: random.Random) -> bytes:
    return line[: chance.randrange(len(line) + 1)]


def flip(line: bytes, chance: random.Random) -> bytes:
    harmed = bytearray(line)
    for _ in range(chance.randint(1, 4)):
        harmed[chance.randrange(len(harmed))] ^= 1 << chance.randrange(8)
    return bytes(harmed)


def harm(text: str, chance: random.Random) -> bytes:
    """One line in five is harmed; the first one, a CSV's header, is not."""
    first, *lines = text.encode().splitlines(keepends=True)
    ways = (swap_type, cut, flip)
    return first + b"".join(chance.choice(ways)(x, chance) if chance.random() < 0.2 else x for x in lines)


def fault_seed() -> int:
    """What random choices begin with: FAULTS_SEED, or the time; printed, to have them again."""
    seed = int(os.environ.get("FAULTS_SEED") or time.time())
    print(f"\nFAULTS_SEED={seed}", flush=True)
    return seed


of_each_kind = pytest.mark.parametrize(
    ("feed", "name", "make"), [("logs", "a.jsonl", logs), ("purchases", "a.csv", invoices)]
)
