"""Pack the code for clusters: dist/user-analytics.zip, for `spark-submit --py-files`.

The archive holds jobs/ with the shipped model, sql/ and views/; the packages of requirements.txt have to be on the
cluster already. The same sources give the same bytes, and an archive that is up to date is left alone.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT / "dist" / "user-analytics.zip"
CONTENT = ("jobs/**/*", "sql/*.sql", "sql/*.toml", "views/**/*.sql")
EPOCH = (1980, 1, 1, 0, 0, 0)


def content() -> list[Path]:
    """The files that go into the archive, in order."""
    found = {file for pattern in CONTENT for file in ROOT.glob(pattern)}
    return sorted(file for file in found if file.is_file() and "__pycache__" not in file.parts)


def main() -> int:
    """Write the archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in content():
            entry = zipfile.ZipInfo(file.relative_to(ROOT).as_posix(), EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())
    if not ARCHIVE.is_file() or ARCHIVE.read_bytes() != buffer.getvalue():
        ARCHIVE.parent.mkdir(exist_ok=True)
        # A job that starts in this moment must not find half an archive.
        part = ARCHIVE.with_suffix(".part")
        part.write_bytes(buffer.getvalue())
        part.replace(ARCHIVE)
    print(ARCHIVE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
