"""The archive that `spark-submit --py-files` takes."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT / "dist" / "user-analytics.zip"


def package() -> bytes:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "package.py")], check=True, capture_output=True)
    return ARCHIVE.read_bytes()


def test_the_same_sources_give_the_same_bytes() -> None:
    assert package() == package()
    names = zipfile.ZipFile(ARCHIVE).namelist()
    assert {"jobs/run_all.py", "sql/dim_users.sql", "views/daily_activity_view.sql"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_declarations_and_the_model_are_read_from_inside_it(tmp_path: Path) -> None:
    package()
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import jobs
from jobs.models.files import SHIPPED, TERMS
from jobs.warehouse.declarations import ROOT, tables, views
print(jobs.__file__)
print("dim_users" in tables(), "daily_activity_view" in views(), (SHIPPED / TERMS).is_file())
print(ROOT)
"""
    command = [sys.executable, "-c", program, str(ARCHIVE)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    module, read, unpacked = done.stdout.splitlines()
    assert module == f"{ARCHIVE}/jobs/__init__.py"
    assert read == "True True True"
    assert not Path(unpacked).exists()
