-- Grain: one row per raw file, its last reading.
SELECT
  feed,
  path,
  status,
  records_read,
  accepted,
  duplicates,
  rejected,
  error,
  staged_at
FROM (
  SELECT
    feed,
    path,
    status,
    records_read,
    accepted,
    duplicates,
    rejected,
    error,
    staged_at,
    ROW_NUMBER() OVER (PARTITION BY feed, path ORDER BY batch DESC) AS reading
  FROM etl_files
) AS readings
WHERE reading = 1
