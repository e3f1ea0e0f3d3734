-- Grain: one row per event. Of several events delivered with one id the earliest keeps it; each other is a
-- clash, whose id is computed from its content: the same on every run, for every order of the files.
-- Not partitioned by time: an id may move to an event of another month.
CREATE TABLE events (
  id VARCHAR(100) NOT NULL COMMENT 'Id as delivered, or a UUID version 8 where another event has that id',
  timestamp TIMESTAMPTZ NOT NULL COMMENT 'When, UTC',
  email VARCHAR(254) NOT NULL COMMENT 'Who, in lower case (personal)',
  country VARCHAR(100) COMMENT 'Where',
  uri VARCHAR(2048) NOT NULL COMMENT 'What was looked at',
  action VARCHAR(100) NOT NULL COMMENT 'What was done',
  tags ARRAY<STRING> NOT NULL COMMENT 'Tags in lower case, each once',
  company VARCHAR(63) COMMENT 'Name in the registrable domain of the address; null for free mail providers',
  company_domain VARCHAR(253) COMMENT 'Registrable domain of the address; null for free mail providers',
  source_id VARCHAR(100) NOT NULL COMMENT 'Id as delivered',
  is_clash BOOLEAN NOT NULL COMMENT 'Whether another event has the delivered id',
  PRIMARY KEY (id)
) COMMENT = 'What users did on the web site. Grain: one row per event';
