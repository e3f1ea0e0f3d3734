"""The documented submission to Kubernetes, against a stand-in for its API server: which pod does Spark ask for?"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


class ApiServer(BaseHTTPRequestHandler):
    """Accepts what is created, and gives it back with an identity."""

    created: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.keep(201)

    def do_PATCH(self) -> None:
        self.keep(200)

    def keep(self, status: int) -> None:
        found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        namespace = self.path.split("/namespaces/")[1].split("/")[0]
        found["metadata"] |= {
            "uid": f"uid-{len(self.created)}",
            "resourceVersion": "1",
            "namespace": namespace,
        }
        self.created.append(found)
        self.answer(found, status)

    def do_GET(self) -> None:
        wanted = self.path.split("?")[0].rsplit("/", 1)[-1]
        for item in self.created:
            if item["metadata"]["name"] == wanted:
                return self.answer(item)
        return self.answer({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}, 404)

    def answer(self, body: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is for the test."""


@pytest.fixture
def api_server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    ApiServer.created = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", ApiServer.created
    server.shutdown()
    server.server_close()


def documented_command() -> list[str]:
    """The command of docs/operations.md, word by word."""
    text = (ROOT / "docs" / "operations.md").read_text()
    found = re.search(r"    (spark-submit --master k8s://.*?run_all\.py)\n", text, re.DOTALL)
    assert found
    return shlex.split(found[1].replace("\\\n", " "))


def test_the_documented_command_asks_for_a_driver_with_its_secrets_by_reference(
    api_server: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    address, created = api_server
    program, *arguments = documented_command()
    arguments[arguments.index("--master") + 1] = f"k8s://{address}"
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name(program)),
            *("--conf", "spark.kubernetes.submission.waitAppCompletion=false"),
            *arguments,
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "KUBECONFIG": str(tmp_path / "none"),
            "WAREHOUSE_URL": "postgresql://u:s3cret@h/d",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    [pod] = [item for item in created if item["kind"] == "Pod"]
    [driver] = pod["spec"]["containers"]
    assert pod["metadata"]["namespace"] == "analytics"
    assert pod["spec"]["serviceAccountName"] == "spark"
    assert driver["image"] == "REGISTRY/user-analytics-spark:0.1.0"
    # Spark calls the image's entry point with these; containers/spark/entrypoint.sh knows `driver`.
    assert driver["args"][0] == "driver"
    assert driver["args"][-1] == "local:///opt/user-analytics/jobs/run_all.py"
    environment = {item["name"]: item for item in driver["env"]}
    assert environment["LAKE_URI"]["value"] == "s3a://user-analytics"
    for name in ("WAREHOUSE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert environment[name]["valueFrom"]["secretKeyRef"] == {"key": name, "name": "user-analytics"}
    properties = next(item for item in created if item["kind"] == "ConfigMap")["data"]["spark.properties"]
    assert "spark.submit.pyFiles=local\\:///opt/user-analytics/dist/user-analytics.zip" in properties
    assert "s3cret" not in json.dumps(created)
