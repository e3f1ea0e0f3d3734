"""JSON texts to fields: blocks of texts and single texts are read alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.transforms import json_records as module
from jobs.transforms.json_records import _reader, levels_of, read_block, read_record

NAMES = {"user": ("user",), "at": ("at", "time"), "device": ("meta.device",), "place": ("meta.place",)}

PLAIN = '{"user": "u1", "at": "2025-01-01", "meta": {"device": "ios", "place": "Oslo"}}'

RECORDS = [
    PLAIN,
    PLAIN.replace(" ", ""),
    "{}",
    '{"user": "u1"}',
    '{"user": 17}',
    '{"user": 1.50}',
    '{"user": true}',
    '{"user": null}',
    '{"user": ""}',
    '{"user": " "}',
    '{"user": NaN}',
    '{"user": {"id": "u1"}}',
    '{"user": ["u1", "u2"]}',
    '{"user": [{"id": 1}]}',
    '{"user": "O\'Brien"}',
    "{'user': 'u1'}",
    '{"user": "u1", \'other\': 1}',
    '{"user": "a\\":b"}',
    '{"user": "a", "other": "b"}',
    '{"user": "a", "other" : "b"}',
    '{"user": "a", "other"\t: "b"}',
    '{"user": "a", "other": null}',
    '{"user": "a", "user": "b"}',
    '{"user": "a", "us\\u0065r": "b"}',
    '{"us\\u0065r": "a"}',
    '{"user": "\\u00e5\\ud83d\\ude00"}',
    '{"user": "a", "at": "b", "time": "c"}',
    '{"user": "a", "time": "c"}',
    '{"user": "a", "meta": {}}',
    '{"user": "a", "meta": null}',
    '{"user": "a", "meta": "text"}',
    '{"user": "a", "meta": []}',
    '{"user": "a", "meta": {"device": null}}',
    '{"user": "a", "meta": {"device": {"name": "ios"}}}',
    '{"user": "a", "meta": {"device": "ios", "device": "web"}}',
    '{"user": "a", "meta": {"device": "ios", "app": {"v": 1}}}',
    '{"user": "a", "device": "ios"}',
    '{"user": "a"} ',
    '{"user": "a"} x',
    '{"user": "a"}{"user": "b"}',
    '{"user": "a"}]',
    '{"user": "a"},{"user": "b"}',
    '{"user": "a"}, 7',
    '{"user": "a"',
    '{"user": "a",}',
    '{user: "a"}',
    '"user"',
    "[1]",
    '["a", "b"]',
    "null",
    "17",
    "plain text",
    '\ufeff{"user": "a"}',
    '/* comment */ {"user": "a"}',
    '{"user": "a"} /* comment */',
    '{"user": "a\tb"}',
    '{"user": "\\ud800"}',
    '{"user": "\\u0000"}',
    '{"meta.device": "ios"}',
]


def taken_apart(texts: Iterable[str | bytes], names: Any = NAMES) -> list[dict[str, Any]]:
    """What one batch of these texts gives."""
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    rows: list[dict[str, Any]] = _reader(names)(pa.array(raw, pa.binary()).view(pa.string())).to_pylist()
    return rows


def one_by_one(texts: Sequence[str | bytes]) -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_block", lambda texts, kind: None)
        return taken_apart(texts)


def can_be_read_in_a_block(text: str) -> bool:
    kind = pa.schema(list(module._struct(levels_of(NAMES), "")))
    return read_block(pa.array([text], pa.string()), kind) is not None


def test_a_block_takes_records_of_known_texts_only() -> None:
    taken = [text for text in RECORDS if can_be_read_in_a_block(text)]
    assert PLAIN in taken
    assert '{"user": 17}' not in taken
    assert '{"user": "a", "other": "b"}' not in taken
    assert '{"user": "a", "user": "b"}' not in taken
    assert '{"user": "a"}{"user": "b"}' not in taken
    assert 10 < len(taken) < len(RECORDS) / 2


def test_what_a_block_takes_is_what_comes_one_by_one() -> None:
    for text in filter(can_be_read_in_a_block, RECORDS):
        assert taken_apart([text]) == one_by_one([text]), text


@pytest.mark.parametrize("good", [0, 1, 63, 64, 1000])
def test_one_bad_record_among_good_ones_changes_no_other(good: int) -> None:
    """A block is halved until the bad one is alone with few."""
    texts = [f'{{"user": "u{i}"}}' for i in range(good)]
    texts[good // 3 : good // 3] = ["not JSON"]
    users = [f"u{i}" for i in range(good)]
    users[good // 3 : good // 3] = [None]
    rows = taken_apart(texts)
    assert [row["user"] for row in rows] == users
    assert [row["_problem"] for row in rows] == ["malformed_json" if user is None else None for user in users]


@pytest.mark.parametrize(
    ("text", "user", "extra", "problem"),
    [
        (PLAIN, "u1", None, None),
        ('{"user": 1.5}', "1.5", None, None),
        ('{"user": 1.50}', "1.50", None, None),
        ('{"user": "a", "other" : "b"}', "a", {"other": "b"}, None),
        ('{"user": "a", "other": null}', "a", {"other": None}, None),
        ('{"user": "a", "other": {"x": 1, "x": 2}}', "a", {"other": '{"x":1,"x":2}'}, None),
        ('{"user": "a", "other": [" \\" ", 1.0]}', "a", {"other": '[" \\" ",1.0]'}, None),
        ('{"user": "a", "meta": {"app": 7}}', "a", {"meta.app": "7"}, None),
        ('{"user": "a", "meta": "text"}', "a", None, "meta_not_an_object"),
        ('{"user": "a", "user": "b"}', "b", None, "repeated_name"),
        ('{"user": "a", "meta": {"x": 1, "x": 2}}', "a", None, "repeated_name"),
        ('{"user": "a"} x', None, None, "malformed_json"),
        ("{'user': 'u1'}", None, None, "malformed_json"),
        ('{"user": NaN}', None, None, "malformed_json"),
        ("null", None, None, "malformed_json"),
        ("[" * 100_000, None, None, "malformed_json"),
        (b'{"user": "\xff"}', None, None, "invalid_utf8"),
    ],
)
def test_what_comes_of_some_records(
    text: str | bytes, user: str | None, extra: dict[str, str] | None, problem: str | None
) -> None:
    (row,) = taken_apart([text])
    assert (row["user"], row["_extra"] and json.loads(row["_extra"]), row["_problem"]) == (
        user,
        extra,
        problem,
    )


def test_a_name_may_be_looked_up_as_a_value_and_as_an_object() -> None:
    names = {"all": ("meta",), "device": ("meta.device",)}
    rows = taken_apart(['{"meta": {"device": "ios"}}', '{"meta": "none"}'], names)
    assert [(row["all"], row["device"]) for row in rows] == [('{"device":"ios"}', "ios"), ("none", None)]
    assert rows[1]["_problem"] == "meta_not_an_object"


PIECES = st.sampled_from(
    [
        *'{}[]":, \\',
        '"user"',
        '"at"',
        '"meta"',
        '"device"',
        '"x"',
        '"é"',
        "null",
        "1",
        "true",
        '":"',
        '{"user":"a"}',
    ]
)


def test_a_name_with_a_dot_beside_an_object_keeps_both() -> None:
    (row,) = taken_apart(['{"meta.os": "flat", "meta": {"os": 14}}'])
    assert row["_extra"] == '{"meta.os":"flat","meta.os":"14"}'


@settings(deadline=None)
@given(st.lists(st.lists(PIECES, max_size=12).map("".join), max_size=8))
def test_any_texts_are_read_in_a_block_as_one_by_one(texts: list[str]) -> None:
    assert taken_apart(texts) == one_by_one(texts)
    objects = [f'{{"user":"a",{text}}}' for text in texts]
    assert taken_apart(objects) == one_by_one(objects)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["user", "at", "meta", "x"]), st.text('aé"\\\n{}:,😀') | st.integers() | st.none()
    )
)
def test_members_are_known_or_kept(members: dict[str, Any]) -> None:
    members.pop("meta", None)
    record = read_record(json.dumps(members, ensure_ascii=False).encode("utf-8", "replace"), levels_of(NAMES))
    assert record.problem is None
    assert record.values.keys() == members.keys() - {"x"}
    assert [name for name, _ in record.extra] == sorted(members.keys() & {"x"})
