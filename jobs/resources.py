"""Files that come with the code: declarations, views, the shipped model."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from zipfile import ZipFile


@cache
def project_root() -> Path:
    """The folder that holds `jobs/`, `sql/` and `views/`.

    On a cluster the code runs from the archive of `--py-files`, which Python imports as it is; its other files are
    unpacked into a temporary folder that goes away with the process.
    """
    root = Path(__file__).parents[1]
    if root.is_dir():
        return root.resolve()
    folder = Path(tempfile.mkdtemp(prefix="user-analytics-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with ZipFile(root) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if not name.endswith(".py")])
    return folder
