"""A lake in a local folder: what is listed, and how a file comes into it whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.console import log
from jobs.errors import ConfigurationError, UserAnalyticsError
from jobs.feeds.detect import files_by_feed
from jobs.lake.ledger import REFUSED, STAGED, LedgerEntry, files_to_read
from jobs.lake.objects import LocalStore, RawFile
from jobs.upload_files import upload


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "events.jsonl"
    file.write_text("one\n")
    return file


def put(store: LocalStore, source: Path, path: str, replace: bool = False, sha256: str | None = None) -> None:
    digest = sha256 or hashlib.sha256(source.read_bytes()).hexdigest()
    store.put(source, path, digest, replace, lambda _: None)


def content(store: LocalStore, path: str) -> str:
    with store.open(path) as stream:
        return stream.read().decode()


def test_a_file_is_stored_listed_and_read(store: LocalStore, source: Path) -> None:
    put(store, source, "raw/logs/day/events.jsonl")
    [file] = store.list("raw/logs")
    assert (file.path, file.size) == ("raw/logs/day/events.jsonl", 4)
    assert content(store, file.path) == "one\n"
    assert store.digest(file.path) == hashlib.sha256(b"one\n").hexdigest()
    assert store.digest("raw/logs/other") is None
    assert list(store.list("raw/purchases")) == []


def test_a_taken_name_is_refused_unless_it_may_be_replaced(store: LocalStore, source: Path) -> None:
    put(store, source, "raw/logs/a")
    [before] = store.list("raw")
    source.write_text("two\n")
    with pytest.raises(FileExistsError):
        put(store, source, "raw/logs/a")
    assert content(store, "raw/logs/a") == "one\n"
    put(store, source, "raw/logs/a", replace=True)
    assert content(store, "raw/logs/a") == "two\n"
    [after] = store.list("raw")
    assert after.version != before.version


def test_a_file_in_the_place_of_a_folder_is_named(store: LocalStore, source: Path, tmp_path: Path) -> None:
    """`upload` said that the file is there with other content, also with --replace."""
    put(store, source, "raw/logs/a")
    folder = filled(tmp_path / "in", "a/b.json")
    for replace in (False, True):
        with pytest.raises(NotADirectoryError, match="raw/logs/a'"):
            upload(store, "logs", [folder], replace=replace)


def test_a_file_that_changes_on_the_way_is_not_stored_and_leaves_nothing(
    store: LocalStore, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserAnalyticsError, match="changed while it was being uploaded"):
        put(store, source, "raw/logs/a", sha256="0" * 64)
    assert [p for p in (tmp_path / "lake").rglob("*") if p.is_file()] == []


def test_hidden_names_and_half_written_files_are_not_listed(store: LocalStore, tmp_path: Path) -> None:
    hidden = (".upload-x", "_SUCCESS", "_temporary/part-0", ".git/x", "x._COPYING_")
    for name in ("b", "a", "sub/c", *hidden):
        file = tmp_path / "lake" / "raw" / "logs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    assert [file.path for file in store.list("raw")] == ["raw/logs/a", "raw/logs/b", "raw/logs/sub/c"]


def test_a_name_that_is_not_utf_8_is_left_out_with_a_warning(
    store: LocalStore, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (os.fsdecode(b"caf\xe9.jsonl"), "café.jsonl"):
        put(store, source, f"raw/logs/{name}")
    assert [file.path for file in store.list("raw")] == ["raw/logs/café.jsonl"]
    assert caplog.messages == [r"'raw/logs/caf\udce9.jsonl': the name is not UTF-8; left out, rename it"]


def test_a_file_that_goes_while_others_are_listed_is_not_there(store: LocalStore, source: Path) -> None:
    for name in "abc":
        put(store, source, f"raw/logs/{name}")
    files = store.list("raw")
    assert next(files).path == "raw/logs/a"
    store.delete("raw/logs/b")
    assert [file.path for file in files] == ["raw/logs/c"]


def test_a_folder_that_may_not_be_looked_into_is_an_error_and_not_empty() -> None:
    with tempfile.TemporaryDirectory() as name:
        lake = filled(Path(name), "raw/logs/a", "raw/logs/closed/b", "raw/logs/_closed/c", "raw/orders")
        lake.chmod(0o755)
        for folder in ("closed", "_closed"):
            (lake / "raw" / "logs" / folder).chmod(0)
        with anybody(), pytest.raises(PermissionError, match="raw/logs/closed"):
            list(LocalStore(lake).list("raw"))
        (lake / "raw" / "logs" / "closed").chmod(0o755)
        with anybody():
            assert [f.path for f in LocalStore(lake).list("raw/logs")] == ["raw/logs/a", "raw/logs/closed/b"]
        with pytest.raises(NotADirectoryError, match="raw/orders"):
            list(LocalStore(lake).list("raw/orders"))


def test_a_lake_that_is_a_file_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="LAKE_URI="):
            LocalStore(root).check()


# -- upload ------------------------------------------------------------------------------------------------


def test_upload_takes_files_and_folders_and_leaves_what_is_there(store: LocalStore, tmp_path: Path) -> None:
    folder = tmp_path / "delivery"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jsonl").write_text("a")
    (folder / "sub" / "b [1] ü.jsonl").write_text("b")
    (tmp_path / "c.jsonl").write_text("c")

    first = upload(store, "logs", [folder, tmp_path / "c.jsonl"], folder="/2024-05-01/")
    paths = ("a.jsonl", "sub/b [1] ü.jsonl", "c.jsonl")
    assert first.uploaded == tuple(f"raw/logs/2024-05-01/{path}" for path in paths)
    second = upload(store, "logs", [folder], folder="2024-05-01")
    assert (second.uploaded, second.unchanged) == ((), first.uploaded[:2])


def test_upload_leaves_alone_what_is_archived_and_takes_its_correction(
    store: LocalStore, tmp_path: Path
) -> None:
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    a.write_text("a")
    b.write_text("b")
    for file in (a, b):
        put(store, file, f"archive/logs/{file.name}")
    b.write_text("other")
    result = upload(store, "logs", [a, b])
    assert (result.unchanged, result.uploaded) == (("raw/logs/a.jsonl",), ("raw/logs/b.jsonl",))
    assert [file.path for file in store.list("raw")] == ["raw/logs/b.jsonl"]


def test_upload_refuses_other_content_after_sending_the_rest(store: LocalStore, tmp_path: Path) -> None:
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    a.write_text("a")
    upload(store, "logs", [a])
    a.write_text("other")
    b.write_text("b")
    with pytest.raises(UserAnalyticsError, match=r"raw/logs/a\.jsonl") as raised:
        upload(store, "logs", [a, b])
    assert "--replace" in str(raised.value)
    assert content(store, "raw/logs/a.jsonl") == "a"
    assert content(store, "raw/logs/b.jsonl") == "b"
    upload(store, "logs", [a], replace=True)
    assert content(store, "raw/logs/a.jsonl") == "other"


def test_upload_sends_nothing_when_a_path_is_wrong(store: LocalStore, tmp_path: Path) -> None:
    good, hidden, empty = tmp_path / "good.jsonl", tmp_path / "_hidden.jsonl", tmp_path / "empty"
    other, colon = tmp_path / "other" / "good.jsonl", tmp_path / "2024-01-01T10:00:00.jsonl"
    latin = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    empty.mkdir()
    other.parent.mkdir()
    for file in (good, hidden, other, colon, latin):
        file.write_text("x")
    for wrong in (hidden, empty, other, colon, latin, tmp_path / "missing.jsonl"):
        with pytest.raises(ConfigurationError):
            upload(store, "logs", [good, wrong])
    assert list(store.list("raw")) == []


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO")
    return caplog


@contextmanager
def anybody() -> Iterator[None]:
    """Without root's rights, where root runs the tests."""
    user = os.geteuid()
    # The real one, too, which `os.access` asks about.
    os.setreuid(user or 65534, -1)
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setreuid(user, -1)


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"content of {name}")
    return folder


def test_of_a_folder_hidden_files_and_links_to_folders_are_left_out(
    store: LocalStore, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    folder = filled(tmp_path / "in", "b.json", "sub/a.json", ".DS_Store", "sub/_x.json", ".git/c.json")
    (folder / "elsewhere").symlink_to(filled(tmp_path / "other", "d.json"))
    assert upload(store, "logs", [folder]).uploaded == ("raw/logs/b.json", "raw/logs/sub/a.json")
    left_out = [text.split()[1] for text in said.messages if "left out" in text]
    assert left_out == [f"{folder}/{name}" for name in (".DS_Store", ".git", "elsewhere", "sub/_x.json")]


def test_what_may_not_be_read_is_not_passed_over(store: LocalStore) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = filled(Path(name), "a.json", "closed/b.json")
        folder.chmod(0o755)
        (folder / "closed").chmod(0)
        with anybody(), pytest.raises(PermissionError, match="closed"):
            upload(store, "logs", [folder])
        (folder / "closed").chmod(0o755)
        (folder / "a.json").chmod(0)
        with anybody(), pytest.raises(PermissionError, match=r"a\.json"):
            files_by_feed(folder)
    assert list(store.list("raw")) == []


def test_a_lake_that_is_only_looked_at_need_not_be_writable() -> None:
    with tempfile.TemporaryDirectory() as name:
        store, folder = LocalStore(Path(name)), filled(Path(name), "raw/logs/a.json")
        folder.chmod(0o555)
        with anybody():
            store.check(make=False, write=False)
            assert [file.path for file in store.list("raw")] == ["raw/logs/a.json"]
            with pytest.raises(ConfigurationError, match="no permission to write there"):
                store.check()
        folder.chmod(0o333)
        with anybody(), pytest.raises(ConfigurationError, match="no permission to read there"):
            store.check(make=False, write=False)
        folder.chmod(0o755)


# -- which files are new -----------------------------------------------------------------------------------

A, B, C = (RawFile(f"raw/logs/{name}", 1, datetime(2024, 1, 1, tzinfo=UTC), "1") for name in "abc")


def changed(file: RawFile) -> RawFile:
    return RawFile(file.path, file.size, file.modified_at, version="2")


def read(file: RawFile, batch: int = 1, status: str = STAGED, duplicates: int = 0) -> LedgerEntry:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    return LedgerEntry(
        feed="logs",
        path=file.path,
        version=file.version,
        file_id=hash(file.path),
        size_bytes=1,
        modified_at=now,
        batch=batch,
        status=status,
        error=None if status == STAGED else "broken",
        records_read=5,
        accepted=5 - duplicates,
        duplicates=duplicates,
        rejected=0,
        unknown_columns=[],
        run_id="run",
        staged_at=now,
    )


def test_new_and_refused_files_are_read_and_staged_ones_are_not() -> None:
    assert files_to_read([A, B, C], []) == [A, B, C]
    assert files_to_read([A, B, C], [read(A), read(B, status=REFUSED)]) == [B, C]
    assert files_to_read([A, B], [read(A), read(B)]) == []
    assert files_to_read([], [read(A)]) == []


def test_a_replaced_file_is_read_again_beside_those_that_have_duplicates() -> None:
    history = [read(A), read(B, duplicates=1), read(C)]
    assert files_to_read([changed(A), B, C], history) == [changed(A), B]
    assert files_to_read([A, changed(B), C], history) == [changed(B)]


def test_duplicates_are_remembered_when_a_refused_version_lay_between() -> None:
    history = [read(A), read(B, duplicates=1), read(changed(A), batch=2, status=REFUSED)]
    newest = RawFile(A.path, 1, A.modified_at, version="3")
    assert files_to_read([newest, B], history) == [newest, B]


def test_the_newest_entry_counts() -> None:
    history = [read(A, duplicates=1), read(B), read(A, batch=2, duplicates=0)]
    assert files_to_read([A, changed(B)], history) == [changed(B)]
