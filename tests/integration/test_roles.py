"""The grants of docs/operations/warehouse-roles.md are enough to publish, and dashboards see views only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import pytest

import jobs.warehouse.partitions as partitions_module
from jobs.errors import UserAnalyticsError
from jobs.warehouse import postgres_publication
from jobs.warehouse.base import Load, Published
from jobs.warehouse.declarations import Column, tables, views, views_over
from jobs.warehouse.postgres import PostgresWarehouse
from tests.warehouses import arrow_rows, copy_without_spark, months_without_spark, query, time_key

pytestmark = pytest.mark.integration

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations" / "warehouse-roles.md"
NAMES = ("dim_users", "dim_actions", "dim_devices", "dim_locations", "fact_user_actions")


def load(name: str, rows: list[tuple[Any, ...]], version: int, count: int, whole: bool = True) -> Load:
    state = Published(name, version)
    return Load(tables()[name], arrow_rows(name, rows, whole), whole, state, {"row_count": count})


@dataclass
class Roles:
    """Addresses of the database for the roles of the page, whose rights are what the page gives."""

    publisher: str
    dashboards: str
    grant_views: Callable[[], None]


@pytest.fixture
def roles(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Roles]:
    monkeypatch.setattr(postgres_publication, "copy_rows", copy_without_spark)
    database = warehouse_url.rsplit("/", 1)[1]
    ours = {name: f"{name}_{database}" for name in ("publisher", "dashboards")}

    def run(text: str, url: str = warehouse_url) -> None:
        for name, other in {**ours, "DATABASE warehouse": f"DATABASE {database}"}.items():
            text = text.replace(name, other)
        query(url, text, schema="pg_catalog")

    def address(role: str) -> str:
        return f"postgresql://{ours[role]}:secret@{warehouse_url.split('@')[1]}"

    publisher, dashboards, views = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    # Nothing that PostgreSQL gives to everybody may help.
    run("REVOKE ALL ON DATABASE warehouse FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC")
    try:
        run(publisher + dashboards)
        run("ALTER ROLE publisher PASSWORD 'secret'; ALTER ROLE dashboards PASSWORD 'secret'")
        yield Roles(address("publisher"), address("dashboards"), lambda: run(views, url=address("publisher")))
    finally:
        for role in ours:
            run(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize("by_month", [False, True])
def test_publish_with_the_documented_grants_and_read_views_only(
    roles: Roles, by_month: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_month:
        monkeypatch.setattr(partitions_module, "PARTITIONED_FROM_ROWS", 1)
        monkeypatch.setattr(partitions_module, "REBUILT_FROM_ROWS", 1)
        monkeypatch.setattr(partitions_module, "rows_by_month", months_without_spark)
    may, june = (datetime(2024, month, 1, 10, tzinfo=UTC) for month in (5, 6))
    event, later = ((time_key(at, 1), 1, 1, None, None, at) for at in (may, june))
    warehouse = PostgresWarehouse(roles.publisher, "analytics")

    def publish(*loads: Load) -> None:
        with warehouse.publishing() as publication:
            publication.new_columns(loads)
            assert all(check.passed for check in publication.commit(loads, views_over(NAMES)))

    warehouse.check()
    assert warehouse.published() == {}
    first = {"dim_users": [(1, "ann")], "dim_actions": [(1, "login")], "fact_user_actions": [event]}
    publish(*(load(name, first.get(name, []), 1, len(first.get(name, []))) for name in NAMES))
    roles.grant_views()
    publish(load("dim_users", [(2, "bob", False)], 2, 2, whole=False))
    publish(load("dim_users", [(1, "ann")], 3, 1))
    changes = [(*event, False), (*later, False)]
    publish(load("fact_user_actions", changes, 2, 2, whole=False))
    publish(load("fact_user_actions", [(*later, True)], 3, 1, whole=False))
    assert warehouse.missing_rights() == []
    assert warehouse.published()["dim_users"] == Published("dim_users", 3)
    assert warehouse.measures([tables()["dim_users"]])["dim_users"]["row_count"] == 1
    assert warehouse.plan(load("dim_users", [], 4, 1)).statements

    reader = roles.dashboards
    assert query(reader, "SELECT action_type, event_count FROM daily_activity_view") == [("login", 1)]
    months = ("fact_user_actions_2024_05", "fact_user_actions_2024_06") if by_month else ()
    for name in (*NAMES, *months, "_published"):
        with pytest.raises(
            psycopg2.errors.InsufficientPrivilege, match=f"permission denied for table {name}"
        ):
            query(reader, f"SELECT * FROM {name}")
    users, denied = tables()["dim_users"], "^[a-z ]+: PostgreSQL: permission denied for"
    asked = PostgresWarehouse(reader, "analytics")
    for question in (
        asked.published,
        lambda: asked.query("dim_users", 1),
        lambda: asked.counts(["dim_users"]),
        lambda: asked.measures([users]),
        lambda: asked.rows_naming(users, ["ann"], {}),
        lambda: asked.publishing().__enter__(),
    ):
        with pytest.raises(UserAnalyticsError, match=denied):
            question()
    for statement in (
        "CREATE TABLE analytics.mine (a int)",
        "CREATE TEMP TABLE mine (a int)",
        "DELETE FROM daily_activity_view",
        "CREATE SCHEMA mine",
    ):
        with pytest.raises(psycopg2.Error, match=r"permission denied|cannot delete"):
            query(reader, statement)
    # The publisher, too, is at home in its schema only.
    for statement in ("CREATE SCHEMA other", "CREATE TABLE public.mine (a int)"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            query(roles.publisher, statement)


MARK = "marked"
MARKED_ID, MARKED_NUMBER = "bada55ed-0000-8000-8000-00000000000{}", 66.612345


def marked_value(column: Column, number: int) -> Any:
    """A value of a declared column; where the column is personal, one that nothing else has."""
    match column.type.this.value:
        case "UUID":
            return MARKED_ID.format(number) if column.personal else f"00000000-0000-8000-8000-{number:012d}"
        case "BIGINT" | "DECIMAL":
            return number
        case "DOUBLE":
            return MARKED_NUMBER + number if column.personal else 0.5
        case "BOOLEAN":
            return True
        case "DATE":
            return date(2024, 5, number)
        case "TIMESTAMPTZ":
            return datetime(2024, 5, number, tzinfo=UTC)
        case "ARRAY":
            return []
    if not column.personal:
        return f"text {number}"
    return f"{MARK}-{number}@example.org" if column.name == "email" else f"{MARK} {column.name} {number}"


def test_no_view_shows_a_personal_value(roles: Roles) -> None:
    loads = []
    for name, table in tables().items():
        rows = [tuple(marked_value(column, number) for column in table.columns) for number in (1, 2)]
        loads.append(load(name, rows, 1, len(rows)))
    with PostgresWarehouse(roles.publisher, "analytics").publishing() as publication:
        publication.commit(loads, views_over(tables()))
    assert MARK in str(query(roles.publisher, "SELECT * FROM users"))
    roles.grant_views()
    shown = {name: str(query(roles.dashboards, f"SELECT * FROM {name}")) for name in views()}
    for mark in (MARK, MARKED_ID[:8], str(MARKED_NUMBER)[3:]):
        assert [name for name, rows in shown.items() if mark in rows.lower()] == []
    # What is left of an address tells its domain.
    assert query(roles.dashboards, "SELECT masked_email FROM most_active_users_view") == [
        ("m***@example.org",),
        ("m***@example.org",),
    ]
