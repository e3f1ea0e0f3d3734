"""A job on a real Spark cluster, one of whose two workers dies: the code comes as one archive, all data by address."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.generate_samples import manifest, write_samples
from jobs.spark import QUICK_START
from tests.warehouses import query

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SCALE = 0.05


def clean_environment() -> dict[str, str]:
    """The environment without what points Python or Spark at this checkout."""
    prefixes = ("PYSPARK_", "SPARK_", "PYTHON", "COV_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """This environment's Python and packages without the project itself, as on a cluster's machine."""
    program = tmp_path / "bare-python"
    packages = sysconfig.get_path("purelib")
    # -S leaves out the .pth file by which the checkout is installed.
    program.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="$PYTHONPATH:{packages}"\nexec "{sys.executable}" -S "$@"\n'
    )
    program.chmod(0o755)
    missing = subprocess.run(
        [program, "-c", "import jobs"], cwd=tmp_path, env=clean_environment(), capture_output=True
    )
    assert b"No module named 'jobs'" in missing.stderr
    return program


@contextmanager
def part(folder: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A master or worker, with its log in the folder; ended with its executors."""
    log = (folder / f"{name}.log").open("wb")
    command = [str(BIN / "spark-class"), *arguments]
    environment = {**clean_environment(), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "200m"}
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield process
    finally:
        kill(process)
        log.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a program and all that it started."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait(10)


def wait_for(file: Path, text: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while text not in (found := file.read_text(errors="replace") if file.exists() else ""):
        assert time.monotonic() < deadline, found[-3000:]
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_run_on_two_workers_of_which_one_dies(
    minio: Any, warehouse_url: str, tmp_path: Path, bare_python: Path
) -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "package.py")], check=True)
    shutil.copy(ROOT / "dist" / "user-analytics.zip", tmp_path)
    shutil.copy(ROOT / "jobs" / "run_all.py", tmp_path)
    bucket = minio.make_bucket()
    for file in write_samples(tmp_path / "samples", scale=SCALE):
        minio.client().upload_file(str(file), bucket, f"raw/{file.parent.name}/{file.name}")

    port = free_port()
    url = f"spark://127.0.0.1:{port}"
    master = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port)]
    worker = [
        "org.apache.spark.deploy.worker.Worker",
        "--cores",
        "1",
        "--memory",
        "600m",
        "--webui-port",
        "0",
        url,
    ]
    with (
        part(tmp_path, "master", *master, "--webui-port", "0"),
        part(tmp_path, "worker-1", *worker, "--work-dir", str(tmp_path / "work-1")),
        part(tmp_path, "worker-2", *worker, "--work-dir", str(tmp_path / "work-2")) as mortal,
    ):
        for name in ("worker-1", "worker-2"):
            wait_for(tmp_path / f"{name}.log", "Successfully registered with master")
        options = {
            "spark.executor.memory": "512m",
            "spark.driver.memory": "700m",
            "spark.driver.host": "127.0.0.1",
            "spark.sql.shuffle.partitions": "4",
            "spark.ui.enabled": "false",
            "spark.driver.extraJavaOptions": QUICK_START,
            "spark.executor.extraJavaOptions": QUICK_START,
            "spark.pyspark.python": str(bare_python),
        }
        with (tmp_path / "run.log").open("wb") as log:
            command = [
                str(BIN / "spark-submit"),
                "--master",
                url,
                "--py-files",
                str(tmp_path / "user-analytics.zip"),
            ]
            command += [part for name, value in options.items() for part in ("--conf", f"{name}={value}")]
            run = subprocess.Popen(
                [*command, str(tmp_path / "run_all.py"), "--feeds", "logs,purchases"],
                env={
                    **clean_environment(),
                    **minio.environment(),
                    "LAKE_URI": f"s3a://{bucket}",
                    "WAREHOUSE_URL": warehouse_url,
                },
                cwd=tmp_path,
                stdout=log,
                stderr=log,
            )
            try:
                # Both workers are at work for this job; then one is gone, without a word.
                for folder in ("work-1", "work-2"):
                    wait_for(next(executor_logs(tmp_path / folder, run)), "Running task")
                kill(mortal)
                code = run.wait(300)
            finally:
                run.kill()
    output = (tmp_path / "run.log").read_text()
    assert code == 0, output[-4000:]
    assert minio.secret_key not in output

    known = manifest(scale=SCALE)["feeds"]
    for table, feed in (("fact_user_actions", "logs"), ("user_purchase", "purchases")):
        assert query(warehouse_url, f"SELECT count(*) FROM {table}") == [(known[feed]["accepted"],)]


def executor_logs(folder: Path, run: subprocess.Popen[bytes]) -> Iterator[Path]:
    """The logs of a worker's executors, as soon as there is one."""
    deadline = time.monotonic() + 90
    while not (found := list(folder.glob("app-*/*/stderr"))):
        assert run.poll() is None, "the job ended before it had executors"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield from found
