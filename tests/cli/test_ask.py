"""`llava-video ask`: one video, several questions, typed answers."""

import json
from pathlib import Path

import pytest

FAST = ("--num-frames", "4", "--max-new-tokens", "6", "--no-loop-guard")


@pytest.fixture
def ask(run, tiny_folder: Path, tiny_clip: Path):
    return lambda *arguments: run("ask", tiny_clip, *arguments, "-m", tiny_folder, *FAST)


def test_one_answer_is_alone_on_stdout(ask, tiny_model, tiny_clip: Path) -> None:
    own = tiny_model.ask(tiny_clip, "Why?", num_frames=4, max_new_tokens=6, loop_guard=False)
    outcome = ask("Why?")
    assert (outcome.status, outcome.out) == (0, own.text.strip() + "\n")


def test_a_terminal_sees_the_same(ask, monkeypatch) -> None:
    whole = ask("Why?")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert ask("Why?") == whole


def test_several_questions_share_the_video(ask) -> None:
    outcome = ask("Why?", "What for, and for whom?", "--json")
    first, second = map(json.loads, outcome.out.splitlines())
    assert "Why?" in first["plan"]["prompt"]
    assert "for whom?" in second["plan"]["prompt"]
    assert second["usage"]["reused_tokens"] > second["usage"]["visual_tokens"] > 0
    text = ask("Why?", "What for, and for whom?").out
    assert text == f"== Why?\n{first['text']}\n\n== What for, and for whom?\n{second['text']}\n\n"


def test_a_choice_is_one_of_those_given(ask) -> None:
    outcome = ask("Outdoors?", "--choice", "yes", "--choice", "no", "--json")
    values = json.loads(outcome.out)
    assert values["text"] in ("yes", "no")
    assert 0.5 <= values["confidence"] <= 1.0


def test_a_schema_shapes_the_answer(run, tiny_folder, tiny_clip, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": ["red", "blue"]}')
    arguments = ("Colour?", "--json-schema", schema, "-m", tiny_folder, "--num-frames", "2")
    outcome = run("ask", tiny_clip, *arguments)
    assert outcome.status == 0
    assert json.loads(outcome.out) in ("red", "blue")


@pytest.mark.parametrize("questions", [("",), ("Why?", "  ")])
def test_an_empty_question_is_refused(refused, tiny_clip: Path, questions) -> None:
    assert "a question is empty." in refused("ask", tiny_clip, *questions)
