-- Grain: one row per run and step.
CREATE TABLE etl_steps (
  run_id VARCHAR(32) NOT NULL COMMENT 'Run',
  step_number BIGINT NOT NULL COMMENT 'Position within the run, from 1',
  name VARCHAR(100) NOT NULL COMMENT 'Step, e.g. stage logs',
  started_at TIMESTAMPTZ NOT NULL COMMENT 'Begin, UTC',
  seconds DOUBLE NOT NULL COMMENT 'Duration',
  outcome VARCHAR(20) NOT NULL COMMENT 'done or failed',
  detail VARCHAR(2000) COMMENT 'What it did, in words',
  inputs TEXT COMMENT 'What it read: datasets with version and rows where known, as JSON',
  outputs TEXT COMMENT 'What it wrote, likewise',
  PRIMARY KEY (run_id, step_number)
) COMMENT = 'Steps of runs. Grain: one row per run and step';
