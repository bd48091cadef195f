"""`llava-video eval`: a table for people, JSON for programs, and a file that goes on."""

import json
from pathlib import Path

import eval_copies
import pytest

from llava_video.api import LlavaVideo
from llava_video.engine.oracle import OracleEngine

FAST = ("--num-frames", "4")


@pytest.fixture
def folder(tmp_path: Path, tiny_clip: Path) -> Path:
    place = tmp_path / "copy"
    place.mkdir()
    eval_copies.write_questions(place, tiny_clip)
    return place


@pytest.fixture
def with_truth(monkeypatch: pytest.MonkeyPatch, tiny_model: LlavaVideo) -> None:
    """Let the command load the oracle in place of a model."""
    oracle = LlavaVideo(tiny_model.spec, OracleEngine(tiny_model.spec.tokenizer))
    monkeypatch.setattr("llava_video.cli.eval.load_model", lambda console, named: oracle)


def test_a_table_for_people(run, with_truth, folder: Path) -> None:
    outcome = run("eval", "questions", folder, *FAST)
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert lines[1].split()[:4] == ["questions", "6", "1", "50.0"]
    assert "1 videos are few" in outcome.err


def test_json_for_programs_and_a_file_that_goes_on(run, with_truth, folder, tmp_path) -> None:
    out = tmp_path / "deep/out.jsonl"
    arguments = ("eval", "questions", folder, *FAST, "-o", out, "--json", "--noise")
    first = run(*arguments, "--limit", "2")
    assert json.loads(first.out)["scores"][0]["accuracy"]["num_examples"] == 2
    assert out.read_text().count("\n") == 4
    whole = run(*arguments)
    values = json.loads(whole.out)
    assert values["scores"][0]["accuracy"]["value"] == 0.5
    assert values["scores"][0]["noise"]["num_examples"] == 6
    assert values["scores"][0]["facts"]["frames"]["greatest"] == 4
    assert out.read_text().count("\n") == 12
    assert run(*arguments).out == whole.out
    assert out.read_text().count("\n") == 12


def test_failures_make_the_status(run, with_truth, folder: Path) -> None:
    items = json.loads((folder / "questions.json").read_text())
    lost = items[0] | {"id": "lost", "video": "gone.mp4"}
    (folder / "questions.json").write_text(json.dumps([*items, lost]))
    outcome = run("eval", "questions", folder, *FAST)
    assert outcome.status == 3
    assert "6 of 12 examples failed" in outcome.err
    assert "SourceError 6" in outcome.out


def test_a_real_model_answers(run, folder: Path, tiny_folder: Path) -> None:
    arguments = ("-m", tiny_folder, "--num-frames", "2", "--max-new-tokens", "3", "--limit", "3")
    outcome = run("eval", "questions", folder, *arguments, "--progress")
    assert outcome.status == 0
    assert f"model     {tiny_folder}" in outcome.out
    assert "answered" in outcome.err


def test_what_is_wrong_is_told_before_a_model_is_loaded(refused, folder: Path, tmp_path) -> None:
    model = ("-m", tmp_path / "no-model")
    assert "no task 'mvbnch'" in refused("eval", "mvbnch", folder, *model)
    assert "is no folder" in refused("eval", "mlvu", tmp_path / "nothing", *model)
    assert "0 is not in the range" in refused("eval", "questions", folder, "--limit", "0", *model)
    (tmp_path / "notes").write_text("text\n")
    said = refused("eval", "questions", folder, "-o", tmp_path / "notes", *model)
    assert "line 1 is no record" in said
    (folder / "questions.json").write_text("[]")
    assert "holds no questions" in refused("eval", "questions", folder, *model)
    (folder / "clips/000017.mp4").unlink()
    item = {"id": "a", "video": "a.mp4", "question": "Q", "type": "t", "answer": "x"}
    (folder / "questions.json").write_text(json.dumps([item]))
    assert "a.mp4 is not in" in refused("eval", "questions", folder, *model)


def test_fields_of_a_file_are_no_options(refused, folder: Path, tiny_folder: Path) -> None:
    said = refused("eval", "questions", folder, "-m", tiny_folder, "--device", "cuda:99")
    assert "--device cuda:99" in said
    row = {"id": "a", "video": "v.mp4", "answers": [{"kind": "short", "text": "Q", "answer": "A"}]}
    (folder / "w.jsonl").write_text(json.dumps(row | {"truth": {"name": "x"}}))
    said = refused("eval", "world-captions", folder, "-m", tiny_folder)
    assert "num_frames" in said
    assert "--num-frames" not in said
