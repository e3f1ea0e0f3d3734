"""JSON arrays are cut into the texts of their elements, or it is said that they are none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.transforms.json_arrays import elements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_elements_are_given_as_they_stand_there() -> None:
    text = '\ufeff [ {"a": 1.50, "b": 12345678.0} ,\t{"c":"],[\\"\\u00e5"},null , [1e400,\n  2], "x"\n]\n'
    assert list(elements(text)) == [
        '{"a": 1.50, "b": 12345678.0}',
        '{"c":"],[\\"\\u00e5"}',
        "null",
        "[1e400,   2]",
        '"x"',
    ]


@pytest.mark.parametrize("text", ["[]", " [ \n ] "])
def test_an_empty_array_has_none(text: str) -> None:
    assert list(elements(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "{}",
            "null",
            "]",
            "[",
            "[,]",
            "[1,]",
            "[1 2]",
            "[1][2]",
            "[1]x",
            "[1],",
            "x[1]",
            "[[1]",
            "[{]}",
        ),
        *('["a\nb"]', "[{'a': 1}]", "[" * 100_000),
    ],
)
def test_what_is_not_one_whole_array_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        list(elements(text))


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 0, 2]))
def test_what_is_cut_apart_is_what_was_put_together(values: list[Any], indent: int | None) -> None:
    text = json.dumps(values, indent=indent)
    assert [json.loads(element) for element in elements(text)] == values


@given(st.lists(VALUES, min_size=1, max_size=5), st.data())
def test_an_array_that_breaks_off_is_an_error(values: list[Any], data: st.DataObject) -> None:
    text = json.dumps(values)
    with pytest.raises(ValueError, match=r"\w"):
        list(elements(text[: data.draw(st.integers(0, len(text) - 1))]))
