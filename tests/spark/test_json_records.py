"""JSON texts to fields: the quick way and the thorough way agree on every record."""

from __future__ import annotations

import json

import pytest
from pyspark.sql import Row, SparkSession

from jobs.transforms import json_records as module
from jobs.transforms.json_records import json_records

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
]


def taken_apart(spark: SparkSession, texts: list[str]) -> list[Row]:
    frame = spark.createDataFrame([(i, text) for i, text in enumerate(texts)], "_address int, value string")
    return sorted(json_records(frame.coalesce(1), NAMES).collect(), key=lambda row: row._address)


def test_a_plain_record_is_read_quickly(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(PLAIN,), (PLAIN[:-1] + ', "other": 1}',)], "value string")
    read = module._read_whole(frame, NAMES, module._levels(NAMES)).collect()
    assert [row._rest is None for row in read] == [True, False]
    assert read[0]._whole.meta.place == "Oslo"
    assert read[1]._whole is None


def test_quick_and_thorough_reading_agree(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    both = taken_apart(spark, RECORDS)
    monkeypatch.setattr(module, "_read_whole", thorough_only)
    for quick, thorough in zip(both, taken_apart(spark, RECORDS), strict=True):
        assert quick == thorough, RECORDS[quick._address]


def thorough_only(records, names, levels):  # type: ignore[no-untyped-def]
    from pyspark.sql import functions as F

    nothing = F.lit(None).cast(module._nested(levels, ""))
    return records.withColumns({"_whole": nothing, module.REST: F.col("value")})


def test_what_comes_of_some_records(spark: SparkSession) -> None:
    expected = {
        PLAIN: ("u1", None, None),
        '{"user": 1.5}': ("1.5", None, None),
        '{"user": "a", "other" : "b"}': ("a", {"other": "b"}, None),
        '{"user": "a", "meta": {"app": 7}}': ("a", {"meta.app": "7"}, None),
        '{"user": "a", "meta": "text"}': ("a", None, "meta_not_an_object"),
        '{"user": "a", "user": "b"}': ("b", None, "repeated_name"),
        '{"user": "a"} x': (None, None, "malformed_json"),
        "{'user': 'u1'}": (None, None, "malformed_json"),
    }
    for row, (user, extra, problem) in zip(
        taken_apart(spark, list(expected)), expected.values(), strict=True
    ):
        found = json.loads(row._extra) if row._extra else None
        assert (row._problem, found) == (problem, extra), row._record
        assert problem == "malformed_json" or row.user == user, row._record
