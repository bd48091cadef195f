"""Questions and records of many clips: answers against what an independent eye reads from the
pixels, and how answers are spread."""

import dataclasses
import re
from collections import Counter, defaultdict

import pytest
from world_reader import Reader

from llava_video.config import from_mapping
from llava_video.model.labels import turns_of_sample
from llava_video.world.example import Example, make_example, questions_of, records
from llava_video.world.question import ANSWERS, Question
from llava_video.world.render import render
from llava_video.world.scene import Scene
from llava_video.world.settings import WorldSettings
from llava_video.world.witness import Witness

# Looked at twice a second, as training does, but read from all frames.
_READ = WorldSettings(
    sizes_px=((88, 88), (80, 112)), rates_hz=(8.0,), lengths_s=(8.0,), shake_share=0.0
)
_SHAKEN = dataclasses.replace(_READ, shake_share=1.0)
# What the eye can tell although it does not know how the camera shook.
_STEADY = (
    "shape", "colour", "size", "place", "count", "count_alike", "count_now", "sign", "direction",
    "side", "is_there", "is_there_now", "did_number", "moves_to", "beside", "is_sign", "sign_says",
)  # fmt: skip


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [make_example(WorldSettings(), "spread", 0, idx) for idx in range(500)]


@pytest.fixture(scope="module")
def questions(examples: list[Example]) -> list[Question]:
    return [question for example in examples for question in example.questions]


@pytest.mark.parametrize(
    ("settings", "first"),
    [*((_READ, first) for first in range(0, 32, 8)), (_SHAKEN, 0)],
    ids=lambda value: str(value) if isinstance(value, int) else f"shake={value.shake_share}",
)
def test_answers_are_what_an_eye_reads(settings: WorldSettings, first: int) -> None:
    kinds = ANSWERS if settings is _READ else _STEADY
    wrong = []
    for idx in range(first, first + 8):
        example = make_example(settings, "read", 0, idx)
        scene = example.scene
        reader = Reader(render(scene), scene.rate_hz, scene.shake_px)
        for question in example.questions:
            read = reader.answer(question.kind, question.text) if question.kind in kinds else ""
            if question.kind in kinds and not question.is_right(read):
                wrong.append((idx, question.text, question.answer, read))
    assert wrong == []


def test_every_kind_is_asked(questions: list[Question]) -> None:
    counts = Counter(question.kind for question in questions)
    assert set(counts) == set(ANSWERS)
    assert min(counts.values()) > 25


def test_answers_have_their_forms(questions: list[Question]) -> None:
    forms = {
        "which": r"([a-z]+ )?[a-z]+",
        "hits": r"([a-z]+ )?[a-z]+",
        "order": r"([a-z]+ )?[a-z]+",
        "when": r"\d+\.[05] s",
        "sign": r"[A-Z0-9]{1,4}",
    }
    for question in questions:
        if question.kind in forms:
            assert re.fullmatch(forms[question.kind], question.answer), question
        else:
            assert question.answer in ANSWERS[question.kind]
        assert (question.seconds is not None) == (question.kind == "when")
        assert not question.choices or question.answer in question.choices


# The largest share one answer may have: twice that of an even spread, at most.
_MOST = {
    "shape": 0.3, "colour": 0.25, "size": 0.6, "place": 0.22, "count": 0.36, "count_now": 0.4,
    "count_alike": 0.52, "direction": 0.25, "side": 0.4, "action": 0.4, "which": 0.1, "hits": 0.2,
    "order": 0.1, "when": 0.25, "sign": 0.12,
}  # fmt: skip


def test_no_answer_rules(questions: list[Question]) -> None:
    by_kind: dict[str, Counter] = defaultdict(Counter)
    for question in questions:
        by_kind[question.kind][question.answer] += 1
    shares = {kind: max(found.values()) / found.total() for kind, found in by_kind.items()}
    # Of yes and no, what a fair coin stays below in 99 of 100 cases, and 2 % more.
    most = {kind: 0.52 + 1.3 / found.total() ** 0.5 for kind, found in by_kind.items()} | _MOST
    assert {kind: s for kind, s in shares.items() if s > most[kind]} == {}
    yes_no = [shares[kind] for kind, answers in ANSWERS.items() if answers == ("yes", "no")]
    assert sum(yes_no) / len(yes_no) < 0.56


def test_neither_word_of_a_form_gives_the_answer_away(questions: list[Question]) -> None:
    forms: dict[str, Counter] = defaultdict(Counter)
    verbs = "enter|leave|move|stop|grow|shrink|change colour|hide|hit|come back|size|colour"
    for question in questions:
        if question.kind in ("does", "did_change"):
            found = re.search(rf"\b({verbs})\b", question.text)
            assert found is not None
            forms[f"{question.kind} {found[1]}"][question.answer] += 1
        elif question.kind == "beside":
            found = re.search("left|right|above|below", question.text)
            forms[str(found and found[0])][question.answer] += 1
    assert len(forms) == 10 + 2 + 4
    for form, found in forms.items():
        assert set(found) == {"yes", "no"}, form
        # Of few, chance alone may make three quarters.
        assert max(found.values()) / found.total() < (0.7 if found.total() > 60 else 0.8), form


def test_objects_are_named_without_a_doubt(examples: list[Example]) -> None:
    pattern = re.compile(r"\bthe ((?:[a-z]+ )?(?:circle|square|triangle|diamond|cross|ring))\b")
    for example in examples:
        things = example.scene.things
        for question in example.questions:
            for name in pattern.findall(question.text):
                *colour, shape = name.split()
                meant = [
                    thing
                    for thing in things
                    if thing.shape == shape
                    and (colour[-1:] in ([], ["the"]) or thing.colours[0][1] == colour[-1])
                ]
                assert len(meant) == 1, (question.text, name)


def test_a_record_is_what_llava_reads() -> None:
    example = make_example(WorldSettings(), "record", 0, 3)
    made = records(example, "record-3", "videos/000003.mp4", max_turns=4)
    styles = ["short", "detailed", "timed"]
    num_chats = -(-len(example.questions) // 4)
    assert [record["id"] for record in made] == [
        f"record-3-{name}" for name in (*styles, *(f"chat{k}" for k in range(num_chats)))
    ]
    asked = []
    for record in made:
        assert record["video"] == "videos/000003.mp4"
        assert from_mapping(Scene, record["truth"]) == example.scene
        turns = turns_of_sample(record["conversations"])
        assert [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert len(turns) <= 8
        marks = [turn.text.count("<image>") for turn in turns]
        assert marks == [1] + [0] * (len(turns) - 1)
        assert turns[0].text.startswith("<image>\n")
        assert [turn.text for turn in turns[1::2]] == [a["answer"] for a in record["answers"]]
        asked += [from_mapping(Question, answer) for answer in record["answers"]]
    assert tuple(asked[3:]) == example.questions


def test_what_looks_are_too_seldom_for_is_not_asked() -> None:
    seldom = WorldSettings(sampled_hz=0.4)
    kinds = Counter(
        question.kind
        for idx in range(60)
        for question in make_example(seldom, "seldom", 0, idx).questions
    )
    # 2.5 s between looks: nothing lasts as long but what goes on, and no time can be told.
    assert kinds["when"] == 0
    assert kinds["direction"] + kinds["side"] < 10
    assert kinds["count"] > 20


def test_another_round_asks_the_same_kinds_anew(examples: list[Example]) -> None:
    num_same = num_all = 0
    for example in examples[:100]:
        witness = Witness(example.scene, WorldSettings())
        first, second = (questions_of(witness, WorldSettings(), at) for at in (0, 1))
        assert first == example.questions
        assert second == questions_of(witness, WorldSettings(), 1) != first
        num_same += len({(q.text, q.answer) for q in first} & {(q.text, q.answer) for q in second})
        num_all += len(second)
    assert 0.1 * num_all < num_same < 0.5 * num_all
