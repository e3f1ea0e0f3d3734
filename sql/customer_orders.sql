-- Grain: one row per order. One whose customer is not known is a row as well, with is_customer_known false.
CREATE TABLE customer_orders (
  order_id VARCHAR(50) NOT NULL COMMENT 'Order, as the source names it',
  customer_id VARCHAR(50) COMMENT 'Customer as the order names them; null when it names none',
  is_customer_known BOOLEAN NOT NULL COMMENT 'Whether that customer was delivered',
  product VARCHAR(200) NOT NULL COMMENT 'What was ordered',
  quantity BIGINT NOT NULL COMMENT 'Pieces, from 1 on',
  price DECIMAL(18, 4) NOT NULL COMMENT 'Price of one piece',
  total_amount DECIMAL(18, 4) NOT NULL COMMENT 'quantity times price',
  order_size VARCHAR(10) NOT NULL COMMENT 'By total_amount: Small below 100, Medium below 500, Large',
  order_date DATE NOT NULL COMMENT 'Day of the order, UTC',
  order_year BIGINT NOT NULL COMMENT 'Year of order_date',
  order_month BIGINT NOT NULL COMMENT 'Month of order_date, 1 to 12',
  customer_name VARCHAR(200) COMMENT 'Name; null when the customer is not known, as all below (personal)',
  email VARCHAR(254) COMMENT 'E-mail address, in lower case (personal)',
  age BIGINT COMMENT 'Age in years',
  age_group VARCHAR(10) COMMENT 'under 18, 18-24, 25-34, 35-44, 45-54, 55-64, 65+ or unknown',
  city VARCHAR(100) COMMENT 'City',
  registration_date DATE COMMENT 'Since when a customer',
  customer_segment VARCHAR(10) COMMENT 'Premium, Standard or Basic: as delivered, else by amount and orders',
  is_segment_given BOOLEAN COMMENT 'Whether the segment was delivered',
  PRIMARY KEY (order_id)
) COMMENT = 'Orders and who made them. Grain: one row per order';
