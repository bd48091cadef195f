"""`llava-video demo`: the main job told in order, the truth beside it, and no kinder than true."""

import dataclasses
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from llava_video.api import LlavaVideo
from llava_video.demo.sample import write_sample
from llava_video.model.packaged import packaged_folder

HAS_MODEL = (packaged_folder() / "config.json").is_file()


@pytest.fixture(scope="module", autouse=True)
def _model(demo_checkpoint: Path) -> None:
    del demo_checkpoint


def saying(monkeypatch: pytest.MonkeyPatch, caption: str, *answers: str) -> None:
    """Let the model give these answers, whatever it would say."""
    run_plan, ask, left = LlavaVideo.run, LlavaVideo.ask, list(answers)

    def told(self, plan, **options):
        return dataclasses.replace(run_plan(self, plan, **options), text=caption, warnings=())

    def answered(self, video, question, **options):
        answer = ask(self, video, question, **options)
        return dataclasses.replace(answer, text=left.pop(0), confidence=0.875)

    monkeypatch.setattr(LlavaVideo, "run", told)
    monkeypatch.setattr(LlavaVideo, "ask", answered)


def test_it_tells_the_whole_story(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passing").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "passing"))
    monkeypatch.chdir(tmp_path / "here")
    truth = write_sample(tmp_path / "sample").caption
    wrong = truth.replace("the red diamond moves down", "the red diamond moves left")
    saying(monkeypatch, wrong, "down", "blue square")
    outcome = run("demo")
    assert (outcome.status, outcome.err) == (0, "")
    parts = [
        "A clip of the small world",
        "The plan, before any work",
        "20 per frame, 360 in all",  # 18 frames of 4 rows of 4 tokens and a newline
        "Describe the video with times.",
        "the model says",
        "    right   0.0 s: a red diamond, a purple square and a blue square.",
        "    wrong   1.0 s: the red diamond moves left.",
        "the truth",
        "            0.0 s: a red diamond, a purple square and a blue square.",
        "    missed  1.0 s: the red diamond moves down.",
        "Which way does the red diamond go?",
        "the model says   down   (confidence 0.88)",
        "the truth        down",
        "that is          right",
        "Which moves first",
        "the model says   blue square",
        "the truth        red diamond",
        "that is          wrong",
        "5 of 6 true lines told, 1 told wrong; 1 of 2 questions right.",
        "The frames it saw: demo_frames.png",
        "llava-video describe VIDEO",
        "llava-video demo --keep DIR",
    ]
    place = 0
    for part in parts:  # in this order; some of the words come twice
        place = outcome.out.find(part, place)
        assert place >= 0, part
    assert max(len(line) for line in outcome.out.splitlines() if str(tmp_path) not in line) <= 100
    assert list((tmp_path / "passing").iterdir()) == []
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["demo_frames.png"]
    with Image.open(tmp_path / "here" / "demo_frames.png") as sheet:
        assert min(sheet.size) > 3 * 160  # 18 frames of 160 px a side, in rows


def test_what_is_kept_can_be_played_with(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kept"
    saying(monkeypatch, "Nothing happens.", *["down", "red diamond"] * 2)
    for _ in range(2):  # the second run replaces what the first left
        outcome = run("demo", "--keep", folder)
        assert outcome.status == 0
        assert "0 of 6 true lines told, 1 told wrong; 2 of 2 questions right." in outcome.out
    left = {path.name for path in folder.iterdir()}
    assert left == {"demo_clip.mp4", "demo_frames.png", "demo_truth.json"}
    assert f"llava-video ask {folder / 'demo_clip.mp4'} 'Is there a red diamond" in outcome.out
    assert run("plan", folder / "demo_clip.mp4", "-m", "demo").status == 0


def test_a_folder_that_cannot_be_is_refused(refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    assert "the sample cannot be written to" in refused("demo", "--keep", tmp_path / "file")


@pytest.mark.skipif(not HAS_MODEL, reason="this checkout has no demo model")
def test_the_packaged_model_is_right(run, tmp_path: Path) -> None:
    outcome = run("demo", "--keep", tmp_path)
    assert "2 of 2 questions right." in outcome.out
    assert int(outcome.out.split(" of 6 true lines told")[0].split()[-1]) >= 5
