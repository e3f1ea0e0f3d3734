"""`run` in a process of its own, killed by the kernel at writes and at random moments, again and again.

However often it was killed, the run that comes through leaves what a clean run leaves, row by row. The last run is one
in this process; the locks of those that were killed do not keep it waiting.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.cli import main
from jobs.lake.objects import LocalStore, sha256_of
from tests.harm import fault_seed
from tests.lake_contents import differences, lake_contents, warehouse_contents
from tests.lakes import deliver

pytestmark = [pytest.mark.spark, pytest.mark.integration]
ROOT = Path(__file__).resolve().parents[2]
LONG = pytest.mark.faults
RUN = ("run", "--max-rejected", "1")


class Pipeline:
    """A lake, a warehouse, and the command on them."""

    def __init__(self, lake: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lake, self.url, self.monkeypatch = lake, url, monkeypatch
        self.environment = {
            "LAKE_URI": str(lake),
            "WAREHOUSE_URL": url,
            "SPARK_MASTER": "local[2]",
            "SPARK_DRIVER_MEMORY": "1g",
            "LOG_FOLDER": str(lake.parent / "logs"),
            # A lock of the dead that keeps a run waiting should be seen as a failure.
            "LOCK_WAIT_SECONDS": "30",
        }

    def finish(self, feeds: str) -> None:
        """Run in this process, to the end."""
        with self.monkeypatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            assert main([*RUN, "--feeds", feeds]) == 0

    def killed_at(self, write: int, feeds: str) -> None:
        """Run in a process that is killed at a write; a process that has fewer comes through."""
        self._start("-m", "tests.write_points", str(write), *RUN, "--feeds", feeds)

    def killed_after(self, seconds: float, feeds: str) -> None:
        """Run in a process that is killed some time after it began."""
        self._start("-m", "jobs", *RUN, "--feeds", feeds, seconds=seconds)

    def _start(self, *command: str, seconds: float | None = None) -> None:
        log = self.lake.parent / "last.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                code = process.wait(seconds or 300)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                code = process.wait(30)
        assert code in (0, -signal.SIGKILL), log.read_text()[-3000:]
        print(f"{' '.join(command[1:4])}: {'killed' if code else 'came through'}", flush=True)

    def contents(self) -> dict[str, list[str]]:
        return {**lake_contents(self.lake), **warehouse_contents(self.url)}


def compare(
    tmp_path: Path,
    make_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    feeds: str,
    kills: Sequence[Callable[[Pipeline], None]],
    deliveries: int,
) -> None:
    """Each delivery is brought through by a run, after all these kills, and by a clean one."""
    clean, killed = (
        Pipeline(tmp_path / n / "lake", make_database(), monkeypatch) for n in ("clean", "killed")
    )
    for delivery in range(1, deliveries + 1):
        deliver(tmp_path / "delivered", delivery)
        for pipeline in (clean, killed):
            shutil.copytree(tmp_path / "delivered", pipeline.lake, dirs_exist_ok=True)
        for kill in kills:
            kill(killed)
        for pipeline in (clean, killed):
            pipeline.finish(feeds)
        assert not differences(killed.contents(), clean.contents())


def test_a_sample(
    spark: SparkSession, tmp_path: Path, make_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = [lambda run: run.killed_at(5, "logs"), lambda run: run.killed_at(9, "logs")]
    compare(tmp_path, make_database, monkeypatch, "logs", kills, deliveries=1)


FEEDS = ["logs,reviews", "purchases,users,events", "customers,orders"]


@LONG
@pytest.mark.parametrize("feeds", FEEDS)
def test_killed_at_writes(
    spark: SparkSession,
    tmp_path: Path,
    make_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    feeds: str,
) -> None:
    """Seven kills per delivery, each some writes further on: of staging, marts, and statements of the publication."""
    numbers = [3, 4, 7, 6, 9, 30, 90]
    kills = [lambda run, n=n: run.killed_at(n, feeds) for n in numbers]
    compare(tmp_path, make_database, monkeypatch, feeds, kills, deliveries=2)


@LONG
@pytest.mark.parametrize("feeds", FEEDS)
def test_killed_at_random_moments(
    spark: SparkSession,
    tmp_path: Path,
    make_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    feeds: str,
) -> None:
    seed = fault_seed()
    chance = random.Random(f"{seed} {feeds}")
    kills = [lambda run: run.killed_after(chance.uniform(4, 25), feeds)] * 4
    compare(tmp_path, make_database, monkeypatch, feeds, kills, deliveries=2)


def largest_part(folder: Path) -> int:
    sizes = [0]
    for part in folder.glob(".upload-*"):
        # It may get its name at this moment.
        with suppress(FileNotFoundError):
            sizes.append(part.stat().st_size)
    return max(sizes)


def test_an_upload_that_is_killed_leaves_the_file_whole_or_not_there(tmp_path: Path) -> None:
    lake, file = tmp_path / "lake", tmp_path / "large.csv"
    file.write_bytes(os.urandom(64 * 1024 * 1024))
    command = [sys.executable, "-m", "jobs", "upload", "orders", str(file)]
    environment = {**os.environ, "LAKE_URI": str(lake)}
    target = lake / "raw" / "orders" / file.name
    for number in range(1, 6):
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
            # Some are killed while the file is being written, one after each sixth of it.
            while process.poll() is None:
                if largest_part(target.parent) >= number * 10 * 1024 * 1024:
                    break
                time.sleep(0.001)
            process.kill()
        listed = [f.path for f in LocalStore(lake).list("raw")]
        assert listed == (["raw/orders/large.csv"] if target.exists() else [])
        if target.exists():
            with target.open("rb") as there, file.open("rb") as wanted:
                assert sha256_of(there) == sha256_of(wanted)
            target.unlink()
    assert subprocess.run(command, cwd=ROOT, env=environment).returncode == 0
    assert target.stat().st_size == file.stat().st_size
