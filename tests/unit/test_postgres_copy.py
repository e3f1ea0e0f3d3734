"""What the copy to PostgreSQL makes of a table's declaration."""

from __future__ import annotations

from jobs.warehouse.declarations import tables
from jobs.warehouse.postgres_copy import NO_LIMIT_OF_BYTES, batch_settings


def test_the_widest_value_of_each_type() -> None:
    widths = {
        f"{table}.{column.name}": column.max_bytes
        for table in ("user_purchase", "movie_review")
        for column in tables()[table].columns
    }
    assert widths["user_purchase.purchase_line_id"] == 36
    assert widths["user_purchase.detail"] == 4 * 1000
    assert widths["user_purchase.quantity"] == 16
    assert widths["user_purchase.unit_price"] == 16
    assert widths["user_purchase.is_guest"] == 16
    assert widths["movie_review.top_terms"] is None


def test_only_batches_of_tables_without_long_texts_have_no_limit() -> None:
    assert batch_settings(tables()["fact_user_actions"]) == NO_LIMIT_OF_BYTES
    assert batch_settings(tables()["user_purchase"]) == NO_LIMIT_OF_BYTES
    assert batch_settings(tables()["movie_review"]) == {}
