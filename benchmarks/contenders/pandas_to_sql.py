"""pandas chunks and SQLAlchemy's to_sql, as most such projects load their star schema.

Chunks of 100,000 lines; keys from a dictionary per dimension, seen events in a set of
hashes; to_sql with its defaults but for chunksize, into the tables with their keys.
"""

from uuid import uuid4

import pandas as pd
import sqlalchemy

from benchmarks import star_schema

CHUNK = 100_000
DIMENSIONS = {
    # column: (table, key column, business key column)
    "user_id": ("dim_users", "user_key", "user_id"),
    "action_type": ("dim_actions", "action_key", "action_type"),
    "device": ("dim_devices", "device_key", "device_type"),
    "location": ("dim_locations", "location_key", "location_name"),
}


def main() -> None:
    task = star_schema.read_task(__doc__)
    star_schema.execute(task.warehouse, star_schema.CONSTRAINED_TABLES)
    url = sqlalchemy.make_url(task.warehouse).set(drivername="postgresql+psycopg2")
    engine = sqlalchemy.create_engine(url)
    keys: dict[str, dict[str, int]] = {column: {} for column in DIMENSIONS}
    seen: set[int] = set()
    lines = pd.read_json(task.input, lines=True, chunksize=CHUNK, dtype=False)
    for chunk in lines:
        events = without_duplicates(valid_events(chunk), seen)
        for column, dimension in DIMENSIONS.items():
            events[dimension[1]] = add_and_look_up(engine, events[column], keys[column], *dimension)
        events["action_event_id"] = [uuid4() for _ in range(len(events))]
        facts = ["action_event_id", *(key for _, key, _ in DIMENSIONS.values()), "timestamp"]
        append(engine, events[facts], "fact_user_actions")


def valid_events(chunk: pd.DataFrame) -> pd.DataFrame:
    at = pd.to_datetime(chunk["timestamp"], format="ISO8601", utc=True, errors="coerce")
    action_type = chunk["action_type"]
    is_valid = (
        chunk["user_id"].notna()
        & (action_type.str.strip() != "")
        & (action_type.str.len() <= 100)
        & at.notna()
    )
    metadata = chunk["metadata"].map(lambda value: value if isinstance(value, dict) else {})
    events = chunk[["user_id", "action_type"]].assign(
        timestamp=at,
        device=metadata.map(lambda value: value.get("device")),
        location=metadata.map(lambda value: value.get("location")),
    )
    return events[is_valid]


def without_duplicates(events: pd.DataFrame, seen: set[int]) -> pd.DataFrame:
    natural_key = ["user_id", "timestamp", "action_type"]
    events = events.drop_duplicates(natural_key)
    hashes = pd.util.hash_pandas_object(events[natural_key], index=False).tolist()
    is_new = [value not in seen for value in hashes]
    seen.update(hashes)
    return events[is_new].copy()


def add_and_look_up(
    engine: sqlalchemy.Engine,
    values: pd.Series,
    keys: dict[str, int],
    table: str,
    key_column: str,
    business_key: str,
) -> pd.Series:
    new = [value for value in values.dropna().unique() if value not in keys]
    if new:
        rows = {key_column: range(len(keys) + 1, len(keys) + len(new) + 1), business_key: new}
        append(engine, pd.DataFrame(rows), table)
        keys.update(zip(rows[business_key], rows[key_column], strict=True))
    return values.map(keys).astype("Int64")


def append(engine: sqlalchemy.Engine, rows: pd.DataFrame, table: str) -> None:
    rows.to_sql(table, engine, schema="analytics", if_exists="append", index=False, chunksize=10_000)


if __name__ == "__main__":
    main()
