"""Check that SQL files parse and look alike; with --fix, rewrite what can be rewritten.

    python scripts/check_sql.py sql views
    python scripts/check_sql.py --fix sql views

The rules are few, so that a formatter never moves a comment that documents a column:
reserved words in capitals, no tabs, no space at line ends, one line break at the end
of the file, lines of at most 110 characters, and SQL that sqlglot can parse in the
dialect of the file (`name.postgres.sql` is Postgres, any other file is Spark).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import sqlglot
from sqlglot.errors import SqlglotError

LINE_LENGTH = 110
# Reserved in the dialects used here: never the name of a column or table.
RESERVED = frozenset(
    """
    ALL ALTER AND AS ASC BETWEEN BY CASE CHECK CONSTRAINT CREATE CROSS DELETE DESC DISTINCT DROP ELSE END
    EXCEPT EXISTS FOREIGN FROM FULL GROUP HAVING IN INNER INSERT INTERSECT INTO IS JOIN LEFT LIKE LIMIT NOT
    NULL ON OR ORDER OUTER OVER PARTITION PRIMARY REFERENCES RIGHT SELECT SET TABLE THEN UNION UNIQUE UPDATE
    USING VALUES VIEW WHEN WHERE WITH
    """.split()
)


def dialect_of(path: Path) -> str:
    suffixes = path.name.split(".")
    return suffixes[-2] if len(suffixes) > 2 else "spark"


def formatted(text: str, dialect: str) -> str:
    """The text with reserved words in capitals and tidy white space; comments stay where they are."""
    pieces, position = [], 0
    for token in sqlglot.tokenize(text, read=dialect):
        original = text[token.start : token.end + 1]
        pieces.append(text[position : token.start])
        pieces.append(original.upper() if original.upper() in RESERVED else original)
        position = token.end + 1
    pieces.append(text[position:])
    lines = [line.rstrip().replace("\t", "    ") for line in "".join(pieces).splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def problems(path: Path, fix: bool) -> list[str]:
    text, dialect = path.read_text(encoding="utf-8"), dialect_of(path)
    try:
        sqlglot.parse(text, read=dialect)
        wanted = formatted(text, dialect)
    except (SqlglotError, ValueError) as error:
        return [f"{path}: not valid {dialect} SQL: {str(error).splitlines()[0]}"]
    if fix and wanted != text:
        path.write_text(wanted, encoding="utf-8")
        text = wanted
    found = []
    if wanted != text:
        pairs = zip(text.splitlines(), wanted.splitlines(), strict=False)
        line = next((i for i, (a, b) in enumerate(pairs, 1) if a != b), len(text.splitlines()))
        found.append(f"{path}:{line}: not in the project's format; run `make format`")
    for number, content in enumerate(text.splitlines(), 1):
        if len(content) > LINE_LENGTH:
            found.append(f"{path}:{number}: {len(content)} characters, at most {LINE_LENGTH} are allowed")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the format of SQL files.")
    parser.add_argument("--fix", action="store_true", help="rewrite the files")
    parser.add_argument("paths", nargs="+", type=Path, help="files, or folders with .sql files")
    arguments = parser.parse_args()
    files = [
        f for path in arguments.paths for f in (sorted(path.rglob("*.sql")) if path.is_dir() else [path])
    ]
    found = [problem for file in files if file.suffix == ".sql" for problem in problems(file, arguments.fix)]
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print(f"{len(files)} SQL files in the project's format")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
