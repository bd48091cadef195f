"""Any chunk of clips, tiles and tokens gives the answer of one shot: random sizes, tiny weights.

A prompt of text, video and text goes frame by frame through tower, projector, pooling and prefill,
as the engine takes it, and the logits of every position are compared. Plain caches in float32.
Quantised ones in float64: there a key that lands on a rounding border in one chunking and beside it
in another would be an error of the rounding, not of the chunking.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seeded_models import DIMENSIONS, clips_of, filled, noise_frames, video_plan

from llava_video.engine.arena import Arena
from llava_video.engine.request import TextPart, VisualPart
from llava_video.engine.rows import PromptRows
from llava_video.engine.sequence import Sequence
from llava_video.engine.step import Work, run_step
from llava_video.model.checkpoint import load_model, save_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.preprocess import make_tiles
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.values import KvFormat, Newline, VisualPlan

MAX_ERROR = 1e-5
NUM_FRAMES = 5
BEFORE, AFTER = (3, 14, 15, 9, 26, 5), (35, 8, 9, 7, 9, 3, 23, 8, 46, 26)


@torch.inference_mode()
def logits_of(
    model: LlavaModel,
    plan: VisualPlan,
    frames: np.ndarray,
    *,
    prefill_chunks: tuple[int, ...] = (10_000,),
    tile_chunk: int = 1000,
    clip_frames: int = 1000,
    kv_format: KvFormat = "plain",
    position_scale: float = 1.0,
) -> torch.Tensor:
    """Return the logits (L, vocab) of text, video and text; the chunk sizes come in turn."""
    text = model.dimensions.text
    arena = Arena(
        text.num_layers,
        text.num_kv_heads,
        text.head_dim,
        dtype=model.dtype,
        devices=model.language_model.devices,
        slab_tokens=32,
    )
    video = VisualPart(plan=plan, clips=lambda: clips_of(frames, clip_frames), key="noise")
    rows = PromptRows(model, [TextPart(BEFORE), video, TextPart(AFTER)], tile_chunk)
    sequence = Sequence(arena, position_scale=position_scale, kv_format=kv_format)
    found: list[torch.Tensor] = []
    while rows.num_left:
        num_tokens = min(rows.num_left, prefill_chunks[len(found) % len(prefill_chunks)])
        hidden = rows.take(num_tokens)
        sequence.reserve(num_tokens)
        work = Work(sequence=sequence, hidden=hidden, num_logits=num_tokens)
        found.append(run_step(model.language_model, arena, [work]))
        sequence.append(num_tokens)
    return torch.cat(found)


def error_of(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest error over the largest logit."""
    return float((logits - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def model() -> LlavaModel:
    return filled(LlavaModel(DIMENSIONS), seed=1)


@pytest.fixture(scope="module")
def wide_model() -> LlavaModel:
    return filled(LlavaModel(DIMENSIONS), seed=1).double()


chunk_sizes = st.fixed_dictionaries(
    {
        "prefill_chunks": st.lists(st.integers(1, 60), min_size=1, max_size=5).map(tuple),
        "tile_chunk": st.integers(1, 7),
        "clip_frames": st.integers(1, 6),
    }
)


def plan_of(model: LlavaModel, *, average: bool = False) -> VisualPlan:
    """Return a newline per row: 4 x 5 rows a frame, or 3 x 4 of average pooling."""
    side = 3 if average else 4
    mode = "average" if average else "bilinear"
    num_tokens = NUM_FRAMES * side * (side + 1)
    return video_plan(NUM_FRAMES, num_tokens, pool_mode=mode, map_size=(side, side))


@settings(max_examples=25)
@given(sizes=chunk_sizes, average=st.booleans(), position_scale=st.sampled_from([1.0, 2.7]))
def test_any_chunks_are_one_shot(model, sizes, average, position_scale):
    plan, frames = plan_of(model, average=average), noise_frames(NUM_FRAMES)
    one_shot = logits_of(model, plan, frames, position_scale=position_scale)
    chunked = logits_of(model, plan, frames, position_scale=position_scale, **sizes)
    assert len(chunked) == len(BEFORE) + plan.num_tokens + len(AFTER)
    assert error_of(chunked, one_shot) <= MAX_ERROR


@settings(max_examples=15)
@given(sizes=chunk_sizes, kv_format=st.sampled_from(["int8", "int4"]))
def test_any_chunks_of_a_quantised_cache_are_one_shot(wide_model, sizes, kv_format):
    plan, frames = plan_of(wide_model), noise_frames(NUM_FRAMES)
    one_shot = logits_of(wide_model, plan, frames, kv_format=kv_format)
    chunked = logits_of(wide_model, plan, frames, kv_format=kv_format, **sizes)
    assert error_of(chunked, one_shot) <= MAX_ERROR


@pytest.mark.parametrize(("kv_format", "most"), [("int8", 0.1), ("int4", 1.0)])
def test_quantised_is_not_plain(wide_model, kv_format, most):
    """The comparison above is not of two plain caches, and the cache's error stays an error."""
    plan, frames = plan_of(wide_model), noise_frames(NUM_FRAMES)
    plain = logits_of(wide_model, plan, frames)
    error = error_of(logits_of(wide_model, plan, frames, kv_format=kv_format), plain)
    assert 10 * MAX_ERROR < error < most


def test_a_wrong_chunking_is_noticed(model):
    """A frame less, two frames swapped, or a chunk's tokens one position on."""
    plan, frames = plan_of(model), noise_frames(NUM_FRAMES)
    one_shot = logits_of(model, plan, frames)
    swapped = frames[[0, 2, 1, 3, 4]]
    assert error_of(logits_of(model, plan, swapped), one_shot) > 100 * MAX_ERROR
    true_idx = Sequence.next_idx.fget
    with pytest.MonkeyPatch.context() as patch:
        shifted = property(lambda self: true_idx(self) + (self.num_tokens > 20))
        patch.setattr(Sequence, "next_idx", shifted)
        late = logits_of(model, plan, frames, prefill_chunks=(25,))
    assert error_of(late, one_shot) > 100 * MAX_ERROR


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Iterator[tuple[LlavaModel, object]]:
    """Return the same tiny weights as our model and as transformers'."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    transformers.logging.set_verbosity_error()
    folder: Path = tmp_path_factory.mktemp("pair")
    write_tiny_checkpoint(folder / "ours", newline_position="one_token", seed=4)
    config = read_model_config(folder / "ours")
    model = load_model(folder / "ours", config=config, device="cpu")
    save_model(model, folder / "theirs", config=config, layout="hf")
    theirs = transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(folder / "theirs")
    return model, theirs.eval()


@pytest.mark.parametrize(
    ("prefill_chunks", "tile_chunk", "clip_frames"), [((7,), 2, 3), ((1, 13), 3, 1), ((64,), 1, 2)]
)
def test_chunks_are_transformers_one_shot(pair, prefill_chunks, tile_chunk, clip_frames):
    model, theirs = pair
    frames = noise_frames(NUM_FRAMES, 56, 56)
    plan = video_plan(
        NUM_FRAMES,
        NUM_FRAMES * 4 + 1,
        height_px=56,
        width_px=56,
        newline=Newline.CLIP,
        crop=(0, 4, 0, 4),
        map_size=(2, 2),
    )
    vision = model.dimensions.vision
    (clip,) = clips_of(frames, NUM_FRAMES)
    pixels = make_tiles(clip, plan, tile_px=56, mean=vision.pixel_mean, std=vision.pixel_std)
    marks = [theirs.config.video_token_id] * plan.num_tokens
    with torch.inference_mode():
        expected = theirs(
            input_ids=torch.tensor([[*BEFORE, *marks, *AFTER]]), pixel_values_videos=pixels[None]
        ).logits[0]
    sizes = {"tile_chunk": tile_chunk, "clip_frames": clip_frames}
    chunked = logits_of(model, plan, frames, prefill_chunks=prefill_chunks, **sizes)
    assert error_of(chunked, expected) <= MAX_ERROR
    swapped = logits_of(model, plan, frames[::-1].copy(), prefill_chunks=prefill_chunks, **sizes)
    assert error_of(swapped, expected) > 100 * MAX_ERROR
