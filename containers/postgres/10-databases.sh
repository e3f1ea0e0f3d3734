#!/usr/bin/env bash
# Run by the image on first use: a database and an owner for each of warehouse, Airflow and the source of purchases.
set -euo pipefail
database() { # NAME OWNER PASSWORD-VARIABLE
  psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --set name="$1" --set owner="$2" --set password="${!3}" <<'END'
CREATE ROLE :"owner" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"owner";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
END
}
database airflow airflow AIRFLOW_DATABASE_PASSWORD
database warehouse analytics WAREHOUSE_PASSWORD
database source retail SOURCE_PASSWORD
