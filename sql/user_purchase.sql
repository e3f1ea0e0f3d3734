-- Grain: one row per invoice line and its occurrence number within the file that delivered it.
-- Exact repeats inside a file are rows. A file loaded twice, under whatever name, adds none.
-- A corrected file under the same name replaces its lines, under another it adds what differs.
CREATE TABLE user_purchase (
  purchase_line_id UUID NOT NULL COMMENT 'UUID version 8: invoice date in ms, then a hash of the line',
  invoice_number VARCHAR(20) NOT NULL COMMENT 'Invoice; a cancellation begins with C',
  stock_code VARCHAR(20) NOT NULL COMMENT 'Article',
  detail VARCHAR(1000) COMMENT 'Description of the article',
  quantity BIGINT NOT NULL COMMENT 'Pieces; negative for returns',
  unit_price DECIMAL(18, 4) NOT NULL COMMENT 'Price of one piece, in the currency of the shop',
  invoice_date TIMESTAMPTZ NOT NULL COMMENT 'When the invoice was written, UTC',
  customer_id VARCHAR(50) COMMENT 'Customer; null for a guest',
  country VARCHAR(100) COMMENT 'Country of the customer',
  is_guest BOOLEAN NOT NULL COMMENT 'Whether the customer is unknown',
  is_return BOOLEAN NOT NULL COMMENT 'Whether the quantity is negative',
  PRIMARY KEY (purchase_line_id)
) COMMENT = 'Invoice lines. Grain: one row per line and its occurrence in the file'
PARTITION BY DATE_TRUNC('MONTH', invoice_date)
CLUSTER BY (customer_id, stock_code);
