"""When an upload is skipped because nothing is there to upload, and when it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.lake.objects import is_hidden

from .conftest import ROOT, Airflow

pytestmark = pytest.mark.integration

# Says of folders what the DAG makes of each: whether it holds files, or the kind of error.
PROGRAM = """
import json, os, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from spark_jobs import has_files
found = {}
with tempfile.TemporaryDirectory() as name:
    inbox = Path(name)
    inbox.chmod(0o755)
    for path in json.loads(sys.argv[2]):
        file = inbox / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    (inbox / "empty").mkdir()
    closed = [inbox / "closed", inbox / "below/closed"]
    for folder in closed:
        folder.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)
    for folder in [*sorted(inbox.iterdir()), inbox / "missing"]:
        try:
            found[folder.name] = has_files(str(folder))
        except OSError as error:
            found[folder.name] = type(error).__name__
    os.seteuid(user)
    for folder in closed:
        folder.chmod(0o755)
Path(sys.argv[3]).write_text(json.dumps(found))
"""
HIDDEN = ["hidden/.DS_Store", "hidden/_SUCCESS", "hidden/.git/a", "hidden/_tmp/a", "hidden/a._COPYING_"]


def test_an_inbox_that_may_not_be_looked_into_is_not_an_empty_one(airflow: Airflow, tmp_path: Path) -> None:
    there = [*HIDDEN, "files/a", "deep/a/b/c", "closed/a", "below/closed/a", "file"]
    output = tmp_path / "found.json"
    done = airflow.run("python", "-c", PROGRAM, str(ROOT / "dags"), json.dumps(there), str(output))
    assert done.returncode == 0, done.stderr
    assert json.loads(output.read_text()) == {
        "files": True,
        "deep": True,
        "empty": False,
        "missing": False,
        # `upload` leaves these out, and would end with exit code 2, as nothing remains.
        "hidden": False,
        "closed": "PermissionError",
        "below": "PermissionError",
        "file": "NotADirectoryError",
    }
    assert all(map(is_hidden, HIDDEN))
