"""`doctor`: what is right is said to be right, what is wrong is found and comes with what to do."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import diagnosis
from jobs.cli import main
from jobs.diagnosis import (
    FAIL,
    OK,
    WARN,
    Finding,
    disks,
    geolocation,
    lake,
    logs,
    machine,
    spark_jars,
    warehouse,
)
from jobs.settings import Settings
from tests.services import ObjectStore
from tests.warehouses import query

pytestmark = pytest.mark.integration


def settings(**environment: str) -> Settings:
    return Settings.from_env({"LAKE_URI": "unused", **environment})


def found(what: str) -> list[Finding]:
    return [finding for finding in machine() if finding.what == what]


def test_a_set_up_that_is_right(
    minio: ObjectStore,
    warehouse_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket = minio.make_bucket()
    for name, value in minio.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LAKE_URI", f"s3a://{bucket}/lake")
    monkeypatch.setenv("WAREHOUSE_URL", warehouse_url)
    monkeypatch.setattr(diagnosis, "COMFORTABLY_FREE", 0)
    monkeypatch.setattr(diagnosis, "LEAST_FREE", 0)

    assert main(["doctor", "--json"]) == 0
    output, errors = capsys.readouterr()
    answer = json.loads(output)
    assert answer["ok"] is True
    assert {f["state"] for f in answer["findings"]} == {OK}
    assert {"Python", "packages", "Java", "jars", "lake", "clock", "warehouse", "logs", "geolocation"} <= {
        f["what"] for f in answer["findings"]
    }
    password = warehouse_url.split("@")[0].rsplit(":", 1)[1]
    assert not [secret for secret in (minio.secret_key, password) if secret in output + errors]
    assert minio.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0, "the probe is gone"

    # A setting that cannot be read does not keep the rest from being looked at.
    monkeypatch.setenv("LAKE_URI", "ftp://nowhere")
    assert main(["doctor"]) == 1
    output, errors = capsys.readouterr()
    assert "ok    Java: " in output
    assert "fail  settings: LAKE_URI='ftp://nowhere'" in output
    assert "error: doctor: settings: see above what to do" in errors


def test_stores_that_cannot_be_used(minio: ObjectStore, tmp_path: Path) -> None:
    bucket = minio.make_bucket()
    environment = minio.environment()
    there = settings(**environment | {"LAKE_URI": f"s3a://{bucket}"})
    for minutes, state in ((0, OK), (2, WARN), (20, FAIL)):
        _, clock = lake(there, datetime.now(UTC) + timedelta(minutes=minutes))
        assert (clock.what, clock.state, bool(clock.advice)) == ("clock", state, state != OK)

    wrong: dict[str, dict[str, str]] = {
        "the bucket does not exist": environment | {"LAKE_URI": "s3a://no-such-bucket"},
        # Nobody may make a file there, not even root.
        "/proc cannot be written to": {"LAKE_URI": "/proc"},
        "cannot be used as a folder": {"LAKE_URI": "/dev/null"},
    }
    if minio.checks_keys:
        other = {"LAKE_URI": f"s3a://{bucket}", "AWS_SECRET_ACCESS_KEY": "marked-secret"}
        wrong["AWS_SECRET_ACCESS_KEY does not fit"] = environment | other
    for message, variables in wrong.items():
        (finding,) = lake(settings(**variables))
        assert finding.state == FAIL
        assert message in finding.found
        assert finding.advice
        assert "marked-secret" not in str(finding)

    # A folder is made, written, read and left empty; it has no clock of its own.
    (finding,) = lake(settings(LAKE_URI=str(tmp_path / "lake")))
    assert finding.state == OK
    assert list((tmp_path / "lake").iterdir()) == []


def test_warehouses_that_cannot_be_published_to(warehouse_url: str, tmp_path: Path) -> None:
    database = warehouse_url.rsplit("/", 1)[1]
    role = f"stranger_{database}"
    server = warehouse_url.split("@")[1]

    def run(text: str) -> None:
        query(warehouse_url, text, schema="pg_catalog")

    def look(word: str = "marked-secret") -> Finding:
        finding = warehouse(settings(WAREHOUSE_URL=f"postgresql://{role}:{word}@{server}"))
        assert "marked" not in str(finding)
        return finding

    assert warehouse(settings(WAREHOUSE_URL=warehouse_url)).state == OK
    run(f"CREATE ROLE {role} LOGIN PASSWORD 'marked-secret'")
    try:
        assert "there is no schema analytics, and this role may not make it" in look().found
        run(f"CREATE SCHEMA analytics; GRANT USAGE ON SCHEMA analytics TO {role}")
        run("CREATE TABLE analytics.dim_users (x int); CREATE TABLE analytics.other (x int)")
        finding = look()
        assert finding.state == FAIL
        assert "lacks CREATE on schema analytics; this role does not own dim_users, and" in finding.found
        assert "warehouse-roles.md" in finding.advice
        run(f"GRANT CREATE ON SCHEMA analytics TO {role}; ALTER TABLE analytics.dim_users OWNER TO {role}")
        assert look().state == OK
        run(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        assert "takes no changes" in look().found
        assert look("marked-as-wrong").state == FAIL
    finally:
        run(f"DROP OWNED BY {role}; DROP ROLE {role}")

    # An embedded one is neither made nor started for the question.
    folder = tmp_path / "warehouse"
    assert warehouse(settings(WAREHOUSE_URL=f"embedded:{folder}")).state == OK
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    assert logs(settings(LOG_FOLDER=str(tmp_path / "not" / "there"))).state == OK
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    # Nobody may make a file in /proc, not even root.
    for place, of_it in ((tmp_path / "file", ""), (tmp_path / "file", "/logs"), (Path("/proc"), "/no/logs")):
        for finding in (
            logs(settings(LOG_FOLDER=f"{place}{of_it}")),
            warehouse(settings(WAREHOUSE_URL=f"embedded:{place}{of_it}")),
        ):
            assert finding.state == FAIL
            assert finding.found.startswith(f"{place} cannot be written to: ")
            assert finding.advice


def test_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    assert geolocation() == Finding("geolocation", OK, "no provider chosen")
    monkeypatch.setenv("GEOLOCATION_PROVIDER", "ip-api")
    assert geolocation() == Finding("geolocation", OK, "ip-api")
    for name, value, message in (
        ("GEOLOCATION_CACHE_DAYS", "0", "GEOLOCATION_CACHE_DAYS='0': expected a whole number above 0"),
        ("GEOLOCATION_PROVIDER", "maxmind", "GEOLOCATION_DATABASE: needed by the provider maxmind"),
        ("GEOLOCATION_DATABASE", "/no/such.mmdb", "GEOLOCATION_DATABASE='/no/such.mmdb': "),
        ("GEOLOCATION_PROVIDER", "atlas", "GEOLOCATION_PROVIDER='atlas': choose from"),
    ):
        monkeypatch.setenv(name, value)
        assert geolocation().state == FAIL
        assert geolocation().found.startswith(message)


def test_the_java_that_spark_starts_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctor` failed where another Java is first on PATH, while every run took the one that `make setup` found."""
    for name, version in (("old", "1.8.0_292"), ("new", "17.0.1")):
        program = tmp_path / name / "bin" / "java"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        program.chmod(0o755)
    (tmp_path / "spark-env.sh").write_text(f'export JAVA_HOME="{tmp_path}/new"\n')
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    monkeypatch.delenv("SPARK_ENV_LOADED", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/old/bin", prepend=os.pathsep)
    for home in ("", str(tmp_path / "old"), "/no/such"):
        monkeypatch.setenv("JAVA_HOME", home)
        assert found("Java") == [Finding("Java", OK, f"17.0.1 at {tmp_path}/new/bin/java")]


def test_java_jars_packages_and_disks_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = spark_jars()
    assert real is not None
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    # As where `make setup` has not written which Java Spark starts.
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "conf"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert found("Java")[0].found.endswith("has no bin/java")
    for version, state in (("21.0.1", OK), ("11.0.2", FAIL), ("1.8.0_292", FAIL)):
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        program.chmod(0o755)
        (finding,) = found("Java")
        assert (finding.state, bool(finding.advice)) == (state, state != OK)

    jars = tmp_path / "jars"
    jars.mkdir()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    for jar in real.glob("*.jar"):
        (jars / jar.name).symlink_to(jar)
    assert {f.state for f in machine() if "jar" in f.what} == {OK}
    for name in ("postgresql-42.7.10.jar", "hadoop-aws-3.4.2.jar"):
        (jars / name).unlink()
    (jars / "postgresql-42.7.10.jar").write_text("not a jar")
    (jars / "hadoop-aws-3.3.4.jar").write_text("")
    (jars / "delta-spark_4.1_2.13-4.3.0.jar").write_text("")
    states = {f.what: f for f in machine() if "jar" in f.what}
    assert (
        states["jars"].found == "hadoop-aws-3.4.2.jar is missing; postgresql-42.7.10.jar has another checksum"
    )
    assert "4.1 2.13 4.3.0, 4.1 2.13 4.4.0; expected 4.1 2.13 4.4.0" in states["Delta Lake's jar"].found
    assert states["Hadoop's S3 jar"].found == "3.3.4; expected 3.4.2"
    assert {f.state for f in states.values()} == {FAIL, OK}

    (tmp_path / "requirements.txt").write_text(
        "pyspark==9.9.9 \\\n    --hash=sha256:0\nboto3==0.0.1\nno-such-package==1.0\n"
    )
    monkeypatch.setattr(diagnosis, "project_root", lambda: tmp_path)
    wrong: Any = {f.found.split()[0]: f.state for f in found("packages")}
    assert wrong == {"pyspark": FAIL, "boto3": WARN, "no-such-package": FAIL}

    monkeypatch.setattr(diagnosis, "COMFORTABLY_FREE", 1 << 70)
    local = settings(LAKE_URI=str(tmp_path / "not" / "there"))
    assert {f.state for f in disks(local)} == {WARN}
    monkeypatch.setattr(diagnosis, "LEAST_FREE", 1 << 70)
    assert {f.state for f in disks(local)} == {FAIL}
