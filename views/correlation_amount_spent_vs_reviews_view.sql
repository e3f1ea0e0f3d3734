-- Grain: one row. Pearson's correlation over the customers who have both purchases and reviews; n counts
-- them.
SELECT
  COUNT(*) AS n,
  CORR(CAST(amount_spent AS DOUBLE), CAST(review_count AS DOUBLE)) AS correlation_amount_reviews,
  CORR(
    CAST(amount_spent AS DOUBLE), CAST(positive_review_count AS DOUBLE)
  ) AS correlation_amount_positive_reviews,
  COUNT(positive_review_share) AS n_judged,
  CORR(CAST(amount_spent AS DOUBLE), positive_review_share) AS correlation_amount_positive_share
FROM user_behaviour_metrics_view
WHERE purchase_line_count > 0 AND review_count > 0
