-- Grain: one row per user, instant and action.
CREATE TABLE fact_user_actions (
  action_event_id UUID NOT NULL COMMENT 'UUID version 8: instant in ms, then a hash of the natural key',
  user_key BIGINT NOT NULL COMMENT 'Who',
  action_key BIGINT NOT NULL COMMENT 'What',
  device_key BIGINT COMMENT 'On which kind of device; null when the log does not say',
  location_key BIGINT COMMENT 'Where; null when the log does not say',
  timestamp TIMESTAMPTZ NOT NULL COMMENT 'When, UTC',
  PRIMARY KEY (action_event_id),
  FOREIGN KEY (user_key) REFERENCES dim_users (user_key),
  FOREIGN KEY (action_key) REFERENCES dim_actions (action_key),
  FOREIGN KEY (device_key) REFERENCES dim_devices (device_key),
  FOREIGN KEY (location_key) REFERENCES dim_locations (location_key)
) COMMENT = 'What users did. Grain: one row per user, instant and action'
PARTITION BY DATE_TRUNC('MONTH', timestamp)
CLUSTER BY (user_key, action_key);
