-- Grain: one row per run, table and check.
CREATE TABLE etl_checks (
  run_id VARCHAR(32) NOT NULL COMMENT 'Run',
  table_name VARCHAR(63) NOT NULL COMMENT 'Table of the warehouse',
  check_name VARCHAR(200) NOT NULL COMMENT 'Check, e.g. row_count or sum(quantity)',
  expected VARCHAR(100) COMMENT 'Value in the mart',
  found VARCHAR(100) COMMENT 'Value in the warehouse',
  passed BOOLEAN NOT NULL COMMENT 'Whether they are equal',
  checked_at TIMESTAMPTZ NOT NULL COMMENT 'When, UTC',
  PRIMARY KEY (run_id, table_name, check_name)
) COMMENT = 'Post-load checks. Grain: one row per run, table and check';
