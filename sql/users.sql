-- Grain: one row per user: an e-mail address, whatever its letter case.
-- The state of the user's newest version; users_history has all of them.
CREATE TABLE users (
  id UUID NOT NULL COMMENT 'UUID version 8: a hash of the e-mail address (personal)',
  source_id VARCHAR(100) COMMENT 'Id in the source',
  first_name VARCHAR(100) COMMENT 'First name (personal)',
  last_name VARCHAR(100) COMMENT 'Last name (personal)',
  email VARCHAR(254) NOT NULL COMMENT 'E-mail address in lower case (personal)',
  gender VARCHAR(50) COMMENT 'As the source says (personal)',
  ip_address VARCHAR(100) COMMENT 'As the source says, an address or not (personal)',
  created_at TIMESTAMPTZ COMMENT 'When the account was made, UTC',
  updated_at TIMESTAMPTZ NOT NULL COMMENT 'Since when the row says what it says, UTC',
  password VARCHAR(300) COMMENT 'Hash: MD5, SHA-256, bcrypt or argon2 (personal)',
  status VARCHAR(50) COMMENT 'As the source says',
  latitude DOUBLE COMMENT 'Where the address is, degrees (personal)',
  longitude DOUBLE COMMENT 'Where the address is, degrees (personal)',
  country VARCHAR(200) COMMENT 'Country of the address',
  region VARCHAR(200) COMMENT 'Region of the address (personal)',
  city VARCHAR(200) COMMENT 'City of the address (personal)',
  timezone VARCHAR(200) COMMENT 'Time zone of the address, e.g. Europe/Oslo',
  isp_name VARCHAR(200) COMMENT 'Who provides the address (personal)',
  location_status VARCHAR(20)
    COMMENT 'located, not_found, or why it was not asked: invalid, private, loopback, …; null: not asked yet',
  updated BOOLEAN NOT NULL COMMENT 'Whether there was another version before',
  PRIMARY KEY (id),
  UNIQUE (email)
) COMMENT = 'Users as they are now. Grain: one row per e-mail address';
