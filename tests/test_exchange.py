"""A plan's prompt becomes parts at its marks; what was seen and lost is told."""

import dataclasses
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llava_video.api import LlavaVideo
from llava_video.engine.request import FusedPart, TextPart, VisualPart
from llava_video.errors import BudgetError, ConfigError, SourceError
from llava_video.exchange import Exchange, open_exchange
from llava_video.inputs import Picture, Video
from llava_video.model import prompt
from llava_video.model.prompt import Turn
from llava_video.options import settings_of
from llava_video.planning.memory import fused_bytes
from llava_video.running import answer_one
from llava_video.values import Clip, Segment

SETTINGS = settings_of({"num_frames": 8, "max_new_tokens": 4, "loop_guard": False})


def test_parts_stand_in_the_order_of_the_marks(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    picture = Picture(np.full((30, 40, 3), 7, np.uint8))
    visuals = [picture, Video(address=tiny_clip)]
    words = "First <image>, then <image>: compare."
    with open_exchange(tiny_model.spec, visuals, words, SETTINGS) as exchange:
        parts = exchange.request().parts
        kinds = [part.plan.kind if isinstance(part, VisualPart) else "text" for part in parts]
        assert kinds == ["text", "image", "text", "video", "text"]
        text_tokens = sum(len(part.ids) for part in parts if isinstance(part, TextPart))
        assert text_tokens == exchange.plan.text_tokens


def test_a_prompt_that_is_fused_is_one_part(mini_model: LlavaVideo, tiny_clip: Path) -> None:
    with open_exchange(mini_model.spec, tiny_clip, "What is this?", SETTINGS) as exchange:
        (part,) = exchange.request().parts
        assert isinstance(part, FusedPart)
        plan = exchange.plan
        assert not plan.reusable_prefix
        assert part.num_tokens == plan.tokens == plan.text_tokens + 8 * 4
        ids = mini_model.spec.tokenizer.encode_ids(plan.prompt)
        assert [*part.before, -200, *part.after] == ids
        spec = mini_model.spec
        assert part.held_bytes == fused_bytes(spec.geometry, spec.setup, plan)
        assert part.held_bytes > plan.tokens * spec.geometry.hidden_size * 2
        with open_exchange(mini_model.spec, tiny_clip, "What is that?", SETTINGS) as other:
            (unlike,) = other.request().parts
            assert isinstance(unlike, FusedPart)
            assert unlike.visual.key == part.visual.key
            assert unlike.key != part.key
    with open_exchange(mini_model.spec, None, "Hello", SETTINGS) as exchange:
        assert [type(part) for part in exchange.request().parts] == [TextPart]


def test_a_plan_that_fuses_two_visuals_is_refused(mini_model: LlavaVideo, tiny_clip: Path) -> None:
    with open_exchange(mini_model.spec, tiny_clip, "What?", SETTINGS) as exchange:
        plan, (visual,), (opened,) = exchange.plan, exchange.plan.visuals, exchange.opened
        prompt = plan.prompt.replace("<image>", "<image><image>")
        double = dataclasses.replace(plan, visuals=(visual, visual), prompt=prompt)
        twice = Exchange(mini_model.spec, double, (opened, opened), SETTINGS)
        with pytest.raises(ConfigError, match="shows 2 videos or pictures"):
            twice.request()


def test_an_answer_ends_at_the_templates_end(
    tiny_model: LlavaVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an end that is no token, as the ### of v0; a typed answer ends by itself."""
    settings = settings_of({"max_new_tokens": 24, "loop_guard": False})

    def answer(end: str) -> tuple[str, str]:
        template = replace(prompt.TEMPLATES["llava_v0"], around_answer=("Assistant: ", end))
        monkeypatch.setitem(prompt.TEMPLATES, "own", template)
        spec = tiny_model.spec.with_template("own")
        with open_exchange(spec, None, "Why?", settings) as exchange:
            found = answer_one(tiny_model.engine, exchange)
        return found.text, found.finish_reason

    whole, reason = answer("###")
    assert reason == "length"
    end = whole[len(whole) // 2 :][:3]
    assert end.strip() == end
    assert answer(end) == (whole[: whole.index(end)].rstrip(), "stop")

    v0 = tiny_model.spec.with_template("llava_v0")
    stop = {"stop": ["STOP"]}
    with open_exchange(v0, None, "Why?", settings_of(stop)) as exchange:
        assert exchange.request().generation.stop == ("STOP", "###")
    typed = settings_of({"response_format": ["yes", "no"]})
    with open_exchange(v0, None, "Why?", typed) as exchange:
        assert exchange.request().generation.stop == ()


def test_equal_visuals_share_a_key_and_other_plans_do_not(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    def key(**options: object) -> str:
        settings = settings_of({"num_frames": 4, **options})
        with open_exchange(tiny_model.spec, tiny_clip, "What?", settings) as exchange:
            return next(p.key for p in exchange.request().parts if isinstance(p, VisualPart))

    assert key() == key(temperature=1.0)
    assert key() != key(num_frames=5)
    assert key() != key(pool_mode="average")


def test_videos_are_decoded_ahead_in_a_thread_and_pictures_are_not(
    tiny_model: LlavaVideo, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    with open_exchange(tiny_model.spec, tiny_clip, "What?", SETTINGS) as exchange:
        decoder = type(exchange.opened[0].decoder)  # type: ignore[union-attr]  # a video
    clips_at = decoder.clips_at

    def slowly(self, times_s, *, chunk_frames=8):  # type: ignore[no-untyped-def]  # the decoder's own signature
        for clip in clips_at(self, times_s, chunk_frames=1):
            threads.append(threading.current_thread())
            time.sleep(0.01)
            yield clip

    monkeypatch.setattr(decoder, "clips_at", slowly)
    before = set(threading.enumerate())
    # A number of frames that no other test asks for: what the cache holds is not decoded.
    description = tiny_model.describe(tiny_clip, num_frames=7, max_new_tokens=4)
    assert len(threads) == 7
    assert not before & set(threads)
    assert set(threading.enumerate()) == before  # it ended with the frames
    # The decoder's own seconds, whoever waited for them.
    assert 0.07 <= description.timings["decode"] < description.timings["total"]

    picture = Picture(np.full((30, 40, 3), 7, np.uint8))
    with open_exchange(tiny_model.spec, picture, "What?", SETTINGS) as exchange:
        (part,) = [p for p in exchange.request().parts if isinstance(p, VisualPart)]
        clips = part.clips()
        next(clips)
        assert set(threading.enumerate()) == before


def test_an_exchange_that_is_left_stops_its_reader(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    before = set(threading.enumerate())
    with open_exchange(tiny_model.spec, tiny_clip, "What?", SETTINGS) as exchange:
        (part,) = [p for p in exchange.request().parts if isinstance(p, VisualPart)]
        clips = part.clips()
        next(clips)
        clips.close()  # type: ignore[attr-defined]  # a generator
        assert set(threading.enumerate()) == before


def test_lost_frames_are_left_out_named_and_missing_from_the_coverage(
    tiny_model: LlavaVideo, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pooled otherwise, so that its cached tokens are not those of the damaged video.
    whole = tiny_model.describe(tiny_clip, num_frames=8, max_new_tokens=4, pool_mode="average")
    with open_exchange(tiny_model.spec, tiny_clip, "What?", SETTINGS) as exchange:
        decoder = exchange.opened[0].decoder  # type: ignore[union-attr]  # a video
        clips_at = type(decoder).clips_at

    def without_late_frames(self, times_s, *, chunk_frames=8):  # type: ignore[no-untyped-def]  # the decoder's own signature
        for clip in clips_at(self, times_s, chunk_frames=chunk_frames):
            kept = clip.pts_s < 0.7
            if kept.any():
                yield Clip(clip.frames[kept], clip.pts_s[kept], clip.frame_idxs[kept])

    monkeypatch.setattr(type(decoder), "clips_at", without_late_frames)
    partial = tiny_model.describe(tiny_clip, "What?", num_frames=8, max_new_tokens=4)
    assert len(partial.frames) == partial.plan.visuals[0].num_frames < len(whole.frames) == 8
    assert all(ref.pts_s < 0.7 for ref in partial.frames)
    assert any("cannot be decoded" in warning for warning in partial.warnings)
    lost_s = next(ref.pts_s for ref in whole.frames if ref.pts_s >= 0.7)
    assert partial.coverage == (Segment(0.0, lost_s),)
    assert "0.7" not in partial.plan.prompt.split("located at")[-1].split("Please")[0]


def test_following_words_keep_the_visuals_and_are_checked(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    with open_exchange(tiny_model.spec, tiny_clip, "What?", SETTINGS) as exchange:
        other = exchange.follow([Turn("user", "Another question?")], SETTINGS, 3)
        assert other.plan.visuals == exchange.plan.visuals
        assert other.plan.text_tokens == tiny_model.spec.tokenizer.num_text_tokens(
            other.plan.prompt
        )
        assert other.request().request_id == 3
        with pytest.raises(BudgetError):
            exchange.follow([Turn("user", "word " * 40_000)], SETTINGS)


def test_nothing_stays_open_when_planning_fails(
    tiny_model: LlavaVideo, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava_video.inputs import OpenedVideo

    closed: list[bool] = []
    close = OpenedVideo.close
    monkeypatch.setattr(OpenedVideo, "close", lambda v: (closed.append(True), close(v)))
    settings = settings_of({"max_video_tokens": 1})
    with pytest.raises(BudgetError):
        open_exchange(tiny_model.spec, tiny_clip, "What?", settings)
    assert closed == [True]
    with pytest.raises(SourceError):
        open_exchange(tiny_model.spec, "missing.mp4", "What?", SETTINGS)


def test_a_plan_covers_the_same_span_when_it_is_run_later(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    options = {"start": 0.2, "end": 0.8, "num_frames": 3, "max_new_tokens": 2}
    described = tiny_model.describe(tiny_clip, **options)  # type: ignore[arg-type]  # a plain dict
    run = tiny_model.run(tiny_model.plan(tiny_clip, **options))  # type: ignore[arg-type]  # same
    assert described.coverage == run.coverage
    assert (run.coverage[0].start_s, run.coverage[0].end_s) == pytest.approx((0.2, 0.8))
