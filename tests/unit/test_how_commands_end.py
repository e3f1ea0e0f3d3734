"""What a job raises becomes one line and an exit code; who reads its output may stop reading."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from jobs import cli, console
from jobs.context import job_main

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _log_to_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.log, "handlers", [])  # one that holds this test's standard error will be made


def disk_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_permission() -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/closed.csv")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (lambda: Path("/no/such.csv").read_text(), 2, "/no/such.csv: No such file or directory"),
        (lambda: Path("/etc").read_text(), 2, "/etc: Is a directory"),
        (lambda: Path("/etc/passwd").mkdir(), 2, "/etc/passwd: File exists"),
        (lambda: Path("/etc/passwd/x").mkdir(), 2, "/etc/passwd/x: Not a directory"),
        (no_permission, 2, "/data/closed.csv: Permission denied"),
        (disk_full, 1, "No space left on device"),
    ],
)
def test_an_error_of_a_file_is_one_line(
    body: Callable[[], None], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job_main(body) == code
    assert capsys.readouterr().err.partition(" ")[2] == f"error: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "--output", "/etc"], "--output /etc: is a folder"),
        (
            ["report", "--output", "/no/such/report.html"],
            "--output /no/such/report.html: there is no folder /no/such",
        ),
        (
            ["quarantine", "--export", "/no/such/x.csv"],
            "--export /no/such/x.csv: there is no folder /no/such",
        ),
        (["train-sentiment", "--labels", "/no/such.csv"], "/no/such.csv: there is no such file"),
        (
            ["train-sentiment", "--labels", "/etc/passwd", "--reviews", "/no/such.csv"],
            "/no/such.csv: there is no",
        ),
    ],
)
def test_files_that_are_named_are_looked_for_before_work_begins(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    assert cli.main(arguments) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    "command",
    [
        *(["plan"], ["status"], ["quarantine"], ["report"], ["lineage", "users"], ["reconcile"]),
        *(
            ["archive", "--older-than", "9"],
            ["replay", "logs"],
            ["backfill", "--from=2024-01-01", "--to=2024-01-02"],
        ),
        *(["erase", "--user-id", "1", "--yes"], ["reset", "logs", "--yes"], ["reset-marts"], ["maintain"]),
    ],
    ids=" ".join,
)
def test_only_what_brings_something_makes_a_lake(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "typo"))
    monkeypatch.setenv("WAREHOUSE_URL", f"embedded:{tmp_path / 'warehouse'}")
    assert cli.main(command) == 2
    assert f"LAKE_URI='{tmp_path}/typo': there is no lake yet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_packages_are_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: str) -> ModuleType:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", interrupted)
    assert cli.main(["run"]) == 130
    assert capsys.readouterr().err == "stopped; run it again to go on\n"


@pytest.mark.parametrize("lines", [1, 100_000], ids=["a line", "more than a pipe holds"])
def test_a_reader_that_has_enough_is_no_error(lines: int) -> None:
    program = f"""if True:
        import sys
        from jobs.context import job_main
        sys.exit(job_main(lambda: print("a line of the answer\\n" * {lines})))
    """
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 128 + signal.SIGPIPE == 141


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_reader_that_has_enough_of_the_list_of_commands_is_no_error(option: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "jobs", option], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.stderr, done.returncode) == (b"", 141)


def test_an_output_that_is_closed_from_the_start_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # As with `>&-`: Python has no sys.stdout then.
    monkeypatch.setattr(sys, "stdout", None)
    assert job_main(lambda: print(sys.stdout.write("a line of the answer"))) == 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [("JAVA_HOME", "/no/such"), ("SPARK_DRIVER_MEMORY", "5k")],
    ids=["no Java", "memory"],
)
def test_a_java_that_does_not_start_is_no_fault_of_the_files(
    variable: str, value: str, tmp_path: Path
) -> None:
    lake, no_settings = tmp_path / "lake", tmp_path / "conf"
    no_settings.mkdir()
    (lake / "raw" / "logs").mkdir(parents=True)
    (lake / "raw" / "logs" / "a.jsonl").write_text('{"user_id": "u"}\n')
    # In Spark's own folder of settings, set-up wrote which Java to take.
    environment = {"LAKE_URI": str(lake), "SPARK_CONF_DIR": str(no_settings), variable: value}
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "stage", "logs"],
        cwd=ROOT,
        env=os.environ | environment | {"LOG_FOLDER": str(tmp_path / "log")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "error: Spark's Java did not start" in done.stderr
    assert f"{variable}={value}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (lake / "staging" / "_ingested_files").exists()


def test_what_fails_since_a_command_was_stopped_is_not_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A signal to the whole process group ends Java, too: the run was said to have no memory left."""

    def body() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise ConnectionRefusedError

    assert job_main(body) == 130
    assert capsys.readouterr().err.rstrip().endswith("stopped; run it again to go on")
