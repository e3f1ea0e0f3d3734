"""Wrong warehouse settings: exit code 2, one line that names the setting, no secret and no stack trace."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from jobs.cli import main
from jobs.settings import Settings

pytestmark = pytest.mark.integration


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wrong_urls(url: str) -> dict[str, tuple[str, str]]:
    """What is wrong → the address, and what the message has to say."""
    parts = urlsplit(url)
    user, server = parts.username, f"{parts.hostname}:{parts.port}"
    secret = "s3cr3t-w0rd"
    return {
        "password": (f"postgresql://{user}:{secret}@{server}{parts.path}", "password authentication failed"),
        "password, given as an option": (
            f"postgresql://{server}{parts.path}?user={user}&password={secret}",
            "password authentication failed",
        ),
        "user": (f"postgresql://nobody:{secret}@{server}{parts.path}", "password authentication failed"),
        "database": (url.replace(parts.path, "/no_such_database"), '"no_such_database" does not exist'),
        "port": (f"postgresql://{user}:{secret}@127.0.0.1:{free_port()}/x", "Connection refused"),
        "host": (f"postgresql://{user}:{secret}@no-such-host.invalid/x", "could not translate host name"),
        "address": (
            f"postgresql://{user}:{secret}@{server}/x?no_such_option=1",
            "only options that PostgreSQL knows",
        ),
        "scheme": (f"mysql://{user}:{secret}@{server}/x", "expected postgresql://"),
        "@ in the password": (f"postgresql://{user}:{secret}@{secret}@{server}/x", "write @ as %40"),
        "/ in the password": (f"postgresql://{user}:{secret}/{secret}@{server}/x", "/ as %2F"),
    }


@pytest.mark.parametrize("command", [["publish"], ["run", "--feeds", "logs"]], ids=" ".join)
@pytest.mark.parametrize("wrong", list(wrong_urls("postgresql://u:p@h:1/d")))
def test_one_line_without_a_secret(
    wrong: str,
    command: list[str],
    warehouse_url: str,
    tmp_lake: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url, message = wrong_urls(warehouse_url)[wrong]
    monkeypatch.setenv("LAKE_URI", tmp_lake)
    monkeypatch.setenv("WAREHOUSE_URL", url)
    assert main(command) == 2
    output, errors = capfd.readouterr()
    assert len(errors.splitlines()) == 1, errors
    line = errors.strip()
    assert "error: WAREHOUSE_URL=" in line
    assert message in line
    assert "s3cr3t-w0rd" not in output + errors
    assert str(urlsplit(warehouse_url).password) not in output + errors
    assert list(Path(tmp_lake).iterdir()) == []


def test_a_password_with_signs_works_when_they_are_encoded() -> None:
    url = f"postgresql://user:{quote('p@ss:w/rd?#', safe='')}@host:5432/db?application_name=me@work"
    settings = Settings.from_env({"WAREHOUSE_URL": url})
    assert settings.warehouse_url == url
    assert "p%40" not in repr(settings)
    plain = "postgresql://host:5432/db?application_name=me@work"
    assert Settings.from_env({"WAREHOUSE_URL": plain}).warehouse_url == plain
