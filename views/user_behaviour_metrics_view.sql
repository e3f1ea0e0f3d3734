-- Grain: one row per customer with purchases, reviews or both. Either side is summed up before they meet:
-- joined row by row, 28 purchases and 35 reviews would count every amount 35 times.
SELECT
  COALESCE(purchases.customer_id, reviews.customer_id) AS customer_id,
  COALESCE(purchases.amount_spent, 0) AS amount_spent,
  COALESCE(purchases.invoice_count, 0) AS invoice_count,
  COALESCE(purchases.line_count, 0) AS purchase_line_count,
  COALESCE(reviews.review_count, 0) AS review_count,
  COALESCE(reviews.judged_review_count, 0) AS judged_review_count,
  COALESCE(reviews.positive_review_count, 0) AS positive_review_count,
  reviews.positive_review_share,
  reviews.mean_sentiment_probability
FROM (
  SELECT
    customer_id,
    SUM(quantity * unit_price) AS amount_spent,
    COUNT(DISTINCT invoice_number) AS invoice_count,
    COUNT(*) AS line_count
  FROM user_purchase
  WHERE customer_id IS NOT NULL
  GROUP BY customer_id
) AS purchases
FULL OUTER JOIN (
  SELECT
    customer_id,
    COUNT(*) AS review_count,
    COUNT(positive_review) AS judged_review_count,
    COUNT_IF(positive_review) AS positive_review_count,
    -- Of the reviews that could be judged; null when none could.
    CAST(COUNT_IF(positive_review) AS DOUBLE) / NULLIF(COUNT(positive_review), 0) AS positive_review_share,
    AVG(sentiment_probability) AS mean_sentiment_probability
  FROM movie_review
  GROUP BY customer_id
) AS reviews ON reviews.customer_id = purchases.customer_id
