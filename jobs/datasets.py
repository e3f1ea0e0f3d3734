"""What the steps of a run read and wrote: noted once by each job, told by the run tables and by lineage events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import types as T

from jobs.column_lineage import SourceColumn, columns_of_rows

if TYPE_CHECKING:
    from jobs.lake.tables import LakeTable


@dataclass(frozen=True)
class Dataset:
    """A folder or table of the lake, or a table or view of the warehouse.

    name: the path within the lake, such as `staging/logs`; in the warehouse, the table's own name. version: the Delta
    version that was read, written or published. rows: records of it, where they were counted anyway. files: raw files,
    of a folder. columns: finds out where each column comes from, when that is asked for.
    """

    name: str
    version: int | None = None
    rows: int | None = None
    files: int | None = None
    in_warehouse: bool = False
    schema: T.StructType | None = field(default=None, repr=False)
    columns: Callable[[], Mapping[str, Sequence[SourceColumn]]] = field(default=dict, repr=False)


def of_lake(
    table: LakeTable,
    lake_uri: str,
    version: int | None = None,
    rows: int | None = None,
    made_by: DataFrame | None = None,
) -> Dataset:
    """A Delta table of the lake, by default at its present version. made_by: the rows as they were computed."""
    name = table.uri.removeprefix(f"{lake_uri}/")
    version = table.version() if version is None else version

    def columns() -> dict[str, list[SourceColumn]]:
        found = columns_of_rows(made_by, lake_uri) if made_by is not None else {}
        # What a merge compares with is in the table already.
        return {c: [s for s in found[c] if s.dataset != name] for c in table.schema.names if c in found}

    return Dataset(name, version, rows, schema=table.schema, columns=columns)


def as_json(datasets: Iterable[Dataset]) -> str | None:
    """Datasets as they stand in `etl_steps`; None without any. Those of the warehouse are marked as such."""
    described = [
        {
            "dataset": d.name,
            **({"in": "warehouse"} if d.in_warehouse else {}),
            **{
                name: value
                for name, value in (("version", d.version), ("rows", d.rows), ("files", d.files))
                if value is not None
            },
        }
        for d in datasets
    ]
    return json.dumps(described, ensure_ascii=False) if described else None
