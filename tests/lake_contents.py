"""All that a lake or a warehouse holds, read without Spark, so that two of them can be compared row by row."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.warehouses import query

# What differs from run to run: who wrote a row and when.
VOLATILE = {"run_id", "staged_at", "rejected_at", "scored_at", "located_at", "expires_at", "published_at"}
Rows = list[str]


def lake_contents(lake: Path) -> dict[str, Rows]:
    """Every Delta table's rows, every result and raw file, by path; what tells of runs, and locks, are left out."""
    found = {}
    for log in sorted(lake.rglob("_delta_log")):
        name = log.parent.relative_to(lake).as_posix()
        if not name.startswith("runs/"):
            found[name] = delta_rows(log.parent)
    for folder in ("raw", "results"):
        for file in sorted(
            p
            for p in (lake / folder).rglob("*")
            if p.is_file() and not p.name.startswith(".") and p.parent.name != "reports"
        ):
            found[file.relative_to(lake).as_posix()] = [_content(file)]
    return found


def _content(file: Path) -> str:
    if file.parent.name != "results":
        return file.read_bytes().hex()
    # The tables' identities and versions, which depend on how often they were begun.
    return repr(json.loads(file.read_text()) | {"made_from": None})


def delta_rows(table: Path) -> Rows:
    """The rows of a table's newest version, by its log alone."""
    files: dict[str, dict[str, Any]] = {}
    columns: list[str] = []
    versions = sorted((table / "_delta_log").glob("*.json"))
    assert [int(file.stem) for file in versions] == list(range(len(versions))), (
        f"{table}: a version is missing"
    )
    for version in versions:
        for line in version.read_text().splitlines():
            action = json.loads(line)
            if added := action.get("add"):
                assert not added.get("deletionVector"), "this reader does not know them"
                files[added["path"]] = added["partitionValues"]
            elif removed := action.get("remove"):
                files.pop(removed["path"], None)
            elif metadata := action.get("metaData"):
                columns = [field["name"] for field in json.loads(metadata["schemaString"])["fields"]]
    rows = []
    for path, partition in files.items():
        for row in pq.ParquetFile(table / path).read().to_pylist():
            # Files also hold columns of the change data feed.
            whole = {**row, **partition}
            rows.append(_text({name: whole.get(name) for name in columns}))
    return sorted(rows)


def warehouse_contents(url: str) -> dict[str, Rows]:
    """The rows of every table and view but those that record runs, and which are published."""
    relations = query(
        url,
        "SELECT relname, relkind FROM pg_class WHERE relnamespace = to_regnamespace('analytics') "
        "AND relkind IN ('r', 'v') ORDER BY 1",
    )
    found: dict[str, Rows] = {"relations": [name for name, _ in relations]}
    for name, kind in relations:
        if name.startswith("etl_") or name == "run_history_view":
            continue
        # Identity and version of a Delta table depend on how often it was begun.
        columns = "jsonb_build_object('table', x.table_name)" if name == "_published" else "to_jsonb(x)"
        rows = query(url, f"SELECT {columns} FROM {name} AS x")
        # Views add up in the order in which a table's rows lie, and the last digit of a mean follows from it.
        found[name] = sorted(_text(_rounded(row) if kind == "v" else row) for (row,) in rows)
    return found


def _text(row: dict[str, Any]) -> str:
    return repr(sorted((name, _plain(value)) for name, value in row.items() if name not in VOLATILE))


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:.12g}" if isinstance(value, float) else value for name, value in row.items()}


def _plain(value: Any) -> Any:
    # Spark's files say times without a zone, those of delta-rs with it; all are UTC.
    return f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else value


def differences(found: dict[str, Rows], wanted: dict[str, Rows]) -> list[str]:
    """What is not as wanted, in a few lines."""
    lines = []
    for name in sorted(found.keys() | wanted.keys()):
        have, want = found.get(name), wanted.get(name)
        if have != want:
            gone = [row for row in want or [] if row not in (have or [])][:2]
            extra = [row for row in have or [] if row not in (want or [])][:2]
            counts = f"{len(have) if have is not None else 'no'} rows, {len(want) if want is not None else 'no'} wanted"
            lines.append(f"{name}: {counts}; missing {gone}; too many {extra}"[:600])
    return lines
