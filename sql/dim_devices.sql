-- Grain: one row per device type that occurs in the logs.
CREATE TABLE dim_devices (
  device_key BIGINT NOT NULL COMMENT 'Surrogate key, computed from device_type',
  device_type VARCHAR(50) NOT NULL COMMENT 'Kind of device, e.g. Android',
  PRIMARY KEY (device_key),
  UNIQUE (device_type)
) COMMENT = 'Kinds of devices. Grain: one row per device_type';
