-- Grain: one row per day (UTC), action type and device type; 'unknown' where the log names no device.
SELECT
  CAST(fact_user_actions.timestamp AT TIME ZONE 'UTC' AS DATE) AS activity_date,
  dim_actions.action_type AS action_type,
  COALESCE(dim_devices.device_type, 'unknown') AS device_type,
  COUNT(*) AS event_count,
  COUNT(DISTINCT fact_user_actions.user_key) AS user_count
FROM fact_user_actions
INNER JOIN dim_actions ON dim_actions.action_key = fact_user_actions.action_key
LEFT JOIN dim_devices ON dim_devices.device_key = fact_user_actions.device_key
GROUP BY
  CAST(fact_user_actions.timestamp AT TIME ZONE 'UTC' AS DATE),
  dim_actions.action_type,
  COALESCE(dim_devices.device_type, 'unknown')
