"""From a mart, and from one row of it, back to the files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pyspark.sql import SparkSession

import jobs.build_review_features as reviews_job
import jobs.plan_run as plan_job
from jobs.analyze_orders import analyze_orders
from jobs.build_customer_orders import build_customer_orders
from jobs.build_events import build_events
from jobs.build_purchases import build_purchases
from jobs.build_star_schema import build_star_schema
from jobs.build_users import build_users
from jobs.cli import main
from jobs.feeds.customers import CUSTOMERS
from jobs.feeds.events import EVENTS
from jobs.feeds.orders import ORDERS
from jobs.feeds.purchases import PURCHASES
from jobs.feeds.reviews import REVIEWS
from jobs.feeds.users import USERS
from jobs.models.files import shipped_model
from jobs.origins import followed, origin_of
from jobs.plan_run import plan_run
from jobs.trace_lineage import trace
from tests.lakes import Lake, vacuum
from tests.records import MD5, event, json_lines
from tests.staging import RawZone

pytestmark = pytest.mark.spark


def test_a_mart_is_made_from_the_file_versions_that_it_followed(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    zone, lake = RawZone(spark, tmp_lake, "logs"), Lake(spark, tmp_lake)
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    assert main(["lineage", "dim_users"]) == 2
    assert "dim_users: not built yet" in capsys.readouterr().err
    zone.put({"a.jsonl": json_lines(event("ann"), event("bob")), "b.jsonl": json_lines(event("carl"))})
    zone.stage()
    build_star_schema(lake.run())
    first = zone.ledger()["a.jsonl"].version
    # A correction and a new file are staged, but the marts do not hold them yet.
    zone.put({"a.jsonl": json_lines(event("ann"), event("zoe")), "c.jsonl": json_lines(event("dan"))}, day=2)
    zone.stage()

    found = trace(lake.run(), "fact_user_actions")
    (source,) = found.sources
    assert source.source == "logs"
    assert source.applied is not None
    assert source.applied < source.newest
    assert [(f.path, f.version, f.rows) for f in found.files] == [
        ("raw/logs/a.jsonl", first, 2),
        ("raw/logs/b.jsonl", zone.ledger()["b.jsonl"].version, 1),
    ]

    # One row: of the facts, of a dimension.
    users = dict(lake.mart("dim_users").read().select("user_id", "user_key").collect())
    facts = dict(lake.mart("fact_user_actions").read().select("user_key", "action_event_id").collect())
    carl = facts[users["carl"]]
    assert main(["lineage", "fact_user_actions", "--key", f"action_event_id={carl}", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(f["path"], f["rows"]) for f in answer["files"]] == [("raw/logs/b.jsonl", 1)]
    assert answer["key"] == {"action_event_id": carl}
    assert main(["lineage", "dim_actions", "--key", "action_type=view"]) == 0
    printed = capsys.readouterr().out
    assert "raw/logs/a.jsonl" in printed
    assert "raw/logs/b.jsonl" in printed
    assert "raw/logs/c.jsonl" not in printed

    for key, message in {
        "user_id=nobody": "--key user_id=nobody: no row fits; the key of dim_users is user_key",
        "user_key=x": "no row fits",
        "name=ann": "--key name: not a column of dim_users",
    }.items():
        assert main(["lineage", "dim_users", "--key", key]) == 2
        assert message in capsys.readouterr().err
    assert main(["lineage", "fact_user_actions", "--key", "timestamp=2024-03-01T10:00:00Z"]) == 2
    assert "several rows fit" in capsys.readouterr().err

    # Where that version is gone, the newest is shown, and it is said.
    vacuum(spark, lake.staged().uri)
    assert main(["lineage", "fact_user_actions"]) == 0
    output, errors = capsys.readouterr()
    assert "raw/logs/c.jsonl" in output
    assert "was vacuumed; the newest is shown" in errors


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The zone of this process."""
    with monkeypatch.context() as inside:
        inside.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_rows_of_the_first_and_the_last_second(spark: SparkSession, tmp_lake: str) -> None:
    zone, lake = RawZone(spark, tmp_lake, "logs"), Lake(spark, tmp_lake)
    seconds = {"first.jsonl": "0001-01-01T00:00:00", "last.jsonl": "9999-12-31T23:59:59"}
    zone.put({file: json_lines(event(timestamp=second)) for file, second in seconds.items()})
    zone.stage()
    build_star_schema(lake.run())
    facts = lake.mart("fact_user_actions").read().orderBy("timestamp").select("action_event_id").collect()
    found = [trace(lake.run(), "fact_user_actions", {"action_event_id": fact[0]}).files for fact in facts]
    assert [[file.path for file in files] for files in found] == [
        ["raw/logs/first.jsonl"],
        ["raw/logs/last.jsonl"],
    ]


def test_one_row_of_every_other_mart(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Lake(spark, tmp_lake)
    model = shipped_model(spark)
    few = spark.createDataFrame(model.terms.where("term = 'good'").collect(), model.terms.schema)
    monkeypatch.setattr(reviews_job, "load_model", lambda *_: replace(model, terms=few))
    lamp = "{} | LAMP | - | 1 | 2024-03-01 08:00:00 | 2.5 | 7 | -"
    lake.stage(PURCHASES, 1, lamp.format("A1"))
    lake.stage(PURCHASES, 2, lamp.format("A2"))
    lake.stage(REVIEWS, 1, "7 | good | r1")
    lake.stage(REVIEWS, 2, "7 | good | r2")
    days = "2024-03-0{} 00:00:00 | 2024-03-09 00:00:00"
    ann = f"1 | Ann | {{}} | ann@example.org | - | - | - | - | {MD5} | - | {days} | k{{}}"
    lake.stage(USERS, 1, ann.format("Lee", 1, 1))
    lake.stage(USERS, 2, ann.format("Ray", 2, 2))
    # Two events with one id: the mart gives the second one another.
    view = "e1 | 2024-03-0{} 08:00:00 | ann@example.org | - | / | view | []"
    lake.stage(EVENTS, 1, view.format(1))
    lake.stage(EVENTS, 2, view.format(2))
    lake.stage(
        CUSTOMERS, 1, "c1 | Ann | - | - | - | 2023-01-31 | -", "c2 | Eve | - | - | - | 2023-01-31 | Basic"
    )
    order = "{} | {} | lamp | 1 | 9 | 2024-03-01"
    lake.stage(ORDERS, 2, order.format("o1", "c1"), order.format("o2", "c2"))
    lake.stage(ORDERS, 3, order.format("o3", "c1"), order.format("o4", "c9"))
    run = lake.run()
    build_purchases(run)
    reviews_job.build_review_features(run)
    build_users(run)
    build_events(run)
    build_customer_orders(run)
    analyze_orders(run)

    def files(table: str, where: str) -> list[tuple[str, str, int, str]]:
        """(feed, number of the file, rows, role) of the one row."""
        declared = lake.mart(table)
        row = declared.read().where(where).collect()[0].asDict()
        key = {name: str(row[name]) for name in KEYS[table]}
        found = trace(run, table, key).files
        # These files were staged without a reading of theirs in the ledger.
        return [(f.feed, f.path.removeprefix("unknown file "), f.rows, f.role) for f in found]

    assert files("user_purchase", "invoice_number = 'A2'") == [("purchases", "2", 1, "")]
    assert files("movie_review", "review_id = 'r1'") == [("reviews", "1", 1, "")]
    this, other = "says what the row says", "another version of the user"
    assert files("users", "last_name = 'Ray'") == [("users", "2", 1, this), ("users", "1", 1, other)]
    assert files("users_history", "last_name = 'Lee'") == [("users", "1", 1, this), ("users", "2", 1, other)]
    assert files("events", "NOT is_clash") == [("events", "1", 1, "")]
    assert files("events", "is_clash") == [("events", "2", 1, "")]
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    for table, column in (("events", "tags"), ("movie_review", "top_terms")):
        assert main(["lineage", table, "--key", f"{column}=x"]) == 2
        assert f"--key {column}: a list, which is not looked for" in capsys.readouterr().err
    others = "other orders of the customer, for the segment"
    assert files("customer_orders", "order_id = 'o1'") == [
        ("orders", "2", 1, "the order"),
        ("customers", "1", 1, "its customer"),
        ("orders", "3", 1, others),
    ]
    assert files("customer_orders", "order_id = 'o2'") == [
        ("orders", "2", 1, "the order"),
        ("customers", "1", 1, "its customer"),
    ]
    assert files("customer_orders", "order_id = 'o4'") == [("orders", "3", 1, "the order")]

    # The mart's log also says which model scored it.
    scored = followed(run, origin_of("movie_review"))
    assert scored is not None
    assert (scored.waiting, reviews_job.scoring_model(scored.mark)) == (0, model.version)
    plans = {build.tables[0]: build.what for build in plan_run(run, None).builds}
    assert plans["movie_review"] == "up to date"
    monkeypatch.setattr(plan_job, "chosen_version", lambda _: "another")
    plans = {build.tables[0]: build.what for build in plan_run(run, None).builds}
    assert plans["movie_review"] == "all scored anew, by model another"

    # Figures over all orders come from all files, through another mart.
    whole = trace(run, "order_analysis")
    assert [source.source for source in whole.sources] == ["customer_orders", "customers", "orders"]
    assert all(source.applied == source.newest for source in whole.sources)
    assert [(f.feed, f.rows) for f in whole.files] == [("customers", 2), ("orders", 2), ("orders", 2)]
    lake.stage(ORDERS, 4, order.format("o5", "c1"))
    assert [s.applied for s in trace(run, "customer_orders").sources] == [None, None]


KEYS = {
    "user_purchase": ("purchase_line_id",),
    "movie_review": ("review_id",),
    "users": ("email",),
    "users_history": ("user_id", "version"),
    "events": ("id",),
    "customer_orders": ("order_id",),
}
