-- Grain: one row per country; 'unknown' for users without a location.
SELECT
  COALESCE(users.country, 'unknown') AS country,
  COUNT(*) AS user_count,
  COUNT_IF(users.location_status = 'located') AS located_user_count,
  COUNT_IF(users.updated) AS updated_user_count,
  CAST(COUNT(*) AS DOUBLE) / SUM(COUNT(*)) OVER () AS user_share
FROM users
GROUP BY COALESCE(users.country, 'unknown')
