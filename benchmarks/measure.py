"""Run a command and measure its wall time and the memory of its process tree."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.2


@dataclass(frozen=True)
class Measurement:
    """Bytes are resident set sizes: pages that processes share are counted once for each."""

    seconds: float
    peak_tree_bytes: int  # all processes of the tree at one moment
    peak_process_bytes: int  # the largest single one: Spark's driver, or Python itself
    exit_code: int | None  # None: stopped after the time limit


def run(command: Sequence[str], env: Mapping[str, str], log: Path, time_limit: float) -> Measurement:
    """Output goes to ``log``. A command that outlives the limit is killed with its children."""
    peak_tree = peak_process = 0
    exit_code: int | None = None
    with log.open("wb") as output:
        start = time.perf_counter()
        # A session of its own, so that its whole tree can be stopped, and nothing else with it.
        process = subprocess.Popen(
            command, env=dict(env), stdout=output, stderr=output, start_new_session=True
        )
        tree = psutil.Process(process.pid)
        try:
            while time.perf_counter() - start < time_limit:
                try:
                    exit_code = process.wait(SAMPLE_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    sizes = _resident_sizes(tree)
                    peak_tree = max(peak_tree, sum(sizes))
                    peak_process = max(peak_process, *sizes, 0)
            seconds = time.perf_counter() - start
        finally:  # on the time limit, and when the benchmark itself is stopped
            if exit_code is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return Measurement(seconds, peak_tree, peak_process, exit_code)


def _resident_sizes(root: psutil.Process) -> list[int]:
    sizes = []
    with suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                # One that began just now is still a copy of its parent, of which it has the size.
                if process is root or time.time() - process.create_time() > SAMPLE_SECONDS:
                    sizes.append(process.memory_info().rss)
    return sizes
