"""dlt: read_jsonl into one table, as its documentation shows it, and the star schema by SQL inside Postgres.

Its defaults but for three: columns that it would guess are declared, so that an impossible
time does not end the load; no telemetry; its files in the working folder.
"""

import os

import dlt
from dlt.sources.filesystem import filesystem, read_jsonl

from benchmarks import star_schema

FIELDS = ("user_id", "timestamp", "action_type", "metadata__device", "metadata__location")

STAR_SCHEMA = (
    """
    CREATE TABLE events AS
    SELECT DISTINCT ON (user_id, action_type, event_at) user_id, action_type, event_at, device, location
    FROM (
        SELECT user_id, action_type, metadata__device AS device, metadata__location AS location,
               CASE WHEN pg_input_is_valid("timestamp", 'timestamptz') THEN "timestamp"::timestamptz END AS event_at
        FROM raw.logs
    ) AS lines
    WHERE user_id IS NOT NULL AND trim(action_type) <> '' AND length(action_type) <= 100
      AND event_at IS NOT NULL
    """,
    """
    INSERT INTO dim_users
    SELECT row_number() OVER (), user_id FROM (SELECT DISTINCT user_id FROM events) AS members
    """,
    """
    INSERT INTO dim_actions
    SELECT row_number() OVER (), action_type FROM (SELECT DISTINCT action_type FROM events) AS members
    """,
    """
    INSERT INTO dim_devices
    SELECT row_number() OVER (), device
    FROM (SELECT DISTINCT device FROM events WHERE device IS NOT NULL) AS members
    """,
    """
    INSERT INTO dim_locations
    SELECT row_number() OVER (), location
    FROM (SELECT DISTINCT location FROM events WHERE location IS NOT NULL) AS members
    """,
    """
    INSERT INTO fact_user_actions
    SELECT gen_random_uuid(), user_key, action_key, device_key, location_key, event_at
    FROM events
    JOIN dim_users USING (user_id)
    JOIN dim_actions USING (action_type)
    LEFT JOIN dim_devices ON device_type = device
    LEFT JOIN dim_locations ON location_name = location
    """,
    *star_schema.FACT_CONSTRAINTS,
)


def main() -> None:
    task = star_schema.read_task(__doc__)
    os.environ |= {
        "DLT_DATA_DIR": str(task.work / "dlt"),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "WARNING",
    }
    lines = filesystem(bucket_url=task.input.parent.as_uri(), file_glob=task.input.name) | read_jsonl()
    pipeline = dlt.pipeline(
        pipeline_name="logs",
        pipelines_dir=str(task.work / "pipelines"),
        destination=dlt.destinations.postgres(task.warehouse),
        dataset_name="raw",
    )
    # One dictionary each: dlt writes the name into it.
    columns = {name: {"data_type": "text", "nullable": True} for name in FIELDS}
    pipeline.run(lines.with_name("logs").apply_hints(columns=columns)).raise_on_failed_jobs()
    star_schema.execute(task.warehouse, star_schema.BARE_TABLES)
    star_schema.execute(task.warehouse, *STAR_SCHEMA)


if __name__ == "__main__":
    main()
