"""From raw JSON lines to the star schema in Postgres: ours beside other ways to do it.

Every contender is a process of its own, start-up included, on the same file and the same
server, with an empty database and an empty folder. It has to skip invalid lines, drop
duplicates by (user_id, timestamp, action_type), and leave five tables with their primary,
unique and foreign keys; a run whose result differs from the others' fails the benchmark.
Contenders take turns within a round; the table shows medians over the rounds.

    python -m benchmarks --sizes 200k 2m --repeat 3
    python -m benchmarks --sizes 10m --contenders ours duckdb_copy duckdb_tuned
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from benchmarks import measure, report, star_schema
from benchmarks.deliveries import size
from benchmarks.generate_logs import generate_log_lines

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Contender:
    what: str
    from_ready_csv: bool = False  # loads the finished tables instead of raw lines


CONTENDERS = {
    "ours": Contender("user-analytics run --feeds logs"),
    "duckdb_tuned": Contender("DuckDB, piped into bare tables, keys afterwards, tuned by hand"),
    "duckdb_copy": Contender("DuckDB, CSV, COPY into the constrained tables"),
    "spark_bare": Contender("Spark, dropDuplicates, CSV into bare tables, keys afterwards"),
    "spark_jdbc": Contender("Spark, dropDuplicates, JDBC append with rewritten batches"),
    "dlt_load": Contender("dlt, read_jsonl into one table, star schema by SQL"),
    "pandas_to_sql": Contender("pandas chunks, SQLAlchemy to_sql"),
    "psql_copy_floor": Contender("psql: COPY into fresh tables, keys afterwards", from_ready_csv=True),
    "copy_constrained": Contender("psql: COPY into the constrained tables", from_ready_csv=True),
}


@dataclass
class Runs:
    """All rounds of one contender at one size."""

    name: str
    rows: int
    measurements: list[measure.Measurement] = field(default_factory=list)
    result: star_schema.Result | None = None
    failure: str | None = None

    @property
    def seconds(self) -> float:
        return statistics.median(run.seconds for run in self.measurements)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    # `kill` ends the contender that runs and the server, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments.work.mkdir(parents=True, exist_ok=True)
    failures = 0
    with ExitStack() as stack:
        server = _server_url(stack, arguments.work)
        for rows in arguments.sizes:
            runs = _run_size(rows, arguments, server)
            about = report.describe_machine(server)
            print(report.table(runs, CONTENDERS), flush=True)
            failures += sum(run.failure is not None for run in runs)
            if not arguments.no_write:
                report.write(arguments.output, rows, runs, CONTENDERS, about)
    return 1 if failures else 0


def _run_size(rows: int, arguments: argparse.Namespace, server: str) -> list[Runs]:
    lines, counts = _lines(arguments.work, rows)
    ready_csv = _ready_csv(arguments.work, lines, arguments.contenders)
    runs = {name: Runs(name, rows) for name in arguments.contenders}
    for round_number in range(arguments.repeat):
        turn = round_number % len(runs)
        for name in [*arguments.contenders[turn:], *arguments.contenders[:turn]]:
            if runs[name].failure:
                continue
            source = ready_csv if CONTENDERS[name].from_ready_csv else lines
            _run_once(runs[name], source, arguments, server)
            _check(runs[name], counts, [other.result for other in runs.values() if other.result])
            last = runs[name].measurements[-1]
            print(
                f"{rows:>12,} lines  round {round_number + 1}  {name:<18} {last.seconds:8.1f} s"
                f"  {last.peak_tree_bytes / 2**20:8,.0f} MiB  {runs[name].failure or ''}",
                flush=True,
            )
    return list(runs.values())


def _run_once(runs: Runs, source: Path, arguments: argparse.Namespace, server: str) -> None:
    work = arguments.work / "run"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    log = arguments.work / f"{runs.name}.log"
    database = f"bench_{runs.name}"
    _administer(
        server,
        f"DROP DATABASE IF EXISTS {database} WITH (FORCE)",
        f"CREATE DATABASE {database}",
        "CHECKPOINT",
    )
    url = urlsplit(server)._replace(path=f"/{database}").geturl()
    measurement = measure.run(
        [
            *(sys.executable, "-m", f"benchmarks.contenders.{runs.name}"),
            *("--input", str(source), "--work", str(work)),
        ],
        env=os.environ | {"WAREHOUSE_URL": url, "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        log=log,
        time_limit=arguments.time_limit,
    )
    runs.measurements.append(measurement)
    if measurement.exit_code is None:
        runs.failure = f"stopped after {arguments.time_limit:,} s"
    elif measurement.exit_code:
        runs.failure = f"exit code {measurement.exit_code}, see {log}"
    else:
        try:
            runs.result = star_schema.read_result(url)
        except (ValueError, psycopg2.Error) as error:
            runs.failure = f"no valid result: {str(error).splitlines()[0]}"
    _administer(server, f"DROP DATABASE {database} WITH (FORCE)")
    shutil.rmtree(work)


def _check(runs: Runs, counts: dict[str, int], results: list[star_schema.Result]) -> None:
    """The generator knows the number of events; all else must agree between contenders."""
    if runs.failure or runs.result is None:
        return
    if runs.result.events != counts["events"]:
        runs.failure = f"{runs.result.events:,} facts, {counts['events']:,} expected"
    elif runs.result != results[0]:
        runs.failure = f"differs from another contender: {asdict(runs.result)}, {asdict(results[0])}"


def _lines(work: Path, rows: int) -> tuple[Path, dict[str, int]]:
    """The input file and its counts, generated unless an earlier run left it."""
    path = work / f"logs-{rows}.jsonl"
    counts_path = path.with_suffix(".counts.json")
    if not counts_path.exists():  # written last, so a file that broke off is written again
        print(f"generating {path}", flush=True)
        counts_path.write_text(json.dumps(generate_log_lines(path, rows)))
    return path, json.loads(counts_path.read_text())


def _ready_csv(work: Path, lines: Path, contenders: Sequence[str]) -> Path:
    folder = work / f"ready-{lines.stem}"
    is_needed = any(CONTENDERS[name].from_ready_csv for name in contenders)
    if is_needed and not (folder / "complete").exists():
        from benchmarks.contenders import ready_csv

        print(f"writing {folder}", flush=True)
        ready_csv.write(lines, folder)
        (folder / "complete").touch()
    return folder


def _server_url(stack: ExitStack, work: Path) -> str:
    """The server in BENCHMARK_POSTGRES_URL, else an embedded one that lives as long as we do."""
    given = os.environ.get("BENCHMARK_POSTGRES_URL")
    if given:
        return given
    from jobs.warehouse.embedded import EmbeddedPostgres

    return stack.enter_context(EmbeddedPostgres(work / "postgres"))


def _administer(server: str, *statements: str) -> None:
    connection = psycopg2.connect(server)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    names = "\n".join(f"  {name:<18} {contender.what}" for name, contender in CONTENDERS.items())
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description=__doc__,
        epilog=f"contenders:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--sizes", nargs="+", type=size, default=[200_000, 2_000_000], help="lines (default: 200k 2m)"
    )
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME"
    )
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument(
        "--time-limit", type=float, default=3_600, metavar="SECONDS", help="per run (default: 3600)"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmarks", metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=report.DOCUMENT, metavar="FILE")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args(argv)
    if arguments.repeat < 1:
        parser.error("--repeat must be at least 1")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
