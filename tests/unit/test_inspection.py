"""How a raw file is to be read is decided from its first bytes, or why it cannot be."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from jobs.console import configure_logging
from jobs.errors import ConfigurationError, FileRefused
from jobs.feeds import FEEDS
from jobs.feeds.detect import files_by_feed
from jobs.feeds.mapping import declared_sources, load_mapping
from jobs.lake.objects import LocalStore, RawFile
from jobs.lake.raw import PEEK_BYTES, InspectedFile, columns_by_field, inspect
from tests.records import (
    PURCHASE_HEADER,
    event,
    json_lines,
    purchase,
    purchases,
    reviews,
    unread_forms,
    user,
    users,
    zipped,
)

UNREAD = unread_forms(users(user()))


@pytest.fixture
def looked_at(tmp_path: Path):
    def look(feed: str, content: str | bytes, name: str = "file") -> InspectedFile:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        file = RawFile(name, (tmp_path / name).stat().st_size, datetime.now(UTC), "1")
        return inspect(LocalStore(tmp_path), FEEDS[feed], declared_sources(FEEDS[feed]), file)

    return look


@pytest.mark.parametrize(
    ("content", "layout"),
    [
        ("[]", "json_array"),
        ('\n  [ {"a": 1} ]', "json_array"),
        (b"\xef\xbb\xbf[{}]", "json_array"),
        (zipped("[{}]"), "json_array"),
        ('{"a": 1}\n', "json_lines"),
        ("garbage\n", "json_lines"),
    ],
)
def test_json_is_an_array_or_lines(looked_at, content: str | bytes, layout: str) -> None:
    name = "file.gz" if content[:1] == b"\x1f" else "file"
    assert looked_at("logs", content, name).layout == layout


@pytest.mark.parametrize(
    "content",
    [
        purchases(purchase()),
        "\r\n\r\n" + purchases(),
        purchases().replace(",", " , "),
        ",".join(f'"{name}"' for name in PURCHASE_HEADER),
        b"\xef\xbb\xbf" + purchases().encode(),
        purchases(purchase(Description="Café")).encode("latin-1"),
        b"\xef\xbb\xbf" + purchases(purchase(Description="Café")).encode("latin-1"),
        purchases(*[purchase(Description="é" * 100)] * 1000).encode()[: PEEK_BYTES + 1],
    ],
)
def test_a_header_is_found_whatever_stands_around_it(looked_at, content: str | bytes) -> None:
    assert looked_at("purchases", content).header == PURCHASE_HEADER


@pytest.mark.parametrize("rows", [1, 5000])
@pytest.mark.parametrize("header", ["utf-8", "latin-1"])
@pytest.mark.parametrize("records", ["utf-8", "latin-1"])
def test_names_are_what_the_header_says_whatever_bytes_follow(
    looked_at, header: str, records: str, rows: int
) -> None:
    names = f"{purchases().strip()},Größe"
    content = names.encode(header) + b"\n" + "1,größer\n".encode(records) * rows
    assert looked_at("purchases", content).header == (*PURCHASE_HEADER, "Größe")


def test_a_header_that_is_not_seen_whole_is_refused_and_names_no_column_wrong(looked_at) -> None:
    wide = ",".join(f"column_{i:05}" for i in range(10_000))
    for header in (f"{purchases().strip()},{wide}", f"{wide},{purchases().strip()}", f'"{purchases()}{wide}'):
        with pytest.raises(
            FileRefused, match=r"^a\.csv: the header is longer than 65,536 bytes, or has an open"
        ):
            looked_at("purchases", f"{header}\n", "a.csv")


def test_a_header_in_any_letter_case_and_order_with_unknown_columns(looked_at) -> None:
    header = "COUNTRY,unitprice,INVOICEDATE,Quantity,Color,stockcode,InvoiceNo"
    assert looked_at("purchases", header).header == tuple(header.split(","))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        (" \r\n\t\r\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        ("InvoiceNo,Quantity", "missing column: stock_code (as StockCode or stock_code); invoice_date"),
        ("InvoiceNo,invoiceno", "the header has 'InvoiceNo', 'invoiceno' more than once"),
        (
            ",".join((*PURCHASE_HEADER, "customer_id")),
            "'CustomerID' and 'customer_id' both stand for customer_id",
        ),
        (purchases().replace(",", "\t"), "missing column"),
        (zipped(purchases()), "its name must end in .gz"),
    ],
)
def test_a_csv_file_is_refused_with_the_reason(looked_at, content: str | bytes, message: str) -> None:
    with pytest.raises(FileRefused) as raised:
        looked_at("purchases", content, "may.csv")
    assert str(raised.value).startswith("may.csv: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("mapping", "header", "found"),
    [
        ({"order_number": "order_id"}, "order_id,ORDER_NUMBER", [1]),
        # Where a mapped name is not there, the declared ones hold as before; two of those are one too many.
        ({"order_number": "order_id"}, "x,order_id", [1]),
        ({"nr": "order_id", "order_number": "order_id"}, "order_id,order_number,nr", [2]),
        ({"nr": "order_id", "order_number": "order_id"}, "order_id,order_number", [1]),
        ({}, "cid,customer_id", [0, 1]),
        ({"customer_id": "customer_id"}, "cid,customer_id", [1]),
        ({"buyer": "customer_id"}, "cid,customer_id", [0, 1]),
        # Given away, a name leaves the others in their declared order.
        ({"user_id": "status"}, "id,source_id", [0, 1]),
    ],
)
def test_a_mapped_column_goes_before_declared_ones(
    tmp_path: Path, mapping: dict[str, str], header: str, found: list[int]
) -> None:
    (tmp_path / "mapping.json").write_text(json.dumps(mapping))
    field = {"o": "order_id", "x": "order_id", "c": "customer_id", "i": "source_id"}[header[0]]
    feed = FEEDS[{"order_id": "orders", "customer_id": "reviews", "source_id": "users"}[field]]
    names = load_mapping(feed, tmp_path / "mapping.json")
    assert columns_by_field(feed, names, header.split(","))[field] == found


@pytest.mark.parametrize("feed", ["users", "customers", "events"])
def test_a_refusal_quotes_no_record_that_stands_in_the_headers_place(looked_at, feed: str) -> None:
    with pytest.raises(FileRefused) as raised:
        looked_at(feed, "7,Zebulon,Quirk,zeb@quirk.example\n", "a.csv")
    assert str(raised.value).endswith("the header has 4 columns")
    assert not any(text in str(raised.value) for text in ("Zebulon", "Quirk", "quirk"))
    for header, message in (
        ("Zebulon,x,ZEBULON,email", "the header has an unknown name more than once"),
        ("Zebulon,x,Zebulon,email,Email", "the header has 'Email', 'email' more than once"),
    ):
        with pytest.raises(FileRefused) as raised:
            looked_at(feed, header, "b.csv")
        assert str(raised.value) == f"b.csv: {message}"


@pytest.mark.parametrize(("mark", "called"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("feed", ["users", "purchases"])
def test_another_separator_is_named(looked_at, feed: str, mark: str, called: str, quote: str) -> None:
    header = {"users": users(), "purchases": purchases()}[feed].strip().split(",")
    for name, written in (("a.csv", header), ("b.csv", [*header, "Colour (red, blue)"])):
        with pytest.raises(
            FileRefused, match=f"; {called} stand between its columns, deliver it with commas"
        ):
            looked_at(feed, "\ufeff" + mark.join(f"{quote}{name}{quote}" for name in written), name)


def test_compression_that_is_not_read_is_named(looked_at) -> None:
    for name in ("a.zip", "A.ZIP", "a.csv.bz2", "a.json.BZ2", "a.json.zst", "a.deflate", "a.tar"):
        with pytest.raises(FileRefused, match="compression is not read"):
            looked_at("logs", "x", name)


@pytest.mark.parametrize("feed", ["logs", "users"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (UNREAD["xlsx"], "the file is an Excel workbook or another ZIP archive; deliver its content as text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "the file is an old Excel workbook"),
        (UNREAD["parquet"], "the file is Parquet"),
        (UNREAD["bz2"], "the file is packed by bzip2"),
        (UNREAD["xz"], "the file is packed by xz"),
        (UNREAD["utf-16-le"], "the file is UTF-16; deliver it as UTF-8"),
        (UNREAD["utf-16-be"], "the file is UTF-16; deliver it as UTF-8"),
    ],
)
def test_what_is_no_text_is_named(looked_at, feed: str, content: bytes, message: str) -> None:
    for name, written in (("a.csv", content), ("a.csv.gz", gzip.compress(content))):
        with pytest.raises(FileRefused) as raised:
            looked_at(feed, written, name)
        assert str(raised.value).startswith(f"{name}: {message}")


def test_gzip_that_is_none_or_breaks_off_or_is_empty(looked_at) -> None:
    with pytest.raises(FileRefused, match="not a readable gzip file"):
        looked_at("logs", "[]", "a.gz")
    with pytest.raises(FileRefused, match="not a readable gzip file"):
        looked_at("logs", zipped(json_lines(event()))[:-10], "b.gz")
    with pytest.raises(FileRefused, match="empty"):
        looked_at("logs", "", "c.gz")
    with pytest.raises(FileRefused, match="empty"):
        looked_at("logs", zipped(""), "d.gz")


def answer(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    file = RawFile("gone.csv", 1, datetime.now(UTC), "1")
    with pytest.raises(FileRefused, match=r"gone\.csv: cannot be opened"):
        inspect(LocalStore(tmp_path), FEEDS["logs"], declared_sources(FEEDS["logs"]), file)


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (EndpointConnectionError(endpoint_url="http://store"), False),
        (answer(503, "SlowDown"), False),
        (answer(403, "AccessDenied"), True),
    ],
)
def test_a_store_that_does_not_answer_is_no_fault_of_the_file(
    tmp_path: Path, error: Exception, refused: bool
) -> None:
    class Failing(LocalStore):
        def open(self, path: str) -> IO[bytes]:
            raise error

    file = RawFile("a.csv", 1, datetime.now(UTC), "1")
    with pytest.raises(FileRefused if refused else type(error)):
        inspect(Failing(tmp_path), FEEDS["logs"], declared_sources(FEEDS["logs"]), file)


def test_a_files_id_is_the_same_everywhere(looked_at) -> None:
    assert looked_at("logs", "[]", "a.json").file_id == 6928120770101925050


# -- which feed a file belongs to --------------------------------------------------------------------------


def test_files_find_their_feed_by_folder_or_by_content(tmp_path: Path) -> None:
    for name in ("logs", "other-folder", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").write_text("[]")
    (tmp_path / "events.jsonl.gz").write_bytes(zipped(json_lines("garbage", event())))
    (tmp_path / "LATE.JSONL").write_text(json_lines(event()))
    (tmp_path / "array.json").write_text("\ufeff\n[\n" + json.dumps(event(user_id=None), indent=2) + ", 5]")
    (tmp_path / "mapping.json").write_text('{"actor.login": "user_id", "type": "action_type"}')
    (tmp_path / "README.json").write_text(json.dumps({"about": event()}))
    (tmp_path / "indented.jsonl").write_text(json.dumps(event(), indent=2))
    for name, text in {"nothing": "[]", "number": "5", "deep": "[" * 60_000, "text": "about"}.items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "shop.csv").write_text(purchases(purchase()))
    (tmp_path / "films.csv.gz").write_bytes(zipped(reviews(("1", "good"))))
    (tmp_path / "accounts.csv").write_text(users(user()))
    (tmp_path / "addresses.csv").write_text("email\nann@example.org\n")
    (tmp_path / "unknown.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "README.md").write_text("# about")
    (tmp_path / "_secret.csv").write_text(purchases(purchase()))

    found = files_by_feed(tmp_path)

    assert {feed: [path.name for path in paths] for feed, paths in found.items()} == {
        "logs": ["LATE.JSONL", "array.json", "events.jsonl.gz", "logs"],
        "purchases": ["shop.csv"],
        "reviews": ["films.csv.gz"],
        "users": ["accounts.csv"],
    }


def test_a_file_that_no_feed_reads_is_left_out_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide, empty, book, other = (
        tmp_path / name for name in ("wide.csv", "empty.csv", "book.xlsx", "other.csv")
    )
    wide.write_bytes(users(user()).encode("utf-16"))
    empty.write_bytes(b"")
    book.write_bytes(b"PK\x03\x04")
    other.write_text("a,b\n1,2\n")
    (tmp_path / "shop.csv").write_text(purchases(purchase()))
    configure_logging()
    assert files_by_feed(tmp_path).keys() == {"purchases"}
    assert [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()] == [
        f"upload: {book} fits no feed, left out: the file is an Excel workbook or another ZIP archive; deliver its "
        "content as text",
        f"upload: {empty} fits no feed, left out: the file is empty",
        f"upload: {other} fits no feed, left out",
        f"upload: {wide} fits no feed, left out: the file is UTF-16; deliver it as UTF-8",
    ]


def test_a_folder_without_anything_that_fits_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        files_by_feed(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file: not a folder"):
        files_by_feed(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="logs, purchases, reviews, users"):
        files_by_feed(tmp_path)
