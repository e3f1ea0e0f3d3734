"""Accounts as an identity provider exports them: all in June; in July new, changed, repeated and belated ones."""

import csv
import io
import random
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from jobs.samples.model import SampleFeed, SampleFile, random_for, spread

USERS = 600
# Shares of June's users that July's file has again: with changes, as they were, and as they were before June.
CHANGED, REPEATED, BELATED = 0.12, 0.05, 0.02
JOINED = 0.1
HEADER = (
    "id",
    "first_name",
    "last_name",
    "email",
    "gender",
    "ip_address",
    "created_at",
    "updated_at",
    "password",
    "status",
)
FIRST_NAMES = (
    "Ana Björn Chloé Dmitri Emeka Fatima Grace Hana Ivo Jörg Kenji Léa Marta Nils Olu Priya Rosa".split()
)
LAST_NAMES = (
    "Adeyemi Baker Castro D'Souza Eriksen Fischer García Hughes Ito Jansen Kowalski Łuczak Müller Nowak "
    "O'Brien Petit Rossi Silva Tanaka Weiß"
).split()
DOMAINS = ("example.com", "mail.example.org", "example.net")
GENDERS = ("female", "male", "non-binary", "")
STATUSES = ("active", "active", "active", "invited", "blocked")
BCRYPT = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# Addresses that cannot be located, and why.
UNLOCATABLE = (
    "192.168.1.20",
    "10.0.0.7",
    "127.0.0.1",
    "224.0.0.251",
    "fd12:3456::1",
    "999.1.2.3",
    "unknown",
    "",
)


@dataclass(frozen=True)
class User:
    number: int
    first_name: str
    last_name: str
    email: str
    gender: str
    ip_address: str
    created_at: datetime
    updated_at: datetime
    password: str
    status: str

    def row(self) -> list[str]:
        style = "%Y-%m-%dT%H:%M:%SZ"
        return [
            str(self.number),
            self.first_name,
            self.last_name,
            self.email,
            self.gender,
            self.ip_address,
            self.created_at.strftime(style),
            self.updated_at.strftime(style),
            self.password,
            self.status,
        ]


def make_users(seed: int, scale: float) -> SampleFeed:
    rng = random_for(seed, "users")
    count = max(60, round(USERS * scale))
    june = [_user(rng, number, datetime(2023, 1, 1, tzinfo=UTC)) for number in range(1, count + 1)]
    chosen = rng.sample(june, round(count * (CHANGED + REPEATED + BELATED)))
    changed = [_changed(rng, user) for user in chosen[: round(count * CHANGED)]]
    repeated = chosen[len(changed) : len(changed) + round(count * REPEATED)]
    belated = [_before(user) for user in chosen[len(changed) + len(repeated) :]]
    joined = [
        _user(rng, count + number, datetime(2024, 6, 30, tzinfo=UTC))
        for number in range(1, round(count * JOINED) + 1)
    ]
    july = [*joined, *(_respelt(rng, user) for user in (*changed, *repeated, *belated))]
    files = [_file(rng, "users-2024-06.csv", june, 0), _file(rng, "users-2024-07.csv", july, len(repeated))]
    facts = {
        "users": len(june) + len(joined),
        "updated_users": len(changed) + len(belated),
        "versions": len(june) + len(joined) + len(changed) + len(belated),
    }
    return SampleFeed("users", files, duplicates=len(repeated), facts=facts)


def _user(rng: random.Random, number: int, since: datetime) -> User:
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    created = since + timedelta(seconds=rng.randrange(20 * 86_400))
    return User(
        number=number,
        first_name=first,
        last_name=last,
        email=f"{first}.{last}{number}@{rng.choice(DOMAINS)}".lower().replace("'", ""),
        gender=rng.choice(GENDERS),
        ip_address=_address(rng),
        created_at=created,
        updated_at=created + timedelta(days=rng.randrange(1, 9)),
        password=_hash(rng),
        status=rng.choice(STATUSES),
    )


def _changed(rng: random.Random, user: User) -> User:
    """As in July: another status, and for some another address or password."""
    others = [status for status in ("active", "blocked", "closed") if status != user.status]
    return replace(
        user,
        status=rng.choice(others),
        ip_address=_address(rng) if rng.random() < 0.3 else user.ip_address,
        password=_hash(rng) if rng.random() < 0.2 else user.password,
        updated_at=datetime(2024, 7, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(20 * 86_400)),
    )


def _before(user: User) -> User:
    """As before June's file: it comes late, and must not overwrite what is newer."""
    return replace(user, status="registered", updated_at=user.created_at)


def _respelt(rng: random.Random, user: User) -> User:
    """The same e-mail address in other letters, which makes no other user and no other version."""
    return replace(user, email=f" {user.email.title()} ") if rng.random() < 0.3 else user


def _address(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.04:
        return rng.choice(UNLOCATABLE)
    if kind < 0.12:
        return (
            f"2a02:{rng.randrange(0x1000, 0xFFFF):x}:{rng.randrange(0xFFFF):x}::{rng.randrange(1, 0xFFFF):x}"
        )
    return ".".join(str(rng.randrange(low, high)) for low, high in ((11, 100), (1, 254), (0, 254), (1, 254)))


def _hash(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.15:
        return f"{rng.getrandbits(128):032x}"
    if kind < 0.4:
        return f"{rng.getrandbits(256):064x}"
    if kind < 0.8:
        return "$2b$12$" + "".join(rng.choices(BCRYPT, k=53))
    letters = BCRYPT.replace(".", "+")
    salt, digest = ("".join(rng.choices(letters, k=k)) for k in (22, 43))
    return f"$argon2id$v=19$m=65536,t=3,p=4${salt}${digest}"


def _file(rng: random.Random, name: str, users: list[User], duplicates: int) -> SampleFile:
    rows = [user.row() for user in users]
    rng.shuffle(rows)
    broken = _broken(rng, users)
    spread(rng, rows, [row for _, row in broken])
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([HEADER, *rows])
    return SampleFile(
        name=name,
        content=text.getvalue().encode(),
        records=len(rows),
        rejected=Counter(kind for kind, _ in broken),
        duplicates_within=0,
    )


def _broken(rng: random.Random, users: list[User]) -> list[tuple[str, list[str]]]:
    def row(**columns: str) -> list[str]:
        return [columns.get(name, value) for name, value in zip(HEADER, rng.choice(users).row(), strict=True)]

    return [
        *(
            ("password_in_plain_text", row(password=text))
            for text in ("correct horse", "Sommer2024!", "12345678")
        ),
        ("email_missing", row(email="")),
        ("email_without_domain", row(email="nobody@")),
        ("created_at_impossible", row(created_at="2024-02-30T10:00:00Z")),
        ("too_few_columns", row()[:6]),
    ]
