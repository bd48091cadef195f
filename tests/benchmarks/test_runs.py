"""Each benchmark runs, ends with its row of JSON, and (slow) keeps what the README promises."""

import json
import platform
from pathlib import Path

import decoding
import harness
import lora_memory
import memory
import numpy as np
import pytest
import readers
import reading_memory
import sandbox
import speed
import startup
import tiling
import torch
import training
import training_loader
from twin import TINY, onevision_config, twins

from llava_video.ops.native import native_words
from llava_video.ops.tiles import clip_tiles


def row_of(printed: str) -> dict:
    row = json.loads(printed.splitlines()[-1])
    host = platform.node()
    assert host == "" or host not in printed
    assert str(Path.home()) not in printed
    return row


def test_startup_runs(capsys):
    assert startup.main(["--check"]) == 0
    row = row_of(capsys.readouterr().out)
    assert set(row["seconds"]) == {"import", "help", "plan"}
    assert row["ceiling"]["python -c pass"] > 0


@pytest.mark.skipif(native_words() is None, reason="built without the native part")
def test_tiling_runs(capsys):
    assert tiling.main(["--check"]) == 0
    row = row_of(capsys.readouterr().out)
    assert set(row["ratios"]) == set(row["limits"])
    assert all(ratio > 0 for ratio in row["ratios"].values())
    assert row["instructions"] == native_words()


@pytest.mark.skipif(native_words() is None, reason="built without the native part")
def test_competitors_tile_alike():
    # What is compared must be the same work: bit-equal, but for torch's own resize.
    tile = tiling._one_tile(tiling._noise(1, 67, 120), 24)
    grid = tiling._one_grid(tiling._noise(1, 135, 240), 24)
    ours = clip_tiles(tile.frames, tile.tiling)[0]
    assert np.array_equal(tiling.by_processor(tile.frames[0], 24), ours)
    assert np.abs(tiling.by_torch(tile.frames[0], 24).numpy() - ours).max() <= 0.05
    ours = clip_tiles(grid.frames, grid.tiling)[0]
    assert np.array_equal(tiling.by_anyres(grid.frames[0], 24), ours)


def test_speed_runs_and_both_answer_alike(capsys):
    assert speed.main(["--check"]) == 0
    row = row_of(capsys.readouterr().out)
    assert row["same_tokens"]
    assert set(row["stage_ratios"]) == {"vision", "prefill", "decode"}
    assert all(value > 0 for value in row["stage_ratios"].values())


def test_training_runs_and_both_learn_alike(capsys):
    assert training.main(["--check"]) == 0
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    # As published stages begin, a frozen tower and bfloat16; and as they end, in float32.
    assert [row["checkpointing"] for row in rows] == [True, False]
    assert ["vision_tower" in row["learn"] for row in rows] == [False, True]
    assert rows[-1] == row_of(printed)
    for row in rows:
        assert row["same_loss"]
        assert row["padded_tokens"] > row["tokens"] > 0
        assert row["ratio"] > 0


def test_training_loader_runs(capsys):
    assert training_loader.main(["--check"]) == 0
    row = row_of(capsys.readouterr().out)
    assert 0 <= row["wait_share"] <= row["largest_wait_share"] < 1
    assert row["tokens_per_s"] > 0
    found = row["example_ms"]
    assert found["opened, planned and labelled again"] < found["made, its video seen again"]


@pytest.mark.slow  # three processes that import torch and PEFT
@pytest.mark.skipif(not harness.can_measure_memory(), reason="needs /proc")
def test_memory_of_low_rank_training_runs(capsys):
    pytest.importorskip("peft")
    assert lora_memory.main(["--check"]) == 0
    row = row_of(capsys.readouterr().out)
    sizes = {name: own["decoder_bytes"] for name, own in row["formats"].items()}
    assert sizes["int4"] < sizes["int8"] < sizes["plain"]
    # Two layers of 36,864 weights and 512 outputs: four bytes each, or one and two a scale.
    assert sizes["plain"] - sizes["int8"] == 2 * (36_864 * 3 - 2 * 512)
    assert all(own["peak_bytes"] >= own["loaded_bytes"] > 0 for own in row["formats"].values())


def test_sandbox_runs(capsys):
    assert sandbox.main(["--check"]) == 0
    row = row_of(capsys.readouterr().out)
    assert [case["frames"] for case in row["cases"]] == [64, 60]
    assert all(case["ratio"] > 0 for case in row["cases"])
    assert row["worker"]["start"]["best_s"] > 0


@pytest.mark.skipif(not harness.can_measure_memory(), reason="no /proc/self/clear_refs here")
def test_memory_runs(capsys):
    assert memory.main(["--check"]) == 0
    row = row_of(capsys.readouterr().out)
    assert [one["dtype"] for one in row["loading"]] == ["float32", "bfloat16"]
    assert all(one["peak_bytes"] > 0.9 * one["kept_bytes"] for one in row["loading"])


def test_decoding_runs_and_the_readers_agree(capsys):
    assert decoding.main(["--check"]) == 0
    row = row_of(capsys.readouterr().out)
    assert len(row["cases"]) == 3
    assert all(case["ratio"] > 0 for case in row["cases"])
    assert row["cases"][0]["keyframe_ratio"] > 0


def test_readers_runs_and_auto_is_exact(capsys):
    assert readers.main(["--check"]) == 0
    kinds = {row["kind"]: row["readers"] for row in row_of(capsys.readouterr().out)["kinds"]}
    assert all(found["auto"]["exact"] for found in kinds.values())
    assert kinds["H.264 in MP4"]["decord"]["exact"]
    assert not kinds["H.264 in MPEG-TS"]["decord"]["exact"]


@pytest.mark.skipif(not harness.can_measure_memory(), reason="no /proc/self/clear_refs here")
def test_reading_memory_runs(capsys):
    assert reading_memory.main(["--check"]) == 0
    row = row_of(capsys.readouterr().out)
    assert all(peak > 1e6 for peak in row["lengths"]["peak_bytes"].values())
    assert row["opens"]["num_failed"] > 0  # some of the files are broken on purpose


def test_twins_share_every_tensor():
    ours, theirs = twins(onevision_config(TINY))
    held = {parameter.data_ptr() for parameter in ours.parameters()}
    own = {name for name, p in theirs.named_parameters() if p.data_ptr() not in held}
    # The tower's last norm, whose output nothing uses, is theirs alone.
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in own} == {"post_layernorm"}
    assert not any(tensor.is_meta for tensor in (*theirs.parameters(), *theirs.buffers()))
    ours.image_newline.data[0] = torch.pi
    assert theirs.model.image_newline[0] == torch.tensor(torch.pi)


@pytest.mark.slow
@pytest.mark.skipif(not harness.can_measure_memory(), reason="no /proc/self/clear_refs here")
def test_memory_does_not_grow_with_frames(tmp_path: Path):
    found = memory.measure_visual(tmp_path)
    assert set(found["beyond_tokens_bytes"]) == {16, 128}
    assert found["spread"] <= 0.05


@pytest.mark.slow
@pytest.mark.skipif(not harness.can_measure_memory(), reason="no /proc/self/clear_refs here")
def test_loading_holds_the_weights_once_and_one_shard(tmp_path: Path):
    for found in memory.measure_loading(tmp_path):
        assert found["stored_bytes"] > 500e6
        assert found["peak_bytes"] <= 1.1 * found["kept_bytes"] + found["largest_shard_bytes"]


@pytest.mark.slow
def test_startup_is_within_its_limits(capsys):
    assert startup.main([]) == 0
    assert row_of(capsys.readouterr().out)["limits_s"] == {"import": 0.1, "help": 0.3, "plan": 2.0}
