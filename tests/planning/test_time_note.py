"""The time sentence is the one of the training, byte for byte."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llava_video.plan_table import ordinal
from llava_video.planning.layout import single_layout, visual_plan
from llava_video.planning.time_note import TimeNote, time_note

TIMES_S = (0.0, 1.4, 2.8333333333333335, 4.266666666666667)


def test_the_sentence_byte_for_byte():
    note = TimeNote(duration_s=9.976643309976645, num_frames=4, times_s=TIMES_S)
    assert note.sentence() == (
        "The video lasts for 9.98 seconds, and 4 frames are uniformly sampled from it. "
        "These frames are located at 0.00s,1.40s,2.83s,4.27s."
        "Please answer the following questions related to this video."
    )


def test_every_other_time():
    note = TimeNote(duration_s=10.0, num_frames=4, times_s=TIMES_S, every=2)
    assert note.sentence() == (
        "The video lasts for 10.00 seconds, and 4 frames are uniformly sampled from it. "
        "Every 2nd of these frames is located at 0.00s,2.83s."
        "Please answer the following questions related to this video."
    )


def test_beyond_the_last_frame_the_first_time_is_left():
    note = TimeNote(duration_s=10.0, num_frames=4, times_s=TIMES_S, every=11)
    assert "Every 11th of these frames is located at 0.00s.Please" in note.sentence()


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (2, "2nd"), (3, "3rd"), (4, "4th"), (10, "10th"), (11, "11th"), (12, "12th"), (13, "13th"),
        (20, "20th"), (21, "21st"), (22, "22nd"), (23, "23rd"), (101, "101st"), (111, "111th"),
        (112, "112th"), (1003, "1003rd"),
    ],
)  # fmt: skip
def test_ordinals(number: int, word: str):
    assert ordinal(number) == word


def test_the_sentence_of_the_reference(shared: Path):
    path = shared / "golden/onevision_video/cases/frame_sampling.json"
    cases = [case for case in json.loads(path.read_text()) if "error" not in case]
    assert len(cases) == 8
    for case in cases:
        times_s = [float(text.removesuffix("s")) for text in case["frame_time"].split(",")]
        note = TimeNote(
            duration_s=case["video_time"], num_frames=len(times_s), times_s=tuple(times_s)
        )
        assert note.sentence() == case["time_instruction"]


def test_a_planned_visual_gives_its_note_back():
    visual = visual_plan(
        single_layout(patches_per_side=27, pool_stride=2),
        kind="video",
        source="clip.mp4",
        size_px=(720, 1280),
        frame_idxs=tuple(np.arange(4).tolist()),
        times_s=TIMES_S,
        duration_s=10.0,
        note_every=2,
    )
    note = time_note(visual)
    assert note == TimeNote(duration_s=10.0, num_frames=4, times_s=TIMES_S, every=2)
    assert time_note(replace(visual, note_every=0)) is None
    assert time_note(replace(visual, duration_s=None)) is None
