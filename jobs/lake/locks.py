"""A lock per table of the lake: one job at a time decides what to write there. Why, and how: docs/decisions/locks.md.

Nothing here compares the clocks of two machines, or looks at the time of day: who waits measures, with a clock of its
own that only goes forward, how long a holder has not changed its lock.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from jobs.console import log
from jobs.errors import LockLost, TableLocked, UserAnalyticsError
from jobs.lake.objects import ObjectStore

FOLDER = "locks"
LINUX = sys.platform.startswith("linux")
BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Holder:
    """Who has a lock, as it stands in `locks/<table>.json`.

    token: of this taking of the lock. processes: those that may write, as `process_name` has them; when all are gone,
    so is the holder. beat: counts up while the holder lives. released: nobody has the lock any more.
    """

    table: str
    token: str
    command: str
    run_id: str
    host: str
    pid: int
    processes: tuple[str, ...]
    taken_at: str
    expires_after: float
    beat: int = 0
    released: bool = False

    def __str__(self) -> str:
        return (
            f"`{self.command}` (process {self.pid} on {self.host}, run {self.run_id}, since {self.taken_at})"
        )

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    def is_gone(self) -> bool:
        """Whether all its processes ran on this machine and have ended."""
        return bool(self.processes) and all(map(_has_ended, self.processes))


class TableLocks:
    """The locks of one run. on_lost: called, from another thread, when one was lost, to stop what is under way."""

    def __init__(
        self,
        store: ObjectStore,
        lake_uri: str,
        command: str,
        run_id: str,
        wait_seconds: float,
        processes: Callable[[], Sequence[str]] = lambda: (process_name(os.getpid()),),
        on_lost: Callable[[], None] = lambda: None,
        beat_seconds: float = BEAT_SECONDS,
        expiry_seconds: float = EXPIRY_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.store, self.lake_uri, self.command, self.run_id = store, lake_uri, command, run_id
        self.wait_seconds, self.processes, self.on_lost = wait_seconds, processes, on_lost
        self.beat_seconds, self.expiry_seconds, self.poll_seconds = beat_seconds, expiry_seconds, poll_seconds
        self._mine = threading.local()
        # Threads of one run wait for each other here, and for other runs at the store.
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def hold(self, *tables: str) -> Iterator[None]:
        """Hold the locks of tables, such as `staging/logs`, inside the block; those that this thread has stay with it.

        Raises TableLocked when another run has one for longer than wait_seconds, LockLost at the end of the block when
        one was lost meanwhile, and at its beginning when one was that this thread has.
        """
        mine: dict[str, Lock] = self._mine.__dict__
        taken: list[Lock] = []
        turns = ExitStack()
        done = threading.Event()
        beating = threading.Thread(target=self._beat, args=(taken, done), daemon=True)
        try:
            # In this order everywhere, so that no two runs wait for each other.
            for table in sorted(set(tables) - mine.keys()):
                turns.enter_context(self._turns[table])
                lock = self._take(table)
                mine[table] = lock
                taken.append(lock)
                _held.add(lock)
                if tuple(self.processes()) != lock.holder.processes:
                    # One has joined while this lock was being taken.
                    lock.beat()
                if not beating.is_alive():
                    beating.start()
            # What is written inside follows from what was seen under those that this thread had before.
            for lock in mine.values():
                lock.require()
            try:
                yield
            except Exception as error:
                for lock in taken:
                    # What was under way was stopped; the reason is the lock, not what it ended with.
                    if lock.is_lost() and not isinstance(error, LockLost):
                        raise lock.lost() from error
                raise
            for lock in taken:
                lock.require()
        finally:
            done.set()
            if beating.is_alive():
                beating.join(self.expiry_seconds)
            for lock in taken:
                _held.discard(lock)
                del mine[lock.holder.table]
            for lock in taken:
                lock.release()
            turns.close()

    def _take(self, table: str) -> Lock:
        path = f"{FOLDER}/{table}.json"
        deadline = _now() + self.wait_seconds
        seen, since = "", 0.0
        said = False
        while True:
            asked = _now()
            there = self.store.fetch(path)
            holder = read_holder(path, there[0]) if there else None
            version = there[1] if there else None
            if holder is None or holder.released:
                reason = ""
            elif holder.is_gone():
                reason = "its process has ended"
            elif version == seen and asked - since >= holder.expires_after:
                reason = f"it gave no sign of life for {holder.expires_after:.0f} s"
            else:
                if version != seen:
                    seen, since = str(version), _now()
                if asked >= deadline:
                    raise TableLocked(self._advice(table, holder))
                if not said:
                    log.info("%s: waiting for %s to end, up to %.0f s", table, holder, self.wait_seconds)
                    said = True
                time.sleep(max(0.0, min(self.poll_seconds, deadline - _now())))
                continue
            mine = self._holder(table)
            asked = _now()
            taken = self.store.swap(path, mine.encode(), version)
            if taken is not None:
                if reason:
                    log.warning("%s: lock taken over from %s: %s", table, holder, reason)
                return Lock(self, path, mine, taken, asked)

    def _holder(self, table: str) -> Holder:
        return Holder(
            table=table,
            token=uuid.uuid4().hex,
            command=self.command,
            run_id=self.run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            processes=tuple(self.processes()),
            taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
            expires_after=self.expiry_seconds,
        )

    def _advice(self, table: str, holder: Holder) -> str:
        return (
            f"{table} is being written by {holder}, and was not free after {self.wait_seconds:.0f} s; nothing was "
            "written. Run again when that is done, or wait longer with LOCK_WAIT_SECONDS. Should it hang, end that "
            f"process: its lock is free {holder.expires_after:.0f} s after its last sign of life"
        )

    def _beat(self, locks: list[Lock], done: threading.Event) -> None:
        while not done.wait(self.beat_seconds):
            self._beat_once(tuple(locks))

    def beat(self) -> None:
        """Write all locks of this run anew, now: something of what they say has changed."""
        self._beat_once([lock for lock in tuple(_held) if lock.locks is self])

    def _beat_once(self, locks: Sequence[Lock]) -> None:
        for lock in locks:
            if not lock.is_stolen:
                lock.beat()
                if lock.is_lost():
                    self.on_lost()


class Lock:
    """A lock that was taken: kept by `beat`, given back by `release`."""

    def __init__(self, locks: TableLocks, path: str, holder: Holder, version: str, confirmed: float) -> None:
        self.locks, self.store = locks, locks.store
        self.path, self.holder, self.version = path, holder, version
        self.uri = f"{locks.lake_uri}/{holder.table}"
        # When the store last had word of us; nobody breaks the lock before `expires_after` from then.
        self.confirmed = confirmed
        self.is_stolen = False
        # The thread that beats, and one that says that a process has joined.
        self._writing = threading.Lock()

    def is_lost(self) -> bool:
        # Half of the time is left for the commit that this question is asked for.
        return self.is_stolen or _now() - self.confirmed > self.holder.expires_after / 2

    def lost(self) -> LockLost:
        why = (
            "another run took it over" if self.is_stolen else "the lake did not answer, or this machine slept"
        )
        return LockLost(
            f"{self.holder.table}: the lock was lost ({why}); stopped before the next commit. Run it again"
        )

    def require(self) -> None:
        """Raise LockLost unless the lock is ours for sure."""
        if self.is_lost():
            raise self.lost()

    def beat(self) -> None:
        """Tell those who wait that we live. A store that does not answer is asked again at the next beat."""
        with self._writing:
            if self.holder.released:
                return
            began = _now()
            processes = tuple(self.locks.processes())
            if self._write(replace(self.holder, beat=self.holder.beat + 1, processes=processes)):
                self.confirmed = began

    def release(self) -> None:
        """Give the lock back, if it still is ours."""
        with self._writing:
            if not self.is_stolen:
                self._write(replace(self.holder, released=True))

    def _write(self, holder: Holder) -> bool:
        try:
            version = self.store.swap(self.path, holder.encode(), self.version)
            # An earlier write may have arrived though its answer did not.
            there = self.store.fetch(self.path) if version is None else None
            if there and read_holder(self.path, there[0]).token == holder.token:
                holder = replace(holder, beat=holder.beat + 1)
                version = self.store.swap(self.path, holder.encode(), there[1])
        except (UserAnalyticsError, OSError) as error:
            log.debug("%s: %s", self.path, error)
            # What was sent may have arrived: the next one must differ, lest its arrival count as this one's.
            self.holder = replace(self.holder, beat=holder.beat)
            return False
        if version is None:
            self.is_stolen = True
            return False
        self.holder, self.version = holder, version
        return True


_held: set[Lock] = set()


def require_lock_not_lost(uri: str) -> None:
    """Raise LockLost when this process took the lock of the table at an address and lost it. Ask before a commit."""
    for lock in tuple(_held):
        if lock.uri == uri:
            lock.require()


def read_holder(path: str, content: bytes) -> Holder:
    """What a lock's object says. Raises UserAnalyticsError when it is not a lock's object."""
    try:
        fields = json.loads(content)
        return Holder(**{**fields, "processes": tuple(fields["processes"])})
    except (ValueError, TypeError, KeyError):
        raise UserAnalyticsError(f"{path} is not a lock of this program; look at it and remove it") from None


def holders(store: ObjectStore) -> list[Holder]:
    """Who holds locks now, by table."""
    found = [(file.path, store.fetch(file.path)) for file in store.list(FOLDER)]
    read = [read_holder(path, there[0]) for path, there in found if there]
    return [holder for holder in read if not holder.released]


def process_name(pid: int) -> str:
    """A process of this machine, by a name that no other has had; empty where the system does not tell (not Linux)."""
    if not LINUX:
        return ""
    return f"{_machine()}/{pid}/{_start(pid)}"


def _has_ended(process: str) -> bool:
    if not process or not LINUX:
        return False
    machine, pid, start = process.rsplit("/", 2)
    return machine == _machine() and _start(int(pid)) != start


def _machine() -> str:
    # Numbers of processes mean something since this boot, and inside this container only.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _start(pid: int) -> str:
    """When a process started, in ticks since the boot; empty when it has ended."""
    try:
        # The name in parentheses may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state in "ZX" else fields[18]


def _now() -> float:
    # Unlike `time.monotonic`, it goes on while the machine sleeps.
    return time.clock_gettime(time.CLOCK_BOOTTIME if LINUX else time.CLOCK_MONOTONIC)
