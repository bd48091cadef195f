"""Our own files: typed answers, relative videos, and what is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llava_video.eval.own_questions import read_questions


def test_types_of_answers(copy: Callable[[str], Path]) -> None:
    folder = copy("questions")
    first, last, shown, when, closer, _ = read_questions(folder)
    assert (first.id, first.answer, first.choices) == ("000017/1", 0, ())
    assert {example.cluster for example in (first, last, shown)} == {"clips/000017.mp4"}
    assert (last.answer, last.choices) == ("38", ("38", "39"))
    assert (shown.answer, shown.choices) == ("yes", ("yes", "no"))
    assert (when.tolerance, closer.tolerance, first.tolerance) == (0.5, 0.1, 0.0)
    assert first.prompt == "What is the first index?"
    assert dict(when.groups) == {"type": "when"}
    assert first.footage is not None
    assert first.footage.path == folder / "clips/000017.mp4"


def test_one_question_an_item_in_lines(tmp_path: Path) -> None:
    item = {"id": "a", "video": "a.mp4", "question": "Day?", "type": "yes/no", "answer": False}
    (tmp_path / "q.jsonl").write_text(json.dumps(item) + "\nnothing\n")
    sound, broken = read_questions(tmp_path)
    assert (sound.id, sound.answer) == ("a", "no")
    assert "a.mp4 is not in" in str(sound.trouble)
    assert "no JSON" in str(broken.trouble)


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ("many", "is no list"),
        ([7], "question 1: '7' is no object"),
        ([{"question": "Q", "answer": "a"}], "has no 'type'"),
        ([{"question": "Q", "type": "t", "answer": ["a"]}], "answer = "),
        ([{"question": "Q", "type": "t", "answer": "a", "choices": ["b"]}], "none of the choices"),
        ([{"question": "Q", "type": "t", "answer": "a", "choices": "ab"}], "choices = 'ab'"),
        ([{"question": "Q", "type": "t", "answer": 1, "tolerance": -1}], "tolerance = -1"),
        ([{"type": "t", "answer": 1}], "has no 'question'"),
    ],
)
def test_a_broken_question_says_what_is_wrong(tmp_path: Path, questions, message: str) -> None:
    (tmp_path / "v.mp4").write_bytes(b"")
    good = {"id": "g", "video": "v.mp4", "question": "Q", "type": "t", "answer": "x"}
    items = [{"id": "a", "video": "v.mp4", "questions": questions}, good]
    (tmp_path / "questions.json").write_text(json.dumps(items))
    broken, sound = read_questions(tmp_path)
    assert message in str(broken.trouble)
    assert sound.trouble is None


def test_pairs_to_learn_a_preference_from_are_no_questions(tmp_path: Path) -> None:
    """As `llava-video world --preferences` writes them beside the questions."""
    (tmp_path / "v.mp4").write_bytes(b"")
    item = {"id": "a", "video": "v.mp4", "question": "Day?", "type": "yes/no", "answer": False}
    pair = {"id": "a-0", "video": "v.mp4", "prompt": "Day?", "chosen": "no", "rejected": "yes"}
    (tmp_path / "train.jsonl").write_text(json.dumps(item) + "\n")
    (tmp_path / "train_preferences.jsonl").write_text(json.dumps(pair) + "\n")
    (one,) = read_questions(tmp_path)
    assert (one.id, one.trouble) == ("a", None)


def test_the_small_worlds_training_files(tmp_path: Path) -> None:
    """A conversation and a caption about one clip, as `world/` writes them."""
    shape = {"kind": "shape", "text": "What shape?", "answer": "disc", "seconds": None}
    when = {"kind": "when", "text": "When?", "answer": "3.5 s", "choices": [], "seconds": 3.5}
    chat = [shape | {"choices": ["disc", "star"]}, when]
    caption = [{"kind": "timed", "text": "Describe it.", "answer": "A disc.", "choices": []}]
    items = [
        {"id": "test-0-000001-timed", "video": "videos/000001.mp4", "answers": caption},
        {"id": "test-0-000001-chat0", "video": "videos/000001.mp4", "answers": chat},
        {"id": "test-0-000001-chat1", "video": "videos/000001.mp4", "answers": chat[:1]},
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    first, second, third = read_questions(tmp_path)
    assert (first.prompt, first.answer, first.choices) == ("What shape?", "disc", ("disc", "star"))
    assert (second.answer, second.tolerance, dict(second.groups)) == (3.5, 0.5, {"type": "when"})
    assert len({first.id, second.id, third.id}) == 3
    # One clip is one cluster, though it is in several items.
    assert {first.cluster, second.cluster, third.cluster} == {"videos/000001.mp4"}
