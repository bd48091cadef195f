"""The sample is a clip of the world that no training split can hold, with its truth beside it."""

import json
from pathlib import Path

import numpy as np
import pytest

from llava_video.demo.sample import CAPTION_PROMPT, sample_clip, write_sample
from llava_video.errors import SourceError
from llava_video.video.decoder import open_decoder
from llava_video.video.source import open_source
from llava_video.world.likeness import looks_of, unlike
from llava_video.world.render import render
from llava_video.world.splits import split_settings


def test_the_clip_shows_the_scene(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "new" / "folder")
    with open_decoder(open_source(sample.clip)) as decoder:
        info = decoder.info
        assert (info.num_frames, info.duration_s) == (108, 9.0)
        assert (info.height_px, info.width_px) == (256, 256)
        times_s = info.pts_s[::12].tolist()
        frames = np.concatenate([c.frames for c in decoder.clips_at(times_s, chunk_frames=3)])
    drawn = render(sample.example.scene)[::12]
    # H.264 loses the grain of this clip, which the means of blocks of 8 x 8 do not have.
    seen, meant = (x.reshape(9, 32, 8, 32, 8, 3).mean(axis=(2, 4)) for x in (frames, drawn))
    assert np.abs(seen - meant).mean() < 2
    assert np.abs(seen - np.roll(meant, 1, axis=0)).mean() > 4  # the frames one second apart
    assert unlike(looks_of(frames)) == ""
    trained = {size for split in ("train", "val") for size in split_settings(split).sizes_px}
    assert (256, 256) not in trained


def test_what_is_asked_has_an_answer(tmp_path: Path) -> None:
    sample = write_sample(tmp_path)
    assert CAPTION_PROMPT == "Describe the video with times."
    lines = sample.caption.splitlines()
    assert len(lines) == 6
    assert lines[0] == "0.0 s: a red diamond, a purple square and a blue square."
    assert lines[1] == "1.0 s: the red diamond moves down."
    asked = [(question.text, question.answer) for question in sample.questions]
    assert asked == [
        ("Which way does the red diamond go?", "down"),
        ("Which moves first, the blue square or the red diamond?", "red diamond"),
    ]
    for question in sample.questions:
        assert question.answer in question.choices


def test_the_truth_is_a_data_file(tmp_path: Path) -> None:
    sample = write_sample(tmp_path)
    found = json.loads((tmp_path / "demo_truth.json").read_text(encoding="utf-8"))
    timed = next(one for one in found if one["id"] == "demo-timed")
    assert timed["video"] == "demo_clip.mp4"
    assert timed["conversations"][1] == {"from": "gpt", "value": sample.caption}
    before = (tmp_path / "demo_truth.json").read_bytes()
    write_sample(tmp_path)  # again, over itself
    assert (tmp_path / "demo_truth.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"the sample cannot be written to .*file"):
        write_sample(tmp_path / "file")


def test_a_passing_sample_goes_with_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_end = []
    monkeypatch.setattr("atexit.register", lambda *call, **more: at_the_end.append((call, more)))
    clip = sample_clip()
    assert clip.is_file()
    for (function, *arguments), keywords in at_the_end:
        function(*arguments, **keywords)
    assert not clip.parent.exists()
