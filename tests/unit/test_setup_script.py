"""`scripts/setup.sh` looks at its arguments before it does anything."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
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


def test_spark_reads_its_environment_in_a_checkout_with_a_space_in_its_path(tmp_path: Path) -> None:
    """Else it starts whatever Java is on PATH, and not the one that was found."""
    spec = find_spec("pyspark")
    assert spec
    assert spec.origin
    home = tmp_path / "my checkout"
    (home / "bin").mkdir(parents=True)
    (home / "conf").mkdir()
    (home / "conf" / "spark-env.sh").write_text("JAVA_HOME=/the/right/one\n")
    script = Path(shutil.copy(Path(spec.origin).parent / "bin" / "load-spark-env.sh", home / "bin"))
    # As PySpark has it, also where this environment's was mended.
    script.write_text(script.read_text().replace('. "${SPARK_ENV_SH}"', ". ${SPARK_ENV_SH}"))
    [mend] = [line for line in SCRIPT.read_text().splitlines() if line.startswith("sed -i")]
    for _ in range(2):
        subprocess.run(["bash", "-euc", f'spark="{home}"; {mend}'], check=True)
    load = f'SPARK_HOME="{home}"; . "{script}"; echo "$JAVA_HOME"'
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", load], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("/the/right/one\n", "")
