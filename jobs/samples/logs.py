"""The app's log: ten daily files of user actions, around a leap day.

Events come in sessions (login, some browsing, at times a purchase, logout), so that
actions, devices and hours of the day relate to each other as in a real log.
"""

import gzip
import io
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

from jobs.samples.model import (
    Customer,
    SampleFeed,
    SampleFile,
    at_least_one,
    random_for,
    spread,
)

FIRST_DAY = date(2024, 2, 24)  # the sixth of the ten days is 29 February
DAYS = 10
EVENTS_PER_DAY = 2_000
SUFFIXES = ("json", "jsonl", "jsonl.gz")  # taken in turn

BROWSING = {"view": 52, "click": 27, "search": 12, "add_to_cart": 9}
DEVICES = {"Web": 40, "Android": 32, "iOS": 25, "Smart TV": 3}
# Each with the offset that its app writes, when it writes one.
LOCATIONS = {
    "Berlin": 1,
    "Munich": 1,
    "Zürich": 1,
    "Cairo": 2,
    "New York": -5,
    "São Paulo": -3,
    "London": 0,
    "東京": 9,
}
MAX_ACTION_TYPE = 100

# Dirt, as a share of a day's events. Every kind is in every file that can hold it.
COPIES_WITHIN_FILE = 0.004
COPIES_OF_YESTERDAY = 0.004
COPIES_SPELT_ANOTHER_WAY = 0.001
GARBAGE_LINES = 0.002
BROKEN = {
    "user_id_missing": 0.002,
    "action_type_blank": 0.001,
    "action_type_too_long": 0.001,
    "timestamp_impossible": 0.002,
    "timestamp_epoch_milliseconds": 0.001,
}
GARBAGE = (
    "Traceback (most recent call last):",
    "<<<<<<< HEAD",
    "2024-02-24 10:15:02,113 WARN  c.shop.LogShipper - buffer full, 3 events dropped",
    '{"user_id": "user_12", "timestamp": "2024-02-2',
    "\x00\x00\x00\x00",
    '"action_type": "view", "metadata": {"device": "Web"}}',
)


@dataclass(frozen=True)
class Person:
    user_id: str | int
    device: str
    second_device: str
    location: str
    activity: float


@dataclass(frozen=True)
class Event:
    user_id: str | int
    action_type: str
    at: datetime  # UTC
    device: str
    location: str
    precision: str  # of the written timestamp: seconds, milliseconds or microseconds
    offset: timezone | None  # None: written without one, which means UTC
    extra: dict[str, Any] = field(default_factory=dict)
    without: frozenset[str] = frozenset()  # metadata, null metadata, device, location

    @property
    def natural_key(self) -> tuple[str, datetime, str]:
        """An event is the same event whatever spelling its time or its user's number has."""
        return str(self.user_id), self.at, self.action_type


def make_logs(seed: int, scale: float, customers: list[Customer]) -> SampleFeed:
    rng = random_for(seed, "logs")
    people = _people(rng, scale, customers)
    events_per_day = max(20, round(EVENTS_PER_DAY * scale))
    taken: set[tuple[str, datetime, str]] = set()
    accepted: dict[tuple[str, datetime, str], Event] = {}

    files: list[SampleFile] = []
    yesterday: list[Event] = []
    for number in range(DAYS):
        day = FIRST_DAY + timedelta(days=number)
        suffix = SUFFIXES[number % len(SUFFIXES)]
        session_events = _day_of_sessions(rng, people, day, taken)
        good = [
            _with_oddities(rng, event, number) for event in itertools.islice(session_events, events_per_day)
        ]
        copies = rng.choices(good, k=at_least_one(events_per_day, COPIES_WITHIN_FILE))
        respelt = [
            _spelt_another_way(event)
            for event in rng.choices(good, k=at_least_one(events_per_day, COPIES_SPELT_ANOTHER_WAY))
        ]
        late_count = at_least_one(events_per_day, COPIES_OF_YESTERDAY)
        late = rng.sample(yesterday, late_count) if yesterday else []

        records = [_record(event) for event in good]
        spread(rng, records, (_record(event) for event in copies + respelt + late))
        rejected: Counter[str] = Counter()
        for kind, share in BROKEN.items():
            count = at_least_one(events_per_day, share)
            victims = itertools.islice(session_events, count)
            spread(rng, records, [_broken(rng, kind, event) for event in victims])
            rejected[kind] = count
        garbage: list[str] = []
        if suffix != "json":
            garbage = rng.choices(GARBAGE, k=at_least_one(events_per_day, GARBAGE_LINES))
            rejected["garbage_line"] = len(garbage)

        files.append(
            SampleFile(
                name=f"app-{day}.{suffix}",
                content=_encode(rng, suffix, records, garbage),
                records=len(records) + len(garbage),
                rejected=rejected,
                duplicates_within=len(copies) + len(respelt),
            )
        )
        accepted.update((event.natural_key, event) for event in good)
        yesterday = good

    records_read = sum(file.records for file in files)
    rejected_in_all = sum(file.rejected.total() for file in files)
    return SampleFeed(
        name="logs",
        files=files,
        duplicates=records_read - rejected_in_all - len(accepted),
        facts=_facts(list(accepted.values())),
    )


def _facts(events: list[Event]) -> dict[str, Any]:
    """What the star schema holds once these events are in it."""
    devices = {_metadata_value(event, "device") for event in events}
    locations = {_metadata_value(event, "location") for event in events}
    return {
        "users": len({str(event.user_id) for event in events}),
        "actions": dict(sorted(Counter(event.action_type for event in events).items())),
        "devices": sorted(device for device in devices if device is not None),
        "locations": sorted(place for place in locations if place is not None),
        "without_device": sum(_metadata_value(event, "device") is None for event in events),
        "without_location": sum(_metadata_value(event, "location") is None for event in events),
        "first_event_at": min(event.at for event in events).isoformat(),
        "last_event_at": max(event.at for event in events).isoformat(),
        "unknown_fields": ["app_version", "metadata.os_version"],
    }


def _people(rng: random.Random, scale: float, customers: list[Customer]) -> list[Person]:
    """200 users at scale 1; every seventh logs in with a customer number, a JSON number."""
    count = max(14, round(200 * scale))
    numbers = itertools.cycle([customer.customer_id for customer in customers if customer.buys])
    people = []
    for position in range(count):
        is_number = position % 7 == 0 and position // 7 < len(customers) // 2
        devices = rng.choices(list(DEVICES), list(DEVICES.values()), k=2)
        people.append(
            Person(
                user_id=next(numbers) if is_number else f"user_{position + 1}",
                device=devices[0],
                second_device=devices[1],
                location=rng.choice(list(LOCATIONS)),
                activity=rng.lognormvariate(0, 0.8),
            )
        )
    return people


def _day_of_sessions(
    rng: random.Random,
    people: list[Person],
    day: date,
    taken: set[tuple[str, datetime, str]],
) -> Iterator[Event]:
    """Endless events of one day, session after session; no two share a natural key."""
    midnight = datetime.combine(day, time(), tzinfo=UTC)
    weights = [person.activity for person in people]
    while True:
        person = rng.choices(people, weights)[0]
        device = person.device if rng.random() < 0.8 else person.second_device
        offset_hours = LOCATIONS[person.location]
        offset = timezone(timedelta(hours=offset_hours)) if rng.random() < 0.3 else None
        precision = rng.choices(("microseconds", "milliseconds", "seconds"), (6, 2, 2))[0]
        # Evenings are busy; a session stays on its day.
        second_of_day = min(82_800.0, max(60.0, rng.gauss(61_000, 14_000)))
        for action_type in _session_actions(rng):
            second_of_day = min(86_399.0, second_of_day + rng.expovariate(1 / 25))
            at = _cut(midnight + timedelta(seconds=second_of_day), precision)
            while (str(person.user_id), at, action_type) in taken:
                at -= timedelta(seconds=1)
            taken.add((str(person.user_id), at, action_type))
            yield Event(person.user_id, action_type, at, device, person.location, precision, offset)


def _session_actions(rng: random.Random) -> list[str]:
    browsing = rng.choices(list(BROWSING), list(BROWSING.values()), k=rng.randint(2, 14))
    bought = ["purchase"] if "add_to_cart" in browsing and rng.random() < 0.6 else []
    left = ["logout"] if rng.random() < 0.7 else []
    return ["login", *browsing, *bought, *left]


def _cut(at: datetime, precision: str) -> datetime:
    if precision == "seconds":
        return at.replace(microsecond=0)
    if precision == "milliseconds":
        return at.replace(microsecond=at.microsecond // 1000 * 1000)
    return at


def _with_oddities(rng: random.Random, event: Event, day_number: int) -> Event:
    """Unusual but right: missing metadata, and fields that the contract does not know."""
    chance = rng.random()
    if chance < 0.004:
        return replace(event, without=frozenset({"null metadata"}))
    if chance < 0.006:
        return replace(event, without=frozenset({"metadata"}))
    if chance < 0.012:
        return replace(event, without=frozenset({"device"}))
    if chance < 0.018:
        return replace(event, without=frozenset({"location"}))
    if day_number >= 6 and chance < 0.30:  # the app's new release, rolled out from here on
        extra = {"app_version": rng.choice(["5.0.0", "5.0.1"])}
        if event.device in ("Android", "iOS"):
            extra["metadata.os_version"] = str(rng.randint(13, 17))
        return replace(event, extra=extra)
    return event


def _metadata_value(event: Event, name: str) -> str | None:
    if event.without & {"metadata", "null metadata", name}:
        return None
    return event.device if name == "device" else event.location


def _spelt_another_way(event: Event) -> Event:
    """The same event from another log shipper: another offset, numbers as text."""
    offset = timezone(timedelta(hours=5, minutes=30)) if event.offset is None else None
    return replace(event, user_id=str(event.user_id), offset=offset)


def _timestamp(event: Event) -> str:
    if event.offset is None:
        return event.at.replace(tzinfo=None).isoformat(timespec=event.precision)
    text = event.at.astimezone(event.offset).isoformat(timespec=event.precision)
    return text.replace("+00:00", "Z")


def _record(event: Event) -> dict[str, Any]:
    record: dict[str, Any] = {
        "user_id": event.user_id,
        "timestamp": _timestamp(event),
        "action_type": event.action_type,
    }
    if "null metadata" in event.without:
        record["metadata"] = None
    elif "metadata" not in event.without:
        metadata = {"device": event.device, "location": event.location}
        if "metadata.os_version" in event.extra:
            metadata["os_version"] = event.extra["metadata.os_version"]
        record["metadata"] = {name: value for name, value in metadata.items() if name not in event.without}
    if "app_version" in event.extra:
        record["app_version"] = event.extra["app_version"]
    return record


def _broken(rng: random.Random, kind: str, event: Event) -> dict[str, Any]:
    """A record with this one defect, made from an event that is used nowhere else."""
    record = _record(event)
    if kind == "user_id_missing":
        if rng.random() < 0.5:
            del record["user_id"]
        else:
            record["user_id"] = None
    elif kind == "action_type_blank":
        record["action_type"] = rng.choice(["", "   "])
    elif kind == "action_type_too_long":
        record["action_type"] = "view " * (MAX_ACTION_TYPE // 5) + "again"
    elif kind == "timestamp_impossible":
        record["timestamp"] = rng.choice(
            ["2025-02-30T10:00:00", "2023-02-29T08:15:30Z", "2024-13-01T00:00:00", "yesterday"]
        )
    elif kind == "timestamp_epoch_milliseconds":
        record["timestamp"] = round(event.at.timestamp() * 1000)
    return record


def _encode(rng: random.Random, suffix: str, records: list[dict[str, Any]], garbage: list[str]) -> bytes:
    if suffix == "json":  # \uXXXX escapes here, plain UTF-8 in the line files: both occur
        return (json.dumps(records, indent=1) + "\n").encode()
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    spread(rng, lines, garbage)
    content = "".join(f"{line}\n" for line in lines).encode()
    if suffix == "jsonl":
        return content
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as file:
        file.write(content)
    return buffer.getvalue()
