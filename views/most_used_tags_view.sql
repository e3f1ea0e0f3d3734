-- Grain: one row per tag. Tags of equally many events are ranked by their name. event_share is of all events,
-- those without tags included; an event with three tags counts for each of them.
SELECT
  ROW_NUMBER() OVER (ORDER BY tags.event_count DESC, tags.tag ASC) AS tag_rank,
  tags.tag,
  tags.event_count,
  tags.user_count,
  CAST(tags.event_count AS DOUBLE) / totals.event_count AS event_share
FROM (
  SELECT
    tag,
    COUNT(*) AS event_count,
    COUNT(DISTINCT email) AS user_count
  FROM events
  CROSS JOIN UNNEST(events.tags) AS names(tag)
  GROUP BY tag
) AS tags
CROSS JOIN (
  SELECT COUNT(*) AS event_count
  FROM events
) AS totals
ORDER BY tag_rank
