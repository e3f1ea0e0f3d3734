-- Grain: one row per run, the newest first.
SELECT
  etl_runs.run_id,
  etl_runs.command,
  etl_runs.started_at,
  etl_runs.seconds,
  etl_runs.outcome,
  COALESCE(files.file_count, 0) AS file_count,
  COALESCE(files.records_read, 0) AS records_read,
  COALESCE(files.accepted, 0) AS accepted,
  COALESCE(files.duplicates, 0) AS duplicates,
  COALESCE(files.rejected, 0) AS rejected,
  COALESCE(files.refused_files, 0) AS refused_files,
  COALESCE(checks.failed_checks, 0) AS failed_checks
FROM etl_runs
LEFT JOIN (
  SELECT
    run_id,
    COUNT(*) AS file_count,
    CAST(SUM(records_read) AS BIGINT) AS records_read,
    CAST(SUM(accepted) AS BIGINT) AS accepted,
    CAST(SUM(duplicates) AS BIGINT) AS duplicates,
    CAST(SUM(rejected) AS BIGINT) AS rejected,
    COUNT(error) AS refused_files
  FROM etl_files
  WHERE NOT COALESCE(is_recount, FALSE)
  GROUP BY run_id
) AS files ON files.run_id = etl_runs.run_id
LEFT JOIN (
  SELECT
    run_id,
    COUNT_IF(NOT passed AND COALESCE(action, 'fail') <> 'warn') AS failed_checks
  FROM etl_checks
  GROUP BY run_id
) AS checks ON checks.run_id = etl_runs.run_id
ORDER BY etl_runs.started_at DESC
