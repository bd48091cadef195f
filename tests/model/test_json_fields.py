"""Values out of untrusted JSON: read as their type, or refused with the place and the value."""

from pathlib import Path

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.json_fields import JsonFields, read_json_object

FIELDS = JsonFields(
    {"count": 3, "eps": 1e-6, "name": "x", "on": True, "null": None, "ids": [1, 2], "in": {"a": 1}},
    "config.json",
)


def test_reads_each_type():
    assert FIELDS.integer("count") == 3
    assert FIELDS.number("eps") == 1e-6
    assert FIELDS.number("count") == 3.0
    assert FIELDS.text("name") == "x"
    assert FIELDS.flag("on", False) is True
    assert FIELDS.ids("ids") == (1, 2)
    assert FIELDS.ids("count") == (3,)
    assert FIELDS.ids("absent") == ()
    assert FIELDS.texts("absent") == ()
    assert JsonFields({"key": ["a", "b"]}, "x").texts("key") == ("a", "b")
    assert FIELDS.inner("in").integer("a") == 1
    assert FIELDS.inner("absent").values == {}


def test_one_of_a_few_words():
    assert FIELDS.one_of("name", "y", ("x", "y")) == "x"
    assert FIELDS.one_of("absent", "y", ("x", "y")) == "y"
    with pytest.raises(CheckpointError, match=r"name = 'x', expected 'a' or 'b'\.") as caught:
        FIELDS.one_of("name", "a", ("a", "b"))
    assert caught.value.hint == "write one of these in config.json."


def test_null_counts_as_missing():
    assert not FIELDS.has("null")
    assert FIELDS.integer("null", 7) == 7
    assert FIELDS.flag("null", True) is True


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda fields: fields.integer("key"), "3"),
        (lambda fields: fields.integer("key"), True),
        (lambda fields: fields.integer("key"), 2.5),
        (lambda fields: fields.integer("key"), 0),
        (lambda fields: fields.integer("key"), -4),
        (lambda fields: fields.number("key"), 0),
        (lambda fields: fields.number("key"), float("nan")),
        (lambda fields: fields.number("key"), False),
        (lambda fields: fields.text("key"), 3),
        (lambda fields: fields.flag("key", True), "yes"),
        (lambda fields: fields.flag("key", True), 1),
        (lambda fields: fields.ids("key"), ["a"]),
        (lambda fields: fields.ids("key"), True),
        (lambda fields: fields.texts("key"), "a"),
        (lambda fields: fields.texts("key"), ["a", 1]),
        (lambda fields: fields.inner("key"), [1]),
    ],
)
def test_a_wrong_value_names_the_place_and_the_key(read, value):
    with pytest.raises(CheckpointError, match=r"config\.json vision_config has key = "):
        read(JsonFields({"key": value}, "config.json vision_config"))


def test_a_missing_value_without_default_is_an_error():
    with pytest.raises(CheckpointError, match="hidden_size = None"):
        FIELDS.integer("hidden_size")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff not json"])
def test_a_file_that_is_no_json_object_is_an_error(tmp_path: Path, text: str):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_json_object(path)


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(CheckpointError, match="cannot read"):
        read_json_object(tmp_path / "absent.json")
