"""The table of a benchmark, and its section in docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg2

if TYPE_CHECKING:
    from benchmarks.raw_to_star import Contender, Runs

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PACKAGES = ("pyspark", "delta-spark", "duckdb", "dlt", "pandas", "SQLAlchemy", "psycopg2-binary")

HEADER = """# Benchmarks

Written by `make bench`; see [benchmarks/README.md](../benchmarks/README.md) for what is measured and
how. Ratios compare contenders of one run on one machine; figures of different runs do not compare.
"""


def describe_server(server: str) -> str:
    """PostgreSQL's version, and the settings that differ from its defaults."""
    with closing(psycopg2.connect(server)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        (postgres,) = cursor.fetchone()
        cursor.execute(
            "SELECT name || ' = ' || current_setting(name) FROM pg_settings WHERE source IN "
            "('configuration file', 'command line') AND name ~ "
            "'fsync|synchronous_commit|full_page|wal|checkpoint|mem|buffers|parallel|worker' ORDER BY 1"
        )
        settings = ", ".join(f"`{setting}`" for (setting,) in cursor.fetchall())
    return f"PostgreSQL {postgres} ({settings or 'default settings'})"


def describe_machine(server: str | None = None) -> str:
    """One paragraph: when, on what, with which versions and server settings."""
    memory = psutil.virtual_memory().total / 2**30
    packages = []
    for name in PACKAGES:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC. {_processor()}, {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, {platform.system()} {platform.release()}; load average at the end {load}. "
        f"{f'{describe_server(server)}, ' if server else ''}{_java()}, "
        f"Python {platform.python_version()}, {', '.join(packages)}."
    )


def table(runs: list[Runs], contenders: Mapping[str, Contender]) -> str:
    """Markdown, from raw lines and from ready CSV apart, fastest first."""
    parts = []
    for title, from_ready_csv in (("Raw lines to star schema", False), ("The load alone", True)):
        chosen = [run for run in runs if contenders[run.name].from_ready_csv == from_ready_csv]
        if chosen:
            parts.append(f"**{title}**\n\n{_table(chosen, contenders)}")
    return "\n\n".join(parts) + "\n"


def _table(runs: list[Runs], contenders: Mapping[str, Contender]) -> str:
    good = sorted((run for run in runs if not run.failure), key=lambda run: run.seconds)
    base = next((run for run in good if run.name == "ours"), good[0] if good else None)
    lines = [
        f"| contender | what | seconds | range | lines/s | time ÷ {base.name if base else 'none'} "
        "| memory, all processes | memory, largest process |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for run in good:
        assert base is not None
        seconds = [measurement.seconds for measurement in run.measurements]
        tree = max(measurement.peak_tree_bytes for measurement in run.measurements)
        largest = max(measurement.peak_process_bytes for measurement in run.measurements)
        lines.append(
            f"| {run.name} | {contenders[run.name].what} | {run.seconds:.1f} "
            f"| {min(seconds):.1f}-{max(seconds):.1f} | {run.rows / run.seconds:,.0f} "
            f"| {run.seconds / base.seconds:.2f} | {tree / 2**20:,.0f} MiB | {largest / 2**20:,.0f} MiB |"
        )
    lines += [
        f"| {run.name} | {contenders[run.name].what} | failed: {run.failure} | | | | | |"
        for run in runs
        if run.failure
    ]
    return "\n".join(lines)


def write(path: Path, rows: int, runs: list[Runs], contenders: Mapping[str, Contender], about: str) -> None:
    """Replace this size's section; sections of other sizes stay, each with its own date."""
    rounds = max(len(run.measurements) for run in runs)
    text = (
        f"## {rows:,} log lines\n\n{table(runs, contenders)}\n"
        f"Median of {rounds} round{'s' if rounds > 1 else ''}. {about}\n"
    )
    write_section(path, f"raw_to_star {rows}", text)


def write_section(path: Path, name: str, text: str) -> None:
    """Replace one section of the file, or add it; the others stay as they are."""
    mark = f"<!-- {name} -->"
    section = f"{mark}\n{text}{mark}\n"
    whole = path.read_text(encoding="utf-8") if path.exists() else HEADER
    pattern = re.compile(f"{re.escape(mark)}.*?{re.escape(mark)}\n", re.DOTALL)
    whole, found = pattern.subn(lambda _: section, whole)
    if not found:
        whole = f"{whole.rstrip()}\n\n{section}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(whole, encoding="utf-8")


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1) if found else platform.machine()


def _java() -> str:
    try:
        output = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return "no Java"
    return f"Java {output.split(chr(34))[1]}" if '"' in output else "Java"
