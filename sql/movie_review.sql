-- Grain: one row per review.
CREATE TABLE movie_review (
  review_id VARCHAR(50) NOT NULL COMMENT 'Review, as the source names it, or a hash of its content',
  customer_id VARCHAR(50) NOT NULL COMMENT 'Who wrote it',
  sentiment_probability DOUBLE NOT NULL
    COMMENT 'Calibrated probability that it is positive; the prior where the text cannot be judged',
  positive_review BOOLEAN COMMENT 'Whether that is 0.5 or more; null where the text cannot be judged',
  is_confident BOOLEAN NOT NULL COMMENT 'Whether the probability is at least 0.8 for either side',
  text_kind VARCHAR(20) NOT NULL COMMENT 'english (judged), empty, no_words or other_language (not judged)',
  top_terms ARRAY<STRUCT<term: STRING, weight: DOUBLE>> NOT NULL
    COMMENT 'The ten TF-IDF terms that moved the judgement most, each with what it adds to the log-odds',
  word_count BIGINT NOT NULL COMMENT 'Words',
  character_count BIGINT NOT NULL COMMENT 'Characters, without HTML',
  model_name VARCHAR(100) NOT NULL COMMENT 'Model that judged',
  model_version VARCHAR(50) NOT NULL COMMENT 'Version of it',
  scored_at TIMESTAMPTZ NOT NULL COMMENT 'When, UTC',
  PRIMARY KEY (review_id)
) COMMENT = 'Reviews and what the sentiment model says of them. Grain: one row per review';
