"""What the sample feeds share: the shape of a file, of its counts, and the people in them."""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# Countries by how often a customer lives there: one home market and a tail, as shops have.
COUNTRIES = {
    "United Kingdom": 60,
    "Germany": 12,
    "France": 9,
    "Ireland": 5,
    "Spain": 5,
    "Japan": 4,
    "Côte d'Ivoire": 2,
    "Norway": 3,
}


@dataclass(frozen=True)
class Customer:
    """Someone who may buy, write reviews, or both."""

    customer_id: int
    country: str
    activity: float  # a few customers are many times as active as the rest
    buys: bool
    reviews: bool


@dataclass
class SampleFile:
    """One raw file, with what is known about it.

    ``rejected`` counts broken records by kind; each broken record has one defect only.
    ``duplicates_within`` counts records whose natural key came earlier in the same file.
    """

    name: str
    content: bytes
    records: int
    rejected: Counter[str] = field(default_factory=Counter)
    duplicates_within: int = 0

    def counts(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "duplicates_within": self.duplicates_within,
            "rejected": dict(sorted(self.rejected.items())),
        }


@dataclass
class SampleFeed:
    """One feed's files, and what a correct pipeline finds in them."""

    name: str
    files: list[SampleFile]
    duplicates: int  # over all files; which file's copy survives is the pipeline's choice
    facts: dict[str, Any]

    def manifest(self) -> dict[str, Any]:
        records = sum(file.records for file in self.files)
        rejected = sum((file.rejected for file in self.files), Counter[str]())
        return {
            "records": records,
            "accepted": records - self.duplicates - rejected.total(),
            "duplicates": self.duplicates,
            "rejected": rejected.total(),
            "rejected_by_kind": dict(sorted(rejected.items())),
            "files": {file.name: file.counts() for file in self.files},
            "facts": self.facts,
        }


def random_for(seed: int, purpose: str) -> random.Random:
    """A stream of its own per purpose: a change in one feed leaves the others as they are."""
    return random.Random(f"{seed}:{purpose}")


def at_least_one(rows: int, share: float) -> int:
    """How many of ``rows`` get a kind of dirt: its share, and one at least at any scale."""
    return max(1, round(rows * share))


def make_customers(seed: int, scale: float) -> list[Customer]:
    """220 customers at scale 1, of whom one in eight only writes and one in three only buys."""
    rng = random_for(seed, "customers")
    count = min(5_900, max(24, round(220 * scale)))
    customers = []
    for position, customer_id in enumerate(rng.sample(range(12_346, 18_288), count)):
        only_reviews = position % 8 == 0
        customers.append(
            Customer(
                customer_id=customer_id,
                country=rng.choices(list(COUNTRIES), list(COUNTRIES.values()))[0],
                activity=rng.lognormvariate(0, 0.9),
                buys=not only_reviews,
                reviews=only_reviews or position % 3 != 1,
            )
        )
    return customers


def spread(rng: random.Random, rows: list[Any], extra: Iterable[Any]) -> None:
    """Put each extra row at a random place among the rows."""
    for row in extra:
        rows.insert(rng.randint(0, len(rows)), row)
