"""Noise stands in for pixels and for nothing else; the commonest answer is counted by hand."""

from pathlib import Path

import pytest

from llava_video.api import LlavaVideo
from llava_video.eval.baselines import blinded, majority_share
from llava_video.eval.records import Record
from llava_video.inputs import Picture
from llava_video.world.bars import paint_index

FAST = {"num_frames": 4, "max_new_tokens": 40}


def record(answer, **facts) -> Record:
    return Record(id="1", cluster="v", view="video", run="r", example="e", answer=answer, **facts)


def test_noise_changes_pixels_and_nothing_else(oracle: LlavaVideo, tiny_clip: Path) -> None:
    seen = oracle.ask(tiny_clip, "Which indices?", **FAST)
    blind = blinded(oracle).ask(tiny_clip, "Which indices?", **FAST)
    assert seen.text == "0, 13, 26, 39"
    assert blind.text != seen.text
    assert blind.plan == seen.plan
    assert blind.frames == seen.frames
    again = blinded(oracle).ask(tiny_clip, "Which indices?", **FAST)
    other = blinded(oracle, seed=1).ask(tiny_clip, "Which indices?", **FAST)
    assert again.text == blind.text != other.text


def test_noise_hides_pictures_and_fused_visuals(
    oracle: LlavaVideo, mini_model: LlavaVideo, tiny_clip: Path
) -> None:
    picture = Picture(paint_index(77, 64, 96))
    assert oracle.ask(picture, "What is the first index?", **FAST).text == "77"
    assert blinded(oracle).ask(picture, "What is the first index?", **FAST).text != "77"
    seen, blind = (
        model.ask(tiny_clip, "What?", num_frames=2, max_new_tokens=6, loop_guard=False)
        for model in (mini_model, blinded(mini_model))
    )
    assert blind.text != seen.text
    assert blind.plan == seen.plan


def test_a_cache_of_the_video_does_not_serve_noise(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    asked = {"num_frames": 3, "max_new_tokens": 8, "loop_guard": False}
    for model in (tiny_model, blinded(tiny_model)):
        model.ask(tiny_clip, "Why?", **asked)
    blind = blinded(tiny_model).ask(tiny_clip, "Why?", **asked)
    assert blind.usage.reused_tokens > 0  # of the noise that was seen just now
    assert blind.text != tiny_model.ask(tiny_clip, "Why?", **asked).text


def test_the_commonest_answer_is_counted_by_hand() -> None:
    letters = [record(answer, choices=("A", "B")) for answer in "AABAB"]
    assert majority_share(letters) == pytest.approx(3 / 5)
    words = [record(answer) for answer in ("The dog", "dog", "cat")]
    assert majority_share(words) == pytest.approx(2 / 3)  # equal once normalised
    assert majority_share([record(True), record(True), record(False)]) == pytest.approx(2 / 3)


def test_a_time_answers_for_those_around_it() -> None:
    """1.0 is within 0.5 of 0.6, 1.0 and 1.4; none of the four times is equal to another."""
    times = [record(time_s, tolerance=0.5) for time_s in (0.6, 1.0, 1.4, 9.0)]
    assert majority_share(times) == pytest.approx(3 / 4)
    exact = [record(time_s) for time_s in (0.6, 1.0, 1.4, 9.0)]
    assert majority_share(exact) == pytest.approx(1 / 4)
