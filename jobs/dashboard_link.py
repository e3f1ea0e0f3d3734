"""Say how to open each view in Looker Studio: an address on BigQuery, the values to type in on PostgreSQL.

Grain:    one line per view.
Inputs:   WAREHOUSE_URL and WAREHOUSE_SCHEMA; the warehouse itself is not asked.
Outputs:  standard output. Addresses hold project, dataset and view, never a secret: who opens one needs access of
          their own.
Re-run:   safe at any time.
Example:  WAREHOUSE_URL=bigquery://project/dataset user-analytics dashboard-link
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit

from psycopg2.extensions import parse_dsn

from jobs.console import table
from jobs.context import job_main, parser
from jobs.errors import ConfigurationError
from jobs.settings import Settings, hosts_and_ports
from jobs.warehouse.declarations import views

# Looker Studio's Linking API: makes a report with the view as its data source.
CREATE = "https://lookerstudio.google.com/reporting/create"


def bigquery_link(project: str, dataset: str, view: str) -> str:
    """The address that opens a new report on a view in BigQuery."""
    source = {
        "connector": "bigQuery",
        "type": "TABLE",
        "projectId": project,
        "datasetId": dataset,
        "tableId": view,
        "datasourceName": view,
    }
    parameters = {"c.mode": "edit", "r.reportName": view, **{f"ds.ds0.{k}": v for k, v in source.items()}}
    return f"{CREATE}?{urlencode(parameters)}"


def dashboard_links(settings: Settings) -> str:
    """What to print for a warehouse. Raises ConfigurationError for one that runs only while a job does."""
    address = urlsplit(settings.warehouse_url)
    if address.scheme == "bigquery":
        project, dataset = address.netloc, address.path.strip("/")
        return "\n".join(f"{name}\n  {bigquery_link(project, dataset, name)}" for name in views())
    if address.scheme == "embedded":
        raise ConfigurationError(
            "the embedded warehouse runs only while a job does; publish to a PostgreSQL or BigQuery with WAREHOUSE_URL"
        )
    parts = parse_dsn(settings.warehouse_url)
    servers = hosts_and_ports(parts)
    values = [
        ("host name", " or ".join(host for host, _ in servers)),
        ("port", " or ".join(dict.fromkeys(port or "5432" for _, port in servers))),
        ("database", parts.get("dbname", "")),
        ("user name", parts.get("user", "")),
        ("password", "(yours)"),
    ]
    return "\n".join(
        [
            "In Looker Studio: Create → Data source → PostgreSQL, with",
            table(("field", "value"), values),
            f"and one of these views of the schema {settings.schema}",
            *(f"  {name}" for name in views()),
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the links; there are no arguments."""
    parser(__doc__, "dashboard-link").parse_args(argv)

    def body() -> None:
        print(dashboard_links(Settings.from_env()))

    return job_main(body)


if __name__ == "__main__":
    sys.exit(main())
