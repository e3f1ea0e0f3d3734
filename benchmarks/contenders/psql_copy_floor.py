"""The floor of a load: psql copies ready CSV into a fresh table, then adds its keys."""

from benchmarks import star_schema
from benchmarks.contenders import psql


def main() -> None:
    task = star_schema.read_task(__doc__)
    psql.run(
        task.warehouse,
        star_schema.BARE_TABLES,
        *psql.copies(task.input),
        *star_schema.FACT_CONSTRAINTS,
    )


if __name__ == "__main__":
    main()
