"""events: one id per event, whatever the order of files; companies; months."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.build_events import build_events, events_of
from jobs.cli import main
from jobs.feeds.events import EVENTS
from jobs.lake.marts import declared
from jobs.spark import local_rows
from jobs.transforms.duplicates import with_record_key
from jobs.transforms.keys import KEY
from tests.lakes import Lake
from tests.staging import RawZone

pytestmark = pytest.mark.spark
UUID_8 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

#        id  | timestamp           | email             | country | uri   | action | tags
EARLY = "e1 | 2024-02-27 08:00:00 | ann@acme.co.uk    | Ireland | /cart | view   | sale,mobile"
FIRST = "e1 | 2024-03-01 10:00:00 | ann@acme.co.uk    | Ireland | /     | view   | mobile"
LATER = "e1 | 2024-03-02 10:00:00 | bob@mail.acme.com | -       | /     | click  | -"
ALONE = "e2 | 2024-03-01 10:00:00 | eve@gmail.com     | Norway  | /     | view   | -"
POOL = [
    EARLY,
    FIRST,
    LATER,
    ALONE,
    # As early as another one with this id: the content decides.
    "e2 | 2024-03-01 10:00:00 | eve@gmail.com     | Norway  | /     | click  | -",
    "e2 | 2024-01-31 23:59:59 | eve@gmail.com     | Norway  | /     | view   | -",
    "e3 | 2024-03-01 10:00:00 | eve@gmail.com     | Norway  | /     | view   | -",
]


def ids(lake: Lake) -> dict[str, str]:
    """When the event was → its id."""
    rows = lake.mart("events").read().select(F.col("timestamp").cast("string").alias("at"), "id").collect()
    return {row.at: row.id for row in rows}


def test_the_earliest_keeps_the_id_and_each_other_gets_one_of_its_own(
    spark: SparkSession, tmp_lake: str
) -> None:
    lake = Lake(spark, tmp_lake)
    assert build_events(lake.run()) is False
    lake.stage(EVENTS, 1, LATER, ALONE)
    assert build_events(lake.run()) is True
    assert ids(lake) == {"2024-03-02 10:00:00": "e1", "2024-03-01 10:00:00": "e2"}

    # A late delivery of earlier events: e1 goes to the first of them.
    version = lake.mart("events").version()
    lake.stage(EVENTS, 2, FIRST.replace("e1", "e9"), EARLY)
    build_events(lake.run())
    rows = (
        lake.mart("events")
        .read()
        .orderBy("timestamp", "source_id")
        .drop("timestamp", "uri", "action")
        .collect()
    )
    clash = rows[3].id
    assert [tuple(row) for row in rows] == [
        ("e1", "ann@acme.co.uk", "Ireland", ["sale", "mobile"], "acme", "acme.co.uk", "e1", False),
        ("e2", "eve@gmail.com", "Norway", [], None, None, "e2", False),
        ("e9", "ann@acme.co.uk", "Ireland", ["mobile"], "acme", "acme.co.uk", "e9", False),
        (clash, "bob@mail.acme.com", None, [], "acme", "acme.com", "e1", True),
    ]
    assert UUID_8.fullmatch(clash)
    # What did not change is not published again: e2 stays out of the changes.
    assert lake.changed("events", version) == [False, False, False]

    # Nothing new: the table is not touched.
    version = lake.mart("events").version()
    assert build_events(lake.run()) is False
    assert lake.mart("events").version() == version

    # The late delivery is corrected: the id goes back to whom it was taken from, and the computed one is gone.
    lake.stage(EVENTS, 2, FIRST.replace("e1", "e9"))
    build_events(lake.run())
    assert ids(lake)["2024-03-02 10:00:00"] == "e1"
    assert lake.mart("events").read().count() == 3
    assert lake.changed("events", version) == [False, True]


@settings(
    max_examples=3,
    # A failing example is small enough as it is.
    phases=[Phase.generate],
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.sets(st.sampled_from(range(len(POOL))), min_size=1, max_size=4), min_size=2, max_size=3),
    st.randoms(use_true_random=False),
)
def test_any_order_and_repetition_of_files_gives_the_same_table(
    spark: SparkSession, pool: list[Row], files: list[set[int]], chance: random.Random
) -> None:
    everything = sorted(set.union(*files))
    at_once = {row.id: row for row in events_of(staged(spark, pool, everything), None, None, None).collect()}

    mart: dict[str, Row] = {}
    there: set[int] = set()
    for file in [*chance.sample(files, len(files)), chance.choice(files)]:
        ids = local_rows(spark, [(pool[n].id,) for n in file - there] or [("none",)], "id string").distinct()
        there |= file
        before = local_rows(spark, mart.values(), declared("events").spark_schema())
        for row in events_of(staged(spark, pool, sorted(there)), before, ids, None).collect():
            if row._deleted:
                del mart[row.id]
            else:
                mart[row.id] = Row(*(row[name] for name in before.columns))
    names = declared("events").column_names
    assert sorted(mart.values()) == sorted(Row(*(row[name] for name in names)) for row in at_once.values())
    assert len(mart) == len(everything)


@pytest.fixture(scope="module")
def pool(spark: SparkSession) -> list[Row]:
    """The events of POOL as staging has them."""
    parts = [[None if (v := part.strip()) == "-" else v for part in line.split("|")] for line in POOL]
    texts = local_rows(spark, parts, ", ".join(f"{name} string" for name in EVENTS.columns))
    typed = texts.select(*(f.parse(F.col(f.name)).cast(f.type).alias(f.name) for f in EVENTS.fields))
    return with_record_key(EVENTS, typed).collect()


def staged(spark: SparkSession, pool: list[Row], chosen: list[int]) -> DataFrame:
    fields = [T.StructField(f.name, f.type) for f in EVENTS.fields]
    schema = T.StructType([*fields, *(T.StructField(name, T.LongType()) for name in KEY)])
    return local_rows(spark, [pool[n] for n in chosen], schema)


def test_a_month_alone_and_the_others_later(spark: SparkSession, tmp_lake: str) -> None:
    lake, detail = Lake(spark, tmp_lake), list[str]()
    lake.stage(EVENTS, 1, FIRST, ALONE, "e4 | 2024-04-01 00:00:00 | eve@gmail.com | - | / | view | -")
    build_events(lake.run(), "2024-03", detail)
    assert detail == ["1 events of other months stay in staging: 2024-04 1"]
    assert lake.values("events", "id") == ["e1", "e2"]

    # An event of the month before comes late and takes an id: counted, and the id is right already.
    lake.stage(EVENTS, 2, EARLY, LATER)
    build_events(lake.run(), "2024-03", detail := [])
    assert detail == ["1 events of other months stay in staging: 2024-02 1"]
    found = (
        lake.mart("events").read().select("source_id", "is_clash").orderBy("source_id", "is_clash").collect()
    )
    assert [tuple(row) for row in found] == [("e1", True), ("e1", True), ("e2", False)]
    assert build_events(lake.run(), "2024-03") is False

    # Its month brings it, and leaves the other one's events.
    build_events(lake.run(), "2024-02")
    assert ids(lake)["2024-02-27 08:00:00"] == "e1"
    assert lake.mart("events").read().count() == 4
    build_events(lake.run())
    assert lake.values("events", "source_id") == ["e1", "e1", "e1", "e2", "e4"]

    # One of another month goes, so that it does not stay anywhere.
    lake.stage(EVENTS, 1, FIRST, ALONE)
    build_events(lake.run(), "2024-03", detail := [])
    assert detail == []
    assert lake.values("events", "source_id") == ["e1", "e1", "e1", "e2"]


def test_bad_events_are_rejected_with_their_reasons(spark: SparkSession, tmp_lake: str) -> None:
    zone = RawZone(spark, tmp_lake, "events")
    zone.put(
        {
            "day.csv": "id,timestamp,email,country,uri,action,tags,browser\n"
            'e1,2024-03-01T10:00:00Z,Ann@Example.com,Norway,/,view,"Sale, mobile",Firefox\n'
            "e1,2024-03-01T11:00:00+01:00,ann@example.com,Norway,/,view,sale;mobile,\n"  # the same event
            "e1,2024-03-01T10:00:00,ann@example.com,Norway,/,view,,\n"  # another one
            ",2024-02-30T10:00:00,ann,Norway,,,,\n"
            f"e2,2024-03-01T10:00:00,{'a' * 250}@example.com,{'N' * 101},/{'x' * 2048},{'v' * 101},,\n"
            "e3,1709287200,ann@example.com,Norway,/,view,,\n"
        }
    )
    zone.stage()
    assert zone.counts() == {"day.csv": (6, 2, 1, 3)}
    assert [reasons for _, reasons, _ in zone.rejected()] == [
        ("email_too_long", "country_too_long", "uri_too_long", "action_too_long"),
        ("id_missing", "timestamp_invalid", "email_invalid", "uri_missing", "action_missing"),
        ("timestamp_invalid",),
    ]
    # Of two that say the same, the one that says more stays.
    assert zone.rows("id", "email", "tags", "_extra") == [
        ("e1", "ann@example.com", ["sale", "mobile"], '{"browser":"Firefox"}'),
        ("e1", "ann@example.com", [], None),
    ]
    zone.put({"short.csv": "id,timestamp,email,country,uri,tags\n"})
    zone.stage()
    assert "missing column: action" in zone.refused()["short.csv"]


@pytest.mark.parametrize("month", ["2024-13", "2024-3", "march", "2024-03-01"])
def test_a_month_is_year_and_month(month: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["build-events", "--month", month])
    assert stop.value.code == 2
    assert f"{month!r} is not a month such as 2024-03" in capsys.readouterr().err
