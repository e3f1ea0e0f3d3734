"""Files in the lake's raw zone: list, peek at the beginning, upload. A local folder or any S3, one interface.

Spark reads and writes the data; this module is for what has to be known before Spark starts.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any, Protocol

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobs.console import log
from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.settings import Settings

CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
PART_BYTES = 16 * 1024 * 1024
NO_LAKE = "there is no lake yet; `user-analytics run` makes one"
# How much text a compressed byte is taken for.
GZIP_RATIO = 8
Progress = Callable[[int], None]


@dataclass(frozen=True)
class RawFile:
    """One version of a raw file.

    path: relative to the lake, e.g. `raw/logs/2026-11-20.jsonl`.
    version: the ETag, or size and modification time where the store has none.
    """

    path: str
    size: int
    modified_at: datetime
    version: str

    @property
    def text_bytes(self) -> int:
        return text_bytes(self.path, self.size)


def text_bytes(path: str, size: int) -> int:
    """The bytes of a file's text, estimated where it is compressed."""
    return size * (GZIP_RATIO if path.endswith(".gz") else 1)


class ObjectStore(Protocol):
    """What the jobs need of a place that holds files. Paths are relative to the lake."""

    def check(self, make: bool = True, write: bool = True) -> None:
        """Raise ConfigurationError if the lake cannot be reached or used with these settings.

        make: one that is not there is begun; otherwise that is an error. write: a local folder that can only be read
        from is an error.
        """

    def list(self, prefix: str) -> Iterator[RawFile]:
        """Every file below the prefix, in order of path, except those that are hidden or whose name is not UTF-8."""

    def problem_of_name(self, path: str) -> str | None:
        """Why Spark could not read a file of this name from here, None when it can."""

    def open(self, path: str) -> IO[bytes]:
        """A stream of the file's bytes, read as far as the caller reads."""

    def digest(self, path: str) -> str | None:
        """The SHA-256 of the file's content in hexadecimal, or None when there is no such file."""

    def put(self, source: Path, path: str, sha256: str, replace: bool, progress: Progress) -> None:
        """Store a local file whole or not at all, checksummed on the way.

        Raises FileExistsError when something else is at the path and replace is False.
        """

    def fetch(self, path: str) -> tuple[bytes, str] | None:
        """A small object and its version, None when there is no such object."""

    def swap(self, path: str, content: bytes, version: str | None) -> str | None:
        """Write a small object in one step, only if it still has this version; None means: only if it is not there.

        Gives its new version, or None when somebody else was first, in which case nothing was written.
        """

    def delete(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""

    def clock(self) -> datetime | None:
        """What time it is by the store; None where that is this machine."""


def object_store(settings: Settings) -> ObjectStore:
    """The store that LAKE_URI points at."""
    return LocalStore(Path(settings.lake_uri)) if settings.lake_is_local else S3Store(settings)


def sha256_of(stream: IO[bytes]) -> str:
    """The SHA-256 of a stream, read in pieces."""
    digest = hashlib.sha256()
    while piece := stream.read(1024 * 1024):
        digest.update(piece)
    return digest.hexdigest()


def is_hidden(path: str) -> bool:
    """Spark passes over names that begin with `_` or `.`, and over files that Hadoop is still copying (`._COPYING_`).

    So does the listing, lest a file count as read.
    """
    return any(part.startswith(("_", ".")) or part.endswith("._COPYING_") for part in path.split("/"))


def _files_below(folder: Path) -> Iterator[Path]:
    """The files below a folder, if there is one, without those in hidden folders.

    Raises OSError for a folder that may not be looked into, which `rglob` passes over together with all its files.
    """

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for place, folders, files in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (file for name in files if (file := Path(place, name)).is_file())


def _not_utf8(path: str) -> str | None:
    try:
        path.encode()
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    return None


class LocalStore:
    """A lake in a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self, make: bool = True, write: bool = True) -> None:
        try:
            if not make and not self.root.exists():
                raise ConfigurationError(f"LAKE_URI={str(self.root)!r}: {NO_LAKE}")
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"LAKE_URI={str(self.root)!r}: cannot be used as a folder: {error.strerror}"
            ) from None
        # Who only looks may have no more than a copy, or a share, that is not to be written to.
        needed, what = (os.W_OK, "write") if write else (os.R_OK, "read")
        if not os.access(self.root, needed | os.X_OK):
            raise ConfigurationError(f"LAKE_URI={str(self.root)!r}: no permission to {what} there")

    def list(self, prefix: str) -> Iterator[RawFile]:
        base = self.root / prefix
        for file in sorted(_files_below(base)):
            path = file.relative_to(self.root).as_posix()
            if is_hidden(path):
                continue
            if problem := _not_utf8(path):
                log.warning("%a: %s; left out, rename it", path, problem)
                continue
            try:
                stat = file.stat()
            except FileNotFoundError:  # since the look at the folder
                continue
            yield RawFile(
                path=path,
                size=stat.st_size,
                modified_at=datetime.fromtimestamp(stat.st_mtime, UTC),
                version=f"{stat.st_size}-{stat.st_mtime_ns}",
            )

    def problem_of_name(self, path: str) -> str | None:
        # Hadoop takes what stands before it for the scheme of an address; in a folder's name it does not.
        if ":" in path.rpartition("/")[2]:
            return "Spark cannot read a file with a colon in its name from a folder"
        return _not_utf8(path)

    def open(self, path: str) -> IO[bytes]:
        return (self.root / path).open("rb")

    def digest(self, path: str) -> str | None:
        file = self.root / path
        if not file.exists():
            return None
        with file.open("rb") as stream:
            return sha256_of(stream)

    def put(self, source: Path, path: str, sha256: str, replace: bool, progress: Progress) -> None:
        target = self.root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            # That a file is in a folder's place, not in this one's.
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
        # The name begins with a dot, so a half-written file is never listed.
        handle, name = tempfile.mkstemp(prefix=".upload-", dir=target.parent)
        part = Path(name)
        try:
            digest = hashlib.sha256()
            with os.fdopen(handle, "wb") as out, source.open("rb") as stream:
                while piece := stream.read(PART_BYTES):
                    digest.update(piece)
                    out.write(piece)
                    progress(len(piece))
                out.flush()
                os.fsync(out.fileno())
            if digest.hexdigest() != sha256:
                raise _changed(source)
            shutil.copymode(source, part)
            if replace:
                part.replace(target)
            else:
                try:
                    os.link(part, target)  # fails when the name was taken meanwhile, unlike a rename
                except FileExistsError:
                    if self.digest(path) != sha256:
                        raise
        finally:
            part.unlink(missing_ok=True)

    def fetch(self, path: str) -> tuple[bytes, str] | None:
        try:
            content = (self.root / path).read_bytes()
        except FileNotFoundError:
            return None
        return content, hashlib.sha256(content).hexdigest()

    def swap(self, path: str, content: bytes, version: str | None) -> str | None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.parent / ".guard"):
            there = self.fetch(path)
            if (there[1] if there else None) != version:
                return None
            # Only one writer at a time has the guard, so the name need not be a new one.
            part = target.with_name(f".{target.name}")
            part.write_bytes(content)
            part.replace(target)
        return hashlib.sha256(content).hexdigest()

    def delete(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def clock(self) -> datetime | None:
        return None


class S3Store:
    """A lake in a bucket of MinIO, S3 or another store with S3's interface."""

    def __init__(self, settings: Settings) -> None:
        self.uri = settings.lake_uri
        self.bucket, _, prefix = self.uri.removeprefix("s3a://").partition("/")
        self.prefix = prefix + "/" if prefix else ""
        self.endpoint = settings.s3_endpoint
        self.client = _client(settings)
        # Uploads through this one fail when the name is taken; boto3's own upload has no argument for it.
        self.creating = _client(settings)
        for operation in ("PutObject", "CompleteMultipartUpload"):
            self.creating.meta.events.register(f"provide-client-params.s3.{operation}", _only_new)

    def check(self, make: bool = True, write: bool = True) -> None:
        where = f"LAKE_URI={self.uri}" + (f" at {self.endpoint}" if self.endpoint else "")
        try:
            found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            advice = {
                "NoSuchBucket": "the bucket does not exist; create it first",
                "404": "the bucket does not exist; create it first",
                "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
                "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not fit AWS_ACCESS_KEY_ID",
                "AccessDenied": "these keys may not list the bucket",
                "403": "these keys may not list the bucket",
                "RequestTimeTooSkewed": "this machine's clock and the store's are too far apart; set them right",
            }.get(code, f"the store answered {code}")
            raise ConfigurationError(f"{where}: {advice}") from None
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"{where}: cannot be reached ({error})") from None
        # A bucket is there before anything is in it, as a folder is; a prefix is not.
        if not make and self.prefix and not found["KeyCount"]:
            raise ConfigurationError(f"{where}: {NO_LAKE}")

    def list(self, prefix: str) -> Iterator[RawFile]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{self.prefix}{prefix}/"
        )
        for page in pages:
            for item in page.get("Contents", []):
                path = item["Key"].removeprefix(self.prefix)
                if path.endswith("/") or is_hidden(path):
                    continue
                yield RawFile(path, item["Size"], item["LastModified"], item["ETag"].strip('"'))

    def problem_of_name(self, path: str) -> str | None:
        # Hadoop takes `a//b` for `a/b`, which may be another object.
        if "//" in path:
            return "Spark cannot read a name with an empty folder in it (//) from a bucket"
        # What XML cannot hold, in which the store lists names.
        if CONTROL_CHARACTER.search(path):
            return "Spark cannot read a name with control characters from a bucket"
        return _not_utf8(path)

    def open(self, path: str) -> IO[bytes]:
        # In a `with` of its own, the body gives the connection's stream, which counts as closed at its end.
        return io.BufferedReader(self.client.get_object(Bucket=self.bucket, Key=self.prefix + path)["Body"])

    def digest(self, path: str) -> str | None:
        try:
            head = self.client.head_object(Bucket=self.bucket, Key=self.prefix + path)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey"):
                return None
            raise
        known: str | None = head["Metadata"].get("sha256")
        return known or sha256_of(self.open(path))

    def put(self, source: Path, path: str, sha256: str, replace: bool, progress: Progress) -> None:
        # A store takes 10,000 parts at most.
        part = max(PART_BYTES, source.stat().st_size // 9_000)
        try:
            with source.open("rb") as stream:
                (self.client if replace else self.creating).upload_fileobj(
                    _Unchanged(stream, source, sha256),
                    self.bucket,
                    self.prefix + path,
                    ExtraArgs={"ChecksumAlgorithm": "SHA256", "Metadata": {"sha256": sha256}},
                    Callback=progress,
                    Config=TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=part),
                )
        except (Boto3Error, BotoCoreError, ClientError) as error:
            taken = "PreconditionFailed" in str(error)
            # As in `swap`: a request that was repeated because its answer was lost finds what it wrote itself, or that
            # the upload in parts, which it was to complete, is there no more.
            if (taken or "NoSuchUpload" in str(error)) and self.digest(path) == sha256:
                return
            if taken:
                raise FileExistsError(path) from None
            raise UserAnalyticsError(f"{path} could not be stored: {error}") from None

    def fetch(self, path: str) -> tuple[bytes, str] | None:
        try:
            found = self.client.get_object(Bucket=self.bucket, Key=self.prefix + path)
            return found["Body"].read(), found["ETag"]
        except ClientError as error:
            if _code(error) in ("404", "NoSuchKey"):
                return None
            raise UserAnalyticsError(f"{path} could not be read: {error}") from None
        except BotoCoreError as error:
            raise UserAnalyticsError(f"{path} could not be read: {error}") from None

    def swap(self, path: str, content: bytes, version: str | None) -> str | None:
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            done = self.client.put_object(
                Bucket=self.bucket, Key=self.prefix + path, Body=content, **condition
            )
        except ClientError as error:
            # Answers of S3 and MinIO to a condition that does not hold, to one that came at the same time, and to a
            # version of an object that was removed.
            if _code(error) in (
                "PreconditionFailed",
                "412",
                "ConditionalRequestConflict",
                "409",
                "NoSuchKey",
            ):
                # A request that was repeated because its answer was lost fails on what it wrote itself.
                with suppress(UserAnalyticsError):
                    there = self.fetch(path)
                    if there and there[0] == content:
                        return there[1]
                return None
            raise UserAnalyticsError(f"{path} could not be stored: {error}") from None
        except BotoCoreError as error:
            raise UserAnalyticsError(f"{path} could not be stored: {error}") from None
        return str(done["ETag"])

    def delete(self, path: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + path)

    def clock(self) -> datetime | None:
        answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date) if date else None


class _Unchanged:
    """A file to be read once, from its beginning; its end raises UserAnalyticsError when it has another SHA-256.

    It cannot go back, so boto3 reads it in order, and stores nothing of what it cannot read to its end.
    """

    def __init__(self, stream: IO[bytes], source: Path, sha256: str) -> None:
        self.stream, self.source, self.sha256 = stream, source, sha256
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self.stream.read(size)
        self.digest.update(piece)
        if (size < 0 or len(piece) < size) and self.digest.hexdigest() != self.sha256:
            raise _changed(self.source)
        return piece


def _changed(source: Path) -> UserAnalyticsError:
    return UserAnalyticsError(f"{source} changed while it was being uploaded; upload it again")


@contextmanager
def _alone(guard: Path) -> Iterator[None]:
    """Only one process of this machine at a time is inside; the kernel lets go of one that dies."""
    with guard.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _client(settings: Settings) -> Any:
    try:
        return boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            aws_access_key_id=settings.s3_access_key,
            aws_secret_access_key=settings.s3_secret_key,
            aws_session_token=settings.s3_session_token,
            region_name=settings.s3_region,
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                retries={"max_attempts": 4, "mode": "standard"},
                s3={"addressing_style": "path" if settings.s3_endpoint else "auto"},
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"AWS_ENDPOINT_URL_S3, AWS_REGION or the keys are malformed: {error}"
        ) from None


def _only_new(params: dict[str, Any], **_: Any) -> None:
    params["IfNoneMatch"] = "*"
