"""Every job, ended at each of its writes and run again, must leave what a clean run leaves, row by row.

Each case starts from a copy of the same lake. The process "ends" by an exception that no job catches, after which it
can write nothing more, not even give a lock back. `make test` looks at every n-th write, `make test-faults` at each.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.analyze_orders import analyze_orders
from jobs.build_customer_orders import build_customer_orders
from jobs.build_events import build_events
from jobs.build_purchases import build_purchases
from jobs.build_review_features import build_review_features
from jobs.build_star_schema import build_star_schema
from jobs.build_users import build_users
from jobs.context import RunContext
from jobs.feeds import FEEDS
from jobs.generate_customer_orders import generate_customer_orders
from jobs.geolocation.base import Location
from jobs.lake.intermediates import remove_intermediates
from jobs.lake.staging import stage
from jobs.locate_users import locate_users
from jobs.maintain_lake import maintain
from jobs.publish import publish
from jobs.reset_marts import reset_marts
from jobs.runs import recorded
from jobs.train_segments import train_segments
from jobs.upload_files import upload
from jobs.warehouse.postgres import PostgresWarehouse
from tests.lake_contents import Rows, differences, lake_contents, warehouse_contents
from tests.lakes import Lake, deliver
from tests.write_points import Killed, WritePoints, dying

pytestmark = [pytest.mark.spark, pytest.mark.integration]
Job = Callable[[RunContext], object]


class Somewhere:
    """A provider of locations that knows every address."""

    name, batch_size, run_limit = "test", 5, None

    def locate(self, addresses: Sequence[str]) -> list[Location]:
        return [Location("located", city="Oslo", country="Norway") for _ in addresses]


MARTS: dict[str, Job] = {
    "star schema": build_star_schema,
    "purchases": build_purchases,
    "review features": lambda run: build_review_features(run, "shipped"),
    "users": build_users,
    "locations": lambda run: locate_users(run, Somewhere()),
    "events": build_events,
    "customer orders": build_customer_orders,
    "order analysis": analyze_orders,
    "segments": train_segments,
}
STAGES: dict[str, Job] = {
    f"stage {name}": lambda run, feed=feed: stage(run, feed, max_rejected_share=1.0)  # type: ignore[misc]
    for name, feed in FEEDS.items()
}


@dataclass
class Base:
    """Lakes in all the states that jobs start from, each made once: `delivered`, `staged`, `after <mart>`."""

    spark: SparkSession
    folder: Path
    made: dict[tuple[int, str], Path] = field(default_factory=dict)

    def state(self, delivery: int, name: str) -> Path:
        if (delivery, name) not in self.made:
            target = self.folder / f"{delivery} {name}"
            self._make(target, delivery, name)
            self.made[delivery, name] = target
        return self.made[delivery, name]

    def before(self, delivery: int, mart: str) -> Path:
        """Everything up to a mart has run on a delivery, and everything on those before."""
        names = [*MARTS]
        number = names.index(mart)
        return self.state(delivery, f"after {names[number - 1]}" if number else "staged")

    def built(self, delivery: int) -> Path:
        return self.state(delivery, f"after {[*MARTS][-1]}")

    def _make(self, target: Path, delivery: int, name: str) -> None:
        if name == "delivered":
            if delivery == 1:
                target.mkdir()
            else:
                shutil.copytree(self.built(delivery - 1), target)
            deliver(target, delivery)
        elif name == "staged":
            shutil.copytree(self.state(delivery, "delivered"), target)
            for job in STAGES.values():
                self.perform(target, job)
        else:
            mart = name.removeprefix("after ")
            shutil.copytree(self.before(delivery, mart), target)
            self.perform(target, MARTS[mart])

    def perform(self, lake: Path, job: Job, url: str = "embedded:unused") -> None:
        job(Lake(self.spark, lake, url).run())


@pytest.fixture(scope="module")
def base(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(spark, tmp_path_factory.mktemp("faults"))


def every_write(
    base: Base,
    folder: Path,
    start: Path,
    job: Job,
    few: int | None = None,
    new_url: Callable[[], str] = lambda: "embedded:unused",
) -> None:
    """End the job at each of its writes, or at so many of them, in turn; run it again; compare."""

    def contents(lake: Path, url: str) -> dict[str, Rows]:
        found = lake_contents(lake)
        return found if url.startswith("embedded") else {**found, **warehouse_contents(url)}

    folder.mkdir(exist_ok=True)
    clean, url, counted = folder / "clean", new_url(), WritePoints()
    shutil.copytree(start, clean)
    with dying(counted):
        base.perform(clean, job, url)
    wanted = contents(clean, url)
    writes = len(counted.names)
    assert writes
    # The last one always: all was done, but nobody noted it.
    chosen = range(writes, 0, -max(1, writes // few) if few else -1)
    for number in chosen:
        lake, url = folder / f"killed-{number}", new_url()
        shutil.copytree(start, lake)
        points = WritePoints(number)
        with dying(points), pytest.raises(Killed):
            base.perform(lake, job, url)
        base.perform(lake, job, url)
        assert not (wrong := differences(contents(lake, url), wanted)), (
            f"ended before write {number}, {points.names[-1]}",
            wrong,
        )
        shutil.rmtree(lake)
    print(f"{len(chosen)} cases of {writes} writes: {', '.join(counted.names)}")


LONG = pytest.mark.faults


def test_a_sample(base: Base, tmp_path: Path) -> None:
    """Two jobs at a few of their writes; the others are looked at by `make test-faults`."""
    raw, staged = tmp_path / "raw", tmp_path / "staged"
    deliver(raw, 1)
    every_write(base, tmp_path / "stage", raw, STAGES["stage logs"], few=3)
    shutil.copytree(raw, staged)
    base.perform(staged, STAGES["stage logs"])
    every_write(base, tmp_path / "build", staged, build_star_schema, few=3)


@LONG
@pytest.mark.parametrize("delivery", [1, 2])
@pytest.mark.parametrize("job", STAGES)
def test_stage(base: Base, tmp_path: Path, job: str, delivery: int) -> None:
    every_write(base, tmp_path, base.state(delivery, "delivered"), STAGES[job])


@LONG
@pytest.mark.parametrize("delivery", [1, 2])
@pytest.mark.parametrize("job", MARTS)
def test_mart(base: Base, tmp_path: Path, job: str, delivery: int) -> None:
    every_write(base, tmp_path, base.before(delivery, job), MARTS[job])


def publish_all(run: RunContext) -> None:
    publish(run, PostgresWarehouse(run.settings.warehouse_url, "analytics"))


@LONG
@pytest.mark.parametrize("delivery", [1, 2])
def test_publish(base: Base, tmp_path: Path, make_database: Callable[..., str], delivery: int) -> None:
    """At 30 of some hundred statements; tests/integration/test_publish.py does it at each, over two small tables."""
    before = make_database()
    if delivery == 2:
        base.perform(base.built(1), publish_all, before)
    every_write(base, tmp_path, base.built(delivery), publish_all, 30, lambda: make_database(before))


def upload_orders(run: RunContext) -> None:
    upload(run.store, "orders", [Path(run.settings.lake_uri).parent / "orders"], replace=True)


def maintain_all(run: RunContext) -> None:
    maintain(run, 7)


def record_a_run(run: RunContext) -> None:
    """Rows of the run tables are a run's own; what is compared is that they can be written after any death."""
    with recorded(run), run.step("nothing"):
        pass


@LONG
def test_other_jobs(base: Base, tmp_path: Path) -> None:
    # Beside each lake, where `upload_orders` looks for them.
    orders = tmp_path / "upload" / "orders"
    orders.mkdir(parents=True)
    for number in range(3):
        (orders / f"{number}.csv").write_text(f"order_id\n{number}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    jobs: dict[str, tuple[Job, Path]] = {
        "upload": (upload_orders, empty),
        "generate": (lambda run: generate_customer_orders(run.store), empty),
        "record": (record_a_run, empty),
        "clean up": (remove_intermediates, base.built(1)),
        "reset": (reset_marts, base.built(1)),
        "maintain": (maintain_all, base.built(1)),
    }
    for name, (job, start) in jobs.items():
        every_write(base, tmp_path / name, start, job)


@LONG
def test_reset_marts_and_built_again(base: Base, tmp_path: Path) -> None:
    """Marts that were half removed are built like those that were never there."""

    def job(run: RunContext) -> None:
        reset_marts(run)
        for build in MARTS.values():
            build(run)

    every_write(base, tmp_path, base.built(1), job, few=15)
