"""Users in PostgreSQL: published with their history, changed, and gone again with a corrected file."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.build_users import build_users
from jobs.publish import publish
from jobs.warehouse.postgres import PostgresWarehouse
from tests.lakes import Lake
from tests.records import user, users
from tests.staging import RawZone
from tests.warehouses import query

pytestmark = [pytest.mark.spark, pytest.mark.integration]

USERS = "SELECT email, status, updated FROM users ORDER BY email"
HISTORY = """SELECT users.email, version, users_history.status, valid_to IS NULL FROM users_history
    JOIN users ON users.id = user_id ORDER BY users.email, version"""


def test_users_follow_the_files(spark: SparkSession, tmp_lake: str, warehouse_url: str) -> None:
    lake, zone = Lake(spark, tmp_lake, warehouse_url), RawZone(spark, tmp_lake, "users")

    def bring(day: int, **files: str) -> None:
        zone.put({f"{name}.csv": content for name, content in files.items()}, day)
        zone.stage()
        build_users(lake.run())
        tables = ["users", "users_history"]
        assert all(
            c.passed for c in publish(lake.run(), PostgresWarehouse(warehouse_url, "analytics"), tables)
        )

    def ask(text: str) -> list[tuple[Any, ...]]:
        return query(warehouse_url, text)

    bring(1, a=users(user("ann@x.org", updated_at=1), user("bob@x.org", updated_at=2)))
    assert ask(USERS) == [("ann@x.org", "active", False), ("bob@x.org", "active", False)]

    bring(
        2,
        b=users(user("ANN@x.org", status="closed", updated_at="2024-04-09"), user("cid@x.org", updated_at=9)),
    )
    assert ask(USERS)[0] == ("ann@x.org", "closed", True)
    assert [
        (version, status, now) for email, version, status, now in ask(HISTORY) if email == "ann@x.org"
    ] == [
        (1, "active", False),
        (2, "closed", True),
    ]
    assert ask(
        "SELECT month::text, new_user_count, change_count, user_count FROM user_changes_view ORDER BY 1"
    ) == [
        ("2024-03-01", 3, 0, 3),
        ("2024-04-01", 0, 1, 1),
    ]

    bring(3, a=users(user("ann@x.org", updated_at=1)), b=users(user("cid@x.org", updated_at=9)))
    assert ask(USERS) == [("ann@x.org", "active", False), ("cid@x.org", "active", False)]
    assert ask("SELECT count(*) FROM users_history") == [(2,)]
