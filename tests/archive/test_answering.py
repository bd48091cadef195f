"""An archive asks what `LlavaVideo` is asked by hand, and gets the same."""

from pathlib import Path

import pytest

from llava_video.api import LlavaVideo
from llava_video.archive.answering import answer_item
from llava_video.archive.row import Asked
from llava_video.archive.unit import Item
from llava_video.engine.oracle import OracleEngine
from llava_video.timeline import Timeline
from llava_video.values import Description


@pytest.fixture(scope="module")
def oracle(tiny_model: LlavaVideo) -> LlavaVideo:
    return LlavaVideo(tiny_model.spec, OracleEngine(tiny_model.spec.tokenizer))


def texts(answers: list[Description] | Timeline) -> list[str]:
    assert isinstance(answers, list)
    return [answer.text for answer in answers]


def test_a_caption_is_of_the_span(oracle: LlavaVideo, tiny_clip: Path) -> None:
    item = Item(number=0, address=str(tiny_clip), start_s=0.5, end_s=1.0)
    asked = Asked(task="caption", options={"num_frames": 2})
    (text,) = texts(answer_item(oracle, item, asked))
    by_hand = oracle.describe(tiny_clip, start=0.5, end=1.0, num_frames=2)
    assert text == by_hand.text
    assert text.startswith("2 frames from 0.5")


def test_questions_share_one_look_and_an_input_may_bring_its_own(
    oracle: LlavaVideo, tiny_clip: Path
) -> None:
    options = {"num_frames": 3}
    asked = Asked(task="ask", prompts=("How many frames?", "First index?"), options=options)
    item = Item(number=0, address=str(tiny_clip))
    assert texts(answer_item(oracle, item, asked)) == ["3", "0"]
    own = Item(number=0, address=str(tiny_clip), prompts=("Is index 0 shown?",))
    assert texts(answer_item(oracle, own, asked, {"reader": "pyav"})) == ["yes"]


def test_a_timeline_has_its_own_windows(oracle: LlavaVideo, tiny_clip: Path) -> None:
    item = Item(number=0, address=str(tiny_clip), prompts=("First index?",))
    asked = Asked(
        task="timeline", options={"num_frames": 2}, window_s=0.5, overlap_s=0.0, has_summary=False
    )
    timeline = answer_item(oracle, item, asked)
    assert isinstance(timeline, Timeline)
    assert [caption.text for caption in timeline.captions] == ["0", "15", "30"]
    assert timeline.summary == ""
