-- Grain: one row per month (UTC) with events. growth is relative to the month before, 0.5 being half as many
-- events again; null where that month has none.
SELECT
  activity_month,
  event_count,
  user_count,
  previous_event_count,
  CAST(event_count AS DOUBLE) / previous_event_count - 1 AS growth
FROM (
  SELECT
    activity_month,
    event_count,
    user_count,
    CASE
      WHEN LAG(month_number) OVER (ORDER BY month_number) = month_number - 1
        THEN LAG(event_count) OVER (ORDER BY month_number)
    END AS previous_event_count
  FROM (
    SELECT
      activity_month,
      EXTRACT(YEAR FROM activity_month) * 12 + EXTRACT(MONTH FROM activity_month) AS month_number,
      COUNT(*) AS event_count,
      COUNT(DISTINCT email) AS user_count
    FROM (
      SELECT
        CAST(TRUNC(CAST(timestamp AT TIME ZONE 'UTC' AS DATE), 'MONTH') AS DATE) AS activity_month,
        email
      FROM events
    ) AS dated
    GROUP BY activity_month
  ) AS months
) AS numbered
ORDER BY activity_month
