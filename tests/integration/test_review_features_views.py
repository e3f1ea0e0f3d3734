"""The views over purchases and reviews: each side summed up before they meet."""

from __future__ import annotations

import csv
import gzip
import random
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from jobs.warehouse import postgres_publication
from jobs.warehouse.base import Load, Published
from jobs.warehouse.declarations import tables, views_over
from jobs.warehouse.postgres import PostgresWarehouse
from tests.warehouses import arrow_rows, copy_without_spark, query

pytestmark = pytest.mark.integration

AT = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
Query = Callable[[str], list[tuple[Any, ...]]]


def line(number: int, invoice: str, customer: str | None, quantity: int, price: str) -> tuple[Any, ...]:
    identifier = f"00000000-0000-8000-8000-{number:012d}"
    return (
        *(identifier, invoice, "85123A", None, quantity, Decimal(price), AT, customer, "France"),
        *(customer is None, quantity < 0),
    )


def review(number: int, customer: str, positive: bool | None) -> tuple[Any, ...]:
    probability = 0.5 if positive is None else 0.9 if positive else 0.1
    kind = "english" if positive is not None else "no_words"
    return (
        *(
            f"r{number}",
            customer,
            probability,
            positive,
            positive is not None,
            kind,
            [{"term": "a", "weight": 1.0}],
        ),
        *(3, 14, "film-reviews", "v1", AT),
    )


# 28 lines worth 948.25 and 35 reviews, 14 of them positive, as customer 13748 has in the data that the known mistake
# was made with: joined row by row, 28 · 35 = 980 rows come to 33,188.75.
PRICES = random.Random(1).choices(range(100, 6000), k=27)
LINES = [line(i, f"5{i % 5}", "13748", 1, f"{price / 100:.2f}") for i, price in enumerate(PRICES)]
LINES.append(line(27, "55", "13748", 1, f"{948.25 - sum(PRICES) / 100:.2f}"))
ROWS: dict[str, list[tuple[Any, ...]]] = {
    "user_purchase": [
        *LINES,
        line(100, "60", "buyer-only", 2, "10.0000"),
        line(101, "61", "buyer", 3, "100.0000"),
        line(102, "C62", "buyer", -1, "100.0000"),
        line(103, "63", None, 1, "9999.0000"),
        line(104, "64", "big-buyer", 1, "5000.0000"),
    ],
    "movie_review": [
        *(review(i, "13748", i < 14) for i in range(35)),
        review(100, "writer-only", True),
        review(101, "writer-only", True),
        review(102, "writer-only", False),
        review(103, "buyer", True),
        review(104, "buyer", True),
        review(105, "buyer", None),
        review(106, "unread", None),
        *(review(200 + i, "big-buyer", True) for i in range(40)),
        review(300, "x", True),
        review(301, "y", True),
    ],
}


@pytest.fixture
def published(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> Query:
    """A query on a warehouse to which ROWS and the views over them were published."""
    monkeypatch.setattr(postgres_publication, "copy_rows", copy_without_spark)
    publish(warehouse_url, ROWS)
    return lambda text: query(warehouse_url, text)


def publish(url: str, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    loads = [
        Load(tables()[n], arrow_rows(n, rows[n]), True, Published(n, 1), {"row_count": len(rows[n])})
        for n in rows
    ]
    with PostgresWarehouse(url, "analytics").publishing() as publication:
        publication.commit(loads, views_over(rows))


def test_spending_is_not_multiplied_by_reviews(published: Query) -> None:
    assert published(
        "SELECT amount_spent, purchase_line_count, review_count, positive_review_count FROM "
        "user_behaviour_metrics_view WHERE customer_id = '13748'"
    ) == [(Decimal("948.25"), 28, 35, 14)]
    wrong = "SELECT sum(quantity * unit_price) FROM user_purchase JOIN movie_review USING (customer_id) "
    assert published(wrong + "WHERE customer_id = '13748'") == [(Decimal("33188.75"),)]


def test_customers_with_one_side_only_are_there(published: Query) -> None:
    columns = "customer_id, amount_spent, review_count, judged_review_count, positive_review_count"
    assert published(
        f"SELECT {columns}, positive_review_share FROM user_behaviour_metrics_view "
        "WHERE customer_id NOT IN ('13748', 'big-buyer', 'x', 'y') ORDER BY 1"
    ) == [
        ("buyer", Decimal("200"), 3, 2, 2, 1.0),
        ("buyer-only", Decimal("20"), 0, 0, 0, None),
        ("unread", Decimal("0"), 1, 0, 0, None),
        ("writer-only", Decimal("0"), 3, 3, 2, pytest.approx(2 / 3)),
    ]
    assert published("SELECT count(*), count(DISTINCT customer_id) FROM user_behaviour_metrics_view") == [
        (8, 8)
    ]


def test_top_five_by_positive_reviews(published: Query) -> None:
    assert published(
        "SELECT customer_rank, customer_id, positive_review_count FROM top_5_customers_by_positive_reviews_view"
    ) == [(1, "big-buyer", 40), (2, "13748", 14), (3, "buyer", 2), (4, "writer-only", 2), (5, "x", 1)]


def test_correlation_is_over_customers_with_both_sides(published: Query) -> None:
    ((n, reviews, positive, judged, share),) = published(
        "SELECT * FROM correlation_amount_spent_vs_reviews_view"
    )
    assert (n, judged) == (3, 3)
    amounts = [948.25, 200.0, 5000.0]
    assert reviews == pytest.approx(pearson(amounts, [35, 3, 40]))
    assert positive == pytest.approx(pearson(amounts, [14, 2, 40]))
    assert share == pytest.approx(pearson(amounts, [0.4, 1.0, 1.0]))


def test_correlation_of_too_few_customers_is_unknown(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_publication, "copy_rows", copy_without_spark)
    publish(
        warehouse_url,
        {"user_purchase": [line(1, "1", "a", 1, "1.00")], "movie_review": [review(1, "b", True)]},
    )
    assert query(warehouse_url, "SELECT * FROM correlation_amount_spent_vs_reviews_view") == [
        (0, None, None, 0, None)
    ]


@pytest.mark.shared_data
def test_real_purchases_and_reviews(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    """The purchases of OnlineRetail.csv.gz with the review counts of movie_review.csv.gz."""
    monkeypatch.setattr(postgres_publication, "copy_rows", copy_without_spark)
    customers = {"13748", "16029", "17920"}
    purchases, reviews = [], []
    with gzip.open(shared_data / "OnlineRetail.csv.gz", "rt", encoding="utf-8", errors="replace") as file:
        for i, row in enumerate(csv.DictReader(file)):
            customer = row["CustomerID"].removesuffix(".0")
            if customer in customers:
                purchases.append(line(i, row["InvoiceNo"], customer, int(row["Quantity"]), row["UnitPrice"]))
    with gzip.open(shared_data / "movie_review.csv.gz", "rt", encoding="utf-8") as file:
        for i, row in enumerate(csv.DictReader(file)):
            if row["cid"].removesuffix(".0") in customers:
                reviews.append(review(i, row["cid"].removesuffix(".0"), True))
    publish(warehouse_url, {"user_purchase": purchases, "movie_review": reviews})
    found = {
        customer: (amount, written)
        for customer, amount, written in query(
            warehouse_url, "SELECT customer_id, amount_spent, review_count FROM user_behaviour_metrics_view"
        )
    }
    expected: dict[str, Decimal] = defaultdict(Decimal)
    for row in purchases:
        expected[row[7]] += row[4] * row[5]
    assert {customer: amount for customer, (amount, _) in found.items()} == expected
    assert found["13748"][0] == Decimal("948.25")


def pearson(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    together = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return together / (sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)) ** 0.5
