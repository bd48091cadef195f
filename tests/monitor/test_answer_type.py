"""What may be answered, how it is asked for, and what comes back."""

import json
from typing import Any

import jsonschema
import pytest

from llava_video.errors import ConfigError
from llava_video.monitor.answer_type import MOST_SCORED, AnswerType, plain_text


@pytest.mark.parametrize(
    ("answer", "form", "has_confidence"),
    [
        (AnswerType(), ["yes", "no"], True),
        (AnswerType(type="choice", choices=("a", "b")), ["a", "b"], True),
        (AnswerType(type="number", at_least=0, at_most=3), ["0", "1", "2", "3"], True),
        (AnswerType(type="number", at_least=-1, at_most=1), ["-1", "0", "1"], True),
        (AnswerType(type="number", at_least=2), {"type": "integer", "minimum": 2}, False),
        (AnswerType(type="number", at_least=0, at_most=100),
         {"type": "integer", "minimum": 0, "maximum": 100}, False),
        (AnswerType(type="number", at_least=0.5, at_most=1.5, whole=False),
         {"type": "number", "minimum": 0.5, "maximum": 1.5}, False),
        (AnswerType(type="text", max_characters=5), {"type": "string", "maxLength": 5}, False),
        (AnswerType(type="json", schema={"type": "object"}), {"type": "object"}, False),
    ],
)  # fmt: skip
def test_each_type_holds_the_engine_to_its_answers(
    answer: AnswerType, form: Any, has_confidence: bool
) -> None:
    assert answer.response_format == form
    assert answer.has_confidence == has_confidence
    if isinstance(form, dict):
        jsonschema.Draft202012Validator.check_schema(form)


def test_numbers_are_choices_up_to_so_many() -> None:
    few = AnswerType(type="number", at_least=0, at_most=MOST_SCORED - 1)
    assert len(few.response_format) == MOST_SCORED
    assert isinstance(
        AnswerType(type="number", at_least=0, at_most=MOST_SCORED).response_format, dict
    )


@pytest.mark.parametrize(
    ("answer", "parsed", "value"),
    [
        (AnswerType(), "YES ", "yes"),
        (AnswerType(type="choice", choices=("Wide open", "shut")), "wide  open", "Wide open"),
        (AnswerType(type="number", at_least=0, at_most=9), "7", 7),
        (AnswerType(type="number"), 7.0, 7),
        (AnswerType(type="number", whole=False), 7.5, 7.5),
        (AnswerType(type="text", max_characters=3), "abcdef", "abc"),
        (AnswerType(type="json", schema={}), {"a": [1]}, {"a": [1]}),
    ],
)
def test_an_answer_becomes_the_value_of_its_type(
    answer: AnswerType, parsed: Any, value: Any
) -> None:
    found = answer.value_of(parsed)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        (AnswerType(), "maybe"),
        (AnswerType(), True),
        (AnswerType(type="number", at_least=0, at_most=9), 10),
        (AnswerType(type="number"), 1.5),
        (AnswerType(type="number"), True),
        (AnswerType(type="number"), "many"),
        (AnswerType(type="number"), None),
        (AnswerType(type="number", whole=False), float("nan")),
        (AnswerType(type="number", whole=False), float("inf")),
        (AnswerType(type="text"), {"a": 1}),
    ],
)
def test_what_was_not_allowed_is_no_answer(answer: AnswerType, parsed: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        answer.value_of(parsed)


# As a server's JSON may name it: the first half of a character that is two in UTF-16.
HALF = json.loads('"shop \\ud83d"')


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        (AnswerType(type="text"), HALF),
        (AnswerType(type="json", schema={}), HALF),
        (AnswerType(type="json", schema={}), {"signs": [{"text": HALF}]}),
        (AnswerType(type="json", schema={}), {HALF: 1}),
    ],
)
def test_half_a_character_is_no_answer(answer: AnswerType, parsed: Any) -> None:
    with pytest.raises(ValueError, match=r"^half a character, '\\ud83d'$"):
        answer.value_of(parsed)


def test_whole_characters_of_any_kind_are_answers() -> None:
    whole = json.loads('"shop \\ud83d\\ude00"')
    assert AnswerType(type="text").value_of(whole) == "shop \N{GRINNING FACE}"
    cut = AnswerType(type="text", max_characters=5)
    assert cut.value_of(HALF) == "shop "  # what is cut away harms nobody


@pytest.mark.parametrize("type_", ["yes_no", "number", "text", "json"])
def test_answers_are_long_enough_for_all_that_is_allowed(type_: str) -> None:
    answer = AnswerType(type=type_, schema={} if type_ == "json" else None, max_characters=300)
    longest = json.dumps("\N{GRINNING FACE}" * 300, ensure_ascii=False).encode()
    assert answer.max_new_tokens >= (len(longest) if type_ == "text" else 32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"type": "yes-no"}, "type = 'yes-no'"),
        ({"type": "choice"}, "0 choices"),
        ({"choices": ("a", "b")}, "belong to type: choice"),
        ({"type": "choice", "choices": ("a",)}, "two or more"),
        ({"type": "choice", "choices": ("a", "A ")}, "all different"),
        ({"type": "choice", "choices": ("a", " ")}, "none empty"),
        ({"type": "json"}, "needs one"),
        ({"schema": {}}, "belongs to type: json"),
        ({"type": "json", "schema": {"type": "thing"}}, "cannot be followed: .*thing"),
        ({"type": "json", "schema": {"pattern": "("}}, "cannot be followed: regex"),
        ({"type": "json", "schema": {"not": {}}}, "cannot be followed: .*not"),
        ({"type": "json", "schema": {"enum": [{1}]}}, "is no JSON"),
        ({"at_most": 3}, "belong to type: number"),
        ({"type": "number", "at_least": 3, "at_most": 2}, "not above the greatest"),
        ({"type": "number", "at_least": 0.5}, "whole limits"),
        ({"type": "number", "at_least": float("nan"), "whole": False}, "finite numbers"),
        ({"type": "number", "at_most": float("inf")}, "finite numbers"),
        ({"type": "text", "max_characters": 0}, "max_characters"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnswerType(**wrong)


def test_texts_are_compared_in_one_case_with_single_blanks() -> None:
    assert plain_text(" STRASSE\n\t1 ") == plain_text("straße 1")
