-- Grain: one row per customer with purchases; guests are left out. Returns count against the amount.
SELECT
  customer_id,
  SUM(quantity * unit_price) AS amount_spent,
  COUNT(DISTINCT invoice_number) AS invoice_count,
  COUNT(*) AS line_count,
  MIN(invoice_date) AS first_invoice_at,
  MAX(invoice_date) AS last_invoice_at
FROM user_purchase
WHERE customer_id IS NOT NULL
GROUP BY customer_id
