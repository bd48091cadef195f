"""Memory at real size grows with the cache alone: a 7B and a 0.5B without data.

Every tensor is fake and every storage counted (`memory_trace.py`) on the real path, from tiles to
the first new tokens. The limits: 1.05 x the bytes of keys and values for each further frame, and
0.8 GiB beside weights and cache whatever the number of frames.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from unittest import mock

import pytest
import torch
from memory_trace import HALF_B, SEVEN_B, FakeRun, fake_model, run_video, traced, video_of

MAX_SHARE = 1.05
MAX_OVERHEAD_BYTES = 0.8 * 2**30
TOKENS_PER_FRAME = 196
# Keys and values of one token. 7B: 28 layers x 2 x 4 heads x 128 channels of two bytes; a byte and
# a float16 scale a head; half a byte and a float16 scale and offset for each 64 channels.
SEVEN_B_BYTES = {
    "plain": 28 * 2 * 4 * 128 * 2,
    "int8": 28 * 2 * 4 * (128 + 2),
    "int4": 28 * 2 * 4 * (64 + 2 * 4),
}
# Two of 28 layers and of 26: a quantised cache is read in more operations, and each takes time
# here, whatever the size.
SHALLOW = dataclasses.replace(
    SEVEN_B,
    text=dataclasses.replace(SEVEN_B.text, num_layers=2),
    vision=dataclasses.replace(SEVEN_B.vision, num_layers=2),
)
SHALLOW_BYTES = {kv_format: 2 * num_bytes // 28 for kv_format, num_bytes in SEVEN_B_BYTES.items()}
# A prefill chunk of 8 frames: videos of a multiple of 8 end at the same place of a chunk, so that
# what waits there is the same in all and not laid to the frames between two of them.
IN_STEP = {"prefill_chunk_tokens": 8 * 196, "tile_chunk": 8, "slab_tokens": 1}
HALF_B_BYTES = {"plain": 24 * 2 * 2 * 64 * 2, "int8": 24 * 2 * 2 * (64 + 2)}


def runs_of(counts: Sequence[int], dimensions=SEVEN_B, **options) -> list[FakeRun]:
    found = []
    for num_frames in counts:
        with traced() as trace:
            model = fake_model(dimensions)
            kept = [] if options.pop("keeps_rows", False) else None
            found.append(run_video(model, trace, video_of(num_frames), kept=kept, **options))
            if kept is not None:
                options["keeps_rows"] = True
    return found


def faults_of(runs: Sequence[FakeRun], token_bytes: int) -> list[str]:
    """Say where memory is more than cache and a fixed rest."""
    faults = []
    frame_bytes = TOKENS_PER_FRAME * token_bytes
    for few, many in itertools.pairwise(runs):
        slope = (many.peak_bytes - few.peak_bytes) / (many.num_frames - few.num_frames)
        if slope > MAX_SHARE * frame_bytes:
            faults.append(f"{slope:.0f} bytes a frame, keys and values are {frame_bytes}")
    for run in runs:
        if run.overhead_bytes > MAX_OVERHEAD_BYTES:
            faults.append(f"{run.overhead_bytes} bytes beside weights and cache")
        if run.cache_bytes > (run.num_tokens + 2) * token_bytes * 1.001:
            faults.append(f"a cache of {run.cache_bytes} bytes for {run.num_tokens} tokens")
    return faults


@pytest.mark.parametrize("kv_format", ["plain", "int8", "int4"])
def test_the_bytes_by_hand(kv_format):
    """57,344, 29,120 and 16,128 bytes a token: 11.24, 5.71 and 3.16 MB a frame."""
    expected = {"plain": 57_344, "int8": 29_120, "int4": 16_128}
    assert expected == SEVEN_B_BYTES
    assert expected[kv_format] * TOKENS_PER_FRAME / 1e6 == pytest.approx(
        {"plain": 11.24, "int8": 5.71, "int4": 3.16}[kv_format], abs=0.005
    )


def test_a_7b_takes_its_cache_and_a_fixed_rest():
    runs = runs_of([64, 256])
    assert faults_of(runs, SEVEN_B_BYTES["plain"]) == []
    assert [run.weights_bytes for run in runs] == [16_060_693_056] * 2
    assert [run.num_tokens for run in runs] == [64 * 196 + 65, 256 * 196 + 65]


def test_a_quantised_cache_takes_its_own_bytes():
    """Both longer than 32,768 tokens, the block that is dequantised at a time."""
    runs = runs_of([176, 208], SHALLOW, kv_format="int8", **IN_STEP)
    assert faults_of(runs, SHALLOW_BYTES["int8"]) == []
    few, many = runs
    assert abs(many.overhead_bytes - few.overhead_bytes) <= 2**20


def test_nothing_but_the_slab_grows_from_step_to_step():
    (run,) = runs_of([128], SHALLOW, **IN_STEP)
    beyond = [live - run.weights_bytes - run.cache_bytes for live in run.live_bytes]
    early, late = beyond[: len(beyond) // 2], beyond[len(beyond) // 2 :]
    assert len(beyond) == 17
    assert max(late) <= max(early) + 2**16


@pytest.mark.parametrize(
    ("mutant", "fault"),
    [
        ({"keeps_rows": True}, "bytes a frame"),  # 7,168 bytes more a token
        ({"all_logits": True}, "beside weights and cache"),  # 1,568 x 152,064 float32
    ],
)
def test_paths_that_hold_more_are_noticed(mutant, fault):
    faults = faults_of(runs_of([16, 48], SHALLOW, **IN_STEP, **mutant), SHALLOW_BYTES["plain"])
    assert faults
    assert all(fault in each for each in faults)
    assert faults_of(runs_of([16, 48], SHALLOW, **IN_STEP), SHALLOW_BYTES["plain"]) == []


def test_a_cache_in_the_wrong_format_is_noticed():
    faults = faults_of(runs_of([16, 24], SHALLOW, **IN_STEP), SHALLOW_BYTES["int8"])
    assert len(faults) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dimensions", "kv_format", "token_bytes"),
    [
        (SEVEN_B, "plain", SEVEN_B_BYTES["plain"]),
        (SEVEN_B, "int8", SEVEN_B_BYTES["int8"]),
        (SEVEN_B, "int4", SEVEN_B_BYTES["int4"]),
        (HALF_B, "plain", HALF_B_BYTES["plain"]),
    ],
    ids=["7b", "7b int8", "7b int4", "0.5b"],
)
def test_a_thousand_frames(dimensions, kv_format, token_bytes):
    """All layers: what one layer's block of a quantised cache takes, once, is set against them."""
    runs = runs_of([256, 1024], dimensions, kv_format=kv_format, **IN_STEP)
    assert faults_of(runs, token_bytes) == []


@pytest.mark.slow
def test_four_thousand_frames():
    """802,881 tokens, at a quarter of the depth: the whole depth takes minutes and was run once."""
    quarter = dataclasses.replace(
        SEVEN_B,
        text=dataclasses.replace(SEVEN_B.text, num_layers=7),
        vision=dataclasses.replace(SEVEN_B.vision, num_layers=6),
    )
    runs = runs_of([64, 4096], quarter)
    assert faults_of(runs, SEVEN_B_BYTES["plain"] // 4) == []


@pytest.mark.slow
def test_a_quantised_cache_in_all_layers():
    runs = runs_of([176, 240], kv_format="int8", **IN_STEP)
    assert faults_of(runs, SEVEN_B_BYTES["int8"]) == []


def transformers_peak_bytes(num_frames: int) -> int:
    """Return what transformers' LlavaOnevision holds at most beside its weights, one shot."""
    import transformers
    from transformers import initialization
    from transformers.models.llava_onevision import modeling_llava_onevision as theirs

    def masks(_: object, input_ids: torch.Tensor, inputs_embeds: torch.Tensor, **__: object):
        # Where the placeholders are is a question to the data, which is not there.
        mask = torch.zeros(inputs_embeds.shape, dtype=torch.bool)
        return mask, mask

    vision, text = SEVEN_B.vision, SEVEN_B.text
    config = transformers.LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_layers,
            "num_attention_heads": vision.num_heads,
            "image_size": vision.image_px,
            "patch_size": vision.patch_px,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_layers,
            "num_attention_heads": text.num_heads,
            "num_key_value_heads": text.num_kv_heads,
            "vocab_size": text.vocab_size,
        },
    )
    with traced() as trace:
        torch.set_default_dtype(torch.bfloat16)
        try:
            with initialization.no_init_weights():
                model = theirs.LlavaOnevisionForConditionalGeneration(config).eval()
        finally:
            torch.set_default_dtype(torch.float32)
        weights_bytes = trace.live_bytes
        pixels = torch.empty(1, num_frames, 3, 384, 384, dtype=torch.bfloat16)
        ids = torch.zeros(1, num_frames * TOKENS_PER_FRAME + 65, dtype=torch.int64)
        trace.reset_peak()
        with mock.patch.object(theirs.LlavaOnevisionModel, "get_placeholder_mask", masks):
            held = model(input_ids=ids, pixel_values_videos=pixels, logits_to_keep=1)
        assert held.logits.shape[1] == 1
        return trace.peak_bytes - weights_bytes


@pytest.mark.slow
def test_a_path_that_takes_all_frames_at_once_is_refused():
    """transformers' own, by the same count: four times the cache. Measured with 5.23: 45.6 MB."""
    few, many = 16, 48
    slope = (transformers_peak_bytes(many) - transformers_peak_bytes(few)) / (many - few)
    assert slope > 3 * TOKENS_PER_FRAME * SEVEN_B_BYTES["plain"]
    print(f"{slope / 1e6:.1f} MB a frame")
