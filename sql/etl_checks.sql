-- Grain: one row per run, table and check: post-load checks, and rules that were looked at.
-- Of rules that reject, only those that rejected something.
CREATE TABLE etl_checks (
  run_id VARCHAR(32) NOT NULL COMMENT 'Run',
  table_name VARCHAR(63) NOT NULL COMMENT 'Table of the warehouse; staging/<feed> for a feed',
  check_name VARCHAR(200) NOT NULL COMMENT 'Check, e.g. row_count or sum(quantity), or rule',
  expected VARCHAR(100) COMMENT 'Value in the mart; of a rule, what it asks for',
  found VARCHAR(100) COMMENT 'Value in the warehouse; of freshness and volume, what there was',
  passed BOOLEAN NOT NULL COMMENT 'Whether they are equal; whether the rule held, or rejected what broke it',
  checked_at TIMESTAMPTZ NOT NULL COMMENT 'When, UTC',
  rule_kind VARCHAR(20) COMMENT 'Of a rule: required, pattern, range, set, unique, …; null: post-load',
  action VARCHAR(10) COMMENT 'Of a rule: reject, warn or fail; null: post-load, which fails',
  rows_checked BIGINT COMMENT 'Of a rule: rows looked at; for volume, files',
  rows_failing BIGINT COMMENT 'Of a rule: those that break it',
  PRIMARY KEY (run_id, table_name, check_name)
) COMMENT = 'Checks and rules. Grain: one row per run, table and check';
