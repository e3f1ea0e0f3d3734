"""Bad input ends in quarantine with its reasons or stops its file alone; what is good beside it is staged.

One lake per format with every kind of broken file in it, staged once; the tests look at what came of each file.
"""

from __future__ import annotations

import gzip
import json
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from jobs.errors import RejectedShareExceeded
from jobs.feeds.logs import LOGS
from jobs.feeds.mapping import load_mapping
from jobs.feeds.users import USERS
from tests.records import PURCHASE_HEADER, csv_text, event, json_lines, purchase, purchases, reviews, zipped
from tests.staging import RawZone, balanced

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("compiled")]
BOM = b"\xef\xbb\xbf"
HEADER = ",".join(PURCHASE_HEADER)
LONG = "5 MB " * 1024 * 1024


def array(*records: Any) -> str:
    return json.dumps(list(records), indent=1)


LOG_FILES: dict[str, str | bytes] = {
    "empty.json": "",
    "empty.jsonl.gz": zipped(""),
    "only-bom.json": BOM,
    "blank-lines.jsonl": "\n  \n",
    "no-rows.json": "[]",
    "cut-array.json": array(event("a"), event("b"))[:-20],
    "two-arrays.json": array(event("a")) + array(event("b")),
    "latin-1.json": array(event("m")).replace('"m"', '"mü"').encode("latin-1"),
    "not-gzip.json.gz": array(event("a")),
    "gzip.json": zipped(array(event("a"))),
    "other.jsonl.zst": b"\x28\xb5\x2f\xfd",
    "cut-head.jsonl.gz": zipped(json_lines(event("a"), event("b")))[:-12],
    "elements.json": '[null, 5, "x", [1], {}, ' + json.dumps(event("element")) + "]",
    "garbage.jsonl": json_lines(
        event("before garbage"),
        "Traceback (most recent call last):",
        '{"user_id": "u',
        "null",
        "5",
        '"text"',
        "[1]",
        "\0\0\0",
        event("after garbage"),
    ),
    "two-on-a-line.jsonl": json_lines(
        json.dumps(event("a")) + json.dumps(event("b")),
        json.dumps(event("c")) + "," + json.dumps(event("d")),
        json.dumps(event("e")) + "] " + json.dumps(event("f")),
        json.dumps(event("g")) + ",",
    ),
    "repeated-names.jsonl": json_lines(
        '{"user_id": "a", "user_id": "b", "timestamp": "2024-03-01T10:00:00", "action_type": "view"}',
        '{"user_id": "a", "timestamp": "2024-03-01T10:00:00", "action_type": "view", "x": 1, "x": 2}',
    ),
    "latin-1.jsonl": json_lines(event("m"), event("beside latin-1")).replace('"m"', '"mü"').encode("latin-1"),
    "bom.jsonl": BOM + json_lines(event("bom lines")).encode(),
    "bom.json": BOM + array(event("bom array")).encode(),
    "bom.json.gz": gzip.compress(BOM + array(event("bom gzip")).encode()),
    "required.jsonl": json_lines(
        event(None, timestamp="  ", action_type=""),
        {},
        event({"id": 5}, timestamp=["2024-03-01"], action_type={"a": 1}),
        event("x" * 101, action_type="a" * 101, device="d" * 51, location="l" * 101),
        event("nul\0", device="nul\0"),
        event("bad times", timestamp="2025-02-30T10:00:00"),
        event("bad times", timestamp=1_709_287_200_000),
        event("bad times", timestamp="2023-02-29T00:00:00Z"),
        event("bad device", device={"name": "Web"}),
        event("bad metadata", metadata="Web"),
        event("bad metadata", metadata=["Web"]),
    ),
    "unusual.jsonl": json_lines(
        event(5),
        event(17850.0),
        event("x" * 100, action_type="a" * 100, device="d" * 50, location="l" * 100),
        event("times", timestamp="2024-02-29T23:30:00.5+02:00"),
        event("times", timestamp="2024-02-29 23:30"),
        event("no metadata", metadata=None),
        event("no device", device=None, location="  "),
        event("ünï 日本 😀"),
        event("\N{LINE SEPARATOR}inside"),
        "  " + json.dumps(event("indented")) + "\t",
    ).replace("\n", "\r\n"),
    "unknown.jsonl": json_lines(
        event("unknown", app="5.0", nested={"a": [1]}, nothing=None),
        {**event("unknown inside", **{"metadata.os": "flat"}), "metadata": {"os": "14", "device": "x"}},
    ),
    "long.jsonl": json_lines(event("long", note=LONG), event(LONG), event("after long")),
    "folder.jsonl/inside": json_lines(event("in a folder")),
    "a b+c%20[x]{y}*?#&=ü.jsonl": json_lines(event("strange name")),
    "back\\slash.jsonl": json_lines(event("backslash")),
}

REFUSED_LOGS = {
    "empty.json": "the file is empty",
    "empty.jsonl.gz": "the file is empty",
    "only-bom.json": "the file is empty",
    "blank-lines.jsonl": "the file is empty",
    "cut-array.json": "not one complete JSON array",
    "two-arrays.json": "not one complete JSON array",
    "latin-1.json": "not UTF-8",
    "not-gzip.json.gz": "not a readable gzip file",
    "gzip.json": "its name must end in .gz",
    "other.jsonl.zst": "this compression is not read",
    "cut-head.jsonl.gz": "not a readable gzip file",
}


@pytest.fixture(scope="module")
def logs(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> RawZone:
    zone = RawZone(spark, str(tmp_path_factory.mktemp("lake of logs")), "logs")
    zone.put(LOG_FILES)
    zone.stage()
    return zone


@pytest.fixture(scope="module")
def log_rows(logs: RawZone) -> dict[str, tuple[Any, ...]]:
    """(timestamp, action, device, location, unknown fields) by user."""
    rows = logs.rows("user_id", "timestamp", "action_type", "device", "location", "_extra")
    return {
        f"{user} {at:%H:%M}" if user == "times" else user: rest for user, *rest in rows for at in rest[:1]
    }


def reasons_of(zone: RawZone, file: str) -> list[tuple[str, ...]]:
    return sorted(reasons for name, reasons, _ in zone.rejected() if name == file)


def test_a_file_that_cannot_be_read_is_refused_alone_and_named(logs: RawZone) -> None:
    refused = logs.refused()
    assert refused.keys() == REFUSED_LOGS.keys()
    for name, message in REFUSED_LOGS.items():
        assert f"raw/logs/{name}: " in refused[name]
        assert message in refused[name]


def test_every_record_of_every_file_is_accounted_for(logs: RawZone) -> None:
    ledger = logs.ledger()
    assert ledger.keys() == LOG_FILES.keys()
    assert all(map(balanced, ledger.values()))
    assert {name: c for name, c in logs.counts().items() if c != (1, 1, 0, 0)} == {
        "no-rows.json": (0, 0, 0, 0),
        "elements.json": (6, 1, 0, 5),
        "garbage.jsonl": (9, 2, 0, 7),
        "two-on-a-line.jsonl": (4, 0, 0, 4),
        "repeated-names.jsonl": (2, 0, 0, 2),
        "latin-1.jsonl": (2, 1, 0, 1),
        "required.jsonl": (11, 0, 0, 11),
        "unusual.jsonl": (10, 10, 0, 0),
        "unknown.jsonl": (2, 2, 0, 0),
        "long.jsonl": (3, 2, 0, 1),
    }
    assert len(logs.rows("user_id")) == sum(entry.accepted for entry in ledger.values())
    assert len(logs.rejected()) == sum(entry.rejected for entry in ledger.values())


def test_a_record_is_rejected_with_all_its_reasons(logs: RawZone) -> None:
    assert reasons_of(logs, "required.jsonl") == sorted(
        [
            ("user_id_missing", "timestamp_missing", "action_type_missing"),
            ("user_id_missing", "timestamp_missing", "action_type_missing"),
            ("user_id_invalid", "timestamp_invalid", "action_type_invalid"),
            ("user_id_too_long", "action_type_too_long", "device_too_long", "location_too_long"),
            ("user_id_has_nul", "device_has_nul"),
            ("timestamp_invalid",),
            ("timestamp_invalid",),
            ("timestamp_invalid",),
            ("device_invalid",),
            ("metadata_not_an_object",),
            ("metadata_not_an_object",),
        ]
    )
    assert reasons_of(logs, "garbage.jsonl") == [("malformed_json",)] * 7
    assert reasons_of(logs, "two-on-a-line.jsonl") == [("malformed_json",)] * 4
    assert reasons_of(logs, "repeated-names.jsonl") == [("repeated_name",)] * 2
    assert reasons_of(logs, "latin-1.jsonl") == [("invalid_utf8",)]
    assert reasons_of(logs, "long.jsonl") == [("user_id_too_long",)]


def test_a_rejected_record_is_kept_whole_as_it_came(logs: RawZone) -> None:
    kept = {(name, record) for name, _, record in logs.rejected()}
    for name in ("garbage.jsonl", "two-on-a-line.jsonl", "repeated-names.jsonl", "required.jsonl"):
        lines = set(str(LOG_FILES[name]).splitlines())
        assert {record for file, record in kept if file == name} == lines - {
            json.dumps(event("before garbage")),
            json.dumps(event("after garbage")),
        }
    assert {record for file, record in kept if file == "elements.json"} == {"null", "5", '"x"', "[1]", "{}"}
    assert ("long.jsonl", json.dumps(event(LONG))) in kept


def test_good_records_beside_broken_ones_and_in_strange_files_are_staged(log_rows: dict[str, Any]) -> None:
    expected = """before garbage, after garbage, element, beside latin-1, bom lines, bom array, bom gzip,
        in a folder, strange name, backslash, indented, after long, long"""
    assert {name.strip() for name in expected.split(",")} <= log_rows.keys()


def test_unusual_values_are_read_as_what_they_mean(log_rows: dict[str, Any]) -> None:
    usual = [datetime(2024, 3, 1, 10), "view", "x", "x", None]  # noqa: DTZ001
    assert log_rows["5"] == log_rows["17850"] == log_rows["ünï 日本 😀"] == usual
    assert log_rows["\N{LINE SEPARATOR}inside"] == usual
    assert log_rows["x" * 100][1:4] == ["a" * 100, "d" * 50, "l" * 100]
    assert log_rows["times 21:30"][0] == datetime(2024, 2, 29, 21, 30, 0, 500000)  # noqa: DTZ001
    assert log_rows["times 23:30"][0] == datetime(2024, 2, 29, 23, 30)  # noqa: DTZ001
    assert log_rows["no metadata"][2:4] == log_rows["no device"][2:4] == [None, None]


def test_unknown_fields_are_kept_and_named(logs: RawZone, log_rows: dict[str, Any]) -> None:
    assert json.loads(log_rows["unknown"][-1]) == {"app": "5.0", "nested": '{"a":[1]}', "nothing": None}
    pairs = json.loads(log_rows["unknown inside"][-1], object_pairs_hook=list)
    assert sorted(pairs) == [("metadata.os", "14"), ("metadata.os", "flat")]
    assert logs.ledger()["unknown.jsonl"].unknown_columns == ["app", "metadata.os", "nested", "nothing"]
    assert len(log_rows["long"][-1]) > len(LONG)


def test_a_second_run_tries_refused_files_again_and_changes_nothing(logs: RawZone) -> None:
    rows, rejected, ledger = logs.rows(), logs.rejected(), logs.ledger()
    result = logs.stage()
    assert {entry.path.removeprefix("raw/logs/") for entry in result.entries} == REFUSED_LOGS.keys()
    assert (logs.rows(), logs.rejected(), logs.ledger()) == (rows, rejected, ledger)


# -- CSV -------------------------------------------------------------------------------------------------


PURCHASE_FILES: dict[str, str | bytes] = {
    "empty.csv": "",
    "no-rows.csv": HEADER + "\r\n",
    "no-rows-no-line-end.csv": HEADER,
    "no-header.csv": csv_text([purchase()]).split("\r\n", 1)[1],
    "wrong-header.csv": "cid,review_str\r\n1,good\r\n",
    "missing-column.csv": csv_text([{"InvoiceNo": "1"}], ["InvoiceNo"]),
    "blanks-before-header.csv": " \n" + purchases(purchase()),
    "semicolons.csv": HEADER.replace(",", ";") + "\r\n",
    "repeated-column.csv": HEADER + ",Country\r\n",
    "repeated-in-capitals.csv": HEADER + ",COUNTRY\r\n",
    "two-names-of-a-field.csv": HEADER + ",invoice_number\r\n",
    "utf-16.csv": purchases(purchase()).encode("utf-16"),
    "utf-16-without-mark.csv": purchases(purchase()).encode("utf-16-le"),
    "empty-lines-first.csv": "\r\n\r\n" + purchases(purchase(InvoiceNo="empty lines")),
    "bom.csv": BOM + purchases(purchase(InvoiceNo="bom", Description="Café £ 日本")).encode(),
    "quoted-bom.csv": BOM + b'"InvoiceNo"' + purchases(purchase(InvoiceNo="quoted bom"))[9:].encode(),
    "latin-1.csv": purchases(purchase(Description="Café"), purchase(InvoiceNo="beside latin-1")).encode(
        "latin-1"
    ),
    "quotes.csv": purchases(purchase(InvoiceNo="quotes", Description='say "hi", you\ntwo lines')),
    "loose-quote.csv": HEADER + '\nloose quote,s,6" nail,6,12/1/2010 8:26,2.55,1,UK\n',
    "open-quote.csv": f'{HEADER}\na,s,"open,6,12/1/2010 8:26,2.55,1,UK\nb,s,d,6,12/1/2010 8:26,2.55,1,UK\n',
    "open-then-closed.csv": f'{HEADER}\na,s,"open,6,12/1/2010 8:26,2.55,1,UK\nb,s,"d",6,12/1/2010 8:26,2.55,1,UK\n'
    "after the quote,s,d,6,12/1/2010 8:26,2.55,1,UK\n",
    "open-at-the-end.csv": f'{HEADER}\na,s,d,6,12/1/2010 8:26,2.55,1,"UK\nb,s,d,6,12/1/2010 8:26,2.55,1,UK\n',
    "columns.csv": f"{HEADER}\r\ntoo,few\r\ntoo,s,d,6,12/1/2010 8:26,2.55,1,UK,many\r\n\r\n,,,,,,,\r\n",
    "nul.csv": purchases(purchase(InvoiceNo="n\0l"), purchase(InvoiceNo="beside nul")),
    "line-ends-cr.csv": purchases(purchase(InvoiceNo="cr")).replace("\r\n", "\r"),
    "line-ends-mixed.csv": purchases(purchase(InvoiceNo="mixed"), purchase(InvoiceNo="mixed"))
    .replace("\r\n", "\n", 1)
    .replace("United Kingdom", '"United Kingdom"'),
    "values.csv": purchases(
        purchase(Quantity="NaN", UnitPrice="free", InvoiceDate="2/30/2011 8:00"),
        purchase(Quantity="6.5"),
        purchase(UnitPrice="1.00001"),
        purchase(InvoiceDate="1291191960000"),
        purchase(InvoiceNo="", StockCode=" ", Quantity="", InvoiceDate="", UnitPrice=""),
        purchase(Description="D" * 1001, Country="C" * 101),
        purchase(CustomerID="[1]"),
    ),
    "unusual.csv": purchases(
        purchase(InvoiceNo="numbers", Quantity="1e3", UnitPrice="1e-2", CustomerID="17850.0"),
        purchase(InvoiceNo="return", Quantity="-6.0", UnitPrice="-11062.06", CustomerID=""),
        purchase(InvoiceNo="leap day", InvoiceDate="2/29/2012 0:00", Description=""),
        purchase(InvoiceNo="offset", InvoiceDate="2011-03-01T01:00:00+0200"),
    ),
    "other-header.csv": "country,invoice_number,stock_code,detail,quantity,invoice_date,unit_price,customer_id\n"
    "France,other header,S1,LAMP,2,2011-01-02T03:04:05,1.5,12680\n",
    "unknown.csv": csv_text(
        [
            {**purchase(InvoiceNo="web"), "Channel": "web", "": "z"},
            {**purchase(InvoiceNo="blank"), "Channel": ""},
        ],
        [*PURCHASE_HEADER, "Channel", ""],
    ),
}
REFUSED_PURCHASES = {
    "empty.csv": "the file is empty",
    "no-header.csv": "missing column: invoice_number (as InvoiceNo or invoice_number)",
    "wrong-header.csv": "the header is cid, review_str",
    "missing-column.csv": "missing column: stock_code (as StockCode or stock_code); quantity",
    "blanks-before-header.csv": "missing column",
    "semicolons.csv": "the header is InvoiceNo;StockCode",
    "repeated-column.csv": "'Country' more than once",
    "repeated-in-capitals.csv": "'COUNTRY', 'Country' more than once",
    "two-names-of-a-field.csv": "the columns 'InvoiceNo' and 'invoice_number' both stand for invoice_number",
    "utf-16.csv": "the file is UTF-16; deliver it as UTF-8",
    "utf-16-without-mark.csv": "the file is UTF-16; deliver it as UTF-8",
}


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> RawZone:
    zone = RawZone(spark, str(tmp_path_factory.mktemp("shop")), "purchases")
    zone.put(PURCHASE_FILES)
    zone.stage()
    return zone


@pytest.fixture(scope="module")
def lines(shop: RawZone) -> dict[str, dict[str, Any]]:
    """Staged rows by invoice number."""
    return {row.invoice_number: row.asDict() for row in shop.staging().collect()}


def test_a_csv_file_that_cannot_be_read_is_refused_alone_and_named(shop: RawZone) -> None:
    refused = shop.refused()
    assert refused.keys() == REFUSED_PURCHASES.keys()
    for name, message in REFUSED_PURCHASES.items():
        assert f"raw/purchases/{name}: " in refused[name]
        assert message in refused[name]


def test_every_csv_record_is_accounted_for(shop: RawZone) -> None:
    assert all(map(balanced, shop.ledger().values()))
    assert {name: c for name, c in shop.counts().items() if c != (1, 1, 0, 0)} == {
        "no-rows.csv": (0, 0, 0, 0),
        "no-rows-no-line-end.csv": (0, 0, 0, 0),
        "latin-1.csv": (2, 1, 0, 1),
        "open-quote.csv": (1, 0, 0, 1),
        "open-then-closed.csv": (2, 1, 0, 1),
        "open-at-the-end.csv": (1, 0, 0, 1),
        "columns.csv": (3, 0, 0, 3),
        "nul.csv": (2, 1, 0, 1),
        "line-ends-mixed.csv": (2, 2, 0, 0),
        "values.csv": (7, 0, 0, 7),
        "unusual.csv": (4, 4, 0, 0),
        "unknown.csv": (2, 2, 0, 0),
    }


def test_csv_records_are_rejected_with_all_their_reasons(shop: RawZone) -> None:
    missing = ("invoice_number", "stock_code", "quantity", "invoice_date", "unit_price")
    all_missing = tuple(f"{name}_missing" for name in missing)
    assert reasons_of(shop, "values.csv") == sorted(
        [
            ("quantity_invalid", "invoice_date_invalid", "unit_price_invalid"),
            ("quantity_invalid",),
            ("unit_price_invalid",),
            ("invoice_date_invalid",),
            all_missing,
            ("detail_too_long", "country_too_long"),
            ("customer_id_invalid",),
        ]
    )
    assert reasons_of(shop, "columns.csv") == [all_missing] + [("wrong_number_of_columns",)] * 2
    assert reasons_of(shop, "latin-1.csv") == [("invalid_utf8",)]
    assert reasons_of(shop, "nul.csv") == [("invoice_number_has_nul",)]


def test_lines_swallowed_by_an_open_quote_are_never_accepted_as_a_value(shop: RawZone) -> None:
    assert reasons_of(shop, "open-quote.csv") == [("unclosed_quote",)]
    assert reasons_of(shop, "open-then-closed.csv") == [("unclosed_quote",)]
    assert reasons_of(shop, "open-at-the-end.csv") == [("country_invalid",)]
    for name, _, record in shop.rejected():
        if name.startswith("open-"):
            assert "b,s," in record, "the swallowed line is kept, too"


def test_a_rejected_csv_record_is_kept_as_json_of_its_columns_or_as_its_line(shop: RawZone) -> None:
    records = [record for name, _, record in shop.rejected() if name in ("values.csv", "columns.csv")]
    assert json.dumps(purchase(Quantity="6.5"), separators=(",", ":")) in records
    assert "too,few" in records
    assert "too,s,d,6,12/1/2010 8:26,2.55,1,UK,many" in records


def test_good_csv_records_are_staged(lines: dict[str, dict[str, Any]]) -> None:
    names = """empty lines, bom, quoted bom, beside latin-1, quotes, loose quote, after the quote, beside nul, cr,
        mixed, numbers, return, leap day, offset, other header, web, blank"""
    assert lines.keys() == {name.strip() for name in names.split(",")}
    assert lines["bom"]["detail"] == "Café £ 日本"
    assert lines["quotes"]["detail"] == 'say "hi", you\ntwo lines'
    assert lines["loose quote"]["detail"] == '6" nail'
    assert lines["mixed"]["country"] == lines["cr"]["country"] == "United Kingdom"


def test_unusual_csv_values_are_read_as_what_they_mean(lines: dict[str, dict[str, Any]]) -> None:
    def values(invoice: str, *names: str) -> list[str]:
        return [str(lines[invoice][name]) for name in names]

    assert values("numbers", "quantity", "unit_price", "customer_id") == ["1000", "0.0100", "17850"]
    assert values("return", "quantity", "unit_price", "customer_id") == ["-6", "-11062.0600", "None"]
    assert values("leap day", "invoice_date", "detail") == ["2012-02-29 00:00:00", "None"]
    assert values("offset", "invoice_date") == ["2011-02-28 23:00:00"]
    assert values("other header", "country", "stock_code", "detail") == ["France", "S1", "LAMP"]
    assert values("other header", "quantity", "invoice_date") == ["2", "2011-01-02 03:04:05"]


def test_unknown_csv_columns_are_kept_and_named(shop: RawZone, lines: dict[str, dict[str, Any]]) -> None:
    assert lines["web"]["_extra"] == '{"Channel":"web","":"z"}'
    assert lines["blank"]["_extra"] is None
    assert shop.ledger()["unknown.csv"].unknown_columns == ["", "Channel"]


def test_hundreds_of_columns_are_read_as_a_few_are(spark: SparkSession, tmp_lake: str) -> None:
    zone = RawZone(spark, tmp_lake, "reviews")
    others = [f"x{i}" for i in range(600)]
    record = ",".join(others)
    head = ",".join(["cid", "review_str", *others])
    # One with a broken letter, the rest of which the next cell begins with, and one with an open quote.
    lines = [f"1,good,{record}", f"2,good,{record}", f'3,good,"{record}', f"4,good,{record}"]
    content = "\n".join([head, *lines]).encode().replace(b"2,good,x0,x1", b"2,good,\xc3,\xa4")
    zone.put({"wide.csv": content})
    zone.stage()
    assert zone.counts() == {"wide.csv": (3, 1, 0, 2)}
    assert zone.reasons() == {"invalid_utf8": 1, "unclosed_quote": 1}
    assert zone.ledger()["wide.csv"].unknown_columns == sorted(others)


def test_records_may_end_otherwise_than_the_header_above_them(spark: SparkSession, tmp_lake: str) -> None:
    zone = RawZone(spark, tmp_lake, "reviews")
    head, lines = "cid,review_str", ["1,a", '2,"b\n""c"""', "", '3,"d"', "4,e"]
    zone.put(
        {
            "other.csv": f"{head}\r\n" + "\n".join(lines),
            "bom.csv": BOM + f"{head}\r\n\n".encode() + "\n".join(lines).encode() + b"\n",
            # What is in quotes says nothing of the lines' ends.
            "as ever.csv": f"{head}\r\n" + "\r\n".join([lines[1], lines[0], *lines[2:]]) + "\r\n",
        }
    )
    zone.stage()
    assert zone.reasons() == {}
    assert {sum(counts[1:]) == counts[0] == 4 for counts in zone.counts().values()} == {True}
    assert zone.rows("customer_id", "review") == [("1", "a"), ("2", 'b\n"c"'), ("3", "d"), ("4", "e")]


def test_reviews_keep_their_text_and_are_told_apart_by_id_or_content(
    spark: SparkSession, tmp_lake: str
) -> None:
    zone = RawZone(spark, tmp_lake, "reviews")
    text = 'One, two<br />"three"\n[four]'
    zone.put(
        {
            "with-ids.csv": reviews(("1", text, "r1"), ("1", text, "r2"), ("1", text, "r1"), ("2", "", "r3")),
            "without.csv": reviews(("1", "same"), ("1", "same"), ("2", "same"), ("3", "x" * 100_001)),
        }
    )
    zone.stage()
    assert zone.counts() == {"with-ids.csv": (4, 2, 1, 1), "without.csv": (4, 2, 1, 1)}
    assert zone.reasons() == {"review_missing": 1, "review_too_long": 1}
    assert zone.rows("customer_id", "review") == [("1", text), ("1", text), ("1", "same"), ("2", "same")]


# What does not compress well, so that a file of it reaches beyond its first bytes.
NOISE = [str(pow(7, n + 1000, 2**255)) for n in range(2500)]


@pytest.mark.parametrize(
    ("feed", "name", "text", "good"),
    [
        ("logs", "cut.jsonl", json_lines(*(event(session=noise) for noise in NOISE)), json_lines(event())),
        ("logs", "cut.json", array(*(event(session=noise) for noise in NOISE)), array(event())),
        (
            "purchases",
            "cut.csv",
            purchases(*(purchase(Description=noise) for noise in NOISE)),
            purchases(purchase()),
        ),
    ],
)
def test_a_gzip_that_breaks_off_behind_its_beginning_is_refused_alone(
    spark: SparkSession, tmp_lake: str, feed: str, name: str, text: str, good: str
) -> None:
    zone = RawZone(spark, tmp_lake, feed)
    zone.put({f"{name}.gz": zipped(text)[:-2000], f"good {name}": good})
    zone.stage()
    refused = zone.refused()
    assert refused.keys() == {f"{name}.gz"}
    assert refused[f"{name}.gz"].startswith(
        f"raw/{feed}/{name}.gz: cannot be read to its end: Unexpected end"
    )
    assert zone.counts() == {f"good {name}": (1, 1, 0, 0)}


def test_a_record_is_the_same_in_an_array_and_on_a_line(spark: SparkSession, tmp_lake: str) -> None:
    same = [
        '{"user_id": 12345678.0, "timestamp": "2024-03-01T10:00:00", "action_type": "view", "price": 1.10}',
        '{"user_id": 1e3, "timestamp": "2024-03-01T10:00:00", "action_type": "view", "n": 1e400}',
        '{"user_id": "a", "timestamp": "2024-03-01T10:00:00", "action_type": "", "n": 12345678901234567890.12}',
    ]
    lines, together = RawZone(spark, tmp_lake, "logs"), ",\n".join(same)
    lines.put({"lines.jsonl": "\n".join(same), "array.json": f"[\n{together}\n]"})
    lines.stage()
    assert sum(entry.accepted for entry in lines.ledger().values()) == 2
    assert sum(entry.duplicates for entry in lines.ledger().values()) == 2
    assert lines.rows("user_id", "_extra") == [("12345678", '{"price":"1.10"}'), ("1e3", '{"n":"1e400"}')]
    assert {record for _, _, record in lines.rejected()} == {same[2]}


# -- the batch as a whole ----------------------------------------------------------------------------------


def test_too_large_a_share_of_rejected_records_stops_before_anything_is_written(
    spark: SparkSession, tmp_lake: str
) -> None:
    zone = RawZone(spark, tmp_lake, "logs")
    zone.put({"a.jsonl": json_lines(event("a"), event("b"), "garbage", event(None))})
    with pytest.raises(RejectedShareExceeded) as raised:
        zone.stage(max_rejected_share=0.4)
    message = str(raised.value)
    assert "2 of 4 records" in message
    assert "malformed_json 1" in message
    assert "user_id_missing 1" in message
    assert not (Path(tmp_lake) / "staging").exists()
    zone.stage(max_rejected_share=0.5)
    assert zone.counts() == {"a.jsonl": (4, 2, 0, 2)}


def test_a_mapping_reads_another_systems_records(spark: SparkSession, tmp_path: Path, tmp_lake: str) -> None:
    mapping = tmp_path / "github.json"
    mapping.write_text(
        '{"user_id": "actor.login", "timestamp": "created_at", "action_type": "type", "location": "actor.geo.city"}'
    )
    zone = RawZone(spark, tmp_lake, "logs")
    records: list[Any] = [
        {
            "actor": {"login": "ann", "id": 5, "geo": {"city": "Bonn", "zip": "53111"}},
            "created_at": "2024-03-01T10:00:00Z",
            "type": "PushEvent",
            "repo": {"name": "x"},
        },
        {"actor": "bob", "created_at": "2024-03-01T10:00:00Z", "type": "PushEvent"},
        {"actor": {"geo": {}}, "created_at": "2024-03-01T10:00:00Z", "type": "PushEvent"},
    ]
    zone.put({"events.jsonl": json_lines(*records)})
    zone.stage(load_mapping(LOGS, mapping))
    [(user, at, action, device, city, extra)] = zone.rows()
    assert (user, str(at), action, device, city) == ("ann", "2024-03-01 10:00:00", "PushEvent", None, "Bonn")
    assert json.loads(extra) == {"actor.id": "5", "actor.geo.zip": "53111", "repo": '{"name":"x"}'}
    assert zone.reasons() == {"actor_not_an_object": 1, "user_id_missing": 1}


def test_a_mapped_column_counts_and_the_declared_one_beside_it_is_kept(
    spark: SparkSession, tmp_path: Path, tmp_lake: str
) -> None:
    zone = RawZone(spark, tmp_lake, "users")
    mapping = tmp_path / "mapping.json"
    mapping.write_text('{"login": "email", "hash": "password"}')
    hashed = "0" * 32
    head = "email,login,password,hash,first_name"
    zone.put({"both.csv": f"{head}\nold@x.org,ann@x.org,plain,{hashed},Ann\nold@x.org,none,plain,,Bob\n"})
    zone.stage(load_mapping(USERS, mapping))
    extra = '{"email":"old@x.org","password":"***"}'
    assert zone.rows("email", "password", "_extra") == [("ann@x.org", hashed, extra)]
    ((_, reasons, record),) = zone.rejected()
    assert (reasons, "plain" in record) == (("email_invalid",), False)


def test_a_lake_whose_address_has_dots_in_it_is_the_same_lake(spark: SparkSession, tmp_lake: str) -> None:
    RawZone(spark, tmp_lake, "logs").put({"a.jsonl": json_lines(event("a"))})
    other = RawZone(spark, f"{tmp_lake}/../lake", "logs")
    other.stage()
    assert other.counts() == {"a.jsonl": (1, 1, 0, 0)}


def test_a_folder_of_the_raw_zone_may_be_called_as_the_lake_is(spark: SparkSession, tmp_lake: str) -> None:
    """As in a lake `/data` that gets files in a folder `data`."""
    logs = RawZone(spark, tmp_lake, "logs")
    same = tmp_lake.lstrip("/")
    logs.put({f"{same}/a.jsonl": json_lines(event("a")), "b.jsonl": json_lines(event("b"))})
    logs.put({f"{same}/ü %20.json": json.dumps([event("c")]), f"{same}/broken.json": "[{}, {"})
    logs.stage()
    assert logs.rows("user_id") == [("a",), ("b",), ("c",)]
    assert list(logs.refused()) == [f"{same}/broken.json"]


def test_a_file_whose_reading_is_cancelled_is_not_refused(spark: SparkSession, tmp_lake: str) -> None:
    """So it was by a second Ctrl-C, or the loss of a second lock."""
    zone = RawZone(spark, tmp_lake, "logs")
    zone.put({"a.jsonl": json_lines(event("ann"))})
    done = threading.Event()

    def cancel() -> None:
        while not done.wait(0.01):
            spark.sparkContext.cancelAllJobs()

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    try:
        with pytest.raises((PySparkException, Py4JJavaError), match="SPARK_JOB_CANCELLED"):
            zone.stage()
    finally:
        done.set()
        cancelling.join()
    assert zone.ledger() == {}


@pytest.mark.parametrize("fault", ["a full disk", "a store that is away"])
def test_a_file_is_not_refused_for_a_fault_of_the_machine(
    spark: SparkSession, tmp_lake: str, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Every file of a feed was, one after the other, when Spark's scratch space was full."""
    jvm: Any = spark.sparkContext._jvm

    def fail(*_: object) -> None:
        if fault == "a full disk":
            jvm.java.io.FileOutputStream("/dev/full").write(1)
        jvm.java.net.Socket("127.0.0.1", 1)

    zone = RawZone(spark, tmp_lake, "logs")
    zone.put({"a.jsonl": json_lines(event("ann"))})
    with monkeypatch.context() as patch:
        patch.setattr("jobs.lake.staging._keyed", fail)
        with pytest.raises(Py4JJavaError, match=r"No space left on device|Connection refused"):
            zone.stage()
    assert zone.ledger() == {}
    zone.stage()
    assert zone.counts() == {"a.jsonl": (1, 1, 0, 0)}
