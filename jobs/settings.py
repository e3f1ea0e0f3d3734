"""Where a run reads and writes, taken from the environment.

Secrets (AWS_SECRET_ACCESS_KEY, the password in WAREHOUSE_URL) come from the environment only and are never printed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg2
from psycopg2.extensions import parse_dsn

from jobs.errors import ConfigurationError

LAKE_SCHEMES = ("s3a", "file")
BIGQUERY = re.compile(r"bigquery://([a-z][a-z0-9.-]*:)?[a-z][a-z0-9-]{4,28}[a-z0-9]/[A-Za-z0-9_]{1,1024}")
IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Settings:
    """One run's settings.

    lake_uri: root of the lake, `s3a://bucket[/prefix]` or an absolute local path.
    warehouse_url: `postgresql://…`, `bigquery://project/dataset`, or `embedded:<folder>` for a PostgreSQL that is
    started for the run.
    schema: the schema of PostgreSQL that tables and views stand in; on BigQuery they stand in the dataset.
    drop_secrets: columns that a feed declares secret are not read, and in no table.
    lock_wait_seconds: how long to wait for a table that another run writes.
    s3_*: endpoint, keys and region of the object store; None lets the AWS chain decide.
    """

    lake_uri: str
    warehouse_url: str
    schema: str = "analytics"
    s3_endpoint: str | None = None
    s3_access_key: str | None = None
    s3_secret_key: str | None = None
    s3_session_token: str | None = None
    s3_region: str = "us-east-1"
    spark_master: str | None = None
    driver_memory: str = "2g"
    log_folder: str = "var/logs"
    drop_secrets: bool = False
    lock_wait_seconds: float = 600.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables.

        Raises ConfigurationError naming the variable when one is malformed.
        """
        env = os.environ if environ is None else environ

        def get(name: str) -> str | None:
            return env.get(name, "").strip() or None

        return cls(
            lake_uri=_lake_uri(get("LAKE_URI") or "var/lake"),
            warehouse_url=_warehouse_url(get("WAREHOUSE_URL") or "embedded:var/warehouse"),
            schema=_schema(get("WAREHOUSE_SCHEMA") or "analytics"),
            s3_endpoint=_endpoint(get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL")),
            s3_access_key=get("AWS_ACCESS_KEY_ID"),
            s3_secret_key=get("AWS_SECRET_ACCESS_KEY"),
            s3_session_token=get("AWS_SESSION_TOKEN"),
            s3_region=get("AWS_REGION") or get("AWS_DEFAULT_REGION") or "us-east-1",
            spark_master=get("SPARK_MASTER"),
            driver_memory=get("SPARK_DRIVER_MEMORY") or "2g",
            log_folder=str(Path(get("LOG_FOLDER") or "var/logs").absolute()),
            drop_secrets=_drop_secrets(get("SECRET_COLUMNS") or "keep"),
            lock_wait_seconds=_seconds("LOCK_WAIT_SECONDS", get("LOCK_WAIT_SECONDS") or "600"),
        )

    @property
    def lake_is_local(self) -> bool:
        return not self.lake_uri.startswith("s3a://")

    def lake_path(self, *parts: str) -> str:
        """The address of something in the lake, e.g. lake_path("staging", "logs")."""
        return "/".join([self.lake_uri, *parts])

    def __repr__(self) -> str:
        return f"Settings(lake_uri={self.lake_uri!r}, warehouse={without_password(self.warehouse_url)!r})"


def postgresql_url(variable: str, value: str, others: str = "") -> str:
    """The address in a variable, once it is sure which part of it is the password. others: forms to name beside.

    Raises ConfigurationError naming the variable; of the value it shows the scheme at most, because what is malformed
    may be the password, which PostgreSQL's own messages quote.
    """
    found = re.match(r"\w+://", value)
    begin = f"{variable}={found[0] if found else ''}…"
    if begin not in (f"{variable}=postgresql://…", f"{variable}=postgres://…"):
        raise ConfigurationError(f"{begin}: expected postgresql://user:password@host:port/database{others}")
    # As PostgreSQL does: what stands before the first @ is the user, unless a / comes first.
    _, user, rest = re.split(r"^\w+://(?:([^@/]*)@)?", value, maxsplit=1)
    if re.search(r"[][?#\s]|:.*:", user or "") or "@" in rest.partition("?")[0]:
        raise ConfigurationError(
            f"{begin}: user or password hold characters that have a meaning in an address; "
            "write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23"
        )
    try:
        ports = parse_dsn(value).get("port", "").split(",")
    except psycopg2.ProgrammingError:
        raise ConfigurationError(
            f"{begin}: PostgreSQL cannot read this address; in user and password write % as %25, around the colons of "
            "an IPv6 address [ ], and behind ? only options that PostgreSQL knows, as name=value"
        ) from None
    if not all(re.fullmatch(r"\d{0,5}", port) for port in ports):
        raise ConfigurationError(
            f"{begin}: the port is no number; is the host missing in postgresql://user:password@host:port/database?"
        )
    return value


def hosts_and_ports(parts: Mapping[str, str]) -> list[tuple[str, str]]:
    """The servers that the parts of an address name, in order; an empty text for what is left to PostgreSQL."""
    hosts = (parts.get("host") or parts.get("hostaddr", "")).split(",")
    ports = parts.get("port", "").split(",")
    return list(zip(hosts, ports if len(ports) == len(hosts) else ports[:1] * len(hosts), strict=True))


def without_credentials(url: str) -> str:
    """The same address without user, password and options, fit for everyone to see."""
    return f"postgresql://{_place(parse_dsn(url))}" if _is_postgresql(url) else url


def without_password(url: str) -> str:
    """The same address without options, and with *** for the password, fit for logs."""
    if not _is_postgresql(url):
        return url
    parts = parse_dsn(url)
    user = quote(parts.get("user", ""), safe="") + (":***" if "password" in parts else "")
    return f"postgresql://{user}{'@' if user else ''}{_place(parts)}"


def _is_postgresql(url: str) -> bool:
    return url.startswith(("postgresql://", "postgres://"))


def _place(parts: Mapping[str, str]) -> str:
    servers = []
    for host, port in hosts_and_ports(parts):
        name = f"[{host}]" if ":" in host else quote(host, safe="")
        servers.append(f"{name}:{port}" if port else name)
    return f"{','.join(servers)}/{quote(parts.get('dbname', ''), safe='')}"


def _lake_uri(value: str) -> str:
    if found := re.search(r"[][{}*?|^\\]", os.path.abspath(value)):  # noqa: PTH100 - see _folder
        # To Spark most of them are patterns, and delta-rs 1.6 breaks down at the others.
        raise ConfigurationError(f"LAKE_URI: the character {found.group()} cannot be in a lake's name")
    scheme = urlsplit(value).scheme if "://" in value else ""
    if re.search(r"://([^/@]*|[^@]*:[^@]*)@", value):
        # Not shown: what stands before the @ may be a key, which may hold a /.
        raise ConfigurationError(
            "LAKE_URI holds something before an @: keys belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if re.search("%[0-9A-Fa-f]{2}", os.path.abspath(value)):  # noqa: PTH100 - see _folder
        # delta-rs 1.6 reads and writes another folder then: it takes %20 for a space.
        raise ConfigurationError(
            f"LAKE_URI={value!r}: a percent sign with two digits cannot be in a lake's name"
        )
    if not scheme:
        return _folder(value)
    if scheme == "s3":
        value, scheme = "s3a" + value.removeprefix("s3"), "s3a"
    if scheme not in LAKE_SCHEMES:
        raise ConfigurationError(
            f"LAKE_URI={value!r}: the scheme {scheme!r} is not known; use s3a://bucket[/prefix] or a local folder"
        )
    if scheme == "file":
        return _folder(urlsplit(value).path)
    if not urlsplit(value).netloc:
        raise ConfigurationError(f"LAKE_URI={value!r}: the bucket is missing; write s3a://bucket[/prefix]")
    return value.rstrip("/")


def _endpoint(value: str | None) -> str | None:
    if "@" in (value or ""):
        raise ConfigurationError(
            "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL holds something before an @: keys belong in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    return value


def _folder(path: str) -> str:
    # Spark names files with `..` resolved; their addresses must begin with this one.
    return os.path.abspath(path).rstrip("/")  # noqa: PTH100 - Path.absolute leaves `..`, resolve follows links


def _warehouse_url(value: str) -> str:
    if value.startswith("embedded:"):
        return "embedded:" + str(Path(value.removeprefix("embedded:") or "var/warehouse").absolute())
    if value.startswith("bigquery:"):
        if not BIGQUERY.fullmatch(value):
            raise ConfigurationError("WAREHOUSE_URL=bigquery:…: expected bigquery://project/dataset")
        return value
    return postgresql_url("WAREHOUSE_URL", value, ", bigquery://project/dataset or embedded:<folder>")


def _drop_secrets(value: str) -> bool:
    if value not in ("keep", "drop"):
        raise ConfigurationError(f"SECRET_COLUMNS={value!r}: choose keep or drop")
    return value == "drop"


def _seconds(name: str, value: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", value):
        raise ConfigurationError(
            f"{name}={value!r}: expected a number of seconds, such as 600; 0 does not wait"
        )
    return float(value)


def _schema(value: str) -> str:
    if not IDENTIFIER.fullmatch(value):
        raise ConfigurationError(
            f"WAREHOUSE_SCHEMA={value!r}: use lower-case letters, digits and underscores, at most 63"
        )
    return value
