-- Grain: one row per column that was added to a published table.
-- It is written before the column is made: after a kill, the column may come with the next run only.
CREATE TABLE etl_schema_changes (
  table_name VARCHAR(63) NOT NULL COMMENT 'Table of the warehouse',
  column_name VARCHAR(63) NOT NULL COMMENT 'Column that was added',
  column_type VARCHAR(200) NOT NULL COMMENT 'Its declared type',
  run_id VARCHAR(32) NOT NULL COMMENT 'Run that added it',
  noted_at TIMESTAMPTZ NOT NULL COMMENT 'When, UTC',
  PRIMARY KEY (table_name, column_name)
) COMMENT = 'Columns added to published tables. Grain: one row per table and column';
