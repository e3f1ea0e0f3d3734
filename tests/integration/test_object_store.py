"""Uploading to and staging from a real object store; what a wrong setting says."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ReadTimeoutError
from botocore.httpsession import URLLib3Session
from pyspark.sql import SparkSession

from jobs.errors import UserAnalyticsError
from jobs.lake.objects import PART_BYTES, S3Store, object_store, sha256_of
from jobs.settings import Settings
from jobs.spark import _configure_object_store
from jobs.upload_files import upload
from tests.records import event, json_lines, zipped
from tests.services import ObjectStore
from tests.staging import RawZone

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bucket(minio: ObjectStore) -> str:
    return minio.make_bucket("lake")


@pytest.fixture
def environment(minio: ObjectStore, bucket: str) -> dict[str, str]:
    """Variables of a lake that lies below a prefix of a bucket."""
    return {**minio.environment(), "LAKE_URI": f"s3a://{bucket}/a prefix/lake"}


def test_upload_is_multipart_checksummed_and_does_not_overwrite(
    tmp_path: Path, minio: ObjectStore, bucket: str, environment: dict[str, str]
) -> None:
    store = object_store(Settings.from_env(environment))
    store.check()
    large, small = tmp_path / "large.jsonl", tmp_path / "sm [1]+ü.jsonl"
    large.write_bytes(os.urandom(PART_BYTES + 1024))
    small.write_text("{}\n")

    first = upload(store, "logs", [large, small])
    again = upload(store, "logs", [large, small])

    assert first.uploaded == again.unchanged == ("raw/logs/large.jsonl", "raw/logs/sm [1]+ü.jsonl")
    assert [(f.path, f.size) for f in store.list("raw/logs")] == [
        ("raw/logs/large.jsonl", PART_BYTES + 1024),
        ("raw/logs/sm [1]+ü.jsonl", 3),
    ]
    key = "a prefix/lake/raw/logs/large.jsonl"
    head = minio.client().head_object(Bucket=bucket, Key=key)
    assert head["ETag"].strip('"').endswith("-2"), "two parts"
    with large.open("rb") as ours, store.open("raw/logs/large.jsonl") as theirs:
        assert head["Metadata"]["sha256"] == sha256_of(ours) == sha256_of(theirs)

    small.write_text("{ }\n")
    with pytest.raises(UserAnalyticsError, match="not overwritten"):
        upload(store, "logs", [small])
    assert upload(store, "logs", [small], replace=True).uploaded == ("raw/logs/sm [1]+ü.jsonl",)
    with store.open("raw/logs/sm [1]+ü.jsonl") as stream:
        # Past its end, too, as files of a folder can be read.
        assert [stream.readline(), stream.readline(), stream.read()] == [b"{ }\n", b"", b""]


@pytest.mark.parametrize("size", [10, PART_BYTES, 2 * PART_BYTES + 1])
def test_a_file_that_changes_on_the_way_is_not_stored(
    tmp_path: Path, minio: ObjectStore, bucket: str, environment: dict[str, str], size: int
) -> None:
    """As a log does that is still written; its object said that it has the content of before."""
    store = object_store(Settings.from_env(environment))
    file = tmp_path / "app.jsonl"
    file.write_bytes(b"x" * size)
    with file.open("rb") as stream:
        digest = sha256_of(stream)
    with file.open("ab") as log:
        log.write(b"more")
    for replace in (False, True):
        with pytest.raises(UserAnalyticsError, match=r"app\.jsonl changed while it was being uploaded"):
            store.put(file, "raw/logs/app.jsonl", digest, replace, lambda _: None)
    assert list(store.list("raw")) == []
    assert "Uploads" not in minio.client().list_multipart_uploads(Bucket=bucket)


def test_two_uploads_at_once_do_not_overwrite_each_other(tmp_path: Path, environment: dict[str, str]) -> None:
    """The second one looked before the first had finished; the store refuses it."""
    store = object_store(Settings.from_env(environment))
    for size in (10, PART_BYTES + 1):
        file = tmp_path / str(size)
        file.write_bytes(b"x" * size)
        with file.open("rb") as stream:
            digest = sha256_of(stream)
        store.put(file, f"raw/logs/{size}", digest, False, lambda _: None)
        store.put(file, f"raw/logs/{size}", digest, False, lambda _: None)
        file.write_bytes(b"y" * size)
        with file.open("rb") as stream:
            other = sha256_of(stream)
        with pytest.raises(FileExistsError):
            store.put(file, f"raw/logs/{size}", other, False, lambda _: None)
        assert store.digest(f"raw/logs/{size}") == digest


def lose_the_first_answer(client: Any, operation: str) -> list[int]:
    """Have a client send the first of these requests twice; the status of the answer that did not arrive."""
    session, lost = URLLib3Session(), []

    def lose(request: AWSPreparedRequest, **_: Any) -> None:
        if not lost:
            lost.append(session.send(request).status_code)
            request.reset_stream()
            raise ReadTimeoutError(endpoint_url=request.url)

    client.meta.events.register(f"before-send.s3.{operation}", lose)
    return lost


def test_an_upload_whose_answer_is_lost_is_no_other_content(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """The request is sent again and finds its own object: `upload` refused the file, `archive --restore` took it for
    a delivery of its own, and `erase` left the person's file beside the one without him."""
    store = object_store(Settings.from_env(environment))
    assert isinstance(store, S3Store)
    lost = lose_the_first_answer(store.creating, "PutObject")
    file = tmp_path / "day.jsonl"
    file.write_text("{}\n")
    assert upload(store, "logs", [file]).uploaded == ("raw/logs/day.jsonl",)
    assert lost == [200]
    assert upload(store, "logs", [file]).unchanged == ("raw/logs/day.jsonl",)


@pytest.mark.parametrize("replace", [False, True])
def test_an_upload_in_parts_whose_last_answer_is_lost_is_done(
    tmp_path: Path, environment: dict[str, str], replace: bool
) -> None:
    """The store knows no such upload any more: a correction that was stored counted as one that could not be."""
    store = object_store(Settings.from_env(environment))
    assert isinstance(store, S3Store)
    lost = lose_the_first_answer(store.client if replace else store.creating, "CompleteMultipartUpload")
    file = tmp_path / "day.jsonl"
    file.write_bytes(os.urandom(PART_BYTES + 1))
    assert upload(store, "logs", [file], replace=replace).uploaded == ("raw/logs/day.jsonl",)
    assert lost == [200]
    assert upload(store, "logs", [file]).unchanged == ("raw/logs/day.jsonl",)


def test_staging_from_the_store_gives_the_same_as_from_a_folder(
    spark: SparkSession, tmp_path: Path, tmp_lake: str, environment: dict[str, str]
) -> None:
    local = RawZone(spark, tmp_lake, "logs")
    local.put(
        {
            "a b+c%20[1]{2}ü.jsonl": json_lines(event("a", app="5"), event("b"), event("b"), "garbage"),
            "day/b.jsonl.gz": zipped(json_lines(event("b"), event("c"))),
            "d.json": "[]",
            "empty.jsonl": "",
        }
    )
    remote = RawZone(spark, environment["LAKE_URI"], "logs", environment)
    _configure_object_store(spark, remote.settings)
    upload(remote.store, "logs", [local.folder])
    for zone in (local, remote):
        zone.stage()
    for look in (RawZone.rows, RawZone.rejected, RawZone.counts, RawZone.refused):
        assert look(remote) == look(local)

    local.put({"day/b.jsonl.gz": zipped(json_lines(event("c"), event("d")))})
    upload(remote.store, "logs", [local.folder], replace=True)
    remote.stage()
    assert remote.rows("user_id") == [("a",), ("b",), ("c",), ("d",)]


def test_a_name_that_spark_cannot_read_is_refused_and_the_others_are_read(
    spark: SparkSession,
    minio: ObjectStore,
    bucket: str,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Spark read `day/a` for `day//a`, twice, and none of a feed's files where one had a control character."""
    zone = RawZone(spark, environment["LAKE_URI"], "logs", environment)
    _configure_object_store(spark, zone.settings)
    for name in ("day/a.jsonl", "day/\x01.jsonl"):
        body = json_lines(event("a")).encode()
        minio.client().put_object(Bucket=bucket, Key=f"a prefix/lake/raw/logs/{name}", Body=body)
    listed = list(zone.store.list("raw/logs"))
    # MinIO takes no such name; S3 does.
    listed += [dataclasses.replace(listed[1], path="raw/logs/day//a.jsonl")]
    monkeypatch.setattr(zone.store, "list", lambda prefix: iter(listed))
    zone.stage()
    assert zone.rows("user_id") == [("a",)]
    assert zone.counts() == {"day/a.jsonl": (1, 1, 0, 0)}
    assert zone.refused().keys() == {"day//a.jsonl", "day/\x01.jsonl"}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_wrong_settings_end_with_code_2_and_one_line_without_a_secret(
    tmp_path: Path, minio: ObjectStore, environment: dict[str, str]
) -> None:
    secret = environment["AWS_SECRET_ACCESS_KEY"]
    wrong = {
        "the bucket does not exist": {"LAKE_URI": "s3a://no-such-bucket-here"},
        "cannot be reached": {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"},
        "is not known": {"LAKE_URI": "ftp://host/lake"},
    }
    if minio.checks_keys:
        wrong["AWS_SECRET_ACCESS_KEY does not fit"] = {"AWS_SECRET_ACCESS_KEY": f"not-{secret}"}
        wrong["does not know AWS_ACCESS_KEY_ID"] = {"AWS_ACCESS_KEY_ID": "stranger"}
    file = tmp_path / "events.jsonl"
    file.write_text("{}\n")
    commands = [("upload", "logs", str(file))] * len(wrong)
    commands[0] = ("stage", "logs")
    for command, (message, change) in zip(commands, wrong.items(), strict=True):
        done = run(*command, **{**environment, **change, "LOG_FOLDER": str(tmp_path / "logs")})
        assert done.returncode == 2, (message, done.stderr)
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert secret not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_a_mistyped_prefix_is_a_wrong_setting(environment: dict[str, str], tmp_path: Path) -> None:
    mistyped = {**environment, "LAKE_URI": f"{environment['LAKE_URI']}-typo/", "LOG_FOLDER": str(tmp_path)}
    for command in (("erase", "--user-id", "1", "--yes"), ("status",)):
        done = run(*command, **mistyped)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"LAKE_URI={environment['LAKE_URI']}-typo" in done.stderr
        assert "there is no lake yet" in done.stderr


def test_an_address_that_is_none_is_a_wrong_setting(environment: dict[str, str], tmp_path: Path) -> None:
    done = run("upload", "logs", str(tmp_path), **{**environment, "AWS_ENDPOINT_URL_S3": "not an address"})
    assert done.returncode == 2
    assert "AWS_ENDPOINT_URL_S3" in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_that_are_missing_are_a_wrong_setting(environment: dict[str, str], tmp_path: Path) -> None:
    if boto3.Session().get_credentials() is not None:
        pytest.skip("this machine has keys of its own")
    (tmp_path / "a.jsonl").write_text("{}\n")
    keyless = {**environment, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    done = run("upload", "logs", str(tmp_path), **keyless)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_keys_of_a_profile_are_those_of_all(environment: dict[str, str], tmp_path: Path) -> None:
    """Spark's, too: its file system looked for keys in variables and at a role only, and the file was refused."""
    keys = tmp_path / "credentials"
    keys.write_text(
        f"[lake]\naws_access_key_id = {environment.pop('AWS_ACCESS_KEY_ID')}\n"
        f"aws_secret_access_key = {environment.pop('AWS_SECRET_ACCESS_KEY')}\n"
    )
    (tmp_path / "a.jsonl").write_text(json_lines(event("a")))
    environment |= {"AWS_PROFILE": "lake", "AWS_SHARED_CREDENTIALS_FILE": str(keys)}
    for command in (("upload", "logs", str(tmp_path / "a.jsonl")), ("stage", "logs")):
        done = run(*command, **environment, LOG_FOLDER=str(tmp_path / "logs"), SPARK_MASTER="local[2]")
        assert done.returncode == 0, done.stderr
    assert "1 records read = 1 accepted" in done.stderr
