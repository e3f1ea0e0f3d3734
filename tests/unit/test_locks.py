"""Locks of tables, in a folder and in a real object store: who waits, who breaks one, who must stop."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import LockLost, TableLocked, UserAnalyticsError
from jobs.lake.locks import Holder, TableLocks, holders, process_name, require_lock_not_lost
from jobs.lake.objects import LocalStore, ObjectStore, object_store
from jobs.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TABLE = "staging/logs"
PATH = "locks/staging/logs.json"
NO_BEAT = 1000.0


@pytest.fixture(params=["folder", pytest.param("object store", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return LocalStore(tmp_path)
    minio = request.getfixturevalue("minio")
    lake = {**minio.environment(), "LAKE_URI": f"s3a://{minio.make_bucket()}/a lake"}
    return object_store(Settings.from_env(lake))


def locks(store: ObjectStore, name: str = "first", **options: Any) -> TableLocks:
    """Locks of a run that waits for half a second, and is not taken for dead on a machine that is busy for seconds."""
    times = {"wait_seconds": 0.5, "beat_seconds": 0.1, "expiry_seconds": 30.0, "poll_seconds": 0.02}
    return TableLocks(store, "/lake", name, f"run-{name}", **{**times, **options})


def stranger(**fields: Any) -> Holder:
    """A holder on another machine, of whom nothing is known but what it wrote."""
    values: dict[str, Any] = {
        "table": TABLE,
        "token": "t",
        "command": "stage logs",
        "run_id": "run-stranger",
        "host": "elsewhere",
        "pid": 4711,
        "processes": ("another boot/pid:[1]/4711/1",),
        "taken_at": "2024-05-01T00:00:00+00:00",
        "expires_after": 0.4,
    }
    return Holder(**{**values, **fields})


def test_the_second_waits_says_for_whom_and_goes_on(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("user_analytics").propagate = True
    order: list[str] = []
    entered = threading.Event()

    def said() -> set[str]:
        return {r.getMessage() for r in list(caplog.records) if "waiting" in r.getMessage()}

    def first() -> None:
        with locks(store).hold(TABLE):
            entered.set()
            # On a busy machine the second may take a while to come.
            latest = time.monotonic() + 20
            while not said() and time.monotonic() < latest:
                time.sleep(0.05)
            order.append("first ends")

    with ThreadPoolExecutor(1) as pool, caplog.at_level("INFO", "user_analytics"):
        done = pool.submit(first)
        assert entered.wait(10)
        with locks(store, "second", wait_seconds=60).hold(TABLE):
            order.append("second begins")
        done.result()
    assert order == ["first ends", "second begins"]
    [waiting] = said()
    assert waiting.startswith(f"{TABLE}: waiting for `first` (process {os.getpid()} on ")
    assert holders(store) == []


def test_who_waited_long_enough_stops_and_says_whose_lock_it_is(store: ObjectStore) -> None:
    with locks(store, beat_seconds=NO_BEAT).hold(TABLE, "marts/users"):
        assert [holder.table for holder in holders(store)] == ["marts/users", TABLE]
        with pytest.raises(TableLocked) as caught, locks(store, "second", wait_seconds=0).hold(TABLE):
            pytest.fail("both are in")
        # Another table is free, and what a run has, it has.
        second = locks(store, "second", wait_seconds=0)
        with second.hold("staging/orders"), second.hold("staging/orders", "runs"):
            assert len(holders(store)) == 4
        assert len(holders(store)) == 2
    assert caught.value.exit_code == 1
    message = str(caught.value)
    for expected in (TABLE, "`first`", f"process {os.getpid()} on", "run run-first", "LOCK_WAIT_SECONDS"):
        assert expected in message


@pytest.mark.parametrize("end", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_is_given_back_however_the_block_ends(store: ObjectStore, end: type[BaseException]) -> None:
    with pytest.raises(end), locks(store).hold(TABLE):
        raise end
    with locks(store, "second", wait_seconds=0).hold(TABLE):
        assert [holder.command for holder in holders(store)] == ["second"]


def test_a_silent_holder_is_replaced_and_a_living_one_is_not(store: ObjectStore) -> None:
    store.swap(PATH, stranger().encode(), None)
    began = time.monotonic()
    with locks(store, wait_seconds=60, expiry_seconds=3.0).hold(TABLE):
        assert time.monotonic() - began >= 0.4, "it was looked at for as long as it may be silent"
        # Now we are the living one, for longer than we may be silent.
        with pytest.raises(TableLocked), locks(store, "second", wait_seconds=4.0).hold(TABLE):
            pytest.fail("a living holder was replaced")


def test_a_holder_whose_clock_is_wrong_is_judged_by_its_silence_alone(store: ObjectStore) -> None:
    for taken_at in ("1970-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"):
        there = store.fetch(PATH)
        late = stranger(taken_at=taken_at, expires_after=0.3)
        assert store.swap(PATH, late.encode(), there[1] if there else None)
        with pytest.raises(TableLocked), locks(store, wait_seconds=0.1).hold(TABLE):
            pytest.fail("not silent for long enough")
        with locks(store, wait_seconds=60).hold(TABLE):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process has no name")
def test_a_holder_that_died_on_this_machine_is_replaced_at_once(store: ObjectStore) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        mine = (process_name(os.getpid()), process_name(process.pid))
        assert store.swap(PATH, stranger(processes=mine[1:], expires_after=NO_BEAT).encode(), None)
        with pytest.raises(TableLocked), locks(store, wait_seconds=0).hold(TABLE):
            pytest.fail("it is alive")
        process.kill()
    with locks(store, wait_seconds=0).hold(TABLE):
        pass
    # As long as one of its processes lives, that may write.
    _, version = store.fetch(PATH) or (b"", "")
    assert store.swap(PATH, stranger(processes=mine, expires_after=NO_BEAT).encode(), version)
    with pytest.raises(TableLocked), locks(store, wait_seconds=0).hold(TABLE):
        pytest.fail("one of its processes is alive")


def test_a_process_that_joins_is_named_in_every_lock_of_the_run(store: ObjectStore) -> None:
    processes = ["python"]

    def named() -> set[tuple[str, ...]]:
        return {holder.processes for holder in holders(store)}

    ours = locks(store, processes=lambda: list(processes), beat_seconds=NO_BEAT)
    with ours.hold(TABLE, "staging/other"):
        assert named() == {("python",)}
        processes.append("java")
        ours.beat()
        assert named() == {("python", "java")}
    # Given back is given back.
    ours.beat()
    assert named() == set()

    # One that joins while a lock is being taken.
    answers = chain([["python"]], repeat(["python", "java"]))
    with locks(store, processes=lambda: next(answers), beat_seconds=NO_BEAT).hold(TABLE):
        assert named() == {("python", "java")}


def test_of_many_that_break_a_lock_one_at_a_time_has_it(store: ObjectStore) -> None:
    store.swap(PATH, stranger(expires_after=0.2).encode(), None)
    inside, most, turns = [0], [0], [0]
    start = threading.Barrier(6)

    def work(number: int) -> None:
        mine = locks(store, str(number), wait_seconds=60)
        start.wait(10)
        for _ in range(3):
            with mine.hold(TABLE):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.005)
                turns[0] += 1
                inside[0] -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert (most[0], turns[0]) == (1, 18)


def test_of_two_swaps_at_once_one_wins(store: ObjectStore) -> None:
    def both(number: int, version: str | None) -> list[str | None]:
        start = threading.Barrier(2)

        def swap(content: bytes) -> str | None:
            start.wait(10)
            return store.swap(PATH, content, version)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(swap, (b"one %d" % number, b"two %d" % number)))

    version = None
    for number in range(10):
        won = both(number, version)
        assert won.count(None) == 1
        content, version = store.fetch(PATH) or (b"", None)
        assert content.startswith(b"one" if won[0] else b"two")
        assert version == (won[0] or won[1])
    assert store.swap(PATH, b"three", '"0123456789abcdef0123456789abcdef"') is None
    assert store.swap("locks/none", b"three", str(version)) is None
    assert store.fetch("locks/none") is None


# -- lost locks ----------------------------------------------------------------------------------------------------


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_lost_a_lock_stops_before_the_next_commit(store: ObjectStore) -> None:
    told = threading.Event()

    def work() -> None:
        with locks(store, on_lost=told.set).hold(TABLE, "marts/users"):
            require_lock_not_lost(f"/lake/{TABLE}")
            _, version = store.fetch(PATH) or (b"", "")
            while store.swap(PATH, stranger().encode(), version) is None:
                _, version = store.fetch(PATH) or (b"", "")
            assert told.wait(20)
            require_lock_not_lost("/lake/marts/users")
            with pytest.raises(LockLost, match="stopped before the next commit"):
                require_lock_not_lost(f"/lake/{TABLE}")
            # What was under way ends with another error; the lock is what matters.
            raise ValueError("a job was cancelled")

    with pytest.raises(LockLost, match="another run took it over") as caught:
        work()
    assert isinstance(caught.value.__cause__, ValueError)
    assert [holder.run_id for holder in holders(store)] == ["run-stranger"], "the other one's lock stays"
    require_lock_not_lost(f"/lake/{TABLE}")


def test_who_lost_a_lock_begins_nothing_else_under_it(store: ObjectStore) -> None:
    def work() -> None:
        ours = locks(store, beat_seconds=NO_BEAT)
        with ours.hold(TABLE):
            _, version = store.fetch(PATH) or (b"", "")
            assert store.swap(PATH, stranger().encode(), version)
            ours.beat()
            with ours.hold("staging/_ingested_files"):
                pytest.fail("what it would write was made from what another run may have changed")

    with pytest.raises(LockLost, match=f"{TABLE}: the lock was lost"):
        work()
    assert [holder.run_id for holder in holders(store)] == ["run-stranger"]


class Faulty:
    """A store that can stop answering, before or after it did what it was asked for."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.fails = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def swap(self, path: str, content: bytes, version: str | None) -> str | None:
        if self.fails == "before":
            raise UserAnalyticsError("no answer")
        done = self.store.swap(path, content, version)
        if self.fails == "after":
            raise UserAnalyticsError("no answer")
        return done


def test_a_store_that_does_not_answer_for_long_ends_the_right_to_write(tmp_path: Path) -> None:
    store: Any = Faulty(LocalStore(tmp_path))
    told = threading.Event()

    def work() -> None:
        with locks(store, on_lost=told.set, expiry_seconds=1.0).hold(TABLE):
            store.fails = "before"
            assert told.wait(20)
            with pytest.raises(TableLocked), locks(store.store, "second", wait_seconds=0).hold(TABLE):
                pytest.fail("we stop first, others begin later")
            with pytest.raises(LockLost):
                require_lock_not_lost(f"/lake/{TABLE}")

    with pytest.raises(LockLost, match="the lake did not answer"):
        work()


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_short_silence_of_the_store_does_no_harm(tmp_path: Path, fails: str) -> None:
    store: Any = Faulty(LocalStore(tmp_path))
    with locks(store, beat_seconds=0.05).hold(TABLE):
        store.fails = fails
        time.sleep(0.2)
        [silent] = holders(store)
        store.fails = ""
        until(lambda: holders(store)[0].beat > silent.beat + 2)
        require_lock_not_lost(f"/lake/{TABLE}")
    assert holders(store) == []


def test_a_file_that_is_no_lock_is_named(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.swap(PATH, b"{}", None)
    with pytest.raises(UserAnalyticsError, match=PATH), locks(store).hold(TABLE):
        pytest.fail("nobody knows whose it is")


# -- processes that end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_process_that_is_ended_does_not_keep_its_lock(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    program = f"""
        import sys, time
        from pathlib import Path
        from jobs.context import job_main
        from jobs.lake.locks import TableLocks
        from jobs.lake.objects import LocalStore

        def body():
            with TableLocks(LocalStore(Path({str(tmp_path)!r})), "/lake", "child", "run-child", 0).hold("{TABLE}"):
                print("in", flush=True)
                time.sleep(60)

        sys.exit(job_main(body))
    """
    store = LocalStore(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        [holder] = holders(store)
        assert (holder.command, holder.pid) == ("child", process.pid)
        process.send_signal(sent)
        assert process.wait(30) == code
    assert bool(holders(store)) is (sent == signal.SIGKILL), "who is killed gives nothing back"
    assert replace(holder, released=True).is_gone()
    with locks(store, wait_seconds=0).hold(TABLE):
        pass
