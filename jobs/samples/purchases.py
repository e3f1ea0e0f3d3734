"""The shop's invoices: December 2010 under the old header, January 2011 under the new one.

There is no natural key and so there are no duplicates: a line that stands twice in an
invoice was sold twice, and both rows stay.
"""

import csv
import io
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from jobs.samples.model import (
    Customer,
    SampleFeed,
    SampleFile,
    at_least_one,
    random_for,
    spread,
)

LINES_PER_FILE = 4_000
OLD_HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
NEW_HEADER = "invoice_number,stock_code,detail,quantity,invoice_date,unit_price,customer_id,country"

# Unusual but right.
GUEST_INVOICES = 0.20
RETURN_INVOICES = 0.04
REPEATED_LINES = 0.01
NUMBERS_WITH_POINT_ZERO = 0.05  # customer 17850 written as 17850.0
EMPTY_DESCRIPTIONS = 0.003
FREE_LINES = 0.005
# Wrong.
BROKEN = {
    "quantity_not_a_number": 0.001,
    "unit_price_not_a_number": 0.001,
    "invoice_number_missing": 0.001,
    "invoice_date_impossible": 0.001,
    "too_few_columns": 0.001,
}

MATERIALS = ("Cork", "Walnut", "Slate", "Linen", "Brass", "Felt", "Bamboo", "Glazed")
THINGS = (
    "bookend",
    "bread bin",
    "coaster, set of 6",
    "doorstop",
    "fruit bowl",
    "garden lantern",
    "jewellery tray",
    "kitchen timer",
    "napkin ring",
    "pencil case",
    "picture frame",
    "plant pot",
    "shopping bag",
    "trinket box",
    "wall clock",
)
AWKWARD_PRODUCTS = (
    'Frame 8" x 10", oak',
    'Mug "Good morning"',
    "Café cups, blue & white",
    "Gift voucher £10",
    "Teapot 日本, cast iron",
    "Hamper:\nhoney, jam, tea",
    "Crème brûlée dishes",
    "O'Malley's egg timer",
)


@dataclass(frozen=True)
class Product:
    stock_code: str
    description: str
    unit_price: Decimal


@dataclass(frozen=True)
class Line:
    invoice_number: str
    product: Product
    quantity: int
    invoice_date: datetime
    customer_id: int | None
    country: str

    @property
    def amount(self) -> Decimal:
        return self.quantity * self.product.unit_price


def make_purchases(seed: int, scale: float, customers: list[Customer]) -> SampleFeed:
    rng = random_for(seed, "purchases")
    lines_per_file = max(60, round(LINES_PER_FILE * scale))
    buyers = [customer for customer in customers if customer.buys]
    products = _catalogue(rng)

    december = _invoices(rng, buyers, products, datetime(2010, 12, 1, tzinfo=UTC), 536_401, lines_per_file)
    january = _invoices(rng, buyers, products, datetime(2011, 1, 4, tzinfo=UTC), 541_001, lines_per_file)
    files = [
        _file(rng, "retail-2010-12.csv", OLD_HEADER, december, "\r\n"),
        _file(rng, "retail-2011-01.csv", NEW_HEADER, january, "\n"),
    ]
    return SampleFeed("purchases", files, duplicates=0, facts=_facts(december + january))


def _facts(lines: list[Line]) -> dict[str, Any]:
    """What a correct ``user_purchase`` table and the views over it show. Amounts are exact."""
    spent: defaultdict[int, Decimal] = defaultdict(Decimal)
    for line in lines:
        if line.customer_id is not None:
            spent[line.customer_id] += line.amount
    ranked = sorted(spent.items(), key=lambda entry: (-entry[1], entry[0]))
    return {
        "invoices": len({line.invoice_number for line in lines}),
        "customers": len(spent),
        "without_customer": sum(line.customer_id is None for line in lines),
        "returns": sum(line.quantity < 0 for line in lines),
        "exact_repeats": len(lines) - len(set(lines)),
        "amount": str(sum((line.amount for line in lines), Decimal())),
        "top_5_customers": [[customer, str(amount)] for customer, amount in ranked[:5]],
    }


def _catalogue(rng: random.Random) -> list[Product]:
    names = [f"{material} {thing}" for material in MATERIALS for thing in THINGS]
    names += AWKWARD_PRODUCTS
    return [
        Product(
            stock_code=f"{20_100 + 7 * position}{rng.choice(['', '', '', 'A', 'B'])}",
            description=name,
            # A few prices have three decimals, as unit prices of large packs do.
            unit_price=Decimal(rng.randint(425, 24_950) // 5 * 5).scaleb(-3)
            if position % 15 == 0
            else Decimal(rng.randint(42, 2_495)).scaleb(-2),
        )
        for position, name in enumerate(names)
    ]


def _invoices(
    rng: random.Random,
    buyers: list[Customer],
    products: list[Product],
    first_day: datetime,
    first_number: int,
    line_count: int,
) -> list[Line]:
    """About ``line_count`` lines: whole invoices, in the order of time."""
    weights = [buyer.activity for buyer in buyers]
    minutes_apart = 23 * 24 * 60 / (line_count / 6)  # some three weeks, six lines an invoice
    minute = 7 * 60 + 26.0
    number = first_number
    lines: list[Line] = []
    while len(lines) < line_count:
        buyer = rng.choices(buyers, weights)[0]
        is_return = rng.random() < RETURN_INVOICES
        is_guest = not is_return and rng.random() < GUEST_INVOICES
        invoice_number = f"C{number}" if is_return else str(number)
        basket = rng.sample(products, rng.randint(1, 3 if is_return else 11))
        for product in basket:
            if rng.random() < FREE_LINES:
                product = replace(product, unit_price=Decimal("0.00"))
            if rng.random() < EMPTY_DESCRIPTIONS:
                product = replace(product, description="")
            pieces = rng.choice([1, 1, 2, 2, 3, 4, 6, 6, 12, 24])
            line = Line(
                invoice_number=invoice_number,
                product=product,
                quantity=-pieces if is_return else pieces,
                invoice_date=first_day + timedelta(minutes=int(minute)),
                customer_id=None if is_guest else buyer.customer_id,
                country=buyer.country,
            )
            lines.append(line)
            if rng.random() < REPEATED_LINES:
                lines.append(line)
        number += 1
        minute += rng.expovariate(1 / minutes_apart)
    return lines


def _file(rng: random.Random, name: str, header: str, lines: list[Line], line_end: str) -> SampleFile:
    is_old = header == OLD_HEADER
    rows = [_row(rng, line, is_old) for line in lines]
    rejected: Counter[str] = Counter()
    for kind, share in BROKEN.items():
        count = at_least_one(len(lines), share)
        victims = [_row(rng, line, is_old) for line in rng.sample(lines, count)]
        spread(rng, rows, [_broken(kind, row) for row in victims])
        rejected[kind] = count

    text = io.StringIO(newline="")
    text.write(header + line_end)
    csv.writer(text, lineterminator=line_end).writerows(rows)
    return SampleFile(name, text.getvalue().encode(), records=len(rows), rejected=rejected)


def _row(rng: random.Random, line: Line, is_old: bool) -> list[str]:
    at = line.invoice_date
    us_date = f"{at.month}/{at.day}/{at.year} {at.hour}:{at.minute:02}"
    customer_id = "" if line.customer_id is None else str(line.customer_id)
    if customer_id and rng.random() < NUMBERS_WITH_POINT_ZERO:
        customer_id += ".0"
    return [
        line.invoice_number,
        line.product.stock_code,
        line.product.description,
        str(line.quantity),
        us_date if is_old else at.replace(tzinfo=None).isoformat(),
        str(line.product.unit_price),
        customer_id,
        line.country,
    ]


def _broken(kind: str, row: list[str]) -> list[str]:
    """A row with this one defect. The line that it was made from is in the file as well."""
    invoice_number, stock_code, description, quantity, at, unit_price, customer_id, country = row
    if kind == "quantity_not_a_number":
        quantity = "abc"
    elif kind == "unit_price_not_a_number":
        unit_price = "NaN"
    elif kind == "invoice_number_missing":
        invoice_number = ""
    elif kind == "invoice_date_impossible":
        at = "13/45/2011 8:26"
    elif kind == "too_few_columns":
        return [invoice_number, stock_code, description]
    return [invoice_number, stock_code, description, quantity, at, unit_price, customer_id, country]
