"""Users: a first export, then one with changes; rows a second, peak memory, and how both grow.

Every size is run in an empty lake and an empty database: `user-analytics run --feeds users` on the first export, again
on an export of the changed and new users, and a third time with nothing new. The counts in the warehouse are compared
with what the generator knows. Of the changed users one in ten has an older date, as files that come late have.

    python -m benchmarks.users --sizes 500k 5m
"""

import random
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

from benchmarks.deliveries import Benchmark, Delivery, Plan

CHANGED, NEW = 0.1, 0.01
HEADER = "id,first_name,last_name,email,gender,ip_address,created_at,updated_at,password,status\n"
ABOUT = """`user-analytics run --feeds users` into an empty lake and an empty database: a first export, one with 10 % of
the users changed and 1 % new ones, and nothing new. Start-up, history, publishing, rules and report are in it. The
driver's heap is the default of 2 GiB."""
STATUSES = ("active", "invited", "blocked")
START = datetime(2024, 1, 1, tzinfo=UTC)


def prepare(folder: Path, users: int, seed: int = 7) -> Plan:
    """Write `first.csv` and `changes.csv`; deterministic, about 170 bytes a line."""
    first, changes = folder / "first.csv", folder / "changes.csv"
    rng = random.Random(seed)
    changed, new = round(users * CHANGED), round(users * NEW)
    _write(first, (_line(rng, n, START, n % 3) for n in range(users)))
    step = users // changed
    _write(
        changes,
        chain(
            (
                _line(rng, n * step, START + timedelta(days=-400 if n % 10 == 0 else 90), 3)
                for n in range(changed)
            ),
            (_line(rng, users + n, START, 0) for n in range(new)),
        ),
    )
    return Plan(
        [
            Delivery("first export", first, users),
            Delivery("changes", changes, changed + new),
            Delivery("nothing new", None, 0),
        ],
        "SELECT (SELECT count(*) FROM {schema}.users), (SELECT count(*) FROM {schema}.users_history), "
        "(SELECT count(*) FROM {schema}.users WHERE updated)",
        (users + new, users + changed + new, changed),
    )


def _write(file: Path, lines: Iterable[str]) -> None:
    with file.open("w", encoding="utf-8", newline="", buffering=1 << 20) as out:
        out.write(HEADER)
        out.writelines(lines)


def _line(rng: random.Random, number: int, since: datetime, status: int) -> str:
    bits = rng.getrandbits(160)
    created = since + timedelta(seconds=number % 2_592_000 - 40_000_000)
    updated = since + timedelta(seconds=number % 2_592_000)
    ip = f"{11 + bits % 80}.{bits >> 8 & 255}.{bits >> 16 & 255}.{bits >> 24 & 255}"
    return (
        f"{number},First{number % 977},Last{number % 7919},user{number}@example.com,f,{ip},"
        f"{created:%Y-%m-%dT%H:%M:%SZ},{updated:%Y-%m-%dT%H:%M:%SZ},{bits >> 32:032x},"
        f"{(*STATUSES, 'closed')[status]}\n"
    )


USERS = Benchmark("users", "users", "users", "Users", ABOUT, [500_000, 5_000_000], prepare)

if __name__ == "__main__":
    sys.exit(USERS.main(__doc__))
