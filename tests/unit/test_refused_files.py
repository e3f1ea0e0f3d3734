"""Which files are refused, and what the ledger keeps of one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import BotoCoreError, ConnectTimeoutError, ReadTimeoutError

from jobs.causes import root_cause
from jobs.erase_person import _persons_files
from jobs.erasure.person import Person
from jobs.erasure.traces import Search
from jobs.feeds.mapping import declared_sources
from jobs.feeds.reviews import REVIEWS
from jobs.lake.objects import RawFile
from jobs.lake.raw import first_bytes
from jobs.lake.staging import _entries
from jobs.warehouse.declarations import tables


def test_a_long_message_fits_the_column_that_it_is_published_to() -> None:
    file = RawFile("raw/reviews/wide.csv", 70_000, datetime(2024, 5, 1, tzinfo=UTC), "v1")
    refused, names = {file: "missing column: " + "x" * 70_000}, {file: declared_sources(REVIEWS)}
    [entry] = _entries(Mock(run_id="r"), REVIEWS, 1, {}, {}, [], refused, names)
    [error] = [column for column in tables()["etl_files"].columns if column.name == "error"]
    assert entry.error is not None
    assert entry.error.startswith("missing column: xxx")
    assert len(entry.error) == int(error.type.expressions[0].name)


def test_a_java_error_without_a_message_is_told_by_its_kind() -> None:
    cause = Mock(**{"getMessage.return_value": None, "getCause.return_value": None})
    cause.getClass.return_value.getSimpleName.return_value = "StackOverflowError"
    outer = Mock(**{"getMessage.return_value": "Job aborted", "getCause.return_value": cause})
    error = RuntimeError("a failed call")
    error.java_exception = outer  # type: ignore[attr-defined]
    assert root_cause(error) == "StackOverflowError"


@pytest.mark.parametrize("silence", [ConnectTimeoutError, ReadTimeoutError])
def test_a_store_that_does_not_answer_in_time_is_no_broken_file(silence: Any) -> None:
    """Both are OSErrors, too: the file was refused with exit code 3, and `erase` passed over it."""
    assert issubclass(silence, OSError)
    file = RawFile("raw/reviews/day.csv", 9, datetime(2024, 5, 1, tzinfo=UTC), "v1")
    store = Mock(list=lambda prefix: [file], open=Mock(side_effect=silence(endpoint_url="http://store")))
    run, search = Mock(store=store), Search(Person(("ann@x.org",)), {})
    for look in (
        lambda: first_bytes(store, file),
        lambda: _persons_files(run, search, REVIEWS),
        lambda: search._in_file(run, file.path),
    ):
        with pytest.raises(BotoCoreError):
            look()
