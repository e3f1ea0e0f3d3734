"""A full refresh: marts are removed and made anew from all that is staged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.build_star_schema import build_star_schema
from jobs.feeds import FEEDS
from jobs.reset_marts import main, reset_marts
from jobs.reset_tables import forget_feed
from jobs.run_all import build_marts, stage_all
from tests.lakes import STAR, Lake, deliver

pytestmark = pytest.mark.spark


def test_marts_are_made_anew_with_the_same_rows_and_keys(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(spark, tmp_path)
    lake.stage_logs(1, "ann | 2024-05-01 08:00:00 | login | phone | Rome")
    build_star_schema(lake.run())
    lake.stage_logs(2, "bob | 2024-05-02 08:00:00 | login | - | -")
    build_star_schema(lake.run())
    before, identity = lake.star(), lake.mart("fact_user_actions").table_id()

    assert sorted(reset_marts(lake.run())) == sorted(STAR)
    assert not lake.mart("fact_user_actions").exists()
    assert lake.staged().read().count() == 2
    assert reset_marts(lake.run()) == []

    build_star_schema(lake.run())
    assert lake.star() == before
    # Another identity, so that publishing takes the table whole.
    assert lake.mart("fact_user_actions").table_id() != identity


def test_marts_of_other_feeds_stay(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(spark, tmp_path)
    lake.stage_logs(1, "ann | 2024-05-01 08:00:00 | login | phone | Rome")
    build_star_schema(lake.run())
    monkeypatch.setenv("LAKE_URI", str(tmp_path))
    assert main(["--feeds", "purchases,orders"]) == 0
    assert lake.mart("fact_user_actions").exists()
    assert main(["--feeds", "purchases,logs"]) == 0
    assert not lake.mart("fact_user_actions").exists()


def test_a_feed_is_reset_of_which_nothing_was_ever_read(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(spark, tmp_path)
    run = lake.run()
    with run.step("reset logs"):
        assert forget_feed(run, FEEDS["logs"]) == 0
    # An empty one would be built and published from.
    assert not lake.staged().exists()


def test_marts_let_go_of_feeds_that_are_reset_when_their_files_are_gone(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake, feeds = Lake(spark, tmp_path), dict.fromkeys(("logs", "orders", "users"))

    def rows() -> dict[str, int]:
        stage_all(lake.run(), feeds, 1.0)
        build_marts(lake.run(), without=["train segments"])
        marts = (*STAR, "customer_orders", "order_analysis", "users", "users_history")
        return {name: lake.mart(name).few_count() for name in marts}

    deliver(tmp_path, 1)
    before = rows()
    assert all(before.values())
    shutil.rmtree(tmp_path / "raw")
    for feed in feeds:
        forget_feed(lake.run(), FEEDS[feed])
    assert rows() == dict.fromkeys(before, 0)
