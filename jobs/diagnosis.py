"""What can be wrong with a machine and its services, looked at without starting Spark. For `doctor`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.geolocation import cache_days, open_provider
from jobs.lake.objects import ObjectStore, object_store
from jobs.resources import project_root
from jobs.settings import Settings, without_password
from jobs.warehouse import open_warehouse
from jobs.warehouse.embedded import binaries

OK, WARN, FAIL = "ok", "warn", "fail"
JAVA = ("17", "21")
# Packages without which nothing runs as it was tested.
ESSENTIAL = ("pyspark", "delta-spark")
GIGABYTE = 1024**3
LEAST_FREE, COMFORTABLY_FREE = 1 * GIGABYTE, 5 * GIGABYTE
# S3 refuses requests that are 15 minutes off.
CLOCK_WARN, CLOCK_FAIL = 60.0, 600.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. state: ok, warn or fail. advice: what to do, unless it is ok."""

    what: str
    state: str
    found: str
    advice: str = ""


def machine() -> Iterator[Finding]:
    """Python and its packages, Java, Spark's jars."""
    yield Finding("Python", OK, f"{platform.python_version()} at {sys.executable}")
    yield from _packages()
    yield _java()
    yield from _jars()


def _packages() -> Iterator[Finding]:
    pins = project_root() / "requirements.txt"
    if not pins.is_file():
        yield Finding(
            "packages", WARN, f"{pins} is not there", "compare with the requirements.txt of the checkout"
        )
        return
    wanted = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", pins.read_text(), re.MULTILINE))
    there = {name: _installed(name) for name in wanted}
    others = {name: found for name, found in there.items() if found != wanted[name]}
    if not others:
        yield Finding("packages", OK, f"{len(wanted)} as pinned, pyspark {there['pyspark']}")
    for name, found in others.items():
        state = WARN if found and name not in ESSENTIAL else FAIL
        is_there = f"{name} {found}" if found else f"{name} is not installed"
        yield Finding("packages", state, f"{is_there}, pinned is {wanted[name]}", "run `make setup`")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _java_home() -> str | None:
    """JAVA_HOME as Spark's launchers have it: its spark-env.sh, which `make setup` writes, may set another one."""
    jars = spark_jars()
    if jars is None:
        return os.environ.get("JAVA_HOME")
    read = '. "$SPARK_HOME/bin/load-spark-env.sh" >/dev/null; printf %s "${JAVA_HOME:-}"'
    environment = {**os.environ, "SPARK_HOME": str(jars.parent)}
    try:
        said = subprocess.run(
            ["bash", "-c", read], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return os.environ.get("JAVA_HOME")
    return said.stdout or None


def _java() -> Finding:
    home = _java_home()
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    advice = "install Java 17 (Debian: apt-get install openjdk-17-jre-headless), or set JAVA_HOME to one"
    if not program or not os.access(program, os.X_OK):
        return Finding("Java", FAIL, f"JAVA_HOME={home} has no bin/java" if home else "not found", advice)
    try:
        said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("Java", FAIL, f"{program}: {error}", advice)
    version = re.search(r'version "([^"]+)"', said.stderr + said.stdout)
    if not version:
        return Finding("Java", FAIL, f"{program} does not say its version", advice)
    known = version[1].split(".")[0] in JAVA
    return Finding("Java", OK if known else FAIL, f"{version[1]} at {program}", "" if known else advice)


def spark_jars() -> Path | None:
    """The folder of Spark's jars, SPARK_HOME's where that is set; None where there is no Spark."""
    if home := os.environ.get("SPARK_HOME"):
        return Path(home) / "jars"
    spec = importlib.util.find_spec("pyspark")
    locations = (spec.submodule_search_locations if spec else None) or ()
    return next((Path(location) / "jars" for location in locations), None)


def _jars() -> Iterator[Finding]:
    folder, sums = spark_jars(), project_root() / "jars" / "SHA256SUMS"
    if folder is None or not folder.is_dir():
        yield Finding("jars", FAIL, f"no folder {folder}", "run `make setup`, or mend SPARK_HOME")
        return
    if sums.is_file():
        yield _checksums(folder, sums)
    else:
        yield Finding("jars", WARN, f"{sums} is not there", "compare with jars/SHA256SUMS of the checkout")
    yield from _jar_versions(folder)


def _checksums(folder: Path, sums: Path) -> Finding:
    expected = {name.lstrip("*"): digest for digest, name in map(str.split, sums.read_text().splitlines())}
    missing = sorted(name for name in expected if not (folder / name).is_file())
    wrong = sorted(
        name for name in expected.keys() - set(missing) if _sha256(folder / name) != expected[name]
    )
    problems = [f"{name} is missing" for name in missing] + [f"{name} has another checksum" for name in wrong]
    if problems:
        return Finding("jars", FAIL, "; ".join(problems), "run `make setup`: it puts them right")
    return Finding("jars", OK, f"{len(expected)} in {folder}, all checksums right")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _jar_versions(folder: Path) -> Iterator[Finding]:
    """Of jars that have to fit Python's packages or each other: which versions are there."""
    names = [file.name for file in folder.glob("*.jar")]

    def versions(pattern: str) -> list[tuple[str, ...]]:
        return sorted(found.groups() for name in names if (found := re.fullmatch(pattern, name)))

    spark = ".".join((_installed("pyspark") or "").split(".")[:2])
    delta = (spark, "2.13", _installed("delta-spark") or "")
    hadoop = versions(r"hadoop-client-api-(.+)\.jar")
    for what, found, wanted in (
        ("Delta Lake's jar", versions(r"delta-spark_([\d.]+)_([\d.]+)-(.+)\.jar"), [delta]),
        ("Hadoop's S3 jar", versions(r"hadoop-aws-(.+)\.jar"), hadoop),
        ("PostgreSQL's jar", versions(r"postgresql-(.+)\.jar"), None),
    ):
        shown = ", ".join(" ".join(version) for version in found) or "not there"
        if len(found) == 1 and (wanted is None or found == wanted):
            yield Finding(what, OK, shown)
        else:
            fits = " or ".join(" ".join(version) for version in wanted) if wanted else "exactly one"
            advice = "run `make setup`, and remove other versions from Spark's jars"
            yield Finding(what, FAIL, f"{shown}; expected {fits}", advice)


def disks(settings: Settings) -> Iterator[Finding]:
    """Free space where the lake, the embedded warehouse, logs and Spark's temporary files are."""
    folders = {
        "lake": settings.lake_uri if settings.lake_is_local else None,
        "warehouse": _embedded(settings),
        "logs": settings.log_folder,
        "Spark's temporary files": os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0]
        or tempfile.gettempdir(),
    }
    for what, folder in folders.items():
        if folder is None:
            continue
        place = _existing(Path(folder))
        free = shutil.disk_usage(place).free
        state = FAIL if free < LEAST_FREE else WARN if free < COMFORTABLY_FREE else OK
        advice = f"make room on the disk of {place}: 5 GB or more" if state != OK else ""
        yield Finding(f"disk, {what}", state, f"{free / GIGABYTE:.1f} GB free at {place}", advice)


def logs(settings: Settings) -> Finding:
    """Whether Spark's own log can be written."""
    if problem := _unwritable(Path(settings.log_folder)):
        return Finding("logs", FAIL, problem, "mend LOG_FOLDER, or the folder's rights")
    return Finding("logs", OK, settings.log_folder)


def _existing(folder: Path) -> Path:
    """The folder, or what there is of the way to it."""
    return next(place for place in (folder, *folder.parents) if os.access(place, os.F_OK))


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written to a folder, which may still have to be made; None where something can."""
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return f"{place} cannot be written to: {error.strerror}"


def _embedded(settings: Settings) -> str | None:
    folder = settings.warehouse_url.removeprefix("embedded:")
    return folder if folder != settings.warehouse_url else None


def lake(settings: Settings, now: datetime | None = None) -> Iterator[Finding]:
    """Whether the store can be reached, written, read and deleted from, and whether its clock agrees.

    now: instead of this machine's clock.
    """
    try:
        store = object_store(settings)
        store.check()
    except ConfigurationError as error:
        yield Finding("lake", FAIL, str(error), "mend the setting or the service that the message names")
        return
    yield _permissions(settings, store)
    theirs = store.clock()
    if theirs is not None:
        apart = abs(((now or datetime.now(UTC)) - theirs).total_seconds())
        state = FAIL if apart > CLOCK_FAIL else WARN if apart > CLOCK_WARN else OK
        advice = "synchronise this machine's clock (NTP), or the store's" if state != OK else ""
        yield Finding("clock", state, f"{apart:.0f} s apart from the store's", advice)


def _permissions(settings: Settings, store: ObjectStore) -> Finding:
    content = uuid.uuid4().hex
    # The raw zone's listing, and Spark, pass over names that begin so.
    path = f"_doctor-{content}"
    action = "written to"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "probe"
        file.write_text(content)
        try:
            store.put(file, path, hashlib.sha256(content.encode()).hexdigest(), True, lambda sent: None)
            action = "read from"
            with store.open(path) as stream:
                if stream.read().decode() != content:
                    return Finding("lake", FAIL, f"{path} came back different", "look at the store itself")
            action = "deleted from"
            store.delete(path)
        except (OSError, UserAnalyticsError, ClientError, BotoCoreError) as error:
            return Finding(
                "lake",
                FAIL,
                f"{settings.lake_uri} cannot be {action}: {_one_line(error)}",
                "give the keys s3:ListBucket, GetObject, PutObject and DeleteObject; of a folder, mend its rights",
            )
    return Finding("lake", OK, f"{settings.lake_uri}: written, read, deleted")


def warehouse(settings: Settings) -> Finding:
    """Whether the warehouse can be reached and published to. An embedded one is not started."""
    url = without_password(settings.warehouse_url)
    try:
        if folder := _embedded(settings):
            binaries()
            if problem := _unwritable(Path(folder)):
                return Finding("warehouse", FAIL, problem, "mend WAREHOUSE_URL, or the folder's rights")
            return Finding("warehouse", OK, f"embedded PostgreSQL in {folder}")
        with open_warehouse(settings) as opened:
            missing = opened.missing_rights()
    except UserAnalyticsError as error:
        return Finding(
            "warehouse", FAIL, str(error), "mend the setting or the service that the message names"
        )
    if missing:
        return Finding(
            "warehouse", FAIL, f"{url}: {'; '.join(missing)}", "see docs/operations/warehouse-roles.md"
        )
    return Finding("warehouse", OK, f"{url}: may be published to")


def geolocation() -> Finding:
    """Whether the provider of locations can be used, as far as that can be seen without asking it."""
    try:
        provider = open_provider()
        cache_days()
    except ConfigurationError as error:
        return Finding("geolocation", FAIL, str(error), "mend the variable; .env.example describes it")
    return Finding("geolocation", OK, provider.name if provider else "no provider chosen")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
