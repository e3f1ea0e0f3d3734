-- Grain: one row per country, 'unknown' where the event names none. Countries with equally many events are
-- ranked by their name.
SELECT
  ROW_NUMBER() OVER (ORDER BY event_count DESC, country ASC) AS country_rank,
  country,
  event_count,
  user_count,
  CAST(event_count AS DOUBLE) / user_count AS events_per_user
FROM (
  SELECT
    COALESCE(country, 'unknown') AS country,
    COUNT(*) AS event_count,
    COUNT(DISTINCT email) AS user_count
  FROM events
  GROUP BY COALESCE(country, 'unknown')
) AS countries
ORDER BY country_rank
