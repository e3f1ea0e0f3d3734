"""The star schema: what a handful of staged log records becomes, and what later ones change of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

import jobs.build_star_schema
import jobs.transforms.star_schema
from jobs.build_star_schema import build_star_schema
from jobs.errors import KeyCollision, UserAnalyticsError
from jobs.lake.marts import SourceChanges, changes_since
from jobs.origins import origin_of
from jobs.reset_marts import reset_marts
from jobs.spark import local_rows
from tests.lakes import STAR, Lake, all_rows_are_many, put_back, vacuum

pytestmark = pytest.mark.spark

DAY_1 = (
    "ann | 2024-05-01 08:00:00 | login | Android | Oslo",
    "ann | 2024-05-01 08:05:00 | view | - | Oslo",
    "bob | 2024-05-01 09:00:00 | login | iOS | -",
)
DAY_2 = ("cy | 2024-05-02 10:00:00 | login | Android | Rome",)


@pytest.fixture
def lake(spark: SparkSession, tmp_lake: str) -> Lake:
    return Lake(spark, tmp_lake)


@pytest.fixture(params=["few rows", "many rows"])
def few_or_many(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test under both ways in which rows are read and written."""
    with all_rows_are_many() if request.param == "many rows" else nullcontext():
        yield


@pytest.mark.usefixtures("few_or_many")
def test_day_by_day(lake: Lake, spark: SparkSession, tmp_path: Path) -> None:
    # The first file: a fact for every record. What the log does not say is a null key, no member of its own.
    lake.stage_logs(1, *DAY_1)
    assert build_star_schema(lake.run()) is True
    assert lake.actions() == sorted(DAY_1)
    assert lake.values("dim_users", "user_id") == ["ann", "bob"]
    assert lake.values("dim_actions", "action_type") == ["login", "view"]
    assert lake.values("dim_devices", "device_type") == ["Android", "iOS"]
    assert lake.values("dim_locations", "location_name") == ["Oslo"]

    # Nothing new: no commit anywhere.
    before = lake.versions()
    assert build_star_schema(lake.run()) is False
    assert lake.versions() == before

    # A second file: one append. Its action and device were there, and so these tables are left alone.
    lake.stage_logs(2, *DAY_2)
    build_star_schema(lake.run())
    assert lake.actions() == sorted(DAY_1 + DAY_2)
    after = lake.versions()
    assert {name: after[name] - before[name] for name in STAR} == {
        "dim_users": 1,
        "dim_actions": 0,
        "dim_devices": 0,
        "dim_locations": 1,
        "fact_user_actions": 1,
    }
    assert lake.mart("fact_user_actions").last_commit_appended()
    assert lake.changed("fact_user_actions", before["fact_user_actions"]) == [False]

    # The same two days in another lake, in one file and another order: the same keys.
    other = Lake(spark, tmp_path / "other")
    other.stage_logs(7, *DAY_2, *reversed(DAY_1))
    build_star_schema(other.run())
    assert other.star() == lake.star()

    # Keys are stored in warehouses: a change of how they are computed must not pass unseen.
    assert (1135035001706602626, "cy") in lake.rows("dim_users")
    assert [str(row[0])[:15] for row in lake.rows("fact_user_actions")][
        -1
    ] == "018f38bf-1d00-8"  # 2024-05-02 10:00

    # A correction of the first file changes what differs; bob and his iOS, used nowhere now, leave.
    before = lake.versions()
    corrected = (
        "ann | 2024-05-01 08:00:00 | login | Android | Oslo",  # as before
        "ann | 2024-05-01 08:05:00 | view | iPad | Oslo",  # now with a device
        "dee | 2024-05-01 09:30:00 | logout | Android | Oslo",  # new, and bob's record is gone
    )
    lake.stage_logs(1, *corrected)
    build_star_schema(lake.run())
    assert lake.actions() == sorted(corrected + DAY_2)
    assert lake.changed("fact_user_actions", before["fact_user_actions"]) == [False, False, True]
    assert lake.values("dim_users", "user_id") == ["ann", "cy", "dee"]
    assert lake.values("dim_devices", "device_type") == ["Android", "iPad"]

    # The same file delivered once more: no row changes, and after that there is nothing to do.
    before = lake.versions()
    lake.stage_logs(1, *corrected)
    build_star_schema(lake.run())
    assert lake.changed("fact_user_actions", before["fact_user_actions"]) == []
    assert build_star_schema(lake.run()) is False


def same_key(business_key: Column) -> Column:
    return F.when(business_key.isNotNull(), F.lit(1).cast("bigint"))


def test_two_members_with_one_key_stop_the_job(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.transforms.star_schema, "surrogate_key", same_key)
    lake.stage_logs(1, "ann | 2024-05-01 08:00:00 | login | Android | Oslo")
    build_star_schema(lake.run())
    before = lake.star()
    # A new member against one that is there …
    lake.stage_logs(2, "bob | 2024-05-01 08:00:00 | login | Android | Oslo")
    with pytest.raises(KeyCollision, match="'ann' and 'bob' have the same user_key 1"):
        build_star_schema(lake.run())
    assert lake.star() == before
    # … and two new ones against each other.
    shutil.rmtree(lake.folder / "marts")
    with pytest.raises(KeyCollision, match="'ann' and 'bob' have the same user_key 1"):
        build_star_schema(lake.run())
    assert lake.rows("fact_user_actions") == []


class Killed(BaseException):
    """Stands for the end of the process."""


def kill(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("step", ["apply_changes", "_drop_unused_members"])
def test_a_killed_build_is_completed_by_the_next(
    lake: Lake, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    lake.stage_logs(1, *DAY_1)
    build_star_schema(lake.run())
    lake.stage_logs(1, DAY_1[0])
    lake.stage_logs(2, *DAY_2)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.build_star_schema, step, kill)
        with pytest.raises(Killed):
            build_star_schema(lake.run())
    build_star_schema(lake.run())

    clean = Lake(spark, tmp_path / "clean")
    clean.stage_logs(1, DAY_1[0], *DAY_2)
    build_star_schema(clean.run())
    assert lake.star() == clean.star()


def test_marts_are_made_anew_where_staging_cannot_be_followed(lake: Lake, spark: SparkSession) -> None:
    lake.stage_logs(1, *DAY_1)
    build_star_schema(lake.run())
    table_id = lake.mart("fact_user_actions").table_id()

    # The files of the versions in between were vacuumed.
    lake.stage_logs(2, *DAY_2)
    spark.sql(f"OPTIMIZE delta.`{lake.staged().uri}`")
    vacuum(spark, lake.staged().uri)
    build_star_schema(lake.run())
    assert lake.actions() == sorted(DAY_1 + DAY_2)

    # Staging was made anew, with other content.
    shutil.rmtree(lake.staged().uri)
    lake.stage_logs(2, *DAY_2)
    build_star_schema(lake.run())
    assert lake.actions() == sorted(DAY_2)
    assert lake.values("dim_users", "user_id") == ["cy"]
    assert lake.mart("fact_user_actions").table_id() == table_id


def test_staging_that_was_restored_stops_the_build_until_all_tables_are_reset(
    lake: Lake, spark: SparkSession
) -> None:
    for day, line in enumerate((*DAY_1[:2], *DAY_2)):
        lake.stage_logs(day, line)
    build_star_schema(lake.run())
    # To version 1 of 3; then comes another version 2.
    put_back(spark, lake.staged().uri, versions=2)
    with pytest.raises(
        UserAnalyticsError,
        match=r"fact_user_actions: made from version 3 of logs, of which only 1 are there.*"
        r"`user-analytics reset marts/fact_user_actions`",
    ):
        build_star_schema(lake.run())
    lake.stage_logs(7, "eve | 2024-05-01 08:00:00 | login | Android | Oslo")

    # Without the facts alone, the next build would add facts of eve, but not eve.
    shutil.rmtree(lake.mart("fact_user_actions").uri)
    with pytest.raises(UserAnalyticsError, match=r"dim_users: made from version 3.*reset marts/dim_users"):
        build_star_schema(lake.run())
    assert lake.rows("fact_user_actions") == []

    reset_marts(lake.run(), [origin_of("dim_users")])
    build_star_schema(lake.run())
    assert lake.actions() == [DAY_1[0], "eve | 2024-05-01 08:00:00 | login | Android | Oslo"]
    assert lake.values("dim_users", "user_id") == ["ann", "eve"]


def test_staging_that_is_made_anew_during_a_build_is_for_the_next_one(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.stage_logs(1, *DAY_1)

    def reset_and_look(*arguments: Any) -> SourceChanges | None:
        changes = changes_since(*arguments)
        shutil.rmtree(lake.staged().uri)
        lake.stage_logs(1, *DAY_2)
        return changes

    with monkeypatch.context() as patch:
        patch.setattr(jobs.build_star_schema, "changes_since", reset_and_look)
        build_star_schema(lake.run())
    assert lake.actions() == sorted(DAY_1)
    build_star_schema(lake.run())
    assert lake.actions() == sorted(DAY_2)


def test_a_declaration_that_changed(lake: Lake, declare: Callable[..., None]) -> None:
    lake.mart("dim_users").ensure().append(
        local_rows(lake.spark, [(1, "ann")], "user_key long, user_id string")
    )
    declare("dim_users", lambda text: text.replace("  PRIMARY KEY", "  email VARCHAR(100),\n  PRIMARY KEY"))
    lake.mart("dim_users").ensure()
    assert lake.rows("dim_users") == [(1, "ann", None)]
    declare("dim_users", lambda text: text.replace("user_id VARCHAR(100)", "user_id BIGINT"))
    with pytest.raises(
        UserAnalyticsError,
        match=r"user_id is string, declared as bigint.*`user-analytics reset marts/dim_users`.*to rebuild it",
    ):
        lake.mart("dim_users").ensure()
