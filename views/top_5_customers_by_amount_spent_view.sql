-- Grain: one row per rank. Customers with equal amounts are ranked by their id.
SELECT
  customer_rank,
  customer_id,
  amount_spent,
  invoice_count
FROM (
  SELECT
    customer_id,
    amount_spent,
    invoice_count,
    ROW_NUMBER() OVER (ORDER BY amount_spent DESC, customer_id ASC) AS customer_rank
  FROM customer_amount_spent_view
) AS ranked
WHERE customer_rank <= 5
ORDER BY customer_rank
