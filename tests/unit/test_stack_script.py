"""`scripts/stack.py` reads .env as Compose does, and ends in one line where Airflow does not answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "stack.py"
Answer = tuple[int, object]


class StandIn(ThreadingHTTPServer):
    """Answers in Airflow's place. said: the bodies of requests."""

    answer: Callable[[str], Answer]
    said: list[bytes]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, StandIn)
        server.said.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        code, body = server.answer(self.path)
        self.send_response(code)
        if body is ...:
            # More than comes, as of a server that is stopped meanwhile.
            self.send_header("Content-Length", "1000")
            body = None
        self.end_headers()
        self.wfile.write(json.dumps(body).encode() if body is not None else b"<html>")

    def log_message(self, *_: object) -> None:
        """Nothing of it belongs to the tests' output."""


@pytest.fixture
def airflow() -> Iterator[StandIn]:
    with StandIn(("localhost", 0), _Handler) as server:
        server.said = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def trigger(folder: Path, server: StandIn, password: str) -> subprocess.CompletedProcess[str]:
    (folder / "scripts").mkdir()
    shutil.copy(SCRIPT, folder / "scripts")
    (folder / ".env").write_text(f"AIRFLOW_PORT={server.server_port}\nAIRFLOW_ADMIN_PASSWORD={password}\n")
    return subprocess.run(
        [sys.executable, folder / "scripts" / "stack.py", "trigger"],
        capture_output=True,
        text=True,
        check=False,
    )


def healthy(path: str) -> Answer:
    if path == "/auth/token":
        return 200, {"access_token": "token"}
    if "taskInstances" in path:
        return 200, {"task_instances": [{"task_id": "publish", "state": "success", "duration": 1.0}]}
    return 200, {"is_paused": False, "dag_run_id": "run", "state": "success"}


@pytest.mark.parametrize("comment", ["", " # don't tell", "\t#"], ids=["alone", "comment", "tab"])
@pytest.mark.parametrize("quote", ["", "'", '"'], ids=["plain", "single", "double"])
def test_quotes_and_comments_are_no_part_of_a_value(
    quote: str, comment: str, tmp_path: Path, airflow: StandIn
) -> None:
    airflow.answer = healthy
    done = trigger(tmp_path, airflow, f"{quote}my#own{quote}{comment}")
    assert done.returncode == 0, done.stderr
    assert json.loads(airflow.said[0]) == {"username": "admin", "password": "my#own"}


def test_a_password_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    """The last line of a name counts for Compose: one's own would not be the password any more."""
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(SCRIPT, tmp_path / "scripts")
    (tmp_path / ".env").write_text("export POSTGRES_PASSWORD='my own'\nWAREHOUSE_PASSWORD= # to be made\n")
    for _ in range(2):
        subprocess.run([sys.executable, script, "settings"], check=True)
    names = [line.partition("=")[0] for line in (tmp_path / ".env").read_text().splitlines()]
    assert "POSTGRES_PASSWORD" not in names
    assert names.count("WAREHOUSE_PASSWORD") == 2
    assert names.count("SOURCE_PASSWORD") == 1


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/auth/token", (200, None)),
        ("/auth/token", (200, {})),
        ("/auth/token", (200, [])),
        ("taskInstances", (502, {})),
        ("taskInstances", (200, ...)),
    ],
    ids=["another program", "another answer", "a list", "later on", "breaks off"],
)
def test_an_airflow_that_does_not_answer_is_one_line(
    path: str, answer: Answer, tmp_path: Path, airflow: StandIn
) -> None:
    airflow.answer = lambda asked: answer if path in asked else healthy(asked)
    done = trigger(tmp_path, airflow, "any")
    assert done.returncode == 1
    assert done.stderr.startswith("Airflow does not answer as expected (")
    assert done.stderr.count("\n") == 1


def test_settings_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(SCRIPT, tmp_path / "scripts")
    (tmp_path / ".env").write_bytes(b"WAREHOUSE_PASSWORD=gr\xfcn\n")
    done = subprocess.run([sys.executable, script, "settings"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{tmp_path}/.env cannot be used: ")
    assert done.stderr.count("\n") == 1
