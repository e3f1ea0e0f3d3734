-- Grain: one row per kind of action that occurs in the logs.
CREATE TABLE dim_actions (
  action_key BIGINT NOT NULL COMMENT 'Surrogate key, computed from action_type',
  action_type VARCHAR(100) NOT NULL COMMENT 'What was done, e.g. login',
  PRIMARY KEY (action_key),
  UNIQUE (action_type)
) COMMENT = 'Kinds of actions. Grain: one row per action_type';
