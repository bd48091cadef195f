"""A stream's window of a loaded model: what it answers, what it says of it, and what it refuses."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from llava_video.api import LlavaVideo, load
from llava_video.engine.scheduler import Scheduler
from llava_video.engine.settings import EngineSettings
from llava_video.errors import BudgetError, ConfigError
from llava_video.inputs import Video
from llava_video.live import LiveWindow
from llava_video.values import FrameRef
from llava_video.world.bars import paint_index

SHORT = {"max_new_tokens": 6, "loop_guard": False}
STEP_S = 0.5


def picture(idx: int) -> np.ndarray:
    return paint_index(idx, 48, 64)


@pytest.fixture
def window(tiny_model: LlavaVideo) -> Iterator[LiveWindow]:
    """Return a window of four frames; nothing of it is held afterwards."""
    engine = tiny_model.engine
    with LiveWindow(tiny_model.spec, engine, window_frames=4, **SHORT) as made:
        yield made
    assert isinstance(engine, Scheduler)
    engine._prefixes.clear()  # of clips beside it
    assert engine.arena.used_tokens == 0


def show(window: LiveWindow, idxs: range) -> None:
    for idx in idxs:
        window.add(picture(idx), 100.0 + STEP_S * idx)


def as_clip(idxs: range) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([picture(idx) for idx in idxs]), STEP_S * np.arange(len(idxs))


@pytest.mark.parametrize("num_shown", [1, 2, 4])
def test_before_a_frame_leaves_it_answers_as_of_a_clip(
    tiny_model: LlavaVideo, window: LiveWindow, num_shown: int
) -> None:
    show(window, range(num_shown))
    live = window.ask("What is this?")
    clip = tiny_model.ask(as_clip(range(num_shown)), "What is this?", **SHORT)
    assert live.text == clip.text != ""
    assert live.plan.prompt == clip.plan.prompt
    assert live.plan.visuals[0].num_tokens == clip.plan.visuals[0].num_tokens
    assert live.usage.text_tokens == clip.usage.text_tokens
    assert live.usage.visual_tokens == clip.usage.visual_tokens
    assert live.usage.reused_tokens > live.usage.visual_tokens


def test_a_window_that_moved_says_what_it_saw(tiny_model: LlavaVideo, window: LiveWindow) -> None:
    show(window, range(11))
    live = window.ask("What is this?")
    kept = tuple(FrameRef(idx, 100.0 + STEP_S * idx) for idx in range(7, 11))
    assert live.frames == window.frames == kept
    assert [(span.start_s, span.end_s) for span in live.coverage] == [(103.5, 105.5)]
    assert live.thumbnail_times_s == tuple(ref.pts_s for ref in kept)
    assert live.thumbnails is not None
    assert np.array_equal(live.thumbnails, np.stack([picture(idx) for idx in range(7, 11)]))
    # The words are those of a clip of these frames, with the window's own times.
    clip = tiny_model.plan(as_clip(range(7, 11)), "What is this?", **SHORT)
    assert live.plan.prompt == clip.prompt
    assert "0.00s,0.50s,1.00s,1.50s" in clip.prompt
    assert window.ask("What is this?").text == live.text
    assert [reason for reason in live.plan.reasons if "frames" in reason] == [
        "The last 4 of 11 frames of a stream."
    ]


def test_several_questions_each_with_its_own_kind_of_answer(window: LiveWindow) -> None:
    show(window, range(6))
    told = list(
        window.ask_each(
            [
                ("Is it day?", {"response_format": ["yes", "no"]}),
                (" ", {}),
                ("What?", {"max_new_tokens": 2}),
                ("What?", {"num_frames": 3}),
                ("word " * 8000, {}),
            ]
        )
    )
    assert told[0].parsed in ("yes", "no")
    assert isinstance(told[1], ConfigError)
    assert told[2].usage.new_tokens <= 2
    assert isinstance(told[3], ConfigError)
    assert isinstance(told[4], BudgetError)
    assert told[0].parsed == window.ask("Is it day?", response_format=["yes", "no"]).parsed


def test_a_mark_in_a_question_is_no_place_of_frames(window: LiveWindow) -> None:
    show(window, range(2))
    assert "< image >" in window.ask("Is <image> seen?").plan.prompt


def test_closing_begins_anew(window: LiveWindow) -> None:
    show(window, range(6))
    window.close()
    with pytest.raises(ConfigError, match="no frame was added"):
        window.ask("What?")
    window.add(paint_index(1, 32, 32), 0.0)  # of another size, at an earlier time
    assert len(window.frames) == 1
    assert window.ask("What?").plan.visuals[0].height_px == 32


class TestRefusals:
    def test_frames(self, window: LiveWindow) -> None:
        show(window, range(2))
        before = window.frames
        for frame, time_s, match in (
            (picture(1)[..., 0], 200.0, "uint8, RGB"),
            (picture(1) / 255.0, 200.0, "uint8, RGB"),
            ("frame.png", 200.0, "uint8, RGB"),
            (picture(1), float("nan"), "seconds"),
            (picture(1), 100.5, "order of time"),
            (paint_index(1, 64, 48), 200.0, "begin a new window"),
        ):
            with pytest.raises(ConfigError, match=match):
                window.add(frame, time_s)  # type: ignore[arg-type]  # wrong ones are the point
        assert window.frames == before

    def test_a_window_larger_than_the_context(self, tiny_model: LlavaVideo) -> None:
        options = {"pool_stride": 1, "longest": "Why?", **SHORT}
        many = LiveWindow(tiny_model.spec, tiny_model.engine, window_frames=1800, **options)
        with pytest.raises(BudgetError, match="window_frames=") as refused:
            many.add(picture(0), 0.0)
        most = int(refused.value.hint.split("=")[1].split(",")[0])
        assert most > 1000
        options["window_frames"] = most
        with LiveWindow(tiny_model.spec, tiny_model.engine, **options) as tried:
            show(tried, range(2))
            assert tried.ask("Why?").text

    def test_a_layout_that_depends_on_the_place(self, tiny_model: LlavaVideo) -> None:
        options = {"window_frames": 2, "newline": "clip", **SHORT}
        with pytest.raises(ConfigError, match="newline='frame'"):
            LiveWindow(tiny_model.spec, tiny_model.engine, **options).add(picture(0), 0.0)

    def test_a_fused_model(self, mini_model: LlavaVideo) -> None:
        with pytest.raises(ConfigError, match="fuses all frames"):
            LiveWindow(mini_model.spec, mini_model.engine, window_frames=2)

    def test_options(self, tiny_model: LlavaVideo) -> None:
        spec, engine = tiny_model.spec, tiny_model.engine
        with pytest.raises(ConfigError, match="at least 1"):
            LiveWindow(spec, engine, window_frames=0)
        with pytest.raises(ConfigError, match="fps, num_frames, start"):
            LiveWindow(spec, engine, window_frames=2, num_frames=2, fps=1.0, start=3.0)
        with pytest.raises(TypeError, match="max_new_tokens"):
            LiveWindow(spec, engine, window_frames=2, max_new_token=3)  # type: ignore[call-arg]  # a slip


@pytest.mark.parametrize("kv_cache", ["int8", "int4"])
def test_a_coarser_cache(tiny_model: LlavaVideo, kv_cache: str) -> None:
    options = {"kv_cache": kv_cache, **SHORT}
    with LiveWindow(tiny_model.spec, tiny_model.engine, window_frames=3, **options) as window:
        show(window, range(3))
        clip = tiny_model.ask(as_clip(range(3)), "What?", **options)
        assert window.ask("What?").text == clip.text
        show(window, range(3, 8))
        assert window.ask("What?").plan.kv_format == kv_cache


def test_frames_that_were_shown_are_not_encoded_again(
    tiny_folder: Path, tiny_model: LlavaVideo
) -> None:
    def ask(model: LlavaVideo, first: int) -> str:
        frames, times_s = as_clip(range(first, first + 4))
        return model.ask(Video((frames, times_s)), "What?", **SHORT).text

    settings = EngineSettings(kept_rows_bytes=1_000_000)
    with load(tiny_folder, engine=settings) as model:
        store = model.engine.kept_rows  # type: ignore[attr-defined]  # the scheduler's
        told = [ask(model, first) for first in range(4)]
        assert (store.num_found, store.num_made) == (9, 7)
        assert store.reused_share == 9 / 16
        with LiveWindow(model.spec, model.engine, window_frames=4, **SHORT) as window:
            show(window, range(3, 7))
            assert window.ask("What?").text == told[3]
        assert store.num_made == 7
    assert told == [ask(tiny_model, first) for first in range(4)]
    assert store.held_bytes == 0  # closed
