"""The curve's truth is the scenes'; the benchmark runs at toy size."""

import json

import monitor_demo
import pytest

from llava_video.world.composer import compose
from llava_video.world.splits import split_settings


def test_claims_are_true_by_the_scene() -> None:
    settings = split_settings("monitor")
    num_there = num_never = 0
    for number in range(12):
        scene = compose(settings, "monitor", 0, number)
        for camera, question, spans in monitor_demo.claims_of(scene):
            colour, shape = question.removesuffix(" now?").split()[-2:]
            times_s = [scene.time_of(k) for k in range(0, scene.num_frames, 5)]
            shown = [
                any(
                    (one.colour, one.shape, one.view) == (colour, shape, "whole")
                    for one in scene.state_at(time_s)
                )
                for time_s in times_s
            ]
            within = [any(a <= time_s < b for a, b in spans) for time_s in times_s]
            if camera.endswith("never"):
                assert not any(shown)
                num_never += 1
            else:
                assert all(s for s, w in zip(shown, within, strict=True) if w)
                num_there += any(within)
    assert num_there >= 6
    assert num_never == 12


@pytest.mark.slow
def test_two_scenes(capsys: pytest.CaptureFixture[str]) -> None:
    assert monitor_demo.main(["--check"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["question"], row["clips"]) == ("monitor_demo", 2)
    assert len(row["curve"]) == 3 * 11
    assert row["windows"] > 10
