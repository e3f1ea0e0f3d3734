-- Grain: one row per month with orders.
SELECT
  order_year,
  order_month,
  COUNT(*) AS order_count,
  COUNT(DISTINCT customer_id) AS customer_count,
  SUM(total_amount) AS revenue,
  COUNT_IF(NOT is_customer_known) AS unknown_customer_order_count
FROM customer_orders
GROUP BY order_year, order_month
ORDER BY order_year, order_month
