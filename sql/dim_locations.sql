-- Grain: one row per location that occurs in the logs.
CREATE TABLE dim_locations (
  location_key BIGINT NOT NULL COMMENT 'Surrogate key, computed from location_name',
  location_name VARCHAR(100) NOT NULL COMMENT 'Place as the source names it',
  PRIMARY KEY (location_key),
  UNIQUE (location_name)
) COMMENT = 'Places. Grain: one row per location_name';
