"""Not a contender: raw lines to star schema in DuckDB, for those that use it."""

from pathlib import Path

import duckdb

# Identical copies only differ in spelling, so any survivor is the same one.
EVENTS = """
CREATE TEMP TABLE events AS
WITH lines AS (
    SELECT user_id, action_type, try_cast("timestamp" AS TIMESTAMPTZ) AS event_at,
           metadata.device AS device, metadata.location AS location
    FROM read_json(?, format = 'newline_delimited', columns = {
        user_id: 'VARCHAR', "timestamp": 'VARCHAR', action_type: 'VARCHAR',
        metadata: 'STRUCT(device VARCHAR, location VARCHAR)'})
)
SELECT user_id, action_type, event_at, any_value(device) AS device, any_value(location) AS location
FROM lines
WHERE user_id IS NOT NULL AND trim(action_type) <> '' AND length(action_type) <= 100
  AND event_at IS NOT NULL
GROUP BY user_id, action_type, event_at
"""

DIMENSIONS = """
CREATE TEMP TABLE dim_users AS
    SELECT row_number() OVER () AS user_key, user_id FROM (SELECT DISTINCT user_id FROM events);
CREATE TEMP TABLE dim_actions AS
    SELECT row_number() OVER () AS action_key, action_type
    FROM (SELECT DISTINCT action_type FROM events);
CREATE TEMP TABLE dim_devices AS
    SELECT row_number() OVER () AS device_key, device AS device_type
    FROM (SELECT DISTINCT device FROM events WHERE device IS NOT NULL);
CREATE TEMP TABLE dim_locations AS
    SELECT row_number() OVER () AS location_key, location AS location_name
    FROM (SELECT DISTINCT location FROM events WHERE location IS NOT NULL);
"""

# The id begins with the event's time, as ours does: it keeps the primary key's index local.
FACTS = """
CREATE TEMP VIEW fact_user_actions AS
SELECT (printf('%012x', epoch_ms(event_at))
        || substr(md5(concat_ws('|', user_id, action_type, event_at)), 1, 20)
       )::UUID AS action_event_id,
       user_key, action_key, device_key, location_key, event_at AS "timestamp"
FROM events
JOIN dim_users USING (user_id)
JOIN dim_actions USING (action_type)
LEFT JOIN dim_devices ON device_type = device
LEFT JOIN dim_locations ON location_name = location
"""


def build(connection: duckdb.DuckDBPyConnection, lines: Path) -> None:
    """Dimension tables and a view of the facts in this connection."""
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(EVENTS, [str(lines)])
    connection.execute(DIMENSIONS)
    connection.execute(FACTS)
