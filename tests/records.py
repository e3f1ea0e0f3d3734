"""Records for tests. A test names the fields that matter to it; a factory fills the others."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PURCHASE_HEADER = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)


def event(user_id: Any = "ann", **fields: Any) -> dict[str, Any]:
    """A log record; device and location go into its metadata, None stays null."""
    metadata = {name: fields.pop(name, "x") for name in ("device", "location")}
    record = {"user_id": user_id, "timestamp": "2024-03-01T10:00:00", "action_type": "view", **fields}
    return {"metadata": metadata, **record}


def json_lines(*records: Any) -> str:
    """Dictionaries as JSON, text as it is, one a line."""
    return "".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records)


def purchase(**fields: Any) -> dict[str, str]:
    """An invoice line by the source's column names."""
    values = ("536365", "85123A", "LANTERN", "6", "12/1/2010 8:26", "2.55", "17850", "United Kingdom")
    return {**dict(zip(PURCHASE_HEADER, values, strict=True)), **fields}


def csv_text(
    rows: Iterable[dict[str, Any]], header: Iterable[str] = PURCHASE_HEADER, end: str = "\r\n"
) -> str:
    """RFC 4180 with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(header), lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def purchases(*rows: dict[str, Any]) -> str:
    return csv_text(rows)


def reviews(*rows: tuple[str, ...]) -> str:
    """(customer, text[, id]) as a CSV file."""
    header = ("cid", "review_str", "id_review")[: max(map(len, rows))] if rows else ("cid", "review_str")
    return csv_text([dict(zip(header, row, strict=False)) for row in rows], header)


def zipped(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def unread_forms(text: str) -> dict[str, bytes]:
    """A text in forms in which no file is read, though its name may say that it is plain."""
    book, table = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(book, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", text)
    pq.write_table(pa.table({"text": [text]}), table, compression="none")
    forms = {"xlsx": book.getvalue(), "parquet": table.getvalue()}
    forms |= {"bz2": bz2.compress(text.encode()), "xz": lzma.compress(text.encode())}
    return forms | {name: text.encode(name) for name in ("utf-16-le", "utf-16-be")}


USER_HEADER = (
    *("id", "first_name", "last_name", "email", "gender", "ip_address"),
    *("created_at", "updated_at", "password", "status"),
)
MD5 = "5f4dcc3b5aa765d61d8327deb882cf99"


def user(email: str = "ann@example.org", **fields: Any) -> dict[str, Any]:
    """An account by the source's column names; updated_at may be a day of March 2024."""
    if isinstance(day := fields.get("updated_at"), int):
        fields["updated_at"] = f"2024-03-{day:02}T00:00:00Z"
    values = ("1", "Ann", "Lee", email, "female", "8.8.8.8", "2024-01-01T09:00:00Z", "", MD5, "active")
    return {**dict(zip(USER_HEADER, values, strict=True)), **fields}


def users(*rows: dict[str, Any]) -> str:
    return csv_text(rows, USER_HEADER)
