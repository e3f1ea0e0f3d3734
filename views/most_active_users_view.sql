-- Grain: one row per e-mail address with events. Users with equally many events are ranked by their address,
-- of which the first letter and the domain are shown.
SELECT
  ROW_NUMBER() OVER (ORDER BY event_count DESC, email ASC) AS user_rank,
  CONCAT(SUBSTRING(email, 1, 1), '***', SUBSTRING(email, NULLIF(LOCATE('@', email), 0))) AS masked_email,
  company,
  event_count,
  action_count,
  active_day_count,
  first_event_at,
  last_event_at
FROM (
  SELECT
    email,
    MIN(company) AS company,
    COUNT(*) AS event_count,
    COUNT(DISTINCT action) AS action_count,
    COUNT(DISTINCT CAST(timestamp AT TIME ZONE 'UTC' AS DATE)) AS active_day_count,
    MIN(timestamp) AS first_event_at,
    MAX(timestamp) AS last_event_at
  FROM events
  GROUP BY email
) AS users
ORDER BY user_rank
