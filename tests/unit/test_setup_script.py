"""`scripts/setup.sh` looks at its arguments before it does anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup.sh"


@pytest.mark.parametrize(
    ("arguments", "code", "output", "errors"),
    [
        (["--help"], 0, "scripts/setup.sh airflow    … and Airflow", ""),
        (["develop"], 2, "", "unknown arguments: develop; expected dev, bench, airflow, or nothing"),
        (["dev", "bench"], 2, "", "unknown arguments: dev bench"),
    ],
)
def test_help_and_wrong_arguments_install_nothing(
    arguments: list[str], code: int, output: str, errors: str, tmp_path: Path
) -> None:
    (tmp_path / "scripts").mkdir()
    script = Path(shutil.copy(SCRIPT, tmp_path / "scripts"))
    done = subprocess.run([script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert output in done.stdout
    assert errors in done.stderr
    assert list(tmp_path.rglob("*")) == [tmp_path / "scripts", script]
