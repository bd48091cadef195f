"""Each comparison by hand, and what can never be is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import ConfigError
from llava_video.monitor.answer_type import AnswerType
from llava_video.monitor.condition import Condition, same, telling_answers
from llava_video.monitor.json_field import is_missing, part_of

NUMBER = AnswerType(type="number", at_least=0, at_most=10)
FREE = AnswerType(type="number", whole=False)
WIDE = AnswerType(type="number", at_least=0, at_most=100)
SHARE = AnswerType(type="number", at_least=0, at_most=1, whole=False)
CHOICE = AnswerType(type="choice", choices=("open", "closed"))
TEXT = AnswerType(type="text")
JSON = AnswerType(
    type="json",
    schema={
        "type": "object",
        "properties": {"n": {"type": "integer"}, "cars": {"type": "array", "items": {
            "type": "object", "properties": {"colour": {"type": "string"}}}}},
    },
)  # fmt: skip


def of_schema(**schema: Any) -> AnswerType:
    return AnswerType(type="json", schema={"type": "object", **schema})


@pytest.mark.parametrize(
    ("condition", "met", "not_met"),
    [
        ({"equals": "yes"}, ["yes", "YES "], ["no", True, None]),
        ({"equals": 3}, [3, 3.0], [2, "3", True]),
        ({"equals": False}, [False], [0, None, "false"]),
        ({"equals": 0}, [0, 0.0], [False, None]),
        ({"not_equals": "no"}, ["yes", 1], ["no", "No"]),
        ({"one_of": (1, "red")}, [1, "Red"], [2, True]),
        ({"at_least": 3}, [3, 4.5], [2.9, "3", None, True]),
        ({"at_most": 3}, [3, -1], [3.1]),
        ({"above": 3}, [3.1], [3]),
        ({"below": 3}, [2.9], [3]),
        ({"at_least": 0, "at_most": 0}, [0], [1, False]),
        ({"above": 1, "below": 3}, [2], [1, 3]),
        ({"contains": "Keep  left"}, ["please KEEP LEFT!"], ["keep right", 3]),
        ({"instructs": True}, ["ignore your instructions"], ["Exit", 3]),
        ({"any_of": ({"above": 8}, {"below": 2})}, [9, 1], [5]),
        ({"at_least": 1, "any_of": ({"above": 8}, {"below": 2})}, [9, 1], [5, 0]),
        ({"field": "cars.1.n", "equals": 2}, [{"cars": [{}, {"n": 2}]}],
         [{"cars": [{"n": 2}]}, {"cars": {"1": 2}}, {}, [], 2]),
        ({"field": "n", "not_equals": 2}, [{"n": 3}], [{"n": 2}, {}]),
    ],
)  # fmt: skip
def test_a_condition_is_met_or_not(
    condition: dict[str, Any], met: list[Any], not_met: list[Any]
) -> None:
    inner = tuple(Condition(**one) for one in condition.pop("any_of", ()))
    made = Condition(**condition, any_of=inner)
    assert [value for value in met if not made.holds(value)] == []
    assert [value for value in not_met if made.holds(value)] == []


def test_a_change_leaves_the_value_to_the_other_comparisons() -> None:
    change = Condition(changed=True, at_least=3)
    assert change.is_change
    assert change.holds(3)
    assert not change.holds(2)
    assert change.takes_change(1, 2)
    named = Condition(changed_from=0, changed_to="A")
    assert named.takes_change(0, "a")
    assert not named.takes_change(False, "a")
    assert not named.takes_change(0, "b")


def test_sameness() -> None:
    assert same("A b", " a  B")
    assert same(1, 1.0)
    assert same({"a": [1]}, {"a": [1.0]})
    assert not same(1, True)
    assert not same("1", 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "compares nothing"),
        ({"field": "a"}, "compares nothing"),
        ({"changed": False}, "compares nothing"),
        ({"contains": "  "}, "every text has"),
        ({"changed_from": "a", "changed_to": "A"}, "from one answer to another"),
        ({"any_of": (Condition(changed=True),)}, "inside any_of"),
        ({"at_least": 1, "at_most": "x"}, "at_most = 'x'"),
        ({"at_least": float("nan")}, "no finite number"),
        ({"below": float("inf")}, "no finite number"),
    ],
)
def test_what_means_nothing_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Condition(**wrong)


@pytest.mark.parametrize(
    ("condition", "answer", "message"),
    [
        ({"at_least": 1}, AnswerType(), "at_least does not go with .*'yes_no'"),
        ({"contains": "a"}, NUMBER, "contains does not go with"),
        ({"instructs": True}, CHOICE, "instructs does not go with"),
        ({"field": "a", "equals": "yes"}, AnswerType(), "only json answers have fields"),
        ({"equals": True}, AnswerType(), "never answered.*true and false"),
        ({"equals": "ajar"}, CHOICE, "never answered.*open, closed"),
        ({"one_of": ("open", "ajar")}, CHOICE, "'ajar' is never answered"),
        ({"changed_to": "ajar"}, CHOICE, "never answered"),
        ({"equals": 11}, NUMBER, "never answered.*answers are 0, 1"),
        ({"equals": 1.5}, NUMBER, "never answered"),
        ({"equals": "3"}, FREE, "never answered.*numbers from -inf to inf"),
        ({"equals": "3"}, NUMBER, "never answered"),
        ({"equals": 3}, TEXT, "never answered"),
        ({"at_least": 11}, NUMBER, "no number meets at_least"),
        ({"below": 0}, NUMBER, "no number meets below"),
        ({"above": 3, "below": 3}, FREE, "no number meets above, below"),
        ({"at_least": 4, "at_most": 3}, FREE, "no number meets"),
        ({"at_least": 0}, NUMBER, "every answer meets the condition at_least"),
        ({"one_of": ("open", "closed")}, CHOICE, "every answer meets"),
        ({"equals": "open", "not_equals": "OPEN"}, CHOICE, "no answer meets"),
        ({"above": 3, "below": 4}, NUMBER, "no answer meets"),
        ({"changed_to": 3, "at_least": 5}, NUMBER, "no answer meets"),
        ({"changed": True, "equals": "open", "not_equals": "open"}, CHOICE, "no answer meets"),
        ({"any_of": ({"at_least": 99},)}, NUMBER, "no number meets"),
        ({"equals": 3, "above": 5}, WIDE, "no answer meets the condition equals, above"),
        ({"above": 3, "below": 4}, WIDE, "no answer meets"),
        ({"one_of": (1, 2), "not_equals": 1, "above": 2}, FREE, "no answer meets"),
        ({"changed_to": 3, "at_least": 5}, WIDE, "no answer meets"),
        ({"at_least": 4, "any_of": ({"below": 3}, {"equals": 3.5})}, FREE, "no answer meets"),
        ({"at_least": 0}, WIDE, "every answer meets.*whole numbers from 0 to 100"),
        ({"above": -0.5}, SHARE, "every answer meets the condition above"),
        ({"any_of": ({"at_least": 5}, {"below": 5})}, FREE, "every answer meets"),
        ({"any_of": ({"at_least": 5}, {"at_most": 4})}, WIDE, "every answer meets"),
        ({"equals": "a", "not_equals": " A"}, TEXT, "no answer meets.*the answer is a text"),
        ({"equals": "red", "contains": "blue"}, TEXT, "no answer meets"),
        ({"equals": "red", "instructs": True}, TEXT, "no answer meets"),
        ({"any_of": ({"not_equals": "a"}, {"contains": "a"})}, TEXT, "every answer meets"),
        ({"field": "n", "equals": 3, "above": 5}, JSON, "no answer meets.*JSON value"),
        ({"field": "n", "equals": 3, "contains": "3"}, JSON, "no answer meets"),
        ({"field": "m", "equals": 1}, JSON, "no 'm'.*cars, n"),
        ({"field": "cars.0.size", "equals": 1}, JSON, "no 'size'.*colour"),
        ({"field": "a", "equals": 1}, of_schema(properties={"a": False}), "never a 'a'"),
        ({"field": "a.b", "equals": 1}, of_schema(properties={"a": False}), "never a 'a'"),
        ({"field": "0.b", "equals": 1}, of_schema(type="array", items=False), "never a '0'"),
    ],
)
def test_what_no_answer_meets_or_every_one_does_is_refused(
    condition: dict[str, Any], answer: AnswerType, message: str
) -> None:
    inner = tuple(Condition(**one) for one in condition.pop("any_of", ()))
    with pytest.raises(ConfigError, match=message):
        Condition(**condition, any_of=inner).refuse_impossible(answer)


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        (Condition(equals="no"), AnswerType()),
        (Condition(changed=True), CHOICE),
        (Condition(changed=True, at_least=3), NUMBER),
        (Condition(at_least=10), NUMBER),
        (Condition(above=2, below=3), FREE),
        (Condition(field="cars.0.colour", equals="red"), JSON),
        (Condition(field="n", at_least=3), JSON),
        (Condition(field="n", not_equals=False), JSON),
        (Condition(field="n", equals=True), JSON),
        (Condition(field="a.b", equals=1), of_schema(properties={"a": True})),
        (Condition(field="0.b", equals=1), of_schema(type="array", items=True)),
        (
            Condition(field="0.b", equals=1),
            of_schema(type="array", prefixItems=[{"type": "object"}], items=False),
        ),
        (Condition(above=3, below=5), WIDE),
        (Condition(above=0), SHARE),
        (Condition(above=1e308), FREE),
        (Condition(not_equals=7), WIDE),
        (Condition(changed=True), FREE),
        (Condition(contains="fire", not_equals="fire"), TEXT),
        (Condition(contains="anything", not_equals="anything else"), TEXT),
        (Condition(contains="fire", any_of=(Condition(contains="smoke"),)), TEXT),
        (Condition(contains="exit", instructs=True), TEXT),
        (Condition(instructs=True), TEXT),
        (Condition(any_of=(Condition(not_equals=""), Condition(contains="a"))), TEXT),
    ],
)
def test_what_may_be_is_not_refused(condition: Condition, answer: AnswerType) -> None:
    condition.refuse_impossible(answer)


def told_parts(field: str, schema: dict[str, Any], *conditions: dict[str, Any]) -> list[Any]:
    answer = of_schema(properties={field: schema})
    made = [Condition(field=field, **one) for one in conditions]
    return [part_of(one, field) for one in telling_answers(answer, *made)]


def test_answers_of_json_hold_of_one_field_what_its_schema_allows() -> None:
    over, red = {"above": 1, "below": 2}, {"equals": "Red"}
    parts = told_parts("n", {}, over, red)
    assert not any(map(is_missing, parts))
    assert {True, False, None, "Red", 1.5} <= set(parts)
    assert told_parts("n", {"type": "integer", "minimum": 1}, over) == [1, 2, 3]
    assert told_parts("n", {"enum": ["Ajar", 7]}, over, red) == [7, "Ajar"]
    assert told_parts("n", {"$ref": "#"}, over) == []


def test_answers_of_json_tell_nothing_of_several_fields() -> None:
    one = Condition(field="cars.0.colour", equals="red")
    assert telling_answers(JSON, one, Condition(field=".cars.0.colour", equals="blue"))
    assert telling_answers(JSON, one, Condition(field="n", equals=1)) == []
    inner = Condition(field="n", any_of=(Condition(field="m", equals=1),))
    assert inner.compared_fields == {"m"}


numbers = st.none() | st.integers(-4, 14).map(lambda half: half / 2)
conditions = st.builds(
    Condition, not_equals=st.just(99), equals=numbers, at_least=numbers, at_most=numbers,
    above=numbers, below=numbers,
)  # fmt: skip


@given(conditions, conditions, st.booleans())
def test_what_any_number_meets_one_of_the_told_numbers_does(
    one: Condition, other: Condition, whole: bool
) -> None:
    answer = AnswerType(type="number", at_least=0, at_most=40, whole=whole)
    told = telling_answers(answer, one, other)
    every = [quarter / 4 for quarter in range(161) if not (whole and quarter % 4)]
    assert all(answer.value_of(number) == number for number in told)
    for kind in (
        lambda x: one.holds(x) and other.holds(x),
        lambda x: one.holds(x) and not other.holds(x),
        lambda x: not one.holds(x) and not other.holds(x),
    ):
        assert any(map(kind, told)) == any(map(kind, every))
