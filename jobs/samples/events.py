"""Requests to the shop's web site, one CSV per month.

An event's id is a UUID, made by clients of which a few make the same one twice: the same
event sent again is a duplicate, another event under the same id is a clash.
"""

import csv
import io
import random
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.samples.model import (
    COUNTRIES,
    SampleFeed,
    SampleFile,
    at_least_one,
    random_for,
    spread,
)

EVENTS_PER_FILE = 2_000
HEADER = "id,timestamp,email,country,uri,action,tags"

# Unusual but right.
WITHOUT_COUNTRY = 0.02
WITHOUT_TAGS = 0.10
CAPITAL_ADDRESSES = 0.05
LATE_EVENTS = 0.02  # of the month before
CLASHES = 0.01
# Not counted, or wrong.
DUPLICATES = 0.015
BROKEN = {
    "id_missing": 0.001,
    "email_without_domain": 0.001,
    "timestamp_impossible": 0.001,
    "too_many_columns": 0.001,
}

FIRST_NAMES = "Aoife Ben Carla Dmitri Ebru Femi Greta Hugo Ines Jun Kofi Lena Mads Noor Otto Pia".split()
LAST_NAMES = "Akinola Berg Castro Duval Evans Fischer García Horvat Ito Jensen Kaya Lindqvist".split()
# Domains of addresses, with the company that a correct pipeline finds behind them.
DOMAINS = {
    "gmail.com": None,
    "yahoo.co.jp": None,
    "web.de": None,
    "mail.northwind.co.uk": ("northwind", "northwind.co.uk"),
    "northwind.com": ("northwind", "northwind.com"),
    "harbour-glass.de": ("harbour-glass", "harbour-glass.de"),
    "it.kasuga.co.jp": ("kasuga", "kasuga.co.jp"),
    "ostrava-trams.com.br": ("ostrava-trams", "ostrava-trams.com.br"),
}
# What is done where: mostly anything anywhere, but carts are paid and articles are read.
PAGES = {
    "/": 30,
    "/products": 25,
    "/products/walnut-bookend": 12,
    "/blog/caring-for-cork": 10,
    "/cart": 10,
    "/checkout": 5,
    "/account": 8,
}
ACTIONS = {"view": 70, "click": 18, "search": 7, "purchase": 2, "logout": 3}
FAVOURITES = {"/checkout": "purchase", "/account": "logout", "/products": "search"}
TAGS = {"mobile": 40, "desktop": 35, "campaign": 15, "newsletter": 12, "first visit": 10, "sale": 8}
SEPARATORS = (",", ",", ",", "; ", "|")


@dataclass(frozen=True)
class Visitor:
    """Someone with an address; a few are many times as active as the rest."""

    email: str
    domain: str
    country: str
    activity: float


@dataclass(frozen=True)
class Event:
    id: str
    timestamp: datetime
    visitor: Visitor
    country: str
    uri: str
    action: str
    tags: tuple[str, ...]


def make_events(seed: int, scale: float) -> SampleFeed:
    rng = random_for(seed, "events")
    visitors = _visitors(rng, max(12, round(120 * scale)))
    per_file = max(60, round(EVENTS_PER_FILE * scale))
    months = [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)]
    february = [
        _event(rng, visitors, months[0 if rng.random() < LATE_EVENTS else 1])
        for _ in range(round(per_file * 1.2))
    ]
    january = [_event(rng, visitors, months[0]) for _ in range(per_file)]
    clashes = []
    for first in rng.sample(january, at_least_one(per_file, CLASHES)):
        clashes.append(replace(_event(rng, visitors, months[1]), id=first.id))
    spread(rng, february, clashes)

    again = rng.sample(january, at_least_one(per_file, DUPLICATES))
    files = [
        _file(rng, "events-2024-01.csv", january, again[::2], 0),
        _file(rng, "events-2024-02.csv", february, again[1::2], len(again[1::2])),
    ]
    return SampleFeed("events", files, duplicates=len(again), facts=_facts(january + february))


def _visitors(rng: random.Random, count: int) -> list[Visitor]:
    visitors = []
    for number in range(count):
        first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
        domain = rng.choice(list(DOMAINS))
        visitors.append(
            Visitor(
                email=f"{first}.{last}{number}@{domain}".lower(),
                domain=domain,
                country=rng.choices(list(COUNTRIES), list(COUNTRIES.values()))[0],
                activity=rng.lognormvariate(0, 0.9),
            )
        )
    return visitors


def _event(rng: random.Random, visitors: list[Visitor], month: datetime) -> Event:
    visitor = rng.choices(visitors, [visitor.activity for visitor in visitors])[0]
    uri = rng.choices(list(PAGES), list(PAGES.values()))[0]
    action = rng.choices(list(ACTIONS), list(ACTIONS.values()))[0]
    if uri in FAVOURITES and rng.random() < 0.4:
        action = FAVOURITES[uri]
    tags: tuple[str, ...] = ()
    if rng.random() >= WITHOUT_TAGS:
        # Each once: dictionaries keep their order, sets do not.
        tags = tuple(dict.fromkeys(rng.choices(list(TAGS), list(TAGS.values()), k=rng.randint(1, 3))))
    return Event(
        id=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        timestamp=month + timedelta(milliseconds=rng.randrange(28 * 24 * 3_600_000)),
        visitor=visitor,
        country="" if rng.random() < WITHOUT_COUNTRY else visitor.country,
        uri=uri,
        action=action,
        tags=tags,
    )


def _file(
    rng: random.Random, name: str, events: list[Event], again: list[Event], from_other_file: int
) -> SampleFile:
    rows = [_row(rng, event) for event in events]
    spread(rng, rows, [_row(rng, event) for event in again])
    rejected: Counter[str] = Counter()
    for kind, share in BROKEN.items():
        count = at_least_one(len(events), share)
        broken = [_broken(kind, _row(rng, event)) for event in rng.sample(events, count)]
        spread(rng, rows, broken)
        rejected[kind] = count
    text = io.StringIO(newline="")
    text.write(HEADER + "\n")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return SampleFile(
        name,
        text.getvalue().encode(),
        records=len(rows),
        rejected=rejected,
        duplicates_within=len(again) - from_other_file,
    )


def _row(rng: random.Random, event: Event) -> list[str]:
    at = event.timestamp.isoformat(timespec="milliseconds")
    email = event.visitor.email
    return [
        event.id,
        rng.choice([at, at.replace("+00:00", "Z"), at.replace("+00:00", "")]),
        email.title() if rng.random() < CAPITAL_ADDRESSES else email,
        event.country,
        event.uri,
        event.action,
        rng.choice(SEPARATORS).join(event.tags),
    ]


def _broken(kind: str, row: list[str]) -> list[str]:
    """A row with this one defect. The event that it was made from is in the file as well."""
    identifier, at, email, *rest = row
    if kind == "id_missing":
        identifier = ""
    elif kind == "email_without_domain":
        email = email.partition("@")[0]
    elif kind == "timestamp_impossible":
        at = "2024-02-30" + at[10:]
    elif kind == "too_many_columns":
        return [*row, "?"]
    return [identifier, at, email, *rest]


def _facts(events: list[Event]) -> dict[str, Any]:
    """What a correct ``events`` table and the views over it show."""
    holders: defaultdict[str, int] = defaultdict(int)
    for event in events:
        holders[event.id] += 1
    users = Counter(event.visitor.email for event in events)
    tags = Counter(tag for event in events for tag in event.tags)
    companies = Counter(
        company[1] for event in events if (company := DOMAINS[event.visitor.domain]) is not None
    )
    months = Counter(event.timestamp.strftime("%Y-%m") for event in events)
    return {
        "clashes": sum(count - 1 for count in holders.values()),
        "months": dict(sorted(months.items())),
        "users": len(users),
        "most_active_user": min(users.items(), key=lambda entry: (-entry[1], entry[0])),
        "tags": dict(sorted(tags.items())),
        "companies": dict(sorted(companies.items())),
        "without_country": sum(not event.country for event in events),
    }
