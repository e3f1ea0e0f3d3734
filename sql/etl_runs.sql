-- Grain: one row per run.
CREATE TABLE etl_runs (
  run_id VARCHAR(32) NOT NULL COMMENT 'Run',
  command VARCHAR(200) NOT NULL COMMENT 'What was started',
  code_version VARCHAR(50) NOT NULL COMMENT 'Version of user-analytics',
  started_at TIMESTAMPTZ NOT NULL COMMENT 'Begin, UTC',
  seconds DOUBLE NOT NULL COMMENT 'Duration',
  outcome VARCHAR(20) NOT NULL COMMENT 'done, refused (a file or too many records were) or failed',
  started_by VARCHAR(500) COMMENT 'User and host, or DAG, DAG run and task of Airflow',
  git_revision VARCHAR(100) COMMENT 'Commit of the code, where it is known',
  configuration TEXT COMMENT 'Settings and versions, as JSON; no secrets',
  PRIMARY KEY (run_id)
) COMMENT = 'Runs of the pipeline. Grain: one row per run';
