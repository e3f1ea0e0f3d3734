-- Grain: one row per user and version (slowly changing dimension, type 2).
-- From the first valid_from on, at any instant one version is valid: valid_from <= instant < valid_to.
CREATE TABLE users_history (
  user_id UUID NOT NULL COMMENT 'User (personal)',
  version BIGINT NOT NULL COMMENT 'Position among the versions of the user, from 1',
  valid_from TIMESTAMPTZ NOT NULL COMMENT 'Since when the user was so, UTC',
  valid_to TIMESTAMPTZ COMMENT 'Until when, exclusive; null for the version that is valid now',
  is_current BOOLEAN NOT NULL COMMENT 'Whether it is valid now',
  source_id VARCHAR(100) COMMENT 'Id in the source',
  first_name VARCHAR(100) COMMENT 'First name (personal)',
  last_name VARCHAR(100) COMMENT 'Last name (personal)',
  email VARCHAR(254) NOT NULL COMMENT 'E-mail address in lower case (personal)',
  gender VARCHAR(50) COMMENT 'As the source says (personal)',
  ip_address VARCHAR(100) COMMENT 'As the source says, an address or not (personal)',
  created_at TIMESTAMPTZ COMMENT 'When the account was made, UTC',
  password VARCHAR(300) COMMENT 'Hash: MD5, SHA-256, bcrypt or argon2 (personal)',
  status VARCHAR(50) COMMENT 'As the source says',
  PRIMARY KEY (user_id, valid_from),
  FOREIGN KEY (user_id) REFERENCES users (id)
) COMMENT = 'What users were and since when. Grain: one row per user and version';
