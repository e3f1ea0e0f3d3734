"""Columns that say something about one person are marked, as the fields that they come from are."""

from __future__ import annotations

from jobs.feeds import FEEDS
from jobs.origins import ORIGINS
from jobs.warehouse.declarations import tables

# Columns of marts that hold a personal field under another name, or are computed from one.
OTHER_NAMES = {
    "customer_orders": {"customer_name"},
    "users": {"id", "latitude", "longitude", "region", "city", "isp_name"},
    "users_history": {"user_id"},
}


def test_the_columns_of_personal_fields_are_marked() -> None:
    wanted = {}
    for origin in ORIGINS:
        fields = {field.name for name in origin.feeds for field in FEEDS[name].fields if field.personal}
        for name in origin.all_tables:
            columns = fields & set(tables()[name].column_names) | OTHER_NAMES.get(name, set())
            if columns:
                wanted[name] = columns
    marked = {
        name: {column.name for column in table.columns if column.personal} for name, table in tables().items()
    }
    assert {name: columns for name, columns in marked.items() if columns} == wanted
    assert wanted["events"] == {"email"}
