"""Frames to the rows of a prompt that is fused with them: in calls of any size, exactly counted."""

import dataclasses
import weakref

import pytest
import torch
from fusion_by_hand import prompt_by_hand
from seeded_models import MINI, VISION, clips_of, filled, noise_frames, video_plan

from llava_video.errors import CapacityError, CheckpointError, ConfigError, DecodeError
from llava_video.model import fusion
from llava_video.model.llava import LlavaModel
from llava_video.model.preprocess import make_tiles
from llava_video.values import Newline, VisualPlan

IDS = [3, 8, -1, 5, 0, 11, 2]
MODEL = filled(LlavaModel(MINI))


def plan_of(num_frames: int, **changes: object) -> VisualPlan:
    """Plan frames of one tile that become 2 x 2 queries."""
    facts = {"newline": Newline.NONE, "map_size": (2, 2), "pool_stride": 1, "is_fused": True}
    return video_plan(num_frames, 4 * num_frames, **facts, **changes)


def fused(plan: VisualPlan, tile_chunk: int, model: LlavaModel = MODEL, num_frames: int = 0):
    """Return the rows, and the frames taken in after each call."""
    prompt = model.fused_prompt(IDS, plan.num_frames)
    clips = clips_of(noise_frames(num_frames or plan.num_frames))
    return prompt, list(model.fuse(prompt, plan, clips, tile_chunk))


def by_hand(plan: VisualPlan) -> torch.Tensor:
    (clip,) = clips_of(noise_frames(plan.num_frames), plan.num_frames)
    with torch.inference_mode():
        features = MODEL.vision_tower(make_tiles(clip, plan, tile_px=VISION.image_px))
    return prompt_by_hand(MODEL, features[:, None], IDS)


@pytest.mark.parametrize(
    ("tile_chunk", "done"),
    [
        (1, [1, 2, 3, 4, 5, 6, 7]),
        (2, [2, 4, 6, 7]),
        (3, [3, 6, 7]),
        (7, [7]),
        (64, [7]),
    ],
)
def test_calls_of_any_size_give_the_rows_of_the_definition(tile_chunk, done):
    plan = plan_of(7)
    prompt, told = fused(plan, tile_chunk)
    assert told == done
    rows, expected = prompt.rows(), by_hand(plan)
    assert rows.shape == (6 + 28, 32)
    assert (rows - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_long_prompt_takes_fewer_frames_at_once(monkeypatch):
    """A frame is 49 patches, 4 queries and 5 words that are seen: 58 rows, two of them are 116."""
    monkeypatch.setattr(fusion, "FUSION_ROWS", 120)
    assert fused(plan_of(5), 64)[1] == [2, 4, 5]


def test_where_memory_is_short_calls_are_smaller_and_rows_the_same(monkeypatch):
    plan = plan_of(6)
    expected = fused(plan, 6)[0].rows()
    fuse = fusion.Fusion.fuse

    def small(self, patches, *others):
        if len(patches) > 2:
            raise torch.OutOfMemoryError("tried to allocate 2.00 GiB.")
        return fuse(self, patches, *others)

    monkeypatch.setattr(fusion.Fusion, "fuse", small)
    prompt, told = fused(plan, 6)
    assert told == [1, 2, 3, 4, 5, 6]  # six, three, one
    torch.testing.assert_close(prompt.rows(), expected, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(fusion.Fusion, "fuse", lambda self, *_: small(self, range(9)))
    with pytest.raises(CapacityError, match="no memory for the vision tower"):
        fused(plan, 6)


@pytest.mark.parametrize("num_frames", [3, 5])
def test_other_frames_than_planned_are_an_error(num_frames):
    with pytest.raises(DecodeError, match="4 frames were planned"):
        fused(plan_of(4), 2, num_frames=num_frames)


def test_a_plan_that_counts_otherwise_is_refused_before_a_frame_is_read():
    plan = dataclasses.replace(plan_of(4), num_tokens=17)
    with pytest.raises(ConfigError, match="17 visual tokens were planned, 16 are made"):
        next(MODEL.fuse(MODEL.fused_prompt(IDS, 4), plan, iter(()), 2))


def test_a_model_that_fuses_nothing_says_so():
    model = LlavaModel(dataclasses.replace(MINI, fusion=None))
    with pytest.raises(CheckpointError, match="no layers for it"):
        model.fused_prompt(IDS, 1)


def test_nothing_of_a_frame_is_held_but_its_rows(monkeypatch):
    """Features and tiles of a call are gone when the next begins."""
    alive: list[weakref.ref] = []
    add = fusion.FusedPrompt.add

    def watched(self, features):
        assert all(ref() is None for ref in alive)
        alive.append(weakref.ref(features.untyped_storage()))
        add(self, features)

    monkeypatch.setattr(fusion.FusedPrompt, "add", watched)
    assert fused(plan_of(6), 2)[1] == [2, 4, 6]
    assert len(alive) == 3
