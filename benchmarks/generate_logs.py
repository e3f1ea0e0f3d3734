"""Write N log lines for the benchmarks: JSON lines, deterministic, 2 seconds a million.

The lines look like an app's log: 30 days in the order of time with small disorder, one
user per 100 lines (at least 100), 40 actions, 5 devices, 200 locations, about 140 bytes
each. Known dirt, so that a contender that skips a step shows it in its counts:

    1.0 %  exact copies of an earlier line, up to 50,000 lines back
    0.4 %  broken: user_id null or absent, action_type blank or over 100 characters,
           a timestamp that does not exist. All are valid JSON objects, because
           pandas.read_json gives up a whole chunk at a line that is not.
    1.5 %  without device, without location, or with null metadata: accepted

No two events share a natural key except the copies: each has a microsecond of its own.

    python -m benchmarks.generate_logs build/benchmarks/logs-2000000.jsonl 2000000
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

FIRST_DAY = date(2025, 5, 1)
DAYS = 30
BLOCK = 1_000  # lines whose order is mixed: log shippers deliver a little late
COPIES_REACH_BACK = 50_000

ACTIONS = [
    *("login", "logout", "view_item", "click", "search", "add_to_cart", "purchase", "share"),
    *(f"open_page_{number}" for number in range(1, 33)),
]
DEVICES = ["Web", "Web", "Web", "Android", "Android", "Android", "iOS", "iOS", "Smart TV", "Tablet"]
LOCATIONS = ["München", "São Paulo", "東京", *(f"City {number}" for number in range(4, 201))]
# As written, and by how much the written time is then ahead of UTC.
OFFSETS = [*[("", 0)] * 8, ("Z", 0), ("+02:00", 7_200)]


def generate_log_lines(
    path: Path, rows: int, seed: int = 7, first_day: date = FIRST_DAY, days: int = DAYS
) -> dict[str, int]:
    """Write the file and return its counts: lines, events, duplicates, rejected."""
    counts = {"lines": rows, "events": 0, "duplicates": 0, "rejected": 0}
    with path.open("w", encoding="utf-8", newline="", buffering=1 << 20) as file:
        for block in _blocks(rows, random.Random(seed), counts, first_day, days):
            file.writelines(block)
    return counts


def _blocks(
    rows: int, rng: random.Random, counts: dict[str, int], first_day: date, number_of_days: int
) -> Iterator[list[str]]:
    # A tight loop with one random number per line, cut into the parts that it needs:
    # 10 million calls of random.choice per column would take minutes.
    users = [f"user_{number}" for number in range(1, max(100, rows // 100) + 1)]
    days = [(first_day + timedelta(days=number)).isoformat() for number in range(number_of_days + 1)]
    seconds = [f"T{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}" for s in range(86_400)]
    metadata = _metadata_texts()
    step = number_of_days * 86_400_000_000 // max(rows, 1)  # microseconds of its own for each line
    if step < 1:
        raise ValueError(f"{rows:,} lines do not fit into {number_of_days} days with a microsecond each")
    user_count, metadata_count = len(users), len(metadata)

    recent: list[str] = []
    for start in range(0, rows, BLOCK):
        slots = list(range(start, min(start + BLOCK, rows)))
        rng.shuffle(slots)
        lines = []
        for slot in slots:
            bits = rng.getrandbits(96)
            kind = bits % 1000  # see the shares in the module's docstring
            if kind < 10 and recent:
                lines.append(recent[(bits >> 10) % len(recent)])
                counts["duplicates"] += 1
                continue
            second, microsecond = divmod(slot * step + (bits >> 10) % step, 1_000_000)
            offset, ahead = OFFSETS[(bits >> 56) % 10]
            day, second = divmod(second + ahead, 86_400)
            # The square makes some users far more active than others.
            share = (bits >> 40 & 0xFFFF) / 65_536
            user = users[int(share * share * user_count)]
            at = f"{days[day]}{seconds[second]}.{microsecond:06}{offset}"
            action = ACTIONS[(bits >> 60) % 40]
            about = metadata[(bits >> 66) % metadata_count]
            if 10 <= kind < 14:
                lines.append(_broken_line(kind, bits >> 90, user, at, action, about))
                counts["rejected"] += 1
                continue
            line = f'{{"user_id":"{user}","timestamp":"{at}","action_type":"{action}","metadata":{about}}}\n'
            lines.append(line)
            recent.append(line)
            counts["events"] += 1
        if len(recent) > 2 * COPIES_REACH_BACK:
            del recent[:-COPIES_REACH_BACK]
        yield lines


def _metadata_texts() -> list[str]:
    """Every device in every location as JSON, and 1.5 % that lack something."""
    texts = [
        f'{{"device":"{device}","location":"{location}"}}' for device in DEVICES for location in LOCATIONS
    ]
    texts += ["null"] * 10
    texts += [f'{{"location":"{location}"}}' for location in LOCATIONS[:10]]
    texts += [f'{{"device":"{device}"}}' for device in DEVICES]
    return texts


def _broken_line(kind: int, variant: int, user: str, at: str, action: str, about: str) -> str:
    who = f'"user_id":"{user}",'
    if kind == 10:
        who = '"user_id":null,' if variant % 2 else ""
    elif kind == 11:
        action = "" if variant % 2 else "  "
    elif kind == 12:
        action = action + "_again" * 20
    elif kind == 13:
        at = "2025-02-30" + at[10:] if variant % 2 else "not a time"
    return f'{{{who}"timestamp":"{at}","action_type":"{action}","metadata":{about}}}\n'


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="generate_logs", description=__doc__.split("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args(argv)
    print(json.dumps(generate_log_lines(arguments.path, arguments.rows, arguments.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
