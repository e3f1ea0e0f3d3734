"""Write N events for the benchmarks: CSV files of half a million lines, deterministic, 4 seconds a million.

One month in the order of time, one user per 200 events in 5,000 mail domains, 300 pages, 12 actions, some 110 bytes
each. Known dirt, so that the results can be checked:

    1.0 %  clashes: the id of an earlier event, with other content
    1.0 %  exact copies of an earlier event
    0.2 %  broken: no id, an address without a domain, a time that does not exist

    python -m benchmarks.generate_events build/benchmarks/events-1000000 1000000
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

ROWS_PER_FILE = 500_000
REACH_BACK = 50_000
COUNTRIES = ("Norway", "Ireland", "Peru", "Japan", "Côte d'Ivoire", "", "France", "Kenya")
ACTIONS = (
    "view",
    "view",
    "view",
    "view",
    "click",
    "click",
    "search",
    "buy",
    "share",
    "rate",
    "login",
    "logout",
)
TAGS = (
    "",
    "mobile",
    '"mobile,sale"',
    "desktop",
    '"desktop,campaign,sale"',
    "newsletter",
    "tablet;sale",
    "desktop",
)
SUFFIXES = ("com", "co.uk", "de", "com.br", "co.jp")
MONTH = 28 * 24 * 3600


def generate_events(folder: Path, rows: int, seed: int = 7) -> dict[str, int]:
    """Write the files and return their counts: lines, events, clashes, duplicates, rejected."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"lines": rows, "events": 0, "clashes": 0, "duplicates": 0, "rejected": 0}
    rng = random.Random(seed)
    domains = ["gmail.com", *(f"mail.firm{n}.{SUFFIXES[n % 5]}" for n in range(5_000))]
    users = max(100, rows // 200)
    recent: list[str] = []
    # A clash takes an id that no other clash takes, so that each makes one computed id.
    ids: list[str] = []
    for start in range(0, rows, ROWS_PER_FILE):
        path = folder / f"events-{start // ROWS_PER_FILE:04}.csv"
        with path.open("w", encoding="utf-8", newline="", buffering=1 << 20) as file:
            file.write("id,timestamp,email,country,uri,action,tags\n")
            for row in range(start, min(start + ROWS_PER_FILE, rows)):
                # One random number a line, cut into the parts that it needs.
                bits = rng.getrandbits(192)
                kind = bits % 1000
                if kind < 10 and recent:
                    file.write(recent[(bits >> 10) % len(recent)])
                    counts["duplicates"] += 1
                    continue
                identifier = f"{bits >> 64 & 0xFFFFFFFF:08x}-{row:012d}"
                if 10 <= kind < 20 and ids:
                    identifier = ids.pop()
                    counts["clashes"] += 1
                second, millisecond = divmod(row * MONTH * 1000 // rows, 1000)
                day, second = divmod(second, 86_400)
                clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
                at = f"2025-02-{day + 1:02}T{clock}.{millisecond:03}Z"
                user = (bits >> 10 & 0xFFFFFF) % users
                email = f"user{user}@{domains[user % len(domains)]}"
                if kind in (20, 21):
                    counts["rejected"] += 1
                    identifier, at, email = (
                        ("", at, email) if bits >> 20 & 1 else (identifier, "2025-02-30" + at[10:], "nobody")
                    )
                line = (
                    f"{identifier},{at},{email},{COUNTRIES[bits >> 34 & 7]},/page/{(bits >> 37 & 0xFFFF) % 300},"
                    f"{ACTIONS[(bits >> 53 & 0xFF) % 12]},{TAGS[bits >> 61 & 7]}\n"
                )
                file.write(line)
                if kind in (20, 21):
                    continue
                counts["events"] += 1
                if kind >= 22:
                    recent.append(line)
                    if bits >> 100 & 15 == 0:
                        ids.append(identifier)
                if len(recent) > 2 * REACH_BACK:
                    del recent[:REACH_BACK]
                    del ids[: len(ids) // 2]
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="generate_events", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args(argv)
    print(json.dumps(generate_events(arguments.folder, arguments.rows, arguments.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
