-- Grain: one row per segment, that with most revenue first; 'unknown': orders without a known customer.
SELECT
  customer_segment,
  customer_count,
  order_count,
  revenue,
  CAST(revenue AS DOUBLE) / order_count AS average_order_value,
  CAST(revenue AS DOUBLE) / CAST(SUM(revenue) OVER () AS DOUBLE) AS revenue_share
FROM (
  SELECT
    COALESCE(customer_segment, 'unknown') AS customer_segment,
    COUNT(DISTINCT customer_id) AS customer_count,
    COUNT(*) AS order_count,
    SUM(total_amount) AS revenue
  FROM customer_orders
  GROUP BY COALESCE(customer_segment, 'unknown')
) AS segments
ORDER BY revenue DESC, customer_segment ASC
