-- Grain: one row per rank. Of equal numbers of positive reviews the greater share comes first, then the
-- lower customer id.
SELECT
  customer_rank,
  customer_id,
  positive_review_count,
  review_count,
  positive_review_share,
  amount_spent
FROM (
  SELECT
    customer_id,
    positive_review_count,
    review_count,
    positive_review_share,
    amount_spent,
    ROW_NUMBER() OVER (
      ORDER BY positive_review_count DESC, positive_review_share DESC NULLS LAST, customer_id ASC
    ) AS customer_rank
  FROM user_behaviour_metrics_view
  WHERE positive_review_count > 0
) AS ranked
WHERE customer_rank <= 5
ORDER BY customer_rank
