"""The views over events: few rows, figures that can be checked by eye; tags on their way into PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.build_events import build_events
from jobs.publish import publish
from jobs.warehouse import postgres_publication
from jobs.warehouse.base import Load, Published
from jobs.warehouse.declarations import tables, views_over
from jobs.warehouse.postgres import PostgresWarehouse
from tests.staging import RawZone
from tests.warehouses import arrow_rows, copy_without_spark, query

pytestmark = pytest.mark.integration
Query = Callable[[str], list[tuple[Any, ...]]]


def event(
    number: int, at: datetime, who: str, country: str | None, uri: str, action: str, tags: list[str]
) -> Any:
    name = f"e{number}"
    address = f"{who}@example.com"
    return name, at, address, country, uri, action, tags, "example", "example.com", name, False


JANUARY = datetime(2024, 1, 31, 23, 30, tzinfo=UTC)
FEBRUARY = datetime(2024, 2, 1, 0, 30, tzinfo=UTC)  # in New York it is still January
APRIL = datetime(2024, 4, 15, 12, 0, tzinfo=UTC)
MAY = datetime(2024, 5, 1, 0, 0, tzinfo=UTC)
ROWS = [
    event(1, JANUARY, "ann", "Norway", "/", "view", ["mobile", "sale"]),
    event(2, JANUARY, "bob", "Norway", "/", "view", ["mobile"]),
    event(3, FEBRUARY, "ann", None, "/", "view", []),
    event(4, FEBRUARY, "ann", "France", "/cart", "buy", ["first visit"]),
    event(5, FEBRUARY, "eve", "France", "/cart", "view", ["sale"]),
    event(6, APRIL, "eve", "France", "/cart", "buy", ["sale"]),
    event(7, MAY, "bob", "Peru", "/", "view", []),
    event(8, MAY, "bob", "Peru", "/", "buy", ["mobile"]),
    event(9, MAY, "bob", "Peru", "/", "view", []),
]


@pytest.fixture
def published(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> Query:
    """A query on a warehouse to which ROWS and the views over them were published."""
    monkeypatch.setattr(postgres_publication, "copy_rows", copy_without_spark)
    rows = arrow_rows("events", ROWS)
    load = Load(tables()["events"], rows, True, Published("events", 1), {"row_count": len(ROWS)})
    with PostgresWarehouse(warehouse_url, "analytics").publishing() as publication:
        publication.commit([load], views_over(["events"]))
    return lambda text: query(warehouse_url, text)


def test_users_tags_and_countries_are_ranked(published: Query) -> None:
    assert published(
        "SELECT user_rank, masked_email, company, event_count, action_count, active_day_count, first_event_at, "
        "last_event_at FROM most_active_users_view"
    ) == [
        (1, "b***@example.com", "example", 4, 2, 2, JANUARY, MAY),
        (2, "a***@example.com", "example", 3, 2, 2, JANUARY, FEBRUARY),
        (3, "e***@example.com", "example", 2, 2, 2, FEBRUARY, APRIL),
    ]
    # Equally many events: by name. The share is of all nine events.
    assert published("SELECT * FROM most_used_tags_view") == [
        (1, "mobile", 3, 2, 3 / 9),
        (2, "sale", 3, 2, 3 / 9),
        (3, "first visit", 1, 1, 1 / 9),
    ]
    assert published("SELECT * FROM most_active_countries_view") == [
        (1, "France", 3, 2, 1.5),
        (2, "Peru", 3, 1, 3.0),
        (3, "Norway", 2, 2, 1.0),
        (4, "unknown", 1, 1, 1.0),
    ]


def test_uri_and_action(published: Query) -> None:
    # /: 6 of 9, buy: 3 of 9. The table of /cart or not by buy or not is ((2, 1), (1, 5)): its chi-square is
    # 9 · (2·5 − 1·1)² / (3·6·3·6) = 2.25, and 2 pairs stand beside 3·3/9 = 1 expected.
    assert published("SELECT * FROM uri_action_correlation_view ORDER BY lift DESC, uri") == [
        ("/cart", "buy", 2, 3, 3, 9, 1.0, 2.0, 2.25),
        ("/", "view", 5, 6, 6, 9, 4.0, 1.25, 2.25),
        ("/", "buy", 1, 6, 3, 9, 2.0, 0.5, 2.25),
        ("/cart", "view", 1, 3, 6, 9, 2.0, 0.5, 2.25),
    ]


def test_growth_is_relative_to_the_month_before(published: Query) -> None:
    # March has no events, so that April has nothing to grow from.
    assert published("SELECT * FROM activity_trend_view") == [
        (date(2024, 1, 1), 2, 2, None, None),
        (date(2024, 2, 1), 3, 2, 2, 0.5),
        (date(2024, 4, 1), 1, 1, None, None),
        (date(2024, 5, 1), 3, 1, 1, 2.0),
    ]


@pytest.mark.spark
def test_tags_arrive_as_they_are(spark: SparkSession, tmp_lake: str, warehouse_url: str) -> None:
    zone = RawZone(spark, tmp_lake, "events")
    zone.put(
        {
            "day.csv": "id,timestamp,email,country,uri,action,tags\n"
            r"e1,2024-03-01T10:00:00,ann@example.com,Norway,/,view,c:\new|日本|it's|null|{|\ " + "\n"
            "e2,2024-03-01T10:00:00,ann@example.com,Norway,/,view,\n"
        }
    )
    zone.stage()
    run = zone.run()
    build_events(run)
    checks = publish(run, PostgresWarehouse(warehouse_url, "analytics"), ["events"])
    assert checks
    assert all(check.passed for check in checks)
    assert query(warehouse_url, "SELECT tags, pg_typeof(tags)::text FROM events ORDER BY id") == [
        (["c:\\new", "日本", "it's", "null", "\\"], "text[]"),
        ([], "text[]"),
    ]
    assert query(warehouse_url, "SELECT count(*) FROM most_used_tags_view") == [(5,)]
