"""What `user-analytics psql` hands to psql, and what it keeps from it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jobs.cli import main

PROGRAM = """#!/bin/sh
printf '%s\\n' "$1" "${PGPASSWORD-none}" "$PGOPTIONS" >"$0.seen"
kill -INT $PPID
exit 7
"""


@pytest.mark.parametrize(
    ("address", "given", "seen"),
    [
        (
            "postgresql://me:s3cr%2Fet@db/shop",
            {"PGPASSWORD": "other", "PGOPTIONS": "-c work_mem=1GB"},
            ("user=me dbname=shop host=db", "s3cr/et", "-c search_path=analytics -c work_mem=1GB"),
        ),
        (
            "postgresql://me@db/shop?sslpassword=s3cr",
            {"PGPASSWORD": "mine"},
            ("user=me dbname=shop host=db", "mine", "-c search_path=analytics"),
        ),
        (
            "postgresql://me@db/shop?options=-c%20work_mem%3D2GB",
            {"PGOPTIONS": "-c work_mem=1GB"},
            ("user=me dbname=shop host=db", "none", "-c search_path=analytics -c work_mem=2GB"),
        ),
    ],
)
def test_psql_gets_address_password_and_options_and_keeps_ctrl_c_for_itself(
    address: str,
    given: dict[str, str],
    seen: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "psql"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.delenv("PGOPTIONS", raising=False)
    for name, value in {
        "WAREHOUSE_URL": address,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        **given,
    }.items():
        monkeypatch.setenv(name, value)
    before = signal.getsignal(signal.SIGINT)
    assert main(["psql"]) == 7
    assert signal.getsignal(signal.SIGINT) is before
    assert tuple((tmp_path / "psql.seen").read_text().splitlines()) == seen
