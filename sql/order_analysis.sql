-- Grain: one row per breakdown and value; the breakdown 'all' has one row, with the value 'all'.
CREATE TABLE order_analysis (
  breakdown VARCHAR(20) NOT NULL COMMENT 'all, city, age_group or product',
  value VARCHAR(200) NOT NULL COMMENT 'City, age group or product; unknown where the customer is not known',
  revenue DECIMAL(28, 4) NOT NULL COMMENT 'Sum of total_amount',
  order_count BIGINT NOT NULL COMMENT 'Orders',
  average_order_value DECIMAL(18, 4) NOT NULL COMMENT 'revenue by order_count',
  customer_count BIGINT NOT NULL COMMENT 'Different customers that the orders name',
  unknown_customer_order_count BIGINT NOT NULL COMMENT 'Orders without a known customer',
  revenue_rank BIGINT NOT NULL COMMENT 'Rank by revenue within the breakdown; equal ones by value',
  PRIMARY KEY (breakdown, value)
) COMMENT = 'Orders by city, age group and product. Grain: one row per breakdown and value';
