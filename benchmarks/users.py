"""Users: a first export, then one with changes; rows a second, peak memory, and how both grow.

Every size is run in an empty lake and an empty database: `user-analytics run --feeds users` on the first export, again
on an export of the changed and new users, and a third time with nothing new. The counts in the warehouse are compared
with what the generator knows. Of the changed users one in ten has an older date, as files that come late have.

    python -m benchmarks.users --sizes 500k 5m
"""

import argparse
import random
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import psycopg2

from benchmarks import measure
from benchmarks.deliveries import Delivery, head, row, run_deliveries, size
from benchmarks.report import DOCUMENT, describe_machine, write_section
from jobs.warehouse.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[1]
CHANGED, NEW = 0.1, 0.01
HEADER = "id,first_name,last_name,email,gender,ip_address,created_at,updated_at,password,status\n"
ABOUT = """`user-analytics run --feeds users` into an empty lake and an empty database: a first export, one with 10 % of
the users changed and 1 % new ones, and nothing new. Start-up, history, publishing, rules and report are in it. The
driver's heap is the default of 2 GiB."""
STATUSES = ("active", "invited", "blocked")
START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Counts:
    """What the warehouse must hold."""

    users: int
    versions: int
    updated: int


def write_exports(folder: Path, users: int, seed: int = 7) -> tuple[Path, Path, Counts]:
    """Write `first.csv` and `changes.csv`; deterministic, about 170 bytes a line."""
    folder.mkdir(parents=True, exist_ok=True)
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
    return first, changes, Counts(users + new, users + changed + new, changed)


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


def run_size(users: int, work: Path, server: str) -> list[tuple[Delivery, measure.Measurement]]:
    """Every run with what it measured; exits when a run fails or its result is not the expected one."""
    folder = work / f"users-{users}"
    shutil.rmtree(folder, ignore_errors=True)
    first, changes, expected = write_exports(folder, users)
    deliveries = (
        Delivery("first export", first, users),
        Delivery("changes", changes, round(users * (CHANGED + NEW))),
        Delivery("nothing new", None, 0),
    )
    schema = f"users_{users}"
    measured = run_deliveries("users", deliveries, folder, server, schema)
    with psycopg2.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT (SELECT count(*) FROM {schema}.users), (SELECT count(*) FROM {schema}.users_history), "
            f"(SELECT count(*) FROM {schema}.users WHERE updated)"
        )
        counts = Counts(*cursor.fetchone())
        cursor.execute(f"DROP SCHEMA {schema} CASCADE")
    if counts != expected:
        sys.exit(f"{users:,} users: found {counts}, expected {expected}")
    shutil.rmtree(folder)
    return measured


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="users", description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=size, nargs="+", default=[500_000, 5_000_000])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmarks")
    arguments = parser.parse_args(argv)
    lines = head("users")
    print("\n".join(lines), flush=True)
    with EmbeddedPostgres(arguments.work / "users-warehouse") as server:
        for users in arguments.sizes:
            for delivery, found in run_size(users, arguments.work.resolve(), server):
                lines.append(row(users, delivery, found))
                print(lines[-1], flush=True)
        about = describe_machine(server)
    table = "\n".join(lines)
    write_section(DOCUMENT, "users", f"## Users\n\n{ABOUT}\n\n{table}\n\n{about}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
