"""Staging over time: files come, come again, come late, are corrected; runs die. The table says what the files say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import generate_samples
from jobs.errors import KeyCollision, LockLost
from jobs.feeds import FEEDS
from jobs.feeds.declaration import Feed
from jobs.lake import staging
from jobs.lake.ledger import Ledger
from jobs.lake.locks import TableLocks
from jobs.lake.tables import LakeTable
from jobs.transforms.keys import KEY
from tests.lakes import all_rows_are_many
from tests.records import csv_text, event, json_lines, purchase, purchases, reviews
from tests.staging import RawZone, balanced, taken_over

pytestmark = pytest.mark.spark


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Callable[..., RawZone]:
    """A function that makes an empty lake with the raw zone of one feed."""

    def make(feed: str, name: str = "lake") -> RawZone:
        (tmp_path / name).mkdir(exist_ok=True)
        return RawZone(spark, str(tmp_path / name), feed)

    return make


# -- the sample against what its generator knows ---------------------------------------------------------------

REASONS = {
    "garbage_line": "malformed_json",
    "user_id_missing": "user_id_missing",
    "action_type_blank": "action_type_missing",
    "action_type_too_long": "action_type_too_long",
    "timestamp_impossible": "timestamp_invalid",
    "timestamp_epoch_milliseconds": "timestamp_invalid",
    "quantity_not_a_number": "quantity_invalid",
    "unit_price_not_a_number": "unit_price_invalid",
    "invoice_number_missing": "invoice_number_missing",
    "invoice_date_impossible": "invoice_date_invalid",
    "too_few_columns": "wrong_number_of_columns",
    "review_text_empty": "review_missing",
    "password_in_plain_text": "password_invalid",
    "email_missing": "email_missing",
    "email_without_domain": "email_invalid",
    "created_at_impossible": "created_at_invalid",
    "id_missing": "id_missing",
    "too_many_columns": "wrong_number_of_columns",
}


@pytest.mark.parametrize("feed", ["logs", "purchases", "reviews", "users", "events"])
def test_the_sample_is_counted_as_its_generator_counts_it(lake: Callable[..., RawZone], feed: str) -> None:
    zone = lake(feed)
    generate_samples.write_samples(zone.folder.parent, seed=7, scale=0.05)
    expected = generate_samples.manifest(seed=7, scale=0.05)["feeds"][feed]

    result = zone.stage()

    totals = ("records_read", "accepted", "duplicates", "rejected")
    wanted = ("records", "accepted", "duplicates", "rejected")
    assert [result.total(name) for name in totals] == [expected[name] for name in wanted]
    ledger = zone.ledger()
    assert all(map(balanced, ledger.values()))
    assert {name: entry.records_read for name, entry in ledger.items()} == {
        name: file["records"] for name, file in expected["files"].items()
    }
    assert {name: entry.rejected for name, entry in ledger.items()} == {
        name: sum(file["rejected"].values()) for name, file in expected["files"].items()
    }
    reasons: Counter[str] = Counter()
    for kind, count in expected["rejected_by_kind"].items():
        reasons[REASONS[kind]] += count
    assert zone.reasons() == reasons
    assert zone.staging().count() == expected["accepted"]
    unknown = {name for entry in ledger.values() for name in entry.unknown_columns}
    assert unknown == set(expected["facts"].get("unknown_fields", []))

    assert zone.stage().entries == (), "a second run finds nothing"


# -- the same records again, earlier, later, corrected ------------------------------------------------------------


def x(device: str | None = None) -> dict[str, Any]:
    return event("x", device=device)


Y, Z = event("y"), event("z")


def users(zone: RawZone) -> list[tuple[str, str | None]]:
    return zone.rows("user_id", "device")


def test_the_table_says_what_the_present_files_say(lake: Callable[..., RawZone]) -> None:
    zone = lake("logs")
    zone.put({"a.jsonl": json_lines(x(), Y), "b.jsonl": json_lines(Y, Z)})
    zone.stage()
    assert users(zone) == [("x", None), ("y", "x"), ("z", "x")]
    assert sorted(zone.counts().values()) == [(2, 1, 1, 0), (2, 2, 0, 0)]

    # Whichever of the two had y before: the other one, read again beside it, gives y now.
    zone.put({"a.jsonl": json_lines(x())}, day=2)
    zone.stage()
    assert users(zone) == [("x", None), ("y", "x"), ("z", "x")]
    assert zone.counts() == {"a.jsonl": (1, 1, 0, 0), "b.jsonl": (2, 2, 0, 0)}
    zone.put({"b.jsonl": json_lines(Z)}, day=2)
    zone.stage()
    assert users(zone) == [("x", None), ("z", "x")]

    # The same content under another name adds nothing.
    zone.put({"copy-of-a.jsonl": json_lines(x())}, day=3)
    zone.stage()
    assert users(zone) == [("x", None), ("z", "x")]
    assert zone.counts()["copy-of-a.jsonl"] == (1, 0, 1, 0)


def test_a_better_duplicate_that_comes_late_replaces_and_what_it_replaced_comes_back(
    lake: Callable[..., RawZone],
) -> None:
    zone = lake("logs")
    zone.put({"a.jsonl": json_lines(x(), Z)})
    zone.stage()
    zone.put({"late.jsonl": json_lines(x("Web"), event("w"))}, day=2)
    zone.stage()
    assert users(zone) == [("w", "x"), ("x", "Web"), ("z", "x")]
    assert zone.counts() == {"a.jsonl": (2, 1, 1, 0), "late.jsonl": (2, 2, 0, 0)}, "the row changed hands"

    # A correction that cannot be read changes nothing, and no other file is read for it; the one after it takes the
    # better record back.
    zone.put({"late.jsonl": ""}, day=3)
    assert [entry.path for entry in zone.stage().entries] == ["raw/logs/late.jsonl"]
    assert users(zone) == [("w", "x"), ("x", "Web"), ("z", "x")]
    assert "is empty" in zone.refused()["late.jsonl"]
    zone.put({"late.jsonl": json_lines(event("w"))}, day=4)
    zone.stage()
    assert users(zone) == [("w", "x"), ("x", None), ("z", "x")]
    assert zone.counts() == {"a.jsonl": (2, 2, 0, 0), "late.jsonl": (1, 1, 0, 0)}


def test_repeated_invoice_lines_are_rows_and_a_file_twice_is_not(lake: Callable[..., RawZone]) -> None:
    zone = lake("purchases")
    lamp, vase = purchase(StockCode="LAMP"), purchase(StockCode="VASE")
    guest, unreadable = purchase(CustomerID=""), purchase(CustomerID="{}")
    zone.put(
        {
            "may.csv": purchases(lamp, lamp, vase),
            "same-again.csv": csv_text([vase, lamp, lamp], end="\n"),
            "guests.csv": purchases(unreadable, guest),
        }
    )
    zone.stage()
    assert zone.rows("stock_code") == [("85123A",), ("LAMP",), ("LAMP",), ("VASE",)]
    assert zone.counts()["guests.csv"] == (2, 1, 0, 1)

    # A correction with a third lamp and no vase; the vase stays, the other file still says it.
    zone.put({"may.csv": purchases(lamp, lamp, lamp)}, day=2)
    zone.put({"guests-without-the-error.csv": purchases(guest)}, day=2)
    zone.stage()
    assert zone.rows("stock_code") == [("85123A",), ("LAMP",), ("LAMP",), ("LAMP",), ("VASE",)]
    assert zone.counts()["guests-without-the-error.csv"] == (1, 0, 1, 0), "a rejected line is no occurrence"
    zone.put({"same-again.csv": purchases(lamp)}, day=3)
    zone.stage()
    assert zone.rows("stock_code") == [("85123A",), ("LAMP",), ("LAMP",), ("LAMP",)]


def test_of_one_review_the_text_delivered_last_stays(lake: Callable[..., RawZone]) -> None:
    zone = lake("reviews")
    zone.put({"2-new.csv": reviews(("1", "new text", "r1"))}, day=2)
    zone.put({"1-old.csv": reviews(("1", "old text", "r1"))}, day=1)
    zone.stage()
    assert zone.rows("review") == [("new text",)]
    zone.put({"0-newest.csv": reviews(("1", "a newest text", "r1"))}, day=3)
    zone.put({"3-oldest.csv": reviews(("1", "oldest text", "r1"))}, day=0)
    zone.stage()
    assert zone.rows("review") == [("a newest text",)]


def test_a_text_delivered_again_is_newer_than_one_that_was_delivered_between_and_staged_late(
    lake: Callable[..., RawZone],
) -> None:
    # As a file that was refused, and read once its mapping was mended.
    zone = lake("reviews")
    zone.put({"a.csv": reviews(("1", "a text", "r1"))}, day=1)
    zone.stage()
    zone.put({"c.csv": reviews(("1", "a text", "r1"))}, day=3)
    zone.stage()
    zone.put({"b.csv": reviews(("1", "between", "r1"), ("2", "other", "r2"))}, day=2)
    assert [entry.path for entry in zone.stage().entries] == ["raw/reviews/b.csv", "raw/reviews/c.csv"]
    assert zone.rows("review") == [("a text",), ("other",)]
    # What comes after all of them needs no other file.
    zone.put({"d.csv": reviews(("1", "the newest", "r1"))}, day=4)
    assert [entry.path for entry in zone.stage().entries] == ["raw/reviews/d.csv"]
    assert zone.rows("review") == [("other",), ("the newest",)]


def test_any_order_and_repetition_of_files_gives_the_same_table(lake: Callable[..., RawZone]) -> None:
    files = {
        "a.jsonl": json_lines(x(), Y, Y, event("w", device=None, location="Bonn")),
        "b.jsonl": json_lines(x("Web"), event("w", device="iOS", location=None), Z),
        "c.jsonl": json_lines(x("iOS"), event("w", device="iOS", location="Bonn"), {**Y, "extra": 1}),
    }
    at_once = lake("logs", "at once")
    at_once.put(files)
    at_once.stage()
    one_by_one, large = lake("logs", "one by one"), lake("logs", "large")
    for name in ("c.jsonl", "a.jsonl", "b.jsonl"):
        for zone, way in ((one_by_one, nullcontext()), (large, all_rows_are_many())):
            zone.put({name: files[name], f"again/{name}": files[name]})
            with way:
                zone.stage()

    assert at_once.rows() == one_by_one.rows() == large.rows()
    assert at_once.rows("user_id", "device", "location") == [
        ("w", "iOS", "Bonn"),
        ("x", "iOS", "x"),  # both say as much as the other; of equal records the greater text stays
        ("y", "x", "x"),
        ("z", "x", "x"),
    ]
    for zone in (at_once, one_by_one, large):
        assert sum(accepted for _, accepted, _, _ in zone.counts().values()) == 4


# -- runs that die ---------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def stage_and_die(zone: RawZone, where: object, name: str) -> None:
    """Stage, and die as the function of that name is called."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, die)
        with pytest.raises(Killed):
            zone.stage()


def state(zone: RawZone) -> tuple[object, ...]:
    """All that staging keeps, without run ids and times; whichever file of several brought a row."""
    rows = zone.rows(*(f.name for f in zone.staging().schema if f.name not in ("_file_id", "_delivered_at")))
    return rows, zone.rejected(), zone.counts(), zone.refused()


def test_a_run_killed_between_its_commits_and_run_again_ends_as_a_clean_one(
    lake: Callable[..., RawZone],
) -> None:
    """First with nothing in staging, then with corrections, better duplicates and rows that leave."""
    deliveries: list[dict[str, str | bytes]] = [
        {"a.jsonl": json_lines(x(), Y, "garbage"), "b.jsonl": json_lines(Y, "more garbage")},
        {"a.jsonl": json_lines(x(), "other garbage"), "c.jsonl": json_lines(x("Web"), Z), "d.jsonl": ""},
    ]
    killed, clean = lake("logs", "killed"), lake("logs", "clean")

    for day, files in enumerate(deliveries):
        killed.put(files, day)
        clean.put(files, day)
        for place, name in ((staging, "write_quarantine"), (staging, "_write_accepted"), (Ledger, "write")):
            stage_and_die(killed, place, name)
        killed.stage()
        with all_rows_are_many():
            clean.stage()
        assert state(killed) == state(clean)
    assert users(killed) == [("x", "Web"), ("y", "x"), ("z", "x")]
    assert killed.counts() == {"a.jsonl": (2, 0, 1, 1), "b.jsonl": (2, 1, 0, 1), "c.jsonl": (2, 2, 0, 0)}
    killed.stage()
    assert state(killed) == state(clean)


def test_a_run_killed_before_the_first_rows_are_written_leaves_no_file_counted_as_read(
    lake: Callable[..., RawZone],
) -> None:
    zone = lake("purchases")
    zone.put({"a.csv": purchases(purchase())})
    stage_and_die(zone, LakeTable, "append")
    assert zone.ledger() == {}
    zone.stage()
    assert zone.counts() == {"a.csv": (1, 1, 0, 0)}


def test_what_a_killed_run_took_from_another_file_comes_back_when_its_own_file_changed(
    lake: Callable[..., RawZone],
) -> None:
    """The run that was killed left the better record of x in staging, and nothing in the ledger."""
    replaced, renamed = lake("logs", "replaced"), lake("logs", "renamed")
    for zone in (replaced, renamed):
        zone.put({"a.jsonl": json_lines(x(), Y)})
        zone.stage()
        zone.put({"b.jsonl": json_lines(x("Web"))}, day=2)
        stage_and_die(zone, Ledger, "write")
        assert users(zone) == [("x", "Web"), ("y", "x")]

    replaced.put({"b.jsonl": json_lines(Z)}, day=3)
    replaced.stage()
    assert users(replaced) == [("x", None), ("y", "x"), ("z", "x")]
    assert replaced.counts() == {"a.jsonl": (2, 2, 0, 0), "b.jsonl": (1, 1, 0, 0)}

    (renamed.folder / "b.jsonl").rename(renamed.folder / "c.jsonl")
    renamed.stage()
    assert users(renamed) == [("x", "Web"), ("y", "x")]
    assert renamed.counts() == {"a.jsonl": (2, 1, 1, 0), "c.jsonl": (1, 1, 0, 0)}
    renamed.put({"c.jsonl": json_lines(Z)}, day=3)
    renamed.stage()
    assert users(renamed) == [("x", None), ("y", "x"), ("z", "x")]


def test_a_file_that_lost_its_rows_to_a_killed_run_and_is_gone_is_recounted(
    lake: Callable[..., RawZone],
) -> None:
    zone = lake("logs")
    zone.put({"a.jsonl": json_lines(x(), Y)})
    zone.stage()
    zone.put({"b.jsonl": json_lines(x("Web"))}, day=2)
    stage_and_die(zone, Ledger, "write")
    (zone.folder / "a.jsonl").unlink()
    zone.stage()
    assert zone.counts() == {"a.jsonl": (2, 1, 1, 0), "b.jsonl": (1, 1, 0, 0)}
    assert zone.ledger()["a.jsonl"].is_recount


@pytest.mark.parametrize("stopped_before", ["write_quarantine", "Ledger.write"])
def test_a_run_that_slept_until_another_took_its_lock_over_writes_nothing_more(
    lake: Callable[..., RawZone], monkeypatch: pytest.MonkeyPatch, stopped_before: str
) -> None:
    """It asked for the lock of the table that it wrote only, not for its feed's, under which it had read the files."""
    zone = lake("logs")
    zone.put({"a.jsonl": json_lines(x(), "garbage")})
    other = RawZone(zone.spark, zone.settings.lake_uri, "logs")
    run = zone.run()
    # It sleeps.
    run.locks.beat_seconds = run.locks.expiry_seconds = 1000.0
    hold, asleep = TableLocks.hold, [True]
    table = {"write_quarantine": "staging/_quarantine", "Ledger.write": "staging/_ingested_files"}[
        stopped_before
    ]

    def late(locks: TableLocks, *tables: str) -> AbstractContextManager[None]:
        if tables == (table,) and asleep:
            asleep.clear()
            taken_over(zone.store, "staging/logs")
            zone.put({"a.jsonl": json_lines(Y, "other garbage")}, day=2)
            other.stage()
            # What it does first when it goes on.
            run.locks.beat()
        return hold(locks, *tables)

    monkeypatch.setattr(TableLocks, "hold", late)
    with pytest.raises(LockLost, match="another run took it over"):
        staging.stage(run, FEEDS["logs"], max_rejected_share=1.0)
    assert [entry.run_id == run.run_id for entry in Ledger(zone).history("logs")] == [False]
    zone.stage()
    assert users(zone) == [("y", "x")]
    assert zone.rejected() == [("a.jsonl", ("malformed_json",), "other garbage")]
    assert zone.counts() == {"a.jsonl": (2, 1, 0, 1)}


def test_two_natural_keys_with_one_hash_stop_before_anything_is_written(
    lake: Callable[..., RawZone], monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = lake("logs")
    zone.put({"a.jsonl": json_lines(event(user_id="ann"), event(user_id="bob"), "not JSON")})

    def one_key(feed: Feed, records: DataFrame) -> DataFrame:
        return records.withColumns({name: F.lit(1) for name in KEY})

    monkeypatch.setattr(staging, "with_record_key", one_key)
    with pytest.raises(KeyCollision):
        zone.stage()
    assert zone.ledger() == {}
    assert not Path(zone.settings.lake_path("staging", "_quarantine")).exists()


def test_a_file_that_vanishes_while_it_is_read_is_refused_and_the_others_are_staged(
    lake: Callable[..., RawZone], monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = lake("logs")
    zone.put({"gone.jsonl": json_lines(x()), "here.jsonl": json_lines(Y)})
    before = staging._inspect

    def vanish(*arguments: Any) -> Any:
        found = before(*arguments)
        (zone.folder / "gone.jsonl").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(staging, "_inspect", vanish)
    zone.stage()
    assert zone.counts() == {"here.jsonl": (1, 1, 0, 0)}
    assert "gone.jsonl" in zone.refused()


def test_a_backlog_of_many_files_is_listed_and_read_by_few_tasks(spark: SparkSession, tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.jsonl" for n in range(100)]
    for file in files:
        file.write_text("{}\n")
    spark.sparkContext.setJobGroup("backlog", "")
    try:
        lines = spark.read.text(list(map(str, files)))
        assert lines.count() == 100
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    tracker = spark.sparkContext.statusTracker()
    jobs = map(tracker.getJobInfo, tracker.getJobIdsForGroup("backlog"))
    stages = [tracker.getStageInfo(number) for job in jobs if job for number in job.stageIds]
    assert 0 < max(stage.numTasks for stage in stages if stage) <= 32
    # As many as the session has threads.
    assert lines.rdd.getNumPartitions() == 2
