"""What `user-analytics dashboard-link` prints."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from jobs.cli import main
from jobs.dashboard_link import dashboard_links
from jobs.settings import Settings
from jobs.warehouse.declarations import views


def test_bigquery_gives_an_address_for_each_view() -> None:
    lines = dashboard_links(Settings("lake", "bigquery://my-project/my_dataset")).splitlines()
    assert lines[::2] == list(views())
    for view, address in zip(lines[::2], lines[1::2], strict=True):
        parts = urlsplit(address.strip())
        assert (
            f"{parts.scheme}://{parts.netloc}{parts.path}"
            == "https://lookerstudio.google.com/reporting/create"
        )
        assert parse_qs(parts.query) == {
            "c.mode": ["edit"],
            "r.reportName": [view],
            "ds.ds0.connector": ["bigQuery"],
            "ds.ds0.type": ["TABLE"],
            "ds.ds0.projectId": ["my-project"],
            "ds.ds0.datasetId": ["my_dataset"],
            "ds.ds0.tableId": [view],
            "ds.ds0.datasourceName": [view],
        }


def test_postgres_gives_the_values_to_type_in_without_the_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", "postgresql://reader:s3cr%2Fet@db.example.com:6543/warehouse")
    monkeypatch.setenv("WAREHOUSE_SCHEMA", "shop")
    assert main(["dashboard-link"]) == 0
    printed = capsys.readouterr().out
    for expected in ("db.example.com", "6543", "warehouse", "reader", "the schema shop", *views()):
        assert expected in printed
    assert "s3cr" not in printed


@pytest.mark.parametrize(
    ("address", "values"),
    [
        (
            "postgresql://a.example.com:6543,b.example.com/shop?user=reader",
            ("a.example.com or b.example.com", "6543 or 5432", "shop", "reader"),
        ),
        ("postgresql://me@[::1]/shop", ("::1", "5432", "shop", "me")),
    ],
)
def test_what_an_address_of_postgres_may_look_like(address: str, values: tuple[str, ...]) -> None:
    lines = dashboard_links(Settings("lake", address)).splitlines()[3:7]
    names = ("host name", "port", "database", "user name")
    assert [
        line.split(maxsplit=len(name.split()))[-1] for line, name in zip(lines, names, strict=True)
    ] == list(values)


def test_the_embedded_warehouse_cannot_be_opened_from_outside(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard-link"]) == 2
    assert "publish to a PostgreSQL or BigQuery with WAREHOUSE_URL" in capsys.readouterr().err
