"""The star schema that every contender fills, and the proof that all filled it alike.

Contenders that are not ours create the tables from here, in the schema ``analytics`` of a
database of their own. Ours creates them by itself; the checks hold for both.
"""

import argparse
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

SCHEMA = "analytics"
TABLES = ("dim_users", "dim_actions", "dim_devices", "dim_locations", "fact_user_actions")

DIMENSIONS = """
CREATE SCHEMA analytics;
SET search_path TO analytics;
CREATE TABLE dim_users     (user_key     bigint PRIMARY KEY, user_id       text NOT NULL UNIQUE);
CREATE TABLE dim_actions   (action_key   bigint PRIMARY KEY, action_type   varchar(100) NOT NULL UNIQUE);
CREATE TABLE dim_devices   (device_key   bigint PRIMARY KEY, device_type   varchar(50) NOT NULL UNIQUE);
CREATE TABLE dim_locations (location_key bigint PRIMARY KEY, location_name varchar(100) NOT NULL UNIQUE);
"""

BARE_FACT = """
CREATE TABLE fact_user_actions (
    action_event_id uuid NOT NULL,
    user_key        bigint NOT NULL,
    action_key      bigint NOT NULL,
    device_key      bigint,
    location_key    bigint,
    "timestamp"     timestamptz NOT NULL
);
"""

# Separate statements: each is a step that a contender may time or run on its own.
FACT_CONSTRAINTS = (
    "ALTER TABLE fact_user_actions ADD PRIMARY KEY (action_event_id)",
    "ALTER TABLE fact_user_actions ADD FOREIGN KEY (user_key) REFERENCES dim_users",
    "ALTER TABLE fact_user_actions ADD FOREIGN KEY (action_key) REFERENCES dim_actions",
    "ALTER TABLE fact_user_actions ADD FOREIGN KEY (device_key) REFERENCES dim_devices",
    "ALTER TABLE fact_user_actions ADD FOREIGN KEY (location_key) REFERENCES dim_locations",
)

BARE_TABLES = DIMENSIONS + BARE_FACT
CONSTRAINED_TABLES = BARE_TABLES + ";\n".join(FACT_CONSTRAINTS) + ";\n"

COUNTS = """
SELECT (SELECT count(*) FROM dim_users), (SELECT count(*) FROM dim_actions),
       (SELECT count(*) FROM dim_devices), (SELECT count(*) FROM dim_locations),
       (SELECT count(*) FROM fact_user_actions)
"""

# Surrogate keys and event ids differ between contenders; what they stand for must not.
# A sum of one hash per event does not depend on the order of the rows.
FINGERPRINT = """
SELECT sum(hashtextextended(concat_ws(
           '|', user_id, action_type, coalesce(device_type, '-'), coalesce(location_name, '-'),
           (extract(epoch FROM f."timestamp") * 1000000)::bigint), 0)::numeric)::text
FROM fact_user_actions f
JOIN dim_users USING (user_key)
JOIN dim_actions USING (action_key)
LEFT JOIN dim_devices USING (device_key)
LEFT JOIN dim_locations USING (location_key)
"""

VALIDATED_FOREIGN_KEYS = """
SELECT count(DISTINCT confrelid) FROM pg_constraint
WHERE conrelid = 'fact_user_actions'::regclass AND contype = 'f' AND convalidated
"""

# A partitioned fact table needs the partition column in its primary key as well.
PRIMARY_KEYS = """
SELECT c.conrelid::regclass::text, array_agg(a.attname::text ORDER BY a.attname)
FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
WHERE c.contype = 'p' AND c.connamespace = 'analytics'::regnamespace
GROUP BY 1
"""

UNIQUE_COLUMNS = """
SELECT i.indrelid::regclass::text || '.' || a.attname
FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indisunique AND i.indisvalid AND i.indnkeyatts = 1
"""

UNLOGGED = """
SELECT relname::text FROM pg_class
WHERE relnamespace = 'analytics'::regnamespace AND relkind IN ('r', 'p') AND relpersistence <> 'p'
"""


@dataclass(frozen=True)
class Result:
    """What a contender left in its database."""

    users: int
    actions: int
    devices: int
    locations: int
    events: int
    fingerprint: str


def read_result(url: str) -> Result:
    """Counts and fingerprint; raises ValueError when keys are missing or not validated."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path TO analytics; SET work_mem = '256MB'")
        missing = _missing_keys(cursor)
        if missing:
            raise ValueError("the star schema lacks " + ", ".join(missing))
        cursor.execute(COUNTS)
        users, actions, devices, locations, events = cursor.fetchone()
        cursor.execute(FINGERPRINT)
        (fingerprint,) = cursor.fetchone()
    return Result(users, actions, devices, locations, events, fingerprint)


def _missing_keys(cursor: Any) -> list[str]:
    missing = []
    cursor.execute(UNIQUE_COLUMNS)
    unique = {name for (name,) in cursor.fetchall()}
    for table, columns in {
        "dim_users": ("user_key", "user_id"),
        "dim_actions": ("action_key", "action_type"),
        "dim_devices": ("device_key", "device_type"),
        "dim_locations": ("location_key", "location_name"),
    }.items():
        missing += [
            f"a unique key on {table}.{column}" for column in columns if f"{table}.{column}" not in unique
        ]
    cursor.execute(PRIMARY_KEYS)
    if "action_event_id" not in dict(cursor.fetchall()).get("fact_user_actions", []):
        missing.append("a primary key on fact_user_actions.action_event_id")
    cursor.execute(VALIDATED_FOREIGN_KEYS)
    (foreign_keys,) = cursor.fetchone()
    if foreign_keys < 4:
        missing.append(f"{4 - foreign_keys} of the 4 validated foreign keys")
    cursor.execute(UNLOGGED)
    missing += [f"crash safety: {table} is unlogged" for (table,) in cursor.fetchall()]
    return missing


@dataclass(frozen=True)
class Task:
    """What the runner hands to a contender."""

    input: Path  # JSON lines; for those that only load, a folder of ready CSV files
    work: Path  # an empty folder on the same disk
    warehouse: str  # postgresql:// of an empty database


def read_task(description: str | None) -> Task:
    """From arguments, except for the URL: it holds a password."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    if "WAREHOUSE_URL" not in os.environ:
        parser.error("WAREHOUSE_URL is not set; it names an empty Postgres database")
    return Task(arguments.input, arguments.work, os.environ["WAREHOUSE_URL"])


def execute(url: str, *statements: str) -> None:
    """Each statement in a transaction of its own."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET search_path TO analytics, public")
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def copy_csv(url: str, table: str, path: Path) -> None:
    """COPY one headerless CSV file, an empty field meaning null."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor, path.open("rb") as file:
        cursor.copy_expert(f"COPY analytics.{table} FROM STDIN (FORMAT csv)", file, size=1 << 20)
    connection.close()
