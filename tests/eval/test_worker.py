"""The library behind a pipe: one line per question, whatever happens to it."""

import io
import json
import sys
from pathlib import Path

import eval_copies
import pytest

from llava_video.api import LlavaVideo
from llava_video.eval.worker import answer_lines, main


def ask(model: LlavaVideo, *questions: object, **options) -> list[dict]:
    lines = [q if isinstance(q, str) else json.dumps(q) for q in questions]
    told: list[str] = []
    answer_lines(model, lines, told.append, options)
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in told)
    return [json.loads(line) for line in told]


def test_questions_are_answered_in_order(oracle: LlavaVideo, tiny_clip: Path) -> None:
    question = {"id": 7, "prompt": "Which indices?", "visuals": [str(tiny_clip)]}
    first, second, none = ask(
        oracle,
        question,
        "",
        question | {"id": "b", "options": {"num_frames": 2}},
        {"id": 9, "prompt": "Hello"},
        num_frames=4,
    )
    assert (first["id"], first["text"], first["frames"]) == (7, "0, 13, 26, 39", 4)
    assert first["visual_tokens"] > 0
    assert (second["id"], second["text"]) == ("b", "0, 39")
    assert (none["id"], none["text"]) == (9, "No frame was shown.")


def test_what_cannot_be_answered_is_a_line(oracle: LlavaVideo, tiny_clip: Path) -> None:
    lost, torn, no_object, empty, last = ask(
        oracle,
        {"id": 1, "prompt": "Which?", "visuals": ["gone.mp4"]},
        "{",
        "[1]",
        {"id": 4, "prompt": ""},
        {"id": 5, "prompt": "first index?", "visuals": [str(tiny_clip)]},
        num_frames=2,
    )
    assert (lost["id"], lost["failure"]["kind"]) == (1, "SourceError")
    assert torn["failure"]["kind"] == "JSONDecodeError"
    assert "is no question" in no_object["failure"]["message"]
    assert "question is empty" in empty["failure"]["message"]
    assert last["text"] == "0"


def test_visuals_may_be_pictures(oracle: LlavaVideo, tiny_clip: Path, tmp_path: Path) -> None:
    (tmp_path / "white.PNG").write_bytes(eval_copies.png(255))
    both = {"id": 1, "prompt": "Which indices?", "visuals": [str(tmp_path / "white.PNG")]}
    (first,) = ask(oracle, both | {"visuals": [*both["visuals"], str(tiny_clip)]}, num_frames=2)
    assert (first["text"], first["frames"]) == ("255, 0, 39", 3)


def test_stdout_is_for_answers_alone(
    monkeypatch: pytest.MonkeyPatch, oracle: LlavaVideo, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever prints while a model loads must not stand among the answers."""

    def load(name: str, **keywords: object) -> LlavaVideo:
        print("loading", name, keywords)
        return oracle

    monkeypatch.setattr("llava_video.eval.worker.load", load)
    monkeypatch.setattr("sys.stdin", io.StringIO('{"id": 1, "prompt": "Hello"}\n'))
    monkeypatch.setattr("sys.stdout", sys.stdout)
    main('{"model": "m", "load": {"device": "cpu"}, "options": {"max_new_tokens": 40}}')
    told = capsys.readouterr()
    ready, answer = map(json.loads, told.out.splitlines())
    assert ready == {"ready": oracle.spec.name}
    assert answer["text"] == "No frame was shown."
    assert told.err == "loading m {'device': 'cpu'}\n"
