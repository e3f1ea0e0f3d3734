"""The generator's manifest is checked by reading the files back, with nothing of the generator."""

import csv
import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from jobs import generate_samples

SCALES = (0.01, 1.0)


@pytest.fixture(scope="module", params=SCALES)
def delivered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Files as written and the manifest that goes with them, small and at full size."""
    folder = tmp_path_factory.mktemp("raw")
    paths = generate_samples.write_samples(folder, seed=7, scale=request.param)
    return folder, paths, generate_samples.manifest(seed=7, scale=request.param)["feeds"]


def read_log_lines(path: Path) -> list[Any]:
    """One entry per record; None where a line is not a JSON object."""
    data = path.read_bytes()
    if path.name.endswith(".json"):
        return json.loads(data)
    if path.name.endswith(".gz"):
        data = gzip.decompress(data)
    records = []
    for line in data.decode().split("\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        records.append(record if isinstance(record, dict) else None)
    return records


def instant(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def log_defects(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return ["garbage_line"]
    defects = []
    if record.get("user_id") is None:
        defects.append("user_id_missing")
    if not record["action_type"].strip():
        defects.append("action_type_blank")
    if len(record["action_type"]) > 100:
        defects.append("action_type_too_long")
    if isinstance(record["timestamp"], int):
        defects.append("timestamp_epoch_milliseconds")
    elif instant(record["timestamp"]) is None:
        defects.append("timestamp_impossible")
    return defects


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    first = generate_samples.write_samples(tmp_path / "a", seed=3, scale=0.05)
    second = generate_samples.write_samples(tmp_path / "b", seed=3, scale=0.05)

    assert [path.relative_to(tmp_path / "a") for path in first] == [
        path.relative_to(tmp_path / "b") for path in second
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_another_seed_writes_other_data(tmp_path: Path) -> None:
    first = generate_samples.write_samples(tmp_path / "a", seed=3, scale=0.05)
    second = generate_samples.write_samples(tmp_path / "b", seed=4, scale=0.05)

    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(first, second, strict=True))


def test_every_file_is_in_the_manifest_and_no_other(delivered) -> None:
    folder, paths, feeds = delivered

    assert {(path.parent.name, path.name) for path in paths} == {
        (feed, name) for feed, counts in feeds.items() for name in counts["files"]
    }
    assert sorted(folder.rglob("*.*")) == sorted(paths)


def test_records_add_up(delivered) -> None:
    _, _, feeds = delivered
    for counts in feeds.values():
        assert counts["records"] == counts["accepted"] + counts["duplicates"] + counts["rejected"]
        assert counts["rejected"] == sum(counts["rejected_by_kind"].values())
        assert counts["records"] == sum(file["records"] for file in counts["files"].values())


def test_logs_hold_what_the_manifest_says(delivered) -> None:
    folder, _, feeds = delivered
    expected = feeds["logs"]
    keys: Counter[tuple[str, datetime, str]] = Counter()
    bodies: dict[tuple[str, datetime, str], Any] = {}
    unknown: set[str] = set()
    for name, counts in expected["files"].items():
        records = read_log_lines(folder / "logs" / name)
        defects = [log_defects(record) for record in records]
        assert max(map(len, defects)) == 1, "a broken record has one defect only"
        assert Counter(kind for kinds in defects for kind in kinds) == counts["rejected"]
        assert len(records) == counts["records"]

        good = [record for record, kinds in zip(records, defects, strict=True) if not kinds]
        file_keys = [
            (str(record["user_id"]), instant(record["timestamp"]), record["action_type"]) for record in good
        ]
        assert len(file_keys) - len(set(file_keys)) == counts["duplicates_within"]
        keys.update(file_keys)
        for key, record in zip(file_keys, good, strict=True):
            # Copies agree in all but spelling, so it does not matter which one survives.
            assert bodies.setdefault(key, record.get("metadata")) == record.get("metadata")
            unknown |= record.keys() - {"user_id", "timestamp", "action_type", "metadata"}
            metadata = record.get("metadata") or {}
            unknown |= {f"metadata.{name}" for name in metadata.keys() - {"device", "location"}}

    facts = expected["facts"]
    assert len(keys) == expected["accepted"]
    assert keys.total() - len(keys) == expected["duplicates"]
    assert len({user_id for user_id, _, _ in keys}) == facts["users"]
    assert Counter(action_type for _, _, action_type in keys) == facts["actions"]
    for name, plural in (("device", "devices"), ("location", "locations")):
        values = [(body or {}).get(name) for body in bodies.values()]
        assert sorted(set(values) - {None}) == facts[plural]
        assert values.count(None) == facts[f"without_{name}"]
    assert sorted(unknown) == facts["unknown_fields"]
    instants = [at for _, at, _ in keys]
    assert min(instants).isoformat() == facts["first_event_at"]
    assert max(instants).isoformat() == facts["last_event_at"]


def test_logs_have_both_kinds_of_user_ids_and_timestamps(tmp_path: Path) -> None:
    generate_samples.write_samples(tmp_path)
    records = [
        record
        for path in sorted((tmp_path / "logs").iterdir())
        for record in read_log_lines(path)
        if record is not None and not log_defects(record)
    ]

    assert {type(record["user_id"]) for record in records} == {int, str}
    lengths = {len(record["timestamp"]) for record in records}
    assert len("2024-02-24T10:00:00") in lengths
    assert len("2024-02-24T10:00:00.123456+01:00") in lengths
    assert any(record["timestamp"].endswith("Z") for record in records)


def test_purchases_hold_what_the_manifest_says(delivered) -> None:
    folder, _, feeds = delivered
    expected = feeds["purchases"]
    lines = []
    for name, counts in expected["files"].items():
        rejected: Counter[str] = Counter()
        header, *rows = read_csv(folder / "purchases" / name)
        assert len(header) == 8
        assert len(rows) == counts["records"]
        for row in rows:
            if len(row) < 8:
                rejected["too_few_columns"] += 1
                continue
            invoice, stock_code, detail, quantity, at, price, customer, _ = row
            if quantity == "abc":
                rejected["quantity_not_a_number"] += 1
            elif price == "NaN":
                rejected["unit_price_not_a_number"] += 1
            elif not invoice:
                rejected["invoice_number_missing"] += 1
            elif at.startswith("13/45/"):
                rejected["invoice_date_impossible"] += 1
            else:
                style = "%m/%d/%Y %H:%M" if "/" in at else "%Y-%m-%dT%H:%M:%S"
                key = customer.removesuffix(".0")
                parsed = datetime.strptime(at, style).replace(tzinfo=UTC)
                lines.append((invoice, stock_code, detail, int(quantity), parsed, Decimal(price), key))
        assert rejected == counts["rejected"]

    facts = expected["facts"]
    spent: Counter[int] = Counter()
    for *_, quantity, _, price, customer in lines:
        if customer:
            spent[int(customer)] += quantity * price  # type: ignore[assignment]
    top = sorted(spent.items(), key=lambda entry: (-entry[1], entry[0]))[:5]
    assert len(lines) == expected["accepted"]
    assert expected["duplicates"] == 0
    assert len(lines) - len(set(lines)) == facts["exact_repeats"]
    assert len({line[0] for line in lines}) == facts["invoices"]
    assert len(spent) == facts["customers"]
    assert sum(not line[6] for line in lines) == facts["without_customer"]
    assert sum(line[3] < 0 for line in lines) == facts["returns"]
    assert all(line[0].startswith("C") == (line[3] < 0) for line in lines)
    assert sum(line[3] * line[5] for line in lines) == Decimal(facts["amount"])
    assert [[customer, str(amount)] for customer, amount in top] == facts["top_5_customers"]


def test_purchases_have_both_headers_line_ends_and_awkward_text(tmp_path: Path) -> None:
    generate_samples.write_samples(tmp_path)
    old = (tmp_path / "purchases" / "retail-2010-12.csv").read_bytes()
    new = (tmp_path / "purchases" / "retail-2011-01.csv").read_bytes()

    assert old.startswith(b"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,Cus")
    assert new.startswith(b"invoice_number,stock_code,detail,quantity,invoice_date,unit_price,cu")
    assert b"United Kingdom\r\n" in old
    assert b"\r" not in new
    for content in (old, new):
        for part in ('""', "£", "é", "日本", ":\n", ".0,"):
            assert part.encode() in content


def test_reviews_hold_what_the_manifest_says(delivered) -> None:
    folder, _, feeds = delivered
    expected = feeds["reviews"]
    header, *rows = read_csv(folder / "reviews" / "movie-reviews.csv")
    filled = [row for row in rows if row[1]]
    distinct = {review_id: (customer, text) for customer, text, review_id in filled}

    assert header == ["cid", "review_str", "id_review"]
    assert len(rows) == expected["records"]
    assert len(rows) - len(filled) == expected["rejected_by_kind"]["review_text_empty"] == 1
    assert len(distinct) == expected["accepted"]
    assert len(filled) - len(distinct) == expected["duplicates"]
    assert len(set(map(tuple, filled))) == len(distinct), "copies are exact"
    assert len({text for _, text in distinct.values()}) == len(distinct), "no text comes twice"
    assert sum(expected["facts"]["tones"].values()) == len(distinct)


def test_events_hold_what_the_manifest_says(delivered) -> None:
    folder, _, feeds = delivered
    expected = feeds["events"]
    contents: dict[str, set[tuple[Any, ...]]] = {}
    good = 0
    for name, counts in expected["files"].items():
        rejected: Counter[str] = Counter()
        header, *rows = read_csv(folder / "events" / name)
        assert header == ["id", "timestamp", "email", "country", "uri", "action", "tags"]
        assert len(rows) == counts["records"]
        in_this_file = []
        for row in rows:
            if len(row) > 7:
                rejected["too_many_columns"] += 1
            elif not row[0]:
                rejected["id_missing"] += 1
            elif "@" not in row[2]:
                rejected["email_without_domain"] += 1
            elif instant(row[1]) is None:
                rejected["timestamp_impossible"] += 1
            else:
                tags = tuple(tag.strip() for tag in re.split("[,;|]", row[6]) if tag)
                in_this_file.append((row[0], instant(row[1]), row[2].lower(), *row[3:6], tags))
        assert rejected == counts["rejected"]
        assert len(in_this_file) - len(set(in_this_file)) == counts["duplicates_within"]
        good += len(in_this_file)
        for event in in_this_file:
            contents.setdefault(event[0], set()).add(event)

    events = [event for same_id in contents.values() for event in same_id]
    facts = expected["facts"]
    assert len(events) == expected["accepted"]
    assert good - len(events) == expected["duplicates"] > 0
    assert len(events) - len(contents) == facts["clashes"] > 0
    assert Counter(f"{event[1]:%Y-%m}" for event in events) == facts["months"]
    assert Counter(tag for event in events for tag in event[6]) == facts["tags"]
    assert sum(not event[3] for event in events) == facts["without_country"]
    users = Counter(event[2] for event in events)
    assert len(users) == facts["users"]
    assert min(users.items(), key=lambda user: (-user[1], user[0])) == tuple(facts["most_active_user"])


def test_customers_and_orders_hold_what_the_manifest_says(delivered) -> None:
    folder, _, feeds = delivered
    header, *rows = read_csv(folder / "customers" / "customers.csv")
    good = [row for row in rows if row[1] and row[3] != "207" and row[5] != "2022-02-30"]
    cities = {row[0]: row[4] or "unknown" for row in good}
    expected = feeds["customers"]
    assert header == ["customer_id", "name", "email", "age", "city", "registration_date"]
    assert len(rows) == expected["records"]
    assert len(rows) - len(good) == expected["rejected"]
    assert len(cities) == expected["accepted"]
    assert len(set(map(tuple, good))) == len(cities), "copies are exact"

    header, *rows = read_csv(folder / "orders" / "orders.csv")
    good = [row for row in rows if row[3] != "0" and row[4] != "free" and "." not in row[5]]
    orders = {row[0]: row for row in good}
    expected, facts = feeds["orders"], feeds["orders"]["facts"]
    assert header == ["order_id", "customer_id", "product", "quantity", "price", "order_date"]
    assert len(rows) == expected["records"]
    assert len(rows) - len(good) == expected["rejected"]
    assert len(orders) == expected["accepted"]
    by_city: Counter[str] = Counter()
    for _, customer, _, quantity, price, _ in orders.values():
        by_city[cities.get(customer, "unknown")] += int(quantity) * Decimal(price)  # type: ignore[assignment]
    assert {city: str(amount) for city, amount in by_city.items()} == facts["amount_by_city"]
    assert str(sum(by_city.values())) == facts["amount"]
    assert sum(row[1] not in cities for row in orders.values()) == facts["without_known_customer"]


def test_most_reviewers_bought_something_and_some_did_not(tmp_path: Path) -> None:
    generate_samples.write_samples(tmp_path)
    reviewers = {row[0] for row in read_csv(tmp_path / "reviews" / "movie-reviews.csv")[1:]}
    buyers = {
        row[6].removesuffix(".0")
        for path in (tmp_path / "purchases").iterdir()
        for row in read_csv(path)[1:]
        if len(row) == 8 and row[6]
    }

    assert len(reviewers & buyers) > 90
    assert reviewers - buyers
    assert buyers - reviewers


def test_users_hold_what_the_manifest_says(delivered) -> None:
    folder, _, feeds = delivered
    expected = feeds["users"]
    hashes = re.compile(
        r"[0-9a-f]{32}|[0-9a-f]{64}|\$2b\$12\$.{53}|\$argon2id\$v=19\$m=65536,t=3,p=4\$.{22}\$.{43}"
    )
    versions: dict[str, set[tuple[str, ...]]] = {}
    repeats = 0
    for name, counts in expected["files"].items():
        header, *rows = read_csv(folder / "users" / name)
        rejected: Counter[str] = Counter()
        for row in rows:
            columns = dict(zip(header, row, strict=False))
            email = columns["email"].strip().lower()
            if len(row) != len(header):
                rejected["too_few_columns"] += 1
            elif not email:
                rejected["email_missing"] += 1
            elif email.endswith("@"):
                rejected["email_without_domain"] += 1
            elif instant(columns["created_at"]) is None:
                rejected["created_at_impossible"] += 1
            elif not hashes.fullmatch(columns["password"]):
                rejected["password_in_plain_text"] += 1
            else:
                content = (
                    columns["updated_at"],
                    *(v for n, v in columns.items() if n not in ("email", "updated_at")),
                )
                repeats += content in versions.setdefault(email, set())
                versions[email].add(content)
        assert (len(rows), rejected) == (counts["records"], counts["rejected"])

    assert repeats == expected["duplicates"]
    assert sum(map(len, versions.values())) == expected["accepted"] == expected["facts"]["versions"]
    assert all(len({v[0] for v in found}) == len(found) for found in versions.values()), "each has its date"
    assert len(versions) == expected["facts"]["users"]
    assert sum(len(found) > 1 for found in versions.values()) == expected["facts"]["updated_users"]


def test_the_docstring_states_the_counts_at_the_default_scale() -> None:
    for name, counts in generate_samples.manifest()["feeds"].items():
        row = next(
            line.split()
            for line in (generate_samples.__doc__ or "").splitlines()
            if line.split()[:1] == [name] and line.split()[-1].isdigit()
        )
        kinds = ("records", "accepted", "duplicates", "rejected")
        assert row[-4:] == [f"{counts[kind]:,}" for kind in kinds]


def test_command_line_writes_files_and_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "about" / "manifest.json"
    code = generate_samples.main(
        [str(tmp_path / "raw"), "--seed", "5", "--scale", "0.02", "--manifest", str(manifest)]
    )

    assert code == 0
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [
        "customers",
        "events",
        "logs",
        "orders",
        "purchases",
        "reviews",
        "users",
    ]
    content = json.loads(manifest.read_text(encoding="utf-8"))
    assert content == json.loads(json.dumps(generate_samples.manifest(seed=5, scale=0.02)))


@pytest.mark.parametrize(
    "arguments",
    [["x", "--scale", "0"], ["x", "--scale", "nan"], ["x", "--scale", "inf"], ["x", "--sca", "1"], []],
)
def test_wrong_usage_ends_with_code_2(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        generate_samples.main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize("target", ["/etc/passwd", "/etc/passwd/samples"])
def test_a_folder_that_cannot_be_made_is_one_line(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate_samples.main([target, "--scale", "0.01"]) == 2
    assert capsys.readouterr().err == f"error: {target}/logs: Not a directory\n"


def test_no_package_is_needed(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-m", "jobs.generate_samples", str(tmp_path), "--scale", "0.01"]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, stdout=subprocess.DEVNULL)
    assert {folder.name for folder in tmp_path.iterdir()} == set(generate_samples.manifest()["feeds"])
