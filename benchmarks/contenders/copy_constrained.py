"""psql copies ready CSV into tables that have their keys: what each row's checks cost."""

from benchmarks import star_schema
from benchmarks.contenders import psql


def main() -> None:
    task = star_schema.read_task(__doc__)
    psql.run(task.warehouse, star_schema.CONSTRAINED_TABLES, *psql.copies(task.input))


if __name__ == "__main__":
    main()
