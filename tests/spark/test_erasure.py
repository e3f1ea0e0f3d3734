"""What `erase` takes for records of a file are those that staging reads, so that only the person's leave it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.erasure.person import Person
from jobs.erasure.raw_files import Cut, cut
from jobs.feeds import FEEDS
from jobs.feeds.mapping import declared_sources
from tests.staging import RawZone

pytestmark = pytest.mark.spark

# How the lines of a file end, and its records; those of customer 17 go.
FILES: dict[str, tuple[str, list[str]]] = {
    "carriage returns": ("\r", ["5,a,cr1", "17,b,cr2", '6,"c\r17,d,e",cr3']),
    "carriage returns inside": ("\n", ["5,a\r17,r1", "17,a\r5,r2", '6,"a\rb",r3']),
    "line feeds inside": ("\r\n", ["5,a\n17,l1", "17,a\n5,l2", '6,"a\n17,b,c\n",l3']),
    "several lines": ("\n", ['5,"a\n17,b,c\n",s1', '17,"a\n5,b,c\n",s2', '6,"a\n\nb"x,s3']),
    "quotes inside values": ("\n", ['5,5" B,q1', "17,b,q2", '6,6" C,q3', "7,d,q4"]),
    "quotes that end too early": ("\r\n", ['5,"a" b,e1', '17,"a"b,e2', '6,"a" "b,e3', '7,"a" ,e4']),
    "quotes in quotes": ("\n", ['5,"""a"" b",i1', '17,"""",i2', '6,"a ""17""",i3']),
    "too few and too many values": ("\n", ["5", "17,a", "6,b,m1,c", "17,a,m2,b", "7,c,m3"]),
}


def test_every_record_is_one_for_staging_and_for_erasure(spark: SparkSession, tmp_path: Path) -> None:
    before, after = (RawZone(spark, str(tmp_path / name), "reviews") for name in ("before", "after"))
    feed, who, cuts = FEEDS["reviews"], Person(ids={"customer_id": ("17",)}), dict[str, Cut]()
    for name, (end, records) in FILES.items():
        text = "".join(record + end for record in ["cid,review_str,id_review", *records])
        out = io.BytesIO()
        cuts[name] = cut(who, feed, declared_sources(feed), io.BytesIO(text.encode()), out)
        before.put({name: text})
        after.put({name: out.getvalue()})
    before.stage()
    after.stage()
    read = {name: records for name, (records, *_) in before.counts().items()}
    assert read == {name: len(records) for name, (_, records) in FILES.items()}
    assert read == {name: found.removed + found.kept for name, found in cuts.items()}
    assert after.rows() == [row for row in before.rows() if row[0] != "17"]
    assert after.rejected() == [row for row in before.rejected() if "17" not in row[2]]
