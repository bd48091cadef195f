import json

import jsonschema
import pytest

from llava_video.engine.oracle import OracleEngine
from llava_video.engine.request import Failed, TextPart, answer_of
from llava_video.errors import ConfigError, DecodeError


@pytest.fixture
def oracle(tiny):
    return OracleEngine(tiny.tokenizer)


@pytest.fixture
def told(oracle, ask, video):
    """Return a function that asks the oracle of frames 3, 9 and 5, at 1.5, 4.5 and 2.5 s."""

    def run(question, **options):
        options = {"max_new_tokens": 500, **options}
        return answer_of(oracle, ask("user\n", video([3, 9, 5]), f"\n{question}\n", **options))

    return run


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Which indices are shown?", "3, 9, 5"),
        ("How many frames are there?", "3"),
        ("What is the FIRST index?", "3"),
        ("What is the last index?", "5"),
        ("Is index 9 shown?", "yes"),
        ("Is index 4 shown?", "no"),
        ("When is index 9 shown?", "4.50"),
        ("When is index 4 shown?", "never"),
        ("Is bit 2 set?", "yes"),
        ("Is bit 1 set?", "no"),
        ("What are bits 1 to 2?", "2"),
        ("Describe it.", "3 frames from 1.50 s to 2.50 s show the indices 3, 9, 5."),
        ("Which indices? No: is index 5 shown?", "yes"),
    ],
)
def test_the_grammar(told, question, text):
    answer = told(question)
    assert answer.text == text
    assert (answer.finish_reason, answer.parsed) == ("stop", None)
    assert bytes(answer.token_ids).decode() == text
    assert answer.visual_tokens == 18


def test_several_visuals_count_as_one_series(oracle, ask, video):
    parts = (video([1]), " and ", video([7, 200]), " which indices?")
    assert answer_of(oracle, ask(*parts, max_new_tokens=50)).text == "1, 7, 200"


def test_a_fused_prompt_is_read_like_any_other(oracle, ask, fused):
    part = fused("user\n", [3, 9, 5], "\nWhich indices are shown?\n")
    answer = answer_of(oracle, ask(part, max_new_tokens=50))
    assert (answer.text, answer.visual_tokens) == ("3, 9, 5", 12)


def test_no_frames(oracle, ask):
    assert answer_of(oracle, ask("Hello", max_new_tokens=50)).text == "No frame was shown."


def test_choices_are_honoured(told):
    answer = told("Is index 9 shown?", response_format=["No", "Yes"])
    assert (answer.text, answer.parsed, answer.confidence) == ("Yes", "Yes", 1.0)
    with pytest.raises(ConfigError, match="'yes'"):
        told("Is index 9 shown?", response_format=["red", "blue"])


@pytest.mark.parametrize(
    ("lines", "letter"),
    [("A. 5\nB. 3\nC. 35", "B"), ("(A) 3\n(B) 5", "A"), ("A. 1\nB. 2\nC.  3 ", "C")],
)
def test_a_lettered_choice_is_the_line_that_says_it(told, lines, letter):
    answer = told(f"What is the first index?\n{lines}\nThe letter:", response_format=list("ABC"))
    assert (answer.parsed, answer.confidence) == (letter, 1.0)
    with pytest.raises(ConfigError, match="'3'"):
        told("What is the first index?\nA. 4\nB. 33", response_format=["A", "B"])


@pytest.mark.parametrize(
    ("question", "schema", "value"),
    [
        ("which indices", {"type": "array", "items": {"type": "integer"}}, [3, 9, 5]),
        ("first index", {"type": "integer"}, 3),
        ("first index", {"type": "string"}, "3"),
        ("is index 3 shown", {"type": "boolean"}, True),
        ("is index 3 shown", {"enum": ["yes", "no"]}, "yes"),
        ("when is index 3 shown", {"type": ["null", "number"]}, 1.5),
        ("when is index 4 shown", {"type": ["number", "null"]}, None),
        ("last index", {"anyOf": [{"type": "boolean"}, {"type": "integer"}]}, 5),
        (
            "is index 4 shown",
            {
                "type": "object",
                "properties": {
                    "indices": {"type": "array"},
                    "count": {"type": "integer"},
                    "first": {"type": "integer"},
                    "last": {"type": "string"},
                    "alarm": {"type": "boolean"},
                },
            },
            {"indices": [3, 9, 5], "count": 3, "first": 3, "last": "5", "alarm": False},
        ),
    ],
)
def test_schemas_are_honoured(told, question, schema, value):
    answer = told(question, response_format=schema)
    assert answer.parsed == value == json.loads(answer.text)
    jsonschema.validate(answer.parsed, schema)


@pytest.mark.parametrize(
    "schema", [{"type": "boolean"}, {"enum": [1, 2]}, {"anyOf": [{"type": "null"}]}]
)
def test_a_schema_the_answer_does_not_fit_is_refused(told, schema):
    with pytest.raises(ConfigError):
        told("first index", response_format=schema)


def test_limits_cut_as_they_cut_a_model(told):
    cut = told("which indices", max_new_tokens=4)
    assert (cut.text, cut.finish_reason, cut.new_tokens) == ("3, 9", "length", 4)
    typed = told("which indices", max_new_tokens=4, response_format={"type": "array"})
    assert (typed.finish_reason, typed.parsed) == ("length", None)
    assert typed.warnings
    stopped = told("which indices", stop=(", 5",))
    assert (stopped.text, stopped.finish_reason) == ("3, 9", "stop")


def test_events_are_those_of_the_scheduler(oracle, ask, video, run_all):
    broken = video([1, 2, 3], fail_at=3)
    requests = [
        ask(video([1]), "first index", max_new_tokens=9),
        ask(broken, "first index", request_id=1),
        ask(video([2]), "first index", request_id=2),
    ]
    first, error, last = run_all(oracle, requests)
    assert (first.text, last.text) == ("1", "2")
    assert isinstance(error, RuntimeError)
    short = video([1, 2])
    short.clips.idxs.pop()
    with pytest.raises(DecodeError):
        answer_of(oracle, ask(short, "first index"))


def test_a_request_can_be_cancelled(oracle, ask, video):
    part = video(range(20))
    request = ask(part, "first index", cancelled=lambda: part.clips.given > 6)
    answer = answer_of(oracle, request)
    assert (answer.text, answer.finish_reason) == ("", "cancelled")
    assert part.clips.given < 12
    assert part.clips.closed == 1


def test_one_bad_request_does_not_end_the_others(oracle, ask, video):
    requests = [
        ask(TextPart((5,)), response_format=["a", "b"]),
        ask(video([4]), "last index", request_id=1),
    ]
    events = list(oracle.run(requests))
    assert isinstance(events[0], Failed)
    assert events[-1].answer.text == "4"
