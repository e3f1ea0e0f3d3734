-- Grain: one row per user id that occurs in the logs.
CREATE TABLE dim_users (
  user_key BIGINT NOT NULL COMMENT 'Surrogate key, computed from user_id',
  user_id VARCHAR(100) NOT NULL COMMENT 'The user as the source names them',
  PRIMARY KEY (user_key),
  UNIQUE (user_id)
) COMMENT = 'Users seen in the logs. Grain: one row per user_id';
