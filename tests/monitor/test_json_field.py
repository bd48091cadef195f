"""A field is found in an answer and in its schema, or it is said that there is none."""

from typing import Any

import pytest

from llava_video.errors import ConfigError
from llava_video.monitor.json_field import (
    allowed,
    is_missing,
    is_whole,
    named_in,
    part_of,
    schema_of,
    with_part,
)

CAR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}}
SCHEMA = {
    "type": "object",
    "properties": {
        "cars": {"type": "array", "items": CAR}, "any": True, "none": False,
        "open": {"$ref": "#"}, "list": {"type": "array", "items": True},
        "pair": {"type": "array", "prefixItems": [{}], "items": False},
        "old": {"type": "array", "items": [{}]}, "empty": {"type": "array", "items": False},
    },
}  # fmt: skip
PARTS: list[Any] = [-1, 0, 0.5, 1, 2, "", "red", "blue", True, False, None]


def test_parts() -> None:
    assert part_of({"a": {"b": [5]}}, "a.b.0") == 5
    assert part_of(7, "") == 7
    assert is_missing(part_of({"a": 1}, "a.b"))
    assert is_missing(part_of([1], "1"))
    assert not is_missing(part_of({"a": None}, "a"))


@pytest.mark.parametrize("field", ["", "a", ".a..b.", "cars.0.colour"])
def test_a_value_with_a_part_has_it(field: str) -> None:
    assert part_of(with_part(field, 3), field) == 3


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("", SCHEMA),
        ("cars.7.colour", {"enum": ["red", "blue"]}),
        ("any", True),
        ("any.b.c", True),
        ("list.0.b", True),
        ("open.b", None),
        ("pair.0.b", None),
        ("old.0", [{}]),
        ("old.0.b", [{}]),
    ],
)
def test_a_field_has_a_schema_as_far_as_it_is_known(field: str, found: Any) -> None:
    assert schema_of(field, SCHEMA) == found


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("vans", "the schema has no 'vans'.*any, cars"),
        ("cars.0.size", "no 'size'.*it has colour"),
        ("none", "never a 'none'"),
        ("none.b", "never a 'none'"),
        ("empty.0.b", "never a '0'"),
    ],
)
def test_a_field_that_never_is_is_refused(field: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        schema_of(field, SCHEMA)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (True, PARTS),
        ({}, PARTS),
        ({"title": "A count"}, PARTS),
        ({"type": "integer"}, [-1, 0, 1, 2]),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, [0, 0.5]),
        ({"exclusiveMinimum": 0, "maximum": 1, "type": ["number", "null"]}, [0.5, 1, None]),
        ({"type": "string", "minLength": 1, "maxLength": 3}, ["red"]),
        ({"type": "boolean"}, [True, False]),
        ({"enum": [1, "red", None, {}]}, [1, "red", None]),
        ({"const": False}, [False]),
        ({"type": "object"}, []),
        ({"anyOf": [{"type": "integer"}]}, []),
        ({"type": "string", "pattern": "r"}, []),
        (None, []),
        ([{}], []),
    ],
)
def test_what_a_schema_allows_of_some_parts(schema: Any, expected: list[Any]) -> None:
    found = allowed(schema, PARTS)
    assert [(type(one), one) for one in found] == [(type(one), one) for one in expected]


def test_numbers_that_are_whole_and_what_a_schema_names() -> None:
    wholes = ["integer", "number", ["integer", "null"], ["integer", "number"], "string"]
    assert [is_whole({"type": one}) for one in wholes] == [True, False, True, False, False]
    assert not is_whole({})
    assert not is_whole(True)
    assert named_in({"enum": ["a", 3, None, []], "minimum": 1, "type": "string"}) == [1, "a", 3]
    assert named_in({"const": "x"}) == ["x"]
    assert named_in(True) == named_in(None) == []
