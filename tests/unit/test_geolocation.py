"""Locating addresses: what is asked, how limits and outages of ip-api.com are met, what a MaxMind database says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from jobs.errors import ConfigurationError
from jobs.geolocation import cache_days, open_provider
from jobs.geolocation.addresses import public_address, reason
from jobs.geolocation.base import Location, ProviderUnavailable
from jobs.geolocation.ip_api import IpApi
from jobs.geolocation.maxmind import MaxMind
from tests.ip_api_server import Clock, IpApiServer

OSLO = Location("located", 59.9, 10.7, "Norway", "Oslo County", "Oslo", "Europe/Oslo", "Nordnet AS")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("fd12:3456::1", "private"),
        ("fec0::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("224.0.0.251", "multicast"),
        ("ff02::fb", "multicast"),
        ("169.254.1.1", "link_local"),
        ("fe80::1%eth0", "link_local"),
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("::", "unspecified"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("100.64.0.1", "reserved"),
        ("999.1.2.3", "invalid"),
        ("1.2.3", "invalid"),
        ("8.8.8.8:53", "invalid"),
        ("08.8.8.8", "invalid"),
        ("example.org", "invalid"),
        ("", "invalid"),
    ],
)
def test_what_cannot_be_located_has_a_reason(text: str, why: str) -> None:
    assert public_address(text) is None
    assert reason(text) == why


def test_a_public_address_is_asked_in_one_spelling() -> None:
    assert public_address("8.8.8.8") == public_address("::ffff:8.8.8.8") == "8.8.8.8"
    assert public_address("2001:4860:4860:0:0:0:0:8888") == public_address("2001:4860:4860::8888")
    with pytest.raises(ValueError, match="public"):
        reason("8.8.8.8")


# -- ip-api.com ------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[IpApiServer]:
    with IpApiServer(Clock()) as running:
        yield running


def client(server: IpApiServer, query: str = "") -> IpApi:
    return IpApi(server.url + query, clock=server.clock, sleep=server.clock.sleep)


def batch(number: int, size: int = 100) -> list[str]:
    return [f"8.{number}.0.{n}" for n in range(size)]


def test_a_batch_is_located_in_its_order(server: IpApiServer) -> None:
    server.places["8.8.4.4"] = {"status": "success", "country": "Chad", "city": "", "lat": 1, "lon": 2}
    server.places["9.9.9.9"] = {"status": "fail", "message": "reserved range"}
    server.places["9.9.9.10"] = {"status": "fail", "message": "something new"}
    assert client(server).locate(["2a02::1", "8.8.4.4", "9.9.9.9", "9.9.9.10"]) == [
        OSLO,
        Location("located", 1, 2, "Chad"),
        Location("reserved"),
        Location("not_found"),
    ]


def test_the_limit_of_requests_is_never_exceeded(server: IpApiServer) -> None:
    provider = client(server)
    for number in range(40):
        assert provider.locate(batch(number)) == [OSLO] * 100
    assert server.statuses == [200] * 40
    # 15 at once, then a wait; twice.
    assert len(server.clock.slept) == 2
    assert 120 <= sum(server.clock.slept) < 125


def test_the_limit_that_the_headers_tell_is_obeyed(server: IpApiServer) -> None:
    """Somebody else at the same address uses the quota, too."""
    provider = client(server)
    provider.locate(batch(1))
    server.used = 13
    server.clock.now += 20
    for number in range(2, 5):
        provider.locate(batch(number))
    assert server.statuses == [200] * 4
    assert server.clock.slept == [pytest.approx(41)]


def test_429_is_waited_out(server: IpApiServer) -> None:
    server.used, server.window_ends = 15, server.clock() + 33
    assert client(server).locate(["8.8.8.8"]) == [OSLO]
    assert server.statuses == [429, 200]
    assert server.clock.slept == [pytest.approx(34)]


def test_trouble_that_passes_is_tried_again_after_longer_and_longer_waits(server: IpApiServer) -> None:
    server.troubles = [500, "cut", "garbage", "short"]
    assert client(server).locate(["8.8.8.8", "8.8.4.4"]) == [OSLO, OSLO]
    assert server.statuses == [500, 0, 200, 200, 200]
    assert server.clock.slept == [1, 2, 4, 8]


@pytest.mark.parametrize(("trouble", "requests"), [(503, 5), ("cut", 5), (403, 1), (422, 1)])
def test_an_outage_ends_in_one_error_that_shows_no_key(
    server: IpApiServer, trouble: int | str, requests: int
) -> None:
    server.troubles = [trouble] * 9
    with pytest.raises(ProviderUnavailable) as error:
        client(server, "?key=Geheim").locate(["8.8.8.8"])
    assert "127.0.0.1" in str(error.value)
    assert str(trouble) in str(error.value) or "Remote" in str(error.value)
    assert "Geheim" not in str(error.value)
    assert len(server.statuses) == requests


def test_nobody_listens() -> None:
    clock = Clock()
    with pytest.raises(ProviderUnavailable, match="refused"):
        IpApi("http://127.0.0.1:1/batch", clock=clock, sleep=clock.sleep).locate(["8.8.8.8"])


# -- MaxMind ---------------------------------------------------------------------------------------------------


def database(folder: Path, ip_version: int = 6) -> Path:
    writer = MMDBWriter(ip_version, "Test-City", languages=["en"], ipv4_compatible=ip_version == 6)
    bonn = {
        "country": {"names": {"en": "Germany", "de": "Deutschland"}},
        "subdivisions": [{"names": {"en": "North Rhine-Westphalia"}}],
        "city": {"names": {"en": "Bonn"}},
        "location": {"latitude": 50.73, "longitude": 7.1, "time_zone": "Europe/Berlin"},
        "traits": {"isp": "Rheinnetz"},
    }
    writer.insert_network(IPSet(["8.8.0.0/16"]), bonn)
    writer.insert_network(IPSet(["9.0.0.0/8"]), {"registered_country": {"names": {"en": "Chad"}}})
    if ip_version == 6:
        writer.insert_network(IPSet(["2a02:8000::/20"]), bonn)
    file = folder / f"test-{ip_version}.mmdb"
    writer.to_db_file(str(file))
    return file


def test_a_database_locates_both_kinds_of_addresses(tmp_path: Path) -> None:
    bonn = Location(
        "located", 50.73, 7.1, "Germany", "North Rhine-Westphalia", "Bonn", "Europe/Berlin", "Rheinnetz"
    )
    asked = ["8.8.8.8", "9.1.1.1", "2a02:8001::5", "1.1.1.1", "2001:4860::1"]
    nothing = Location("not_found")
    chad = Location("located", country="Chad")
    assert MaxMind(database(tmp_path)).locate(asked) == [bonn, chad, bonn, nothing, nothing]
    assert MaxMind(database(tmp_path, 4)).locate(asked) == [bonn, chad, nothing, nothing, nothing]


# -- settings --------------------------------------------------------------------------------------------------


def test_the_environment_chooses(tmp_path: Path) -> None:
    assert open_provider({}) is None
    assert open_provider({"GEOLOCATION_PROVIDER": "none"}) is None
    api = open_provider({"GEOLOCATION_PROVIDER": "ip-api", "GEOLOCATION_LIMIT": "300"})
    assert isinstance(api, IpApi)
    assert (api.url, api.run_limit, api.batch_size) == ("http://ip-api.com/batch", 300, 100)
    file = str(database(tmp_path))
    assert isinstance(
        open_provider({"GEOLOCATION_PROVIDER": "maxmind", "GEOLOCATION_DATABASE": file}), MaxMind
    )
    assert (cache_days({}), cache_days({"GEOLOCATION_CACHE_DAYS": "7"})) == (90, 7)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"GEOLOCATION_PROVIDER": "ipapi"},
            "GEOLOCATION_PROVIDER='ipapi': choose from none, ip-api, maxmind",
        ),
        ({"GEOLOCATION_PROVIDER": "ip-api", "GEOLOCATION_URL": "file:///etc/passwd"}, "http:// or https://"),
        (
            {"GEOLOCATION_PROVIDER": "ip-api", "GEOLOCATION_URL": "http://me:secret@host/batch"},
            "without a user$",
        ),
        ({"GEOLOCATION_PROVIDER": "ip-api", "GEOLOCATION_LIMIT": "0"}, "a whole number above 0"),
        ({"GEOLOCATION_PROVIDER": "maxmind"}, "GEOLOCATION_DATABASE: needed"),
        (
            {"GEOLOCATION_PROVIDER": "maxmind", "GEOLOCATION_DATABASE": "/no/such.mmdb"},
            "'/no/such.mmdb': No such file or directory$",
        ),
        ({"GEOLOCATION_PROVIDER": "maxmind", "GEOLOCATION_DATABASE": __file__}, "valid"),
    ],
)
def test_a_malformed_setting_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_provider(environment)
