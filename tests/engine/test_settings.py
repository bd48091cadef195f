import dataclasses

import pytest

from llava_video.config import from_mapping, to_mapping
from llava_video.engine.settings import EngineSettings, GenerationSettings
from llava_video.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 3.5),
        ("max_new_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_k", -1),
        ("seed", -1),
        ("seed", 2**63),
        ("repetition_penalty", 0.0),
        ("stop", "END"),
        ("stop", ("",)),
        ("response_format", "yes"),
        ("response_format", []),
        ("response_format", ["a", "a"]),
        ("response_format", ["a", " b"]),
        ("response_format", ["a", 1]),
        ("response_format", 5),
    ],
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError):
        GenerationSettings(**{field: value})


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(EngineSettings)])
def test_engine_settings_are_positive_whole_numbers_or_words(field):
    refused = (-1, 1.5) if field.startswith("kept_") else (0, -1, 1.5)
    for value in refused:
        with pytest.raises(ConfigError):
            EngineSettings(**{field: value})
    assert EngineSettings(kept_prefixes=0).kept_prefixes == 0


def test_choices_and_schema_are_told_apart():
    assert GenerationSettings(response_format=["yes", "no"]).choices == ("yes", "no")
    assert GenerationSettings(response_format=["yes", "no"]).schema is None
    assert GenerationSettings(response_format={"type": "integer"}).schema == {"type": "integer"}
    assert GenerationSettings(response_format={"type": "integer"}).choices == ()
    assert GenerationSettings().choices == ()
    assert GenerationSettings().schema is None


@pytest.mark.parametrize("cls", [GenerationSettings, EngineSettings])
def test_settings_round_trip_and_are_documented(cls):
    assert from_mapping(cls, to_mapping(cls())) == cls()
    assert all(field.metadata["doc"] for field in dataclasses.fields(cls))


def test_settings_with_values_round_trip():
    asked = GenerationSettings(
        stop=("a", "b"), response_format={"type": "object", "properties": {"n": {"type": "string"}}}
    )
    assert from_mapping(GenerationSettings, to_mapping(asked)) == asked
