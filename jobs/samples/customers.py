"""Customers of a mail-order shop and what they ordered, one CSV each.

Who spends how much depends on age, city and how long they are customers, and much on
chance: a model can learn something about it, and not all.
"""

import csv
import io
import random
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from jobs.samples.model import SampleFeed, SampleFile, at_least_one, random_for, spread

CUSTOMERS, ORDERS = 1_000, 5_000
CUSTOMER_HEADER = ("customer_id", "name", "email", "age", "city", "registration_date")
ORDER_HEADER = ("order_id", "customer_id", "product", "quantity", "price", "order_date")
FIRST_DAY, LAST_DAY = date(2021, 1, 1), date(2023, 12, 31)

# Unusual but right.
WITHOUT_AGE, WITHOUT_CITY = 0.02, 0.01
WITHOUT_CUSTOMER, UNKNOWN_CUSTOMER = 0.005, 0.01
# Not counted, or wrong.
DUPLICATES = 0.01
BROKEN_CUSTOMERS = {"age_impossible": 0.003, "name_missing": 0.003, "registration_date_impossible": 0.003}
BROKEN_ORDERS = {"quantity_zero": 0.002, "price_not_a_number": 0.002, "order_date_impossible": 0.002}

FIRST_NAMES = (
    "Amara Bruno Chen Dalia Elias Fiona Goran Hedda Imran Julia Kato Lucía Mikkel Nadia Owen".split()
)
LAST_NAMES = "Abara Bauer Costa Dahl Ekström Ferrari Gruber Haddad Ivanov Jung Keane Lopes Meyer".split()
# City → how freely people spend there.
CITIES = {
    "Hamburg": 1.6,
    "Lyon": 0.6,
    "Porto": 0.4,
    "Zürich": 2.6,
    "Gdańsk": 0.5,
    "Dublin": 1.3,
    "Uppsala": 1.0,
    "Trieste": 0.7,
}
# Product → usual price.
PRODUCTS = {
    "Bread knife": 24,
    "Cast-iron pan": 65,
    "Coffee grinder": 89,
    "Desk lamp": 48,
    "Garden bench": 240,
    "Linen sheets, set": 130,
    "Oak table": 620,
    "Reading chair": 410,
    "Tea towel": 9,
    'Wall clock "Nord"': 75,
    "Wool blanket": 110,
    "Writing pad": 6,
}


@dataclass(frozen=True)
class Buyer:
    """A customer, with what decides how much is ordered."""

    customer_id: str
    row: list[str]
    since: date
    freedom: float  # of spending: more orders, dearer things


def make_customer_orders(seed: int, scale: float) -> list[SampleFeed]:
    """The feeds customers and orders."""
    rng = random_for(seed, "customer orders")
    buyers = [_buyer(rng, 1001 + number) for number in range(max(40, round(CUSTOMERS * scale)))]
    orders = _orders(rng, buyers, max(60, round(ORDERS * scale)))
    return [
        _feed(rng, "customers", CUSTOMER_HEADER, [buyer.row for buyer in buyers], BROKEN_CUSTOMERS, {}),
        _feed(rng, "orders", ORDER_HEADER, orders, BROKEN_ORDERS, _order_facts(buyers, orders)),
    ]


def _buyer(rng: random.Random, number: int) -> Buyer:
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    age, city = min(88, max(18, round(rng.gauss(43, 15)))), rng.choice(list(CITIES))
    since = FIRST_DAY + timedelta(days=rng.randrange(900))
    years = (LAST_DAY - since).days / 365
    freedom = CITIES[city] * (2.2 if 40 <= age < 65 else 0.8) * (0.3 + years) * rng.lognormvariate(0, 0.35)
    row = [
        str(number),
        f"{first} {last}",
        f"{first}.{last}{number}@example.com".lower(),
        "" if rng.random() < WITHOUT_AGE else str(age),
        "" if rng.random() < WITHOUT_CITY else city,
        since.isoformat(),
    ]
    return Buyer(str(number), row, since, freedom)


def _orders(rng: random.Random, buyers: list[Buyer], count: int) -> list[list[str]]:
    weights = [buyer.freedom for buyer in buyers]
    names = list(PRODUCTS)
    orders = []
    for number in range(count):
        buyer = rng.choices(buyers, weights)[0]
        # Who spends freely prefers what is dear.
        liking = [price ** min(0.8, buyer.freedom / 8) for price in PRODUCTS.values()]
        product = rng.choices(names, liking)[0]
        price = Decimal(round(PRODUCTS[product] * rng.uniform(0.85, 1.15) * 100)).scaleb(-2)
        day = buyer.since + timedelta(days=rng.randrange((LAST_DAY - buyer.since).days))
        chance = rng.random()
        customer_id = buyer.customer_id
        if chance < WITHOUT_CUSTOMER:
            customer_id = ""
        elif chance < WITHOUT_CUSTOMER + UNKNOWN_CUSTOMER:
            customer_id = str(900_000 + number)
        orders.append(
            [
                f"O{100_000 + number}",
                customer_id,
                product,
                str(rng.choice([1, 1, 1, 2, 2, 3, 4])),
                str(price),
                day.isoformat(),
            ]
        )
    return orders


def _feed(
    rng: random.Random,
    name: str,
    header: tuple[str, ...],
    good: list[list[str]],
    broken: dict[str, float],
    facts: dict[str, Any],
) -> SampleFeed:
    rows = list(good)
    again = rng.sample(good, at_least_one(len(good), DUPLICATES))
    spread(rng, rows, again)
    rejected: Counter[str] = Counter()
    for kind, share in broken.items():
        count = at_least_one(len(good), share)
        spread(rng, rows, [_broken(kind, row, number) for number, row in enumerate(rng.sample(good, count))])
        rejected[kind] = count
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    content = text.getvalue().encode()
    file = SampleFile(f"{name}.csv", content, len(rows), rejected, duplicates_within=len(again))
    return SampleFeed(name, [file], duplicates=len(again), facts=facts)


def _broken(kind: str, row: list[str], number: int) -> list[str]:
    """A record of its own with this one defect."""
    defects = {
        "age_impossible": (3, "207"),
        "name_missing": (1, ""),
        "registration_date_impossible": (5, "2022-02-30"),
        "quantity_zero": (3, "0"),
        "price_not_a_number": (4, "free"),
        "order_date_impossible": (5, "31.12.2023"),
    }
    position, value = defects[kind]
    changed = [*row]
    changed[0] = f"{row[0]}-{number}"
    changed[position] = value
    return changed


def _order_facts(buyers: list[Buyer], orders: list[list[str]]) -> dict[str, Any]:
    """What a correct ``customer_orders`` table and the analysis of it show. Amounts are exact."""
    cities = {buyer.customer_id: buyer.row[4] or "unknown" for buyer in buyers}
    by_city: Counter[str] = Counter()
    by_product: Counter[str] = Counter()
    for _, customer_id, product, quantity, price, _ in orders:
        amount = int(quantity) * Decimal(price)
        by_city[cities.get(customer_id, "unknown")] += amount  # type: ignore[assignment]
        by_product[product] += amount  # type: ignore[assignment]
    known = sum(order[1] in cities for order in orders)
    return {
        "amount": str(sum(by_product.values())),
        "without_known_customer": len(orders) - known,
        "customers": len({order[1] for order in orders if order[1]}),
        "top_city": max(by_city, key=lambda city: by_city[city]),
        "top_product": max(by_product, key=lambda product: by_product[product]),
        "amount_by_city": {city: str(amount) for city, amount in sorted(by_city.items())},
    }
