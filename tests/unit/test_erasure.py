"""What names a person, and raw files without their records: every other byte stays."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.erasure.person import Person, address_pattern, person, plain_part
from jobs.erasure.raw_files import cut, may_name
from jobs.errors import ConfigurationError
from jobs.feeds import FEEDS
from jobs.feeds.mapping import declared_sources, load_mapping

ANN = Person(("ann@x.org",), {"customer_id": ("17",), "user_id": ("17",)})


def test_an_address_is_found_as_a_whole_however_it_is_written() -> None:
    for text in (
        "ANN@X.org",
        "/p?e=ann%40x.org&",
        '"ann@x.org"',
        "mailto:ann@x.org.",
        r"ann\u0040x.org",
        "%3Dann@x.org",
        "a,ann@x.org",
    ):
        assert ANN.is_named_in(text), text
    for text in ("joann@x.org", "ann@x.org.uk", "ann@x.organ", "o'ann@x.org", "a.ann@x.org", "ann@y.org"):
        assert not ANN.is_named_in(text), text
    long = Person(("a" * 30 + "@example.org",))
    assert long.is_named_in('{"minValues":{"email":"' + "a" * 30 + '@e"}}')


JURGEN = Person(("jürgen+a@x.org",), {"user_id": ("jürgen", "google/123", 'a"😀')})


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_json_escapes_names_a_person_all_the_same(times: int) -> None:
    def escaped(text: str) -> str:
        for _ in range(times):
            text = json.dumps(text)[1:-1].replace("/", r"\/").replace("+", r"\u002b")
        return text

    for address in JURGEN.emails:
        assert JURGEN.is_named_in(escaped(f'"{address}"'))
        assert not JURGEN.is_named_in(escaped(f'"e{address}"'))
        # Spark has the pattern alone.
        assert re.search(address_pattern(address), escaped(f'"{address.upper()}"'))
        assert plain_part(address) in escaped(address)
    for text in JURGEN.ids["user_id"]:
        assert JURGEN.may_be_in(escaped(f'"{text}"'))
        assert not JURGEN.may_be_in(escaped(f'"{text}e"'))
    assert ANN.may_be_in(escaped("see\n17\n"))


def test_somebody_has_to_be_named() -> None:
    for emails, customers, users in (((), (), ()), (("ann",), (), ()), (("@",), (), ()), ((), (" ",), ())):
        with pytest.raises(ConfigurationError):
            person(emails, customers, users)
    assert person([" Ann@X.org"], ["17.0"], []) == Person(("ann@x.org",), {"customer_id": ("17",)})


def without(feed: str, content: bytes | str, who: Person = ANN) -> tuple[str, int, int]:
    """What is left of a file, how many records went, how many stayed."""
    content = content if isinstance(content, bytes) else content.encode()
    out = io.BytesIO()
    declared = FEEDS[feed]
    left = cut(who, declared, declared_sources(declared), io.BytesIO(content), out)
    return out.getvalue().decode(), left.removed, left.kept


def lines(*parts: str, end: str = "\r\n") -> str:
    return "".join(part + end for part in parts)


def test_csv_records_go_by_address_and_by_the_column_of_the_id() -> None:
    header = "cid,review_str,id_review"
    theirs = ['17,"two\r\nlines, ""quoted""",r1', "17.0,x,r2", "5,write to Ann@x.org,r3", " 17 ,x,r7"]
    others = ['5,"17\r\n17",r17', "171,17,17", "5,joann@x.org,17"]
    mixed = [x for pair in zip(theirs, [*others, ""], strict=True) for x in pair]
    assert without("reviews", lines(header, *mixed)) == (lines(header, *others, ""), 4, 3)
    assert without("reviews", "\ufeff" + lines(header, *others)) == ("\ufeff" + lines(header, *others), 0, 3)
    # The last line may have no end.
    assert without("reviews", f"{header}\n5,x,r1\n17,y,r2") == (f"{header}\n5,x,r1\n", 1, 1)


def test_csv_records_go_where_they_end_otherwise_than_the_header() -> None:
    head, theirs, other = "cid,review_str\r\n", '17,"two\nlines"\n', '5,"two\nlines"\n6,x\n'
    assert without("reviews", head + other + theirs + other) == (head + other * 2, 1, 4)


def test_of_a_mapped_csv_file_the_identifier_is_where_staging_reads_it(tmp_path: Path) -> None:
    (tmp_path / "mapping.json").write_text('{"client": "customer_id"}')
    names = load_mapping(FEEDS["reviews"], tmp_path / "mapping.json")
    text, out = lines("customer_id,client,review_str", "17,5,theirs of another shop", "5,17,x"), io.BytesIO()
    assert cut(ANN, FEEDS["reviews"], names, io.BytesIO(text.encode()), out).removed == 1
    assert out.getvalue().decode() == lines(*text.split("\r\n")[:2])


def test_csv_records_that_cannot_be_taken_apart() -> None:
    header = "order_id,customer_id,product,quantity,price,order_date"
    good = "o1,5,Lamp,17,1,2024-01-01"
    # A quote that is left open swallows what follows; only the lines that name the person go.
    broken = 'o2,5,"Lamp,1,1,2024-01-01'
    text = lines(header, broken, good, "o3,17,Lamp,1,1,2024-01-01", "o4,5,Desk,1,1,2024-01-01")
    left = lines(header, broken, good, "o4,5,Desk,1,1,2024-01-01")
    assert without("orders", text) == (left, 1, 3)
    assert without("orders", lines(header, "o5,17,Lamp", good)) == (lines(header, good), 1, 1)
    # A file without a header has a record in its place, which is kept like any other.
    customers = ("17,Ann,ann@x.org", "2,Bob,bob@x.org", "3,Cid,cid@x.org")
    for who in (Person(("ann@x.org",)), Person(ids={"customer_id": ("17",)})):
        assert without("customers", lines(*customers), who) == (lines(*customers[1:]), 1, 2)
        assert without("customers", lines(*customers[1::-1]), who) == (lines(customers[1]), 1, 1)
    latin = b"cid,review_str\r\n5,caf\xe9\r\n17,x\r\n"
    out = io.BytesIO()
    cut(ANN, FEEDS["reviews"], declared_sources(FEEDS["reviews"]), io.BytesIO(latin), out)
    assert out.getvalue() == b"cid,review_str\r\n5,caf\xe9\r\n"


HEADER = "customer_id,name,email,registration_date"
BOB, ANN_, CID = "1,Bob,bob@x.org,2024-01-01", "17,Ann,ann@x.org,2024-01-01", "3,Cid,cid@x.org,2024-01-01"


@pytest.mark.parametrize(
    ("feed", "header", "theirs", "others"),
    [
        ("customers", HEADER, ANN_, [BOB, CID]),
        # A quote inside a value opens none.
        ("customers", HEADER, ANN_, ['1,Bob 5" B,bob@x.org,2024-01-01', '3,Cid 6" C,cid@x.org,2024-01-01']),
        # One that is closed too early ends there, whatever follows it.
        ("customers", HEADER, ANN_, ['1,"Bob" B,bob@x.org,2024-01-01', '3,"Cid" "C,cid@x.org,2024-01-01']),
        # One that is left open takes others in, with as many values as the header or with more.
        ("customers", HEADER, ANN_, ['1,Bob,"bob@x.org,2024-01-01', '3,Cid,"cid@x.org",2024-01-01']),
        ("customers", HEADER, ANN_, ['1,Bob,"bob@x.org,2024-01-01', CID]),
        # Values over several lines are no other records.
        (
            "reviews",
            "cid,review_str,id_review",
            '17,"a\n5,b,c\n",r1',
            ['5,"a\n17,b,c\n",r2', '6,"a\n\nb"x,r3'],
        ),
        ("reviews", "cid,review_str,id_review", '17,"a\nb",r1,more', ['5,"a\nb",r2,more']),
        # Where they may not span lines, a quote that is left open spoils its own line only.
        ("users", "id,email", "1,ann@x.org", ['2,"bob@x.org', '3,"cid@x.org']),
        ("logs", '{"user_id": "a"}', '{"user_id": 17}', ['{"user_id": "b"}', "{broken"]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_only_their_records_go_however_lines_end(
    feed: str, header: str, theirs: str, others: list[str], end: str
) -> None:
    def text(*records: str) -> bytes:
        return lines(header, *records, end="\n").replace("\n", end).encode()

    kept = len(others) + (feed == "logs")
    before, *after = others
    for who in (ANN, Person(ANN.emails)) if "@" in theirs else (ANN,):
        assert without(feed, text(before, theirs, *after), who) == (text(*others).decode(), 1, kept)
        # The last line may have no end.
        assert without(feed, text(*others) + theirs.replace("\n", end).encode(), who)[1:] == (1, kept)


def test_a_line_break_of_another_kind_belongs_to_a_value() -> None:
    header, theirs, other = "cid,review_str,id_review", "17,a{0}b,r1", "5,a{0}17,r2"
    for end, inside in (("\n", "\r"), ("\r\n", "\n"), ("\r\n", "\r")):
        there, left = [header, theirs.format(inside), other.format(inside)], [header, other.format(inside)]
        assert without("reviews", lines(*there, end=end)) == (lines(*left, end=end), 1, 1)
    # To staging these are one record, which it rejects.
    mixed = f"{header}\r\n" + lines("5,a,r1", "17,b,r2", "6,c,r3", end="\n")
    assert without("reviews", mixed) == (f"{header}\r\n" + lines("5,a,r1", "6,c,r3", end="\n"), 1, 2)


def log(user: object, **more: object) -> dict[str, object]:
    return {"user_id": user, "action_type": "view", **more}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("users", [(17, 5), (5, "17"), (5, 17, 6), (17, "17.0", 5, 171), (17,), (5, 6), ()])
def test_a_json_array_stays_one(users: Sequence[object], indent: int | None) -> None:
    records = [log(user, note="17", metadata={"n": 17}) for user in users]
    text, removed, kept = without("logs", json.dumps(records, indent=indent))
    others = [record for record in records if str(record["user_id"]) not in ("17", "17.0")]
    assert (json.loads(text), removed, kept) == (others, len(records) - len(others), len(others))
    if not removed:
        assert text == json.dumps(records, indent=indent)


def test_json_lines_and_what_is_no_json() -> None:
    bob = json.dumps(log("bob", metadata={"device": "17"}))
    theirs = [
        json.dumps(log("x", contact={"mail": "ANN@x.org"})),
        json.dumps(log(17)),
        '{"user_id": 17, broken',
    ]
    twice = '{"user_id": "17", "user_id": "bob"}'
    assert without("logs", lines(theirs[0], bob, *theirs[1:], twice, end="\n")) == (bob + "\n", 4, 1)
    assert without("logs", r'{"user_id": "\u0031\u0037"}') == ("", 1, 0)
    for theirs in (
        *(log(name) for name in JURGEN.ids["user_id"]),
        log("bob", mail=json.dumps(JURGEN.emails)),
    ):
        for text in (json.dumps(theirs), json.dumps(theirs).replace("/", r"\/")):
            assert may_name(JURGEN, io.BytesIO(text.encode()))
            assert without("logs", lines(bob, text, end="\n"), JURGEN) == (bob + "\n", 1, 1)
    # A number is the identifier that staging makes of it.
    assert without("logs", '{"user_id": 1.7e1}') == ('{"user_id": 1.7e1}', 0, 1)
    # An array that is cut off is not touched: a search of the lake tells of it.
    cut_off = json.dumps([log(17), log(5)])[:-1]
    assert without("logs", cut_off) == (cut_off, 0, 0)


@pytest.mark.parametrize("size", range(1, 8))
def test_a_name_across_two_pieces_of_a_stream(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.erasure.raw_files.PIECE_BYTES", size)
    assert may_name(ANN, io.BytesIO("é éé é ann@x.org é".encode()))
    assert not may_name(ANN, io.BytesIO("é éé é bob@x.org é".encode()))
    for text in ('"jürgen"', r'"j\u00fcrgen"', "jürgen+a@x.org"):
        assert may_name(JURGEN, io.BytesIO(text.encode()))
