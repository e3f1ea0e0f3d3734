"""Users get a location: each address asked once, none that is not public, and what is missing is filled in later."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import jobs.locate_users as job
from jobs.build_users import build_users
from jobs.geolocation.base import Location
from jobs.geolocation.cache import LocationCache
from jobs.geolocation.ip_api import IpApi
from jobs.locate_users import locate_users
from jobs.spark import local_rows
from tests.ip_api_server import Clock, IpApiServer
from tests.lakes import Lake
from tests.records import user, users
from tests.staging import RawZone

pytestmark = pytest.mark.spark

PLACE = ("latitude", "longitude", "country", "region", "city", "timezone", "isp_name", "location_status")
OSLO = (59.9, 10.7, "Norway", "Oslo County", "Oslo", "Europe/Oslo", "Nordnet AS", "located")
NOWHERE = (None,) * 7


@pytest.fixture
def server() -> Iterator[IpApiServer]:
    with IpApiServer(Clock()) as running:
        yield running


class Located:
    """A lake with users whose locations come from a server."""

    def __init__(self, spark: SparkSession, folder: str, server: IpApiServer) -> None:
        self.lake, self.zone, self.server = Lake(spark, folder), RawZone(spark, folder, "users"), server
        self.later, self.day = timedelta(), 0

    def bring(self, name: str, **addresses: str) -> None:
        """Deliver users with addresses, and build; nothing is located yet."""
        rows = [user(f"{who}@x.org", ip_address=address) for who, address in addresses.items()]
        self.day += 1
        self.zone.put({f"{name}.csv": users(*rows)}, self.day)
        self.zone.stage()
        build_users(self.lake.run())

    def have(self, **addresses: str) -> None:
        """Users as `build_users` leaves them, without their way there."""
        mart = self.lake.mart("users").ensure()
        day = datetime(2024, 1, 1, tzinfo=UTC)
        known = {"updated_at": day, "updated": False}
        rows = [
            known | {"id": str(uuid.uuid4()), "email": f"{who}@x.org", "ip_address": address}
            for who, address in addresses.items()
        ]
        mart.append(
            local_rows(self.lake.spark, [[r.get(c) for c in mart.schema.names] for r in rows], mart.schema)
        )

    def locate(self, batch_size: int = 100, limit: int | None = None) -> bool:
        provider = IpApi(self.server.url, limit, self.server.clock, self.server.clock.sleep)
        provider.batch_size = batch_size
        run = self.lake.run()
        run.started_at += self.later
        return locate_users(run, provider)

    def places(self) -> dict[str, tuple[object, ...]]:
        rows = self.lake.mart("users").read().select("email", *PLACE).collect()
        return {row.email.partition("@")[0]: tuple(row)[1:] for row in rows}

    def statuses(self) -> dict[str, object]:
        return {who: place[-1] for who, place in sorted(self.places().items())}


def test_each_public_address_is_asked_once(spark: SparkSession, tmp_lake: str, server: IpApiServer) -> None:
    lake = Located(spark, tmp_lake, server)
    server.places["9.9.9.9"] = {"status": "fail", "message": "invalid query"}
    people = {"home": "192.168.1.1", "no": "localhost", "cid": "", "dora": "9.9.9.9"}
    lake.bring("a", ann="8.8.8.8", bob="8.8.8.8", six="2A02:1::1", **people)
    assert lake.statuses() == dict.fromkeys(("ann", "bob", "cid", "dora", "home", "no", "six"))

    assert lake.locate() is True
    assert lake.places() == {
        **dict.fromkeys(("ann", "bob", "six"), OSLO),
        "home": (*NOWHERE, "private"),
        "no": (*NOWHERE, "invalid"),
        "dora": (*NOWHERE, "invalid"),
        "cid": (*NOWHERE, None),
    }
    assert sorted(server.addresses) == ["2a02:1::1", "8.8.8.8", "9.9.9.9"]
    version = lake.lake.mart("users").version()
    assert lake.locate() is False
    assert lake.lake.mart("users").version() == version

    # A new user with a known address has a location at once; a changed address loses the one that it had.
    lake.bring("b", eve="8.8.8.8", ann="9.9.9.8")
    assert (lake.places()["eve"], lake.places()["ann"]) == (OSLO, (*NOWHERE, None))
    assert lake.locate() is True
    assert lake.places()["ann"] == OSLO
    assert len(server.addresses) == 4


def test_an_outage_leaves_users_without_a_location_until_a_later_run(
    spark: SparkSession, tmp_lake: str, server: IpApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    lake = Located(spark, tmp_lake, server)
    lake.have(ann="8.8.8.8", bob="8.8.4.4", cid="9.9.9.9", home="10.0.0.1")
    server.troubles = [None, *[503] * 5]
    assert lake.locate(batch_size=1) is True
    assert sorted(map(str, lake.statuses().values())) == ["None", "None", "located", "private"]
    assert len(server.addresses) == 1

    server.troubles = [503] * 5
    assert lake.locate() is False
    assert lake.locate() is True
    assert lake.statuses() == {"ann": "located", "bob": "located", "cid": "located", "home": "private"}
    assert len(server.addresses) == len(set(server.addresses)) == 3


def test_a_run_that_is_killed_goes_on_where_it_was(
    spark: SparkSession, tmp_lake: str, server: IpApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "BATCHES_PER_COMMIT", 1)
    lake = Located(spark, tmp_lake, server)
    lake.have(ann="8.8.8.8", bob="8.8.4.4", cid="9.9.9.9")
    ask = IpApi.locate

    def die_at_the_third(provider: IpApi, addresses: Sequence[str]) -> list[Location]:
        if len(server.addresses) == 2:
            raise KeyboardInterrupt
        return ask(provider, addresses)

    monkeypatch.setattr(IpApi, "locate", die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        lake.locate(batch_size=1)
    monkeypatch.setattr(IpApi, "locate", ask)
    lake.locate(batch_size=1)
    assert set(lake.statuses().values()) == {"located"}
    assert sorted(server.addresses) == ["8.8.4.4", "8.8.8.8", "9.9.9.9"]


def test_a_run_asks_up_to_its_limit_and_again_what_has_expired(
    spark: SparkSession, tmp_lake: str, server: IpApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOLOCATION_CACHE_DAYS", "30")
    lake = Located(spark, tmp_lake, server)
    lake.have(ann="8.8.8.8", bob="8.8.4.4", home="10.0.0.1")
    for _ in range(2):
        assert lake.locate(limit=1) is True
    assert (lake.locate(), len(server.addresses)) == (False, 2)

    lake.later = timedelta(days=31)
    server.places["8.8.8.8"] = {"status": "success", "country": "Chad"}
    assert lake.locate() is True
    assert lake.places()["ann"][2] == "Chad"
    assert sorted(server.addresses) == ["8.8.4.4", "8.8.4.4", "8.8.8.8", "8.8.8.8"]
    cached = LocationCache(lake.lake).table.read()
    assert cached.where("expires_at IS NULL").select("ip_address").collect() == [("10.0.0.1",)]


def test_without_a_provider_or_users_there_is_nothing_to_do(
    spark: SparkSession, tmp_lake: str, server: IpApiServer
) -> None:
    lake = Located(spark, tmp_lake, server)
    assert locate_users(lake.lake.run()) is False
    assert lake.locate() is False
    lake.have(ann="8.8.8.8")
    assert locate_users(lake.lake.run()) is False
    assert not (Path(tmp_lake) / "geolocation").exists()
