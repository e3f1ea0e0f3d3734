-- Grain: one row per pair of uri and action that occurs together. lift is how many times as often they do as
-- if they were independent (1: as often). chi_square is Pearson's, for the table of uri or not by action or
-- not, with one degree of freedom: independent ones reach 3.84 in 5 % of cases. It is null where all events
-- have the uri or all have the action, and rough where expected_count is below 5.
SELECT
  uri,
  action,
  CAST(pair_count AS BIGINT) AS pair_count,
  CAST(uri_count AS BIGINT) AS uri_count,
  CAST(action_count AS BIGINT) AS action_count,
  CAST(event_count AS BIGINT) AS event_count,
  uri_count * action_count / event_count AS expected_count,
  pair_count * event_count / (uri_count * action_count) AS lift,
  event_count * POWER(pair_count * event_count - uri_count * action_count, 2)
  / (uri_count * action_count * (event_count - uri_count) * (event_count - action_count)) AS chi_square
FROM (
  SELECT
    uri,
    action,
    CAST(COUNT(*) AS DOUBLE) AS pair_count,
    CAST(SUM(COUNT(*)) OVER (PARTITION BY uri) AS DOUBLE) AS uri_count,
    CAST(SUM(COUNT(*)) OVER (PARTITION BY action) AS DOUBLE) AS action_count,
    CAST(SUM(COUNT(*)) OVER () AS DOUBLE) AS event_count
  FROM events
  GROUP BY uri, action
) AS pairs
ORDER BY chi_square DESC NULLS LAST, uri ASC, action ASC
