-- Grain: one row. Pearson's correlation over the customers who have both purchases and reviews, null where
-- either side does not vary; n counts the customers.
SELECT
  COUNT(*) AS n,
  CASE
    WHEN COUNT(DISTINCT amount_spent) > 1 AND COUNT(DISTINCT review_count) > 1
      THEN CORR(CAST(amount_spent AS DOUBLE), CAST(review_count AS DOUBLE))
  END AS correlation_amount_reviews,
  CASE
    WHEN COUNT(DISTINCT amount_spent) > 1 AND COUNT(DISTINCT positive_review_count) > 1
      THEN CORR(CAST(amount_spent AS DOUBLE), CAST(positive_review_count AS DOUBLE))
  END AS correlation_amount_positive_reviews,
  COUNT(positive_review_share) AS n_judged,
  CASE
    WHEN
      COUNT(DISTINCT CASE WHEN positive_review_share IS NOT NULL THEN amount_spent END) > 1
      AND COUNT(DISTINCT positive_review_share) > 1
      THEN CORR(CAST(amount_spent AS DOUBLE), positive_review_share)
  END AS correlation_amount_positive_share
FROM user_behaviour_metrics_view
WHERE purchase_line_count > 0 AND review_count > 0
