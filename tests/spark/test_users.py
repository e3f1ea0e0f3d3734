"""users and users_history: what files say of a user, in whichever order they come; and that no password leaks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import jobs.build_users as job
from jobs.build_users import build_users
from jobs.errors import RejectedShareExceeded, UserAnalyticsError
from jobs.feeds.users import ATTRIBUTES, USERS
from jobs.lake.marts import chosen_columns, declared
from jobs.origins import origin_of
from jobs.reset_marts import reset_marts
from jobs.settings import Settings
from jobs.transforms.keys import hash_id
from jobs.transforms.parsing import email_address, timestamp_or_date
from jobs.transforms.users import users_history
from tests.lakes import Lake, all_rows_are_many, put_back
from tests.records import MD5, USER_HEADER, csv_text, user, users
from tests.staging import RawZone, balanced

pytestmark = pytest.mark.spark

PLACE = ("latitude", "longitude", "country", "region", "city", "timezone", "isp_name", "location_status")


class Users:
    """A lake with users: deliver files, stage and build, look at the tables."""

    def __init__(self, spark: SparkSession, folder: Path | str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.zone, self.lake = RawZone(spark, str(folder), "users"), Lake(spark, folder)

    def bring(self, day: float = 1, **files: str) -> bool:
        """Deliver files on a day of January 2024 and build; gives whether there was anything to do."""
        self.zone.put({f"{name}.csv": content for name, content in files.items()}, day)
        self.zone.stage()
        return build_users(self.lake.run())

    def now(self) -> list[str]:
        """`email status since-day-of-March` per user, with a * where it was updated."""
        rows = self.lake.mart("users").read().orderBy("email").collect()
        return [f"{r.email} {r.status} {r.updated_at:%-d.%-m.}{'*' if r.updated else ''}" for r in rows]

    def history(self) -> list[str]:
        """`email version: status from - until` per version."""
        rows = self.lake.mart("users_history").read().orderBy("email", "version").collect()
        assert all(row.is_current == (row.valid_to is None) for row in rows)
        return [
            f"{r.email} {r.version}: {r.status} {r.valid_from:%-d.%-m.}"
            + (f" - {r.valid_to:%-d.%-m.}" if r.valid_to else "")
            for r in rows
        ]

    def tables(self) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
        return self.lake.rows("users"), self.lake.rows("users_history")


def ann(status: str, day: int, **fields: Any) -> dict[str, Any]:
    return user("ann@x.org", status=status, updated_at=day, **fields)


def test_day_by_day(spark: SparkSession, tmp_lake: str) -> None:
    lake = Users(spark, tmp_lake)
    bob, cid = user("bob@x.org", updated_at=2), user("cid@x.org", updated_at=3)
    assert lake.bring(first=users(ann("invited", 5), bob))
    assert lake.now() == ["ann@x.org invited 5.3.", "bob@x.org active 2.3."]
    [row] = lake.lake.mart("users").read().where("email = 'bob@x.org'").collect()
    assert row.asDict() == {
        "id": row.id,
        "source_id": "1",
        "first_name": "Ann",
        "last_name": "Lee",
        "email": "bob@x.org",
        "gender": "female",
        "ip_address": "8.8.8.8",
        "created_at": datetime(2024, 1, 1, 9),  # noqa: DTZ001
        "updated_at": datetime(2024, 3, 2),  # noqa: DTZ001
        "password": MD5,
        "status": "active",
        "updated": False,
        **dict.fromkeys(PLACE),
    }

    # One changed, under the same address in other letters; one as it was; one new.
    second = users({**ann("active", 10), "email": " Ann@X.org "}, bob, cid)
    assert lake.bring(day=2, second=second)
    assert lake.now() == ["ann@x.org active 10.3.*", "bob@x.org active 2.3.", "cid@x.org active 3.3."]
    assert lake.history()[:2] == ["ann@x.org 1: invited 5.3. - 10.3.", "ann@x.org 2: active 10.3."]
    assert lake.zone.counts()["second.csv"] == (3, 2, 1, 0)
    assert {r.id for r in lake.lake.mart("users").read().collect()} == {
        r.user_id for r in lake.lake.mart("users_history").read().collect()
    }
    before = lake.lake.mart("users").version()
    assert lake.bring() is False
    assert lake.lake.mart("users").version() == before

    # An older state comes late, and one from between: the newer row stays, the history says when which was valid.
    assert lake.bring(day=3, late=users(ann("registered", 1), ann("blocked", 7), ann("invited", 8)))
    assert lake.now()[0] == "ann@x.org active 10.3.*"
    assert lake.history()[:5] == [
        "ann@x.org 1: registered 1.3. - 5.3.",
        "ann@x.org 2: invited 5.3. - 7.3.",
        "ann@x.org 3: blocked 7.3. - 8.3.",
        "ann@x.org 4: invited 8.3. - 10.3.",
        "ann@x.org 5: active 10.3.",
    ]
    # What did not change has nothing to publish.
    assert lake.lake.changed("users", before) == []

    # The second file is corrected: without cid, and ann was not changed after all.
    assert lake.bring(day=4, second=users(bob))
    assert lake.now() == ["ann@x.org invited 8.3.*", "bob@x.org active 2.3."]
    assert lake.history()[3:] == ["ann@x.org 4: invited 8.3.", "bob@x.org 1: active 2.3."]


def test_versions_may_differ_by_a_microsecond(spark: SparkSession, tmp_lake: str) -> None:
    lake = Users(spark, tmp_lake)
    made = [f"2024-01-01T00:00:00.{fraction}Z" for fraction in ("123", "123001", "123")]
    for day, created_at in enumerate(made, 1):
        lake.bring(day, **{f"file{day}": users(ann("active", day, created_at=created_at))})
    history = lake.lake.mart("users_history").read().orderBy("version").collect()
    assert [row.created_at.microsecond for row in history] == [123_000, 123_001, 123_000]
    assert len(set(lake.zone.rows("content_id"))) == 2


def test_what_is_read_as_what(spark: SparkSession) -> None:
    texts = {
        "Ann.Lee+x@Mail.Example.ORG": "ann.lee+x@mail.example.org",
        **dict.fromkeys(
            ("ann", "ann@", "@x.org", "a@b@x.org", "a n@x.org", "ann@x", "ann@x..org", "ann@.org")
        ),
    }
    times = {
        "2024-02-29": "2024-02-29 00:00:00",
        "2/29/2024": "2024-02-29 00:00:00",
        "2/29/2024 8:05": "2024-02-29 08:05:00",
        "2024-02-29T08:05:00+02:00": "2024-02-29 06:05:00",
        **dict.fromkeys(("2023-02-29", "2/30/2024", "29.2.2024", "2024", "1709164800", "0000-01-01", "")),
    }
    frame = spark.createDataFrame(
        [(n, *pair) for n, pair in enumerate(zip_longest(texts, times))], "n int, a string, b string"
    )
    read = frame.select(
        "n",
        "a",
        "b",
        email_address(F.col("a")),
        timestamp_or_date(F.col("b")).cast("string"),
        hash_id(F.col("a")),
    )
    rows = read.sort("n").collect()
    assert {row[1]: row[3] for row in rows if row[1] is not None} == texts
    assert {row[2]: row[4] for row in rows if row[2] is not None} == times
    # If this fails, users in every lake and warehouse would get other ids.
    assert [row[5] for row in rows if row[1] == "ann"] == ["49915e0d-7d4b-8402-a301-7d010bc1c0e8"]


def test_versions_without_a_date_of_their_own(spark: SparkSession, tmp_lake: str) -> None:
    """Never updated: since created_at. Another content of the same date: since it was delivered."""
    lake = Users(spark, tmp_lake)
    lake.bring(day=5, first=users(user(status="invited"), user("b@x.org", created_at="")))
    lake.bring(day=9, second=users(user(status="active"), user("b@x.org", created_at="", status="closed")))
    assert lake.history() == [
        "ann@example.org 1: invited 1.1. - 10.1.",
        "ann@example.org 2: active 10.1.",
        "b@x.org 1: active 6.1. - 10.1.",
        "b@x.org 2: closed 10.1.",
    ]
    # The first file again, under another name: what it says was known before.
    lake.bring(day=12, again=users(user(status="invited")))
    assert lake.now()[0] == "ann@example.org active 10.1.*"
    # With a date of its own, what comes late ends the others where it begins.
    lake.bring(day=13, late=users(user(status="blocked", updated_at="2024-01-07")))
    assert lake.history()[:2] == ["ann@example.org 1: invited 1.1. - 7.1.", "ann@example.org 2: blocked 7.1."]


def test_a_run_killed_between_the_two_tables_goes_on(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, clean = Users(spark, tmp_path / "killed"), Users(spark, tmp_path / "clean")
    follow = job._follow

    def die_at_users(run: Any, mart: Any, *arguments: Any) -> None:
        if mart.uri.endswith("/users"):
            raise KeyboardInterrupt
        follow(run, mart, *arguments)

    deliveries = [{"first": users(ann("invited", 5), user())}, {"second": users(ann("active", 10))}]
    for day, files in enumerate(deliveries):
        monkeypatch.setattr(job, "_follow", die_at_users)
        with pytest.raises(KeyboardInterrupt):
            killed.bring(day, **files)
        monkeypatch.undo()
        assert killed.bring() is True
        clean.bring(day, **files)
        assert killed.tables() == clean.tables()

    # A mart that is moved away is made anew, and the other one stays as it is.
    (Path(killed.lake.folder) / "marts" / "users_history").rename(tmp_path / "away")
    assert killed.bring() is True
    assert killed.tables() == clean.tables()


def test_staging_that_was_restored_stops_the_build_until_both_tables_are_reset(
    spark: SparkSession, tmp_lake: str
) -> None:
    lake = Users(spark, tmp_lake)
    for day in (1, 2, 3):
        lake.bring(day, **{f"file-{day}": users(ann(f"status {day}", day))})
    put_back(spark, lake.lake.staged(USERS).uri, versions=2)
    # Without the history alone, the next build would make it anew, and leave users as it is.
    shutil.rmtree(lake.lake.mart("users_history").uri)
    with pytest.raises(
        UserAnalyticsError,
        match=r"marts/users: made from version 3 of users, of which only 2 are.*`user-analytics reset marts/users`",
    ):
        lake.bring(4, other=users(user("b@x.org", updated_at=4)))
    reset_marts(lake.lake.run(), [origin_of("users")])
    assert lake.bring() is True
    # The ledger knew of more rows than were restored, so their files were read again.
    assert lake.now() == ["ann@x.org status 3 3.3.*", "b@x.org active 4.3."]
    assert lake.history() == [
        "ann@x.org 1: status 1 1.3. - 2.3.",
        "ann@x.org 2: status 2 2.3. - 3.3.",
        "ann@x.org 3: status 3 3.3.",
        "b@x.org 1: active 4.3.",
    ]


FILES = {
    "a": (1, users(ann("invited", 5), user("b@x.org"), ann("invited", 5, first_name="A."))),
    "b": (2, users(ann("active", 10), user("B@x.org", status="closed"), user("c@x.org", updated_at=9))),
    "c": (
        3,
        users(ann("new", 1), ann("blocked", 10), user("b@x.org", status="new", updated_at="2024-01-20")),
    ),
    "copy-of-a": (4, users(ann("invited", 5), user("b@x.org"))),
}


@pytest.fixture(scope="module")
def at_once(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Users:
    lake = Users(spark, tmp_path_factory.mktemp("at once"))
    for name, (day, content) in FILES.items():
        lake.zone.put({f"{name}.csv": content}, day)
    lake.bring()
    assert lake.now() == ["ann@x.org blocked 10.3.*", "b@x.org new 20.1.*", "c@x.org active 9.3."]
    assert len(lake.history()) == 7
    return lake


@given(order=st.permutations([*FILES, *FILES]))
@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_any_order_and_repetition_of_files_gives_the_same_tables(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, at_once: Users, order: list[str]
) -> None:
    lake = Users(spark, tmp_path_factory.mktemp("in turn"))
    for start, end in ((0, 3), (3, 8)):
        for number, name in enumerate(order[start:end], start):
            day, content = FILES[name]
            # The second time under another name, with the date that it had.
            again = "again-" if name in order[:number] else ""
            lake.zone.put({f"{again}{name}.csv": content}, day)
        # The second half as though it were a large one.
        with all_rows_are_many() if start else nullcontext():
            lake.bring()
    assert lake.tables() == at_once.tables()


class Version(NamedTuple):
    email: str
    changed_at: datetime
    delivered_at: datetime
    content: str


DAYS = st.integers(0, 6).map(lambda n: datetime(2024, 1, 1) + timedelta(days=n))  # noqa: DTZ001
VERSIONS = st.lists(
    st.builds(Version, st.sampled_from("xyz"), DAYS, DAYS, st.sampled_from("abc")), max_size=40
)


def history_by_hand(versions: Sequence[Version]) -> dict[str, list[tuple[datetime, str]]]:
    """email → (since, content), told from the rules' words."""
    found = {}
    for email in {v.email for v in versions}:
        ordered = sorted(v for v in versions if v.email == email)
        dates = [v.changed_at for v in ordered]
        states: dict[datetime, str] = {}
        for i, version in enumerate(ordered):
            since = version.changed_at
            if i and dates[i - 1] == since:
                next_date = min((date for date in dates if date > since), default=since + timedelta(days=99))
                since = min(max(since, version.delivered_at), next_date)
            states[since] = version.content
        timeline = sorted(states.items())
        found[email] = [
            s
            for s, before in zip(timeline, [None, *timeline], strict=False)
            if not before or before[1] != s[1]
        ]
    return found


@given(versions=VERSIONS)
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_history_is_what_the_rules_say(spark: SparkSession, versions: list[Version]) -> None:
    first: dict[tuple[str, datetime, str], Version] = {}
    for version in sorted(versions):
        first.setdefault((version.email, version.changed_at, version.content), version)
    staged = spark.createDataFrame(
        [(*v, *[v.content] * len(ATTRIBUTES)) for v in first.values()],
        "email string, changed_at timestamp, delivered_at timestamp, content_id string, "
        + ", ".join(f"{name} string" for name in ATTRIBUTES),
    )
    rows = users_history(staged).orderBy("email", "version").collect()
    found: dict[str, list[tuple[datetime, str]]] = {}
    for row in rows:
        found.setdefault(row.email, []).append((row.valid_from, row.status))
    assert found == history_by_hand(list(first.values()))
    for row, following in zip(rows, [*rows[1:], None], strict=False):
        same = following is not None and following.email == row.email
        assert row.valid_to == (following.valid_from if same and following else None)


# -- passwords -------------------------------------------------------------------------------------------------

BCRYPT = "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW"
ARGON2 = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b5dWRWJTmaaJObG"
SECRET = "Hunter2"
HEADER = ",".join(USER_HEADER)
LINE = f"1,Ann,Lee,ann@x.org,f,8.8.8.8,2024-01-01,,{SECRET},active"


def with_password(password: str, email: str = "x@x.org", **fields: str) -> dict[str, str]:
    return user(email, password=password, **fields)


HASHES = {"md5": MD5, "upper": MD5.upper(), "sha256": MD5 * 2, "bcrypt": BCRYPT, "argon2": ARGON2, "none": ""}
NO_HASHES = (
    SECRET,
    MD5[1:],
    f"{MD5}0",
    MD5.replace("5", "g"),
    BCRYPT[:-1],
    BCRYPT[1:],
    ARGON2[:30],
    f"{SECRET} {MD5}",
)
# Files in which a password comes where it should not.
LEAKS = {
    "no-header.csv": LINE,
    "no-header-repeated.csv": f"{SECRET},{SECRET}",
    "open-quote.csv": f'{HEADER}\n1,"Ann,Lee,ann@x.org,f,8.8.8.8,2024-01-01,,{SECRET},active\n{LINE}',
    "open-quote-in-password.csv": f"{HEADER}\n{LINE.replace(SECRET, chr(34) + SECRET)}\n{LINE}\n",
    "line-break.csv": users(
        with_password(f"{SECRET}\n{SECRET}"), with_password(MD5, first_name=f"A\n{SECRET}")
    ),
    "columns.csv": f"{HEADER}\n{LINE},more\n1,Ann,{SECRET}\n",
    "latin-1.csv": f"{HEADER}\n{LINE.replace('Lee', 'Lée')}\n{LINE.replace(SECRET, SECRET + 'é')}\n",
    "other-column.csv": csv_text(
        [
            {
                "email": "other@x.org",
                "first_name": "Ann",
                "last_name": "Lee",
                "User_Password": SECRET,
                "team": "red",
            }
        ],
        ["email", "first_name", "last_name", "User_Password", "team"],
    ),
    "other-reasons.csv": users(
        with_password(SECRET, "no address"), with_password(MD5, "", first_name="x" * 101)
    ),
    "many-columns.csv": f"{HEADER}\n{LINE}{',' * 30_000}\n",
    "very-long.csv": users(with_password(SECRET + "x" * 11_000_000)),
    "good.csv": users(with_password(MD5, "good@x.org")),
}


@pytest.fixture(scope="module")
def passwords(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> RawZone:
    zone = RawZone(spark, str(tmp_path_factory.mktemp("passwords")), "users")
    zone.put({"hashes.csv": users(*(with_password(text, f"{kind}@x.org") for kind, text in HASHES.items()))})
    zone.put({"no-hashes.csv": users(*map(with_password, NO_HASHES))})
    zone.put({name: text.encode("latin-1") for name, text in LEAKS.items()})
    return zone


def test_only_hashes_are_taken_and_nothing_else_leaks(
    passwords: RawZone, capfd: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(RejectedShareExceeded) as stopped:
        passwords.stage(max_rejected_share=0.1)
    passwords.stage()

    assert dict(passwords.rows("email", "password")) == {
        "good@x.org": MD5,
        "other@x.org": None,
        **{f"{kind}@x.org": text or None for kind, text in HASHES.items()},
    }
    assert ('{"User_Password":"***","team":"red"}',) in passwords.rows("_extra")
    assert all(map(balanced, passwords.ledger().values()))
    assert passwords.reasons() == {
        "password_invalid": 12,
        "wrong_number_of_columns": 9,
        "invalid_utf8": 2,
        "email_invalid": 1,
        "email_missing": 1,
        "first_name_too_long": 1,
    }
    kept = {name: record for name, _, record in passwords.rejected()}
    assert '"password":"***"' in kept["no-hashes.csv"]
    assert kept["columns.csv"].startswith("withheld, it may hold password: ")
    refused = passwords.refused()
    assert sorted(refused) == ["no-header-repeated.csv", "no-header.csv"]
    assert refused["no-header.csv"].endswith("(as email); the header has 10 columns")

    spark_log = tmp_path_factory.getbasetemp() / "spark0" / "logs" / "spark.log"
    everything = [
        passwords.rejected(),
        passwords.rows(),
        passwords.ledger(),
        stopped.value,
        capfd.readouterr(),
    ]
    for text in (*map(repr, everything), spark_log.read_text()):
        assert SECRET not in text


def test_passwords_can_be_dropped_altogether(spark: SparkSession, tmp_path: Path) -> None:
    lake = Users(spark, tmp_path)
    lake.bring(first=users(with_password(MD5)))
    dropping = {"LAKE_URI": str(tmp_path), "SECRET_COLUMNS": "drop"}
    lake.zone.settings = lake.lake.settings = Settings.from_env(dropping)
    with pytest.raises(
        UserAnalyticsError, match=r"users_history has the column password.*made anew from raw"
    ):
        lake.bring(second=users(with_password(SECRET, "plain@x.org")))

    for name in ("staging", "marts"):
        shutil.rmtree(tmp_path / name)
    lake.bring()
    assert lake.zone.rows("email", "password", "_extra") == [
        ("plain@x.org", None, None),
        ("x@x.org", None, None),
    ]
    assert len(lake.now()) == 2
    for name in ("users", "users_history"):
        assert "password" not in lake.lake.mart(name).read().columns
    tables = [chosen_columns(declared(name), lake.lake.settings) for name in ("users", "users_history")]
    assert all("password" not in table.column_names for table in tables)
