"""What is uploaded of the files and folders that are named, and what is left out or refused."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.console import log
from jobs.errors import ConfigurationError
from jobs.feeds.detect import files_by_feed
from jobs.lake.objects import LocalStore
from jobs.upload_files import upload


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO")
    return caplog


@contextmanager
def anybody() -> Iterator[None]:
    """Without root's rights, where root runs the tests."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


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


def test_a_hidden_file_that_is_named_is_refused(store: LocalStore, tmp_path: Path) -> None:
    file = filled(tmp_path, ".events.json") / ".events.json"
    with pytest.raises(ConfigurationError, match="rename it"):
        upload(store, "logs", [file])


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
