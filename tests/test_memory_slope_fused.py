"""LLaVA-Mini at true size, without data: a further frame takes its row and its keys and values.

A token of Llama-3.1-8B is 32 layers x 2 x 8 heads x 128 channels of two bytes of cache, 131,072
bytes; the one row of 4,096 channels that waits for the last frame is 8,192 bytes more: 1.0625 times
the cache. The limit is 1.1, so not even one row may be held twice.
"""

import dataclasses
from unittest import mock

import pytest
from memory_trace import MINI_8B, FakeRun, fake_model, fused_video_of, run_video, traced

from llava_video.model.fusion import FusedPrompt

TOKEN_BYTES = 32 * 2 * 8 * 128 * 2
MAX_SHARE = 1.1
MAX_OVERHEAD_BYTES = 0.8 * 2**30
# Two of 23 layers of the tower, which leave nothing behind; the rest is whole.
SHALLOW = dataclasses.replace(MINI_8B, vision=dataclasses.replace(MINI_8B.vision, num_layers=2))
_FRAMES = (24, 96)  # calls of 8,192 // (576 + 1 + 64) = 12 frames


def runs_of(counts=_FRAMES, dimensions=SHALLOW) -> list[FakeRun]:
    found = []
    for num_frames in counts:
        with traced() as trace:
            model = fake_model(dimensions)
            plan = fused_video_of(num_frames, dimensions.fusion.side)
            # Chunks so small that rows wait while the first of them is read.
            run = run_video(model, trace, plan, slab_tokens=1, prefill_chunk_tokens=64)
            found.append(run)
    return found


def shares_of(runs: list[FakeRun]) -> tuple[float, float]:
    """Return the bytes of a further frame as multiples of its keys and values.

    Of the most alive at once, which is while frames are fused, and of what is alive beside the
    first step of prefill.
    """
    few, many = runs
    num_tokens = many.num_tokens - few.num_tokens
    peak_bytes = many.peak_bytes - few.peak_bytes
    live_bytes = many.live_bytes[0] - few.live_bytes[0]
    return peak_bytes / (num_tokens * TOKEN_BYTES), live_bytes / (num_tokens * TOKEN_BYTES)


def test_a_further_frame_is_its_row_and_its_cache():
    runs = runs_of()
    shares = shares_of(runs)
    print(f"{shares} times the cache a frame, {runs[1].overhead_bytes / 2**20:.0f} MiB beside it")
    assert TOKEN_BYTES == 131_072
    assert shares == pytest.approx([1 + 8192 / 131_072] * 2, abs=0.001)
    assert max(shares) <= MAX_SHARE
    assert max(run.overhead_bytes for run in runs) < MAX_OVERHEAD_BYTES
    assert [run.num_tokens for run in runs] == [24 + 64, 96 + 64]


@pytest.mark.slow
def test_the_whole_model_and_three_hours_in_24_gb():
    """18.4 GB of weights: 16.1 of Llama-3.1-8B, 1.74 of four layers more, 0.6 of the tower."""
    runs = runs_of((240, 1200), MINI_8B)
    shares = shares_of(runs)
    print(f"{shares} times the cache a frame, {runs[1].overhead_bytes / 2**20:.0f} MiB beside it")
    assert max(shares) <= MAX_SHARE
    assert runs[0].weights_bytes == pytest.approx(18.44e9, rel=1e-3)
    # Three hours at one frame a second beside the weights, in 24 GB.
    held = runs[1].peak_bytes + (10_800 - 1200) * shares[0] * TOKEN_BYTES
    assert held < 24e9


def test_paths_that_hold_more_are_noticed():
    rows, add = FusedPrompt.rows, FusedPrompt.add
    with mock.patch.object(FusedPrompt, "rows", lambda self: rows(self).clone()):
        assert shares_of(runs_of())[1] > MAX_SHARE  # the rows twice: 1.125
    kept = []

    def keeping(self, features):
        kept.append(features)
        add(self, features)

    with mock.patch.object(FusedPrompt, "add", keeping):
        assert min(shares_of(runs_of())) > 5  # features of 576 x 1,024: 1.2 MB a frame
