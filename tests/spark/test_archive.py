"""Raw files in the archive: staged rows stay, nothing is read again, and what is brought back ends as it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pytest
from pyspark.sql import SparkSession

from jobs.cli import main
from jobs.context import RunContext
from jobs.errors import ConfigurationError, LockLost, UserAnalyticsError
from jobs.lake.archive import archive, note_waiting, restore
from jobs.lake.objects import LocalStore
from jobs.upload_files import upload
from tests.records import event, json_lines
from tests.staging import RawZone, taken_over
from tests.write_points import Killed

pytestmark = pytest.mark.spark

# Of January 2024; files are of the days 1 to 3.
DAY_3 = datetime(2024, 1, 3, 12, tzinfo=UTC)


def orders(*rows: str) -> str:
    """Order, customer and quantity as a CSV file."""
    return "\n".join(
        ["order_id,customer_id,quantity,product,price,order_date", *(f"{r},Pen,1,2024-01-01" for r in rows)]
    )


def test_files_go_and_come_back(spark: SparkSession, tmp_lake: str) -> None:
    zone, lake = RawZone(spark, tmp_lake, "logs"), Path(tmp_lake)
    zone.put({"a.jsonl": json_lines(event("ann"), event("bob"))}, 0)
    zone.put({"sub/my b.jsonl": json_lines(event("ann"), event("cid"))}, 1)
    zone.put({"young.jsonl": json_lines(event("dan"))}, 5)
    zone.stage()
    rows, counts = zone.rows(), zone.counts()
    zone.put({"new.jsonl": json_lines(event("eve"))}, 1)

    def below(folder: str) -> list[str]:
        return sorted(p.relative_to(lake / folder).as_posix() for p in (lake / folder).rglob("*.jsonl"))

    assert len(archive(zone.run(), "logs", DAY_3, write=False)) == 2
    assert below("archive") == []
    # Neither what is young nor what was not staged yet; again, nothing more.
    for found in (2, 0):
        assert len(archive(zone.run(), "logs", DAY_3)) == found
        assert below("archive") == ["logs/a.jsonl", "logs/sub/my b.jsonl"]
        assert below("raw") == ["logs/new.jsonl", "logs/young.jsonl"]
    zone.folder.joinpath("new.jsonl").unlink()
    assert zone.stage().entries == ()
    assert (zone.rows(), zone.counts()) == (rows, counts)

    # A correction of a file beside which b, with its duplicate, has to be read.
    zone.put({"a.jsonl": json_lines(event("bob"))}, 6)
    with pytest.raises(UserAnalyticsError, match=r"1 are archived.*--restore 'raw/logs/sub/my b\.jsonl'"):
        zone.stage()
    with pytest.raises(ConfigurationError, match="other content"):
        restore(zone.run(), ["archive/logs/a.jsonl"])
    for path in ("archive/logs/none.jsonl", "archive/../raw/x", "elsewhere"):
        with pytest.raises(ConfigurationError):
            restore(zone.run(), [path])
    zone.folder.joinpath("a.jsonl").unlink()

    asked_for = ["archive/logs/sub/my b.jsonl", "raw/logs/a.jsonl", "archive/logs/a.jsonl"]
    assert restore(zone.run(), asked_for) == ["raw/logs/sub/my b.jsonl", "raw/logs/a.jsonl"]
    assert below("archive") == []
    assert {entry.path for entry in zone.stage().entries} == {"raw/logs/a.jsonl", "raw/logs/sub/my b.jsonl"}
    assert (zone.rows(), zone.counts()) == (rows, counts)
    assert zone.ledger()["a.jsonl"].modified_at == datetime(2024, 1, 1, tzinfo=UTC)
    assert zone.stage().entries == ()


def test_one_of_several_that_share_records_comes_back_alone(spark: SparkSession, tmp_lake: str) -> None:
    zone = RawZone(spark, tmp_lake, "logs")
    for day, name in enumerate("abc"):
        zone.put({f"{name}.jsonl": json_lines(event("ann"), event("ann"), event(name))}, day)
    zone.stage()
    rows, counts = zone.rows(), zone.counts()
    # Young is c, which the staging of a reads beside it.
    archive(zone.run(), "logs", datetime(2024, 1, 2, 12, tzinfo=UTC))
    restore(zone.run(), ["archive/logs/a.jsonl"])
    assert [entry.path for entry in zone.stage().entries] == ["raw/logs/a.jsonl", "raw/logs/c.jsonl"]
    assert (zone.rows(), zone.counts()) == (rows, counts)


def test_the_correction_of_an_archived_file_needs_the_others_only(spark: SparkSession, tmp_lake: str) -> None:
    zone = RawZone(spark, tmp_lake, "logs")
    zone.put({"a.jsonl": json_lines(event("ann"), event("ann"))})
    zone.stage()
    archive(zone.run(), "logs", DAY_3)
    zone.put({"a.jsonl": json_lines(event("bob"), event("bob")), "b.jsonl": json_lines(event("cid"))}, 2)
    zone.stage()
    assert zone.rows("user_id") == [("bob",), ("cid",)]
    # That of another one: a is read beside it as it is in raw/, and not asked for.
    zone.put({"b.jsonl": json_lines(event("dan"))}, 3)
    zone.stage()
    assert zone.rows("user_id") == [("bob",), ("dan",)]


def require_a_is_a_delivery_that_asks_for(zone: RawZone, archived: str) -> None:
    """Of orders, the correction of a has only o1; o2 is in an archived file, too, which has to be read beside it."""
    with pytest.raises(UserAnalyticsError, match=rf"1 are archived.*--restore raw/orders/{archived}\.csv"):
        zone.stage()
    restore(zone.run(), [f"archive/orders/{archived}.csv"])
    zone.stage()
    assert zone.rows("order_id", "quantity") == [("o1", 7), ("o2", 3)]
    assert zone.ledger()["a.csv"].modified_at == datetime(2024, 1, 7, tzinfo=UTC)


def test_a_correction_of_what_was_brought_back_is_a_delivery_of_its_own(
    spark: SparkSession, tmp_lake: str
) -> None:
    """It counted as delivered when the archived one was, and took away what archived files delivered, too."""
    zone = RawZone(spark, tmp_lake, "orders")
    zone.put({"a.csv": orders("o1,1,3", "o2,1,3")}, 1)
    zone.stage()
    zone.put({"b.csv": orders("o1,1,5")}, 2)
    zone.put({"c.csv": orders("o2,1,3")}, 2)
    zone.stage()
    archive(zone.run(), "orders", DAY_3)
    restore(zone.run(), ["archive/orders/a.csv", "archive/orders/b.csv"])
    zone.put({"a.csv": orders("o1,1,7")}, 6)
    require_a_is_a_delivery_that_asks_for(zone, "c")


def test_a_correction_that_a_killed_erasure_wrote_anew_is_still_a_delivery(
    spark: SparkSession, tmp_lake: str
) -> None:
    """It passed for what was staged before, and took away what an archived file had delivered, too."""
    zone = RawZone(spark, tmp_lake, "orders")
    zone.put({"a.csv": orders("o1,1,3", "o2,1,3")}, 1)
    zone.stage()
    zone.put({"b.csv": orders("o2,1,3")}, 2)
    zone.stage()
    archive(zone.run(), "orders", DAY_3)
    zone.put({"a.csv": orders("o1,1,7", "o3,2,1")}, 6)
    # As `erase` leaves what is not staged yet, where it is killed.
    (waiting,) = zone.store.list("raw/orders")
    note_waiting(zone.run(), "orders", [waiting])
    zone.put({"a.csv": orders("o1,1,7")}, 7)
    require_a_is_a_delivery_that_asks_for(zone, "b")


@pytest.mark.parametrize("stopped_at", ["the note of a", "the removal of a", "the move of b"])
def test_a_restore_that_was_killed_is_brought_to_its_end(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch, stopped_at: str
) -> None:
    """The same command said that there is no such file as the one that was back, and brought back no other."""
    zone = RawZone(spark, tmp_lake, "orders")
    zone.put({"a.csv": orders("o1,1,3"), "b.csv": orders("o2,1,3")}, 1)
    zone.stage()
    zone.put({"c.csv": orders("o1,1,5")}, 2)
    zone.stage()
    rows, counts = zone.rows(), zone.counts()
    archive(zone.run(), "orders", DAY_3)
    both = ["archive/orders/a.csv", "archive/orders/b.csv"]

    def stop(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if stopped_at == "the note of a":
            patch.setattr("jobs.lake.archive.note_rewritten", stop)
        else:
            moment = {"a": f"delete {both[0]}", "b": f"open {both[1]}"}[stopped_at[-1]]
            zone.store = Interrupted(Path(tmp_lake), moment, stop)
        run = zone.run()
        with pytest.raises(Killed):
            restore(run, both)
    zone.store = LocalStore(Path(tmp_lake))
    assert restore(zone.run(), both) == ["raw/orders/a.csv", "raw/orders/b.csv"]
    # Again, after its answer was lost.
    assert restore(zone.run(), both) == ["raw/orders/a.csv", "raw/orders/b.csv"]
    zone.stage()
    assert (zone.rows(), zone.counts()) == (rows, counts)
    # What is staged is not read once more for it.
    restore(zone.run(), both)
    assert zone.stage().entries == ()


class Interrupted(LocalStore):
    """A lake in which something else happens the moment that a file is opened or removed."""

    def __init__(self, root: Path, moment: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self.moment, self.meanwhile = moment, meanwhile

    def open(self, path: str) -> IO[bytes]:
        stream = super().open(path)
        self._pass(f"open {path}")
        return stream

    def delete(self, path: str) -> None:
        self._pass(f"delete {path}")
        super().delete(path)

    def _pass(self, moment: str) -> None:
        if moment == self.moment:
            self.moment = ""
            self.meanwhile()


@pytest.mark.parametrize("moment", ["open raw/logs/a.jsonl", "delete raw/logs/b.jsonl"])
def test_a_correction_waits_until_files_are_moved(
    spark: SparkSession, tmp_lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It came while another file was on its way, or its own between the copy and the removal, and was lost."""
    zone = RawZone(spark, tmp_lake, "logs")
    zone.put({"a.jsonl": json_lines(event("ann")), "b.jsonl": json_lines(event("bob"))})
    zone.stage()
    correction = tmp_path / "b.jsonl"
    correction.write_text(json_lines(event("bea")))
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    monkeypatch.setenv("LOCK_WAIT_SECONDS", "0")
    ends: list[int] = []

    def correct() -> None:
        ends.append(main(["upload", "logs", str(correction), "--replace"]))

    zone.store = Interrupted(Path(tmp_lake), moment, correct)
    archive(zone.run(), "logs", DAY_3)
    correct()
    assert ends == [1, 0], "it would have had to wait"
    zone.stage()
    assert zone.rows("user_id") == [("ann",), ("bea",)]


def asleep(run: RunContext, moment: str, meanwhile: Callable[[], object]) -> RunContext:
    """A run that sleeps at a moment until another one has taken its lock over and does something."""
    root = run.settings.lake_uri
    run.locks.beat_seconds = run.locks.expiry_seconds = 1000.0

    def sleep() -> None:
        taken_over(run.locks.store, "staging/logs")
        meanwhile()
        # What it does first when it goes on.
        run.locks.beat()

    run.store = Interrupted(Path(root), moment, sleep)
    return run


@pytest.mark.parametrize("moment", ["open raw/logs/a.jsonl", "open archive/logs/a.jsonl"])
def test_an_archive_that_slept_until_another_run_had_its_lock_touches_no_correction(
    spark: SparkSession, tmp_lake: str, tmp_path: Path, moment: str
) -> None:
    """One that was archived it wrote over, one in the raw zone it removed."""
    zone = RawZone(spark, tmp_lake, "logs")
    zone.put({"a.jsonl": json_lines(event("ann"))})
    zone.stage()
    correction = tmp_path / "a.jsonl"
    correction.write_text(json_lines(event("bea")))

    def correct() -> None:
        upload(zone.store, "logs", [correction], replace=True)
        if moment.startswith("open raw"):
            zone.stage()
            assert archive(zone.run(), "logs", datetime.max.replace(tzinfo=UTC))

    with pytest.raises(LockLost):
        archive(asleep(zone.run(), moment, correct), "logs", DAY_3)
    found = [path.read_bytes() for path in Path(tmp_lake).rglob("a.jsonl")]
    assert correction.read_bytes() in found


def test_a_restore_that_slept_until_another_run_had_its_lock_removes_no_file_for_good(
    spark: SparkSession, tmp_lake: str
) -> None:
    zone = RawZone(spark, tmp_lake, "logs")
    zone.put({"a.jsonl": json_lines(event("ann"))})
    zone.stage()
    archive(zone.run(), "logs", DAY_3)

    def archive_again() -> None:
        zone.stage()
        assert archive(zone.run(), "logs", DAY_3)

    with pytest.raises(LockLost):
        restore(asleep(zone.run(), "open raw/logs/a.jsonl", archive_again), ["archive/logs/a.jsonl"])
    assert [path.name for path in Path(tmp_lake).rglob("a.jsonl")] == ["a.jsonl"]


def test_a_file_that_comes_back_does_not_replace_a_new_delivery(
    spark: SparkSession, tmp_lake: str, tmp_path: Path
) -> None:
    zone = RawZone(spark, tmp_lake, "logs")
    zone.put({"a.jsonl": json_lines(event("ann"))})
    zone.stage()
    archive(zone.run(), "logs", DAY_3)
    delivery = tmp_path / "a.jsonl"
    delivery.write_text(json_lines(event("bob")))
    store = zone.store

    def deliver() -> None:
        upload(store, "logs", [delivery])

    zone.store = Interrupted(Path(tmp_lake), "open archive/logs/a.jsonl", deliver)
    with pytest.raises(UserAnalyticsError, match=r"raw/logs/a\.jsonl was delivered anew meanwhile"):
        restore(zone.run(), ["archive/logs/a.jsonl"])
    assert (zone.folder / "a.jsonl").read_bytes() == delivery.read_bytes()
    # It counted as delivered when the archived one was, and gave way to what came between the two.
    zone.stage()
    delivered_at = zone.ledger()["a.jsonl"].modified_at.timestamp()
    assert delivered_at == pytest.approx(delivery.stat().st_mtime, abs=60)
