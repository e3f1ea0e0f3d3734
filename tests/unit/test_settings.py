"""Settings come from the environment; a malformed one is an error that names it and never shows a secret."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from jobs.errors import ConfigurationError
from jobs.settings import Settings, postgresql_url, without_credentials, without_password

ROOT = Path(__file__).resolve().parents[2]


def test_without_any_variable_everything_lies_below_var() -> None:
    settings = Settings.from_env({})
    assert settings.lake_uri == str(Path("var/lake").absolute())
    assert settings.warehouse_url == f"embedded:{Path('var/warehouse').absolute()}"
    assert settings.schema == "analytics"
    assert settings.lake_is_local
    assert settings.s3_endpoint is None
    assert settings.s3_access_key is None


@pytest.mark.parametrize(
    ("value", "lake"),
    [
        ("s3a://bucket", "s3a://bucket"),
        ("s3a://bucket/a/prefix/", "s3a://bucket/a/prefix"),
        ("s3://bucket/a", "s3a://bucket/a"),
        ("s3://bucket/me@example.org", "s3a://bucket/me@example.org"),
        ("/data/lake/", "/data/lake"),
        ("/data/./other/../lake", "/data/lake"),
        ("/data/my lake+1%", "/data/my lake+1%"),
        ("file:///data/lake", "/data/lake"),
        ("  /data/lake  ", "/data/lake"),
    ],
)
def test_ways_to_name_a_lake(value: str, lake: str) -> None:
    assert Settings.from_env({"LAKE_URI": value}).lake_uri == lake


def test_a_relative_lake_lies_below_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({"LAKE_URI": "lake"})
    assert settings.lake_path("staging", "logs") == f"{tmp_path}/lake/staging/logs"


def test_s3_variables_have_their_well_known_names() -> None:
    settings = Settings.from_env(
        {
            "LAKE_URI": "s3a://bucket",
            "AWS_ENDPOINT_URL": "http://general",
            "AWS_ENDPOINT_URL_S3": "http://special",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_SESSION_TOKEN": "token",
            "AWS_DEFAULT_REGION": "eu-central-1",
        }
    )
    assert not settings.lake_is_local
    assert settings.s3_endpoint == "http://special"
    assert (settings.s3_access_key, settings.s3_secret_key) == ("key", "secret")
    assert (settings.s3_session_token, settings.s3_region) == ("token", "eu-central-1")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LAKE_URI", "ftp://host/lake"),
        ("LAKE_URI", "s3a:///no-bucket"),
        ("LAKE_URI", "/data/a%20lake"),
        ("WAREHOUSE_URL", "mysql://user:pass-word@host/database"),
        ("WAREHOUSE_URL", "warehouse"),
        ("WAREHOUSE_SCHEMA", "Analytics"),
        ("WAREHOUSE_SCHEMA", "a; DROP SCHEMA b"),
        ("WAREHOUSE_SCHEMA", "a" * 64),
        ("LOCK_WAIT_SECONDS", "-1"),
        ("LOCK_WAIT_SECONDS", "ten minutes"),
    ],
)
def test_a_malformed_setting_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable}=") as raised:
        Settings.from_env({variable: value})
    assert "pass-word" not in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("character", "[]{}*?|^\\")
def test_a_lake_whose_name_is_a_pattern_is_refused(character: str) -> None:
    for value in (
        f"/data/a{character}lake",
        f"s3a://bucket/a{character}lake",
        f"s3a://k{character}:s@bucket",
    ):
        with pytest.raises(ConfigurationError, match=r"^LAKE_URI: the character") as raised:
            Settings.from_env({"LAKE_URI": value})
        assert f" {character} " in str(raised.value)
        assert value not in str(raised.value)


def test_printed_settings_show_no_secret() -> None:
    settings = Settings.from_env(
        {"WAREHOUSE_URL": "postgresql://user:pass-word@host/db", "AWS_SECRET_ACCESS_KEY": "secret-key"}
    )
    assert "pass-word" not in repr(settings)
    assert "secret-key" not in repr(settings)
    assert "user:***@host" in repr(settings)


@pytest.mark.parametrize(
    ("url", "shown", "recorded"),
    [
        (
            "postgresql://user:secret@host:5432/db",
            "postgresql://user:***@host:5432/db",
            "postgresql://host:5432/db",
        ),
        ("postgres://us%40er@host/db", "postgresql://us%40er@host/db", "postgresql://host/db"),
        (
            "postgresql://host/d%20b?user=u&password=sec@ret&sslpassword=secret",
            "postgresql://u:***@host/d%20b",
            "postgresql://host/d%20b",
        ),
        ("postgresql://u:p@a:1,b:2/db", "postgresql://u:***@a:1,b:2/db", "postgresql://a:1,b:2/db"),
        ("postgresql://u@[::1]:5433/db", "postgresql://u@[::1]:5433/db", "postgresql://[::1]:5433/db"),
        ("postgresql:///db?host=/tmp", "postgresql://%2Ftmp/db", "postgresql://%2Ftmp/db"),
        ("embedded:/var/warehouse", "embedded:/var/warehouse", "embedded:/var/warehouse"),
        ("bigquery://project/dataset", "bigquery://project/dataset", "bigquery://project/dataset"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str, recorded: str) -> None:
    assert Settings.from_env({"WAREHOUSE_URL": url}).warehouse_url == url
    assert without_password(url) == shown
    assert without_credentials(url) == recorded


@pytest.mark.parametrize(
    ("url", "begin", "message"),
    [
        ("analytics:S3CRET@host:5432/db", "…", "expected postgresql://"),
        ("host=localhost user=u password=S3CRET", "…", "expected postgresql://"),
        ("postgres:u:S3CRET@h/db", "…", "expected postgresql://"),
        ("postgresql:/u:S3CRET@h/db", "…", "expected postgresql://"),
        ("mysql://u:S3CRET@h/db", "mysql://…", "expected postgresql://"),
        ("postgresql://u:S3CRET/db", "postgresql://…", "the port is no number"),
        ("postgresql://u:S3CRET@h/db?port=S3CRET", "postgresql://…", "the port is no number"),
        (
            "postgresql://u:S3CRET@h/db?no_such_option=1",
            "postgresql://…",
            "only options that PostgreSQL knows",
        ),
        ("postgresql://u:S3C%RET@h/db", "postgresql://…", "write % as %25"),
        ("postgresql://u:S3C%00RET@h/db", "postgresql://…", "write % as %25"),
        ("postgresql://h/db?user=u&password=S3%zzCRET", "postgresql://…", "write % as %25"),
        ("postgresql://u:S3CRET@[::1/db", "postgresql://…", "around the colons of an IPv6 address"),
        ("postgresql://u:S3@CRET@h/db", "postgresql://…", "write @ as %40"),
        ("postgresql://u:S3@CRET/x@h/db", "postgresql://…", "write @ as %40"),
        ("postgresql://u:S3/CRET@h/db", "postgresql://…", "/ as %2F"),
        ("postgresql://u:12/S3CRET@h/db", "postgresql://…", "/ as %2F"),
        ("postgresql://u:S3:CRET@h/db", "postgresql://…", ": as %3A"),
        ("postgresql://u:S3#CRET@h/db", "postgresql://…", "# as %23"),
        ("postgresql://u:S3?x=CRET@h/db", "postgresql://…", "? as %3F"),
        ("postgresql://u:12?x=S3CRET@h/db", "postgresql://…", "? as %3F"),
    ],
)
def test_of_a_malformed_address_the_scheme_is_shown_at_most(url: str, begin: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as warehouse:
        Settings.from_env({"WAREHOUSE_URL": url})
    with pytest.raises(ConfigurationError) as source:
        postgresql_url("SOURCE_URL", url)
    for variable, raised in (("WAREHOUSE_URL", warehouse), ("SOURCE_URL", source)):
        assert str(raised.value).startswith(f"{variable}={begin}: ")
        assert message in str(raised.value)
        assert not re.search("S3|CRET", str(raised.value))


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("LAKE_URI", "s3a://some-key:some-secret@bucket/lake"),
        ("LAKE_URI", "s3a://some-key:some-secret/x@bucket/lake"),
        ("LAKE_URI", "s3a://some-key@bucket/lake"),
        ("AWS_ENDPOINT_URL", "http://some-key:some-secret@minio:9000"),
        ("AWS_ENDPOINT_URL_S3", "http://some-key:some-secret@minio:9000"),
    ],
)
def test_keys_in_the_lakes_address_are_refused_and_not_shown(variable: str, address: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}.* AWS_ACCESS_KEY_ID") as caught:
        Settings.from_env({variable: address})
    assert "some-" not in str(caught.value)


def test_every_setting_has_its_line_in_the_example() -> None:
    read = set(re.findall(r"\bget\(\"([A-Z0-9_]+)\"\)", (ROOT / "jobs" / "settings.py").read_text()))
    example = (ROOT / ".env.example").read_text()
    assert read
    assert [name for name in sorted(read) if f"\n#{name}=" not in example] == []


def test_every_setting_counts_in_the_stack_or_is_said_not_to() -> None:
    example, compose = ((ROOT / name).read_text() for name in (".env.example", "docker-compose.yml"))
    settings = set(re.findall(r"^#([A-Z0-9_]+)=", example, re.MULTILINE))
    # Written into another value, or handed on as it is.
    counting = re.findall(r"\$\{([A-Z0-9_]+)", compose) + re.findall(r"^ +([A-Z0-9_]+):$", compose, re.M)
    (said,) = re.findall(r"these do not count there(.*?)All others do", example, re.DOTALL)
    patterns = re.findall(r"[A-Z][A-Z0-9_*]{3,}", said)
    assert settings - set(counting) == {name for p in patterns for name in fnmatch.filter(settings, p)}
