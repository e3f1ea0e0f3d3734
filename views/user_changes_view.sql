-- Grain: one row per month (UTC) in which users were first seen or changed.
SELECT
  CAST(DATE_TRUNC('MONTH', users_history.valid_from AT TIME ZONE 'UTC') AS DATE) AS month,
  COUNT_IF(users_history.version = 1) AS new_user_count,
  COUNT_IF(users_history.version > 1) AS change_count,
  COUNT(DISTINCT users_history.user_id) AS user_count
FROM users_history
GROUP BY CAST(DATE_TRUNC('MONTH', users_history.valid_from AT TIME ZONE 'UTC') AS DATE)
