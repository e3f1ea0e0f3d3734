-- Grain: one row per reading of a version of a raw file, and per recount of one.
CREATE TABLE etl_files (
  feed VARCHAR(50) NOT NULL COMMENT 'Feed',
  path VARCHAR(1024) NOT NULL COMMENT 'File within the lake',
  batch BIGINT NOT NULL COMMENT 'Numbers the readings of the feed; the highest of a path is its state',
  version VARCHAR(200) NOT NULL COMMENT 'ETag, or size and modification time',
  size_bytes BIGINT NOT NULL COMMENT 'Size in bytes',
  modified_at TIMESTAMPTZ NOT NULL COMMENT 'Modification time of the file, UTC',
  status VARCHAR(20) NOT NULL COMMENT 'staged, refused, or forgotten by a reset',
  error VARCHAR(4000) COMMENT 'Why the file was refused',
  records_read BIGINT NOT NULL COMMENT 'Records = accepted + duplicates + rejected',
  accepted BIGINT NOT NULL COMMENT 'Records that staging took',
  duplicates BIGINT NOT NULL COMMENT 'Records whose key staging had, or another record of the batch',
  rejected BIGINT NOT NULL COMMENT 'Records in quarantine',
  run_id VARCHAR(32) NOT NULL COMMENT 'Run that read or recounted the file',
  staged_at TIMESTAMPTZ NOT NULL COMMENT 'When it was read or recounted, UTC',
  is_recount BOOLEAN COMMENT 'Not read: another file, a reset or an erasure changed its counts',
  PRIMARY KEY (feed, path, batch)
) COMMENT = 'Raw files read. Grain: one row per reading of a version of a raw file, and per recount of one';
