"""Weights in and out: every spelling, strict, onto the device without a second copy, and back."""

import json
import logging
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from llava_video.errors import CapacityError, CheckpointError
from llava_video.model import checkpoint
from llava_video.model.checkpoint import load_model, save_model
from llava_video.model.decoder import Row
from llava_video.model.kv_cache import KvCache
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import parse_model_config, read_model_config, with_overrides
from llava_video.model.names import SPELLINGS, file_names, parameter_shapes
from llava_video.model.tiny import write_tiny_checkpoint

SINGLE = "model.safetensors"


def load(folder: Path, **options: object) -> LlavaModel:
    options = {"device": "cpu", "config": read_model_config(folder), **options}
    return load_model(folder, **options)


def tensors_of(model: LlavaModel) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def assert_equal(one: LlavaModel, other: LlavaModel) -> None:
    ours, theirs = tensors_of(one), tensors_of(other)
    assert set(ours) == set(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def rewrite(folder: Path, target: Path, change) -> Path:
    """Copy a checkpoint with its named tensors changed."""
    shutil.copytree(folder, target)
    stored = load_file(target / SINGLE)
    save_file({name: t.contiguous() for name, t in change(dict(stored)).items()}, target / SINGLE)
    return target


@torch.inference_mode()
def logits_of(model: LlavaModel, rows: torch.Tensor) -> torch.Tensor:
    """Run rows (L, D) through the language model; return the logits (L, vocab)."""
    text, length = model.dimensions.text, rows.shape[0]
    cache = KvCache(
        text.num_layers,
        text.num_kv_heads,
        text.head_dim,
        dtype=model.dtype,
        devices=model.language_model.devices,
        slab_tokens=length,
    )
    row = Row(0, length, (), cache.reserve(length).span)
    positions = torch.arange(length, dtype=torch.float32)
    return model.language_model.logits(model.language_model(rows, positions, [row], cache))


@torch.inference_mode()
def onevision_rows(model: LlavaModel, ids: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Build text, video, text by hand: bilinear to half, rounded up, one newline after the clip."""
    features = model.encode(frames)  # (T, P, D)
    side = round(features.shape[1] ** 0.5)
    maps = features.transpose(1, 2).unflatten(2, (side, side))
    pooled = F.interpolate(maps, size=-(-side // 2), mode="bilinear")
    video = torch.cat([pooled.flatten(2).transpose(1, 2).flatten(0, 1), model.image_newline[None]])
    text = model.language_model.embed(ids)
    return torch.cat([text[:5], video, text[5:]])


def test_a_tiny_checkpoint_has_exactly_the_parameters_of_the_model(tiny_folder: Path):
    model = load(tiny_folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors_of(model).items()}
    assert shapes == parameter_shapes(read_model_config(tiny_folder).dimensions)
    assert not model.training
    assert not any(tensor.requires_grad for tensor in model.parameters())
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


def test_golden_layouts_load_equal(shared: Path):
    golden = shared / "golden" / "onevision_video"
    original = load(golden / "model_a")
    assert len(tensors_of(original)) == 67  # 69 in the file, two of them the unused norm
    for name in ("model_a_hf", "model_a_hf_legacy"):
        assert_equal(load(golden / name), original)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_loads_equal(tiny_folder: Path, tmp_path: Path, spelling):
    dimensions = read_model_config(tiny_folder).dimensions
    stored = load_file(tiny_folder / SINGLE)
    ours = {theirs: ours for ours, theirs in file_names(dimensions, "original").items()}
    theirs = file_names(dimensions, spelling)
    renamed = {theirs[ours[name]]: tensor for name, tensor in stored.items() if name in ours}
    shutil.copytree(tiny_folder, tmp_path / "other")
    save_file(renamed, tmp_path / "other" / SINGLE)
    assert_equal(load(tmp_path / "other"), load(tiny_folder))


def test_tensors_that_are_known_and_not_needed_are_left_out(tiny_folder: Path, tmp_path: Path):
    tower = "model.vision_tower.vision_tower.vision_model"

    def with_extras(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return stored | {
            f"{tower}.head.probe": torch.zeros(1, 1, 32),
            f"{tower}.encoder.layers.2.mlp.fc1.weight": torch.zeros(64, 32),  # layers 0 and 1 run
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8),
            "model.faster_token": torch.zeros(64),
        }

    other = rewrite(tiny_folder, tmp_path / "other", with_extras)
    assert_equal(load(other), load(tiny_folder))


def test_a_file_without_head_is_tied_and_says_so(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def without_head(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del stored["lm_head.weight"]
        return stored

    other = rewrite(tiny_folder, tmp_path / "other", without_head)
    with caplog.at_level(logging.WARNING):
        model = load(other)
    assert model.dimensions.text.tie_embeddings
    assert model.language_model.lm_head is None
    assert "no head" in caplog.text


def test_a_tie_in_the_configuration_beats_a_stored_head(tiny_folder: Path, tmp_path: Path):
    shutil.copytree(tiny_folder, tmp_path / "tied")
    path = tmp_path / "tied" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    assert load(tmp_path / "tied").language_model.lm_head is None


def test_missing_unknown_and_wrong_tensors_are_all_named(tiny_folder: Path, tmp_path: Path):
    def broken(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del stored["model.mm_projector.0.bias"]
        stored["model.vision_resampler.query"] = torch.zeros(3)
        stored["model.norm.weight"] = torch.zeros(7)
        stored["model.image_newline"] = torch.zeros(64, dtype=torch.int8)
        stored["image_newline"] = torch.zeros(64)
        return stored

    other = rewrite(tiny_folder, tmp_path / "other", broken)
    with pytest.raises(CheckpointError) as caught:
        load(other)
    message = caught.value.message
    assert "1 unknown: model.vision_resampler.query" in message
    assert "1 missing: model.mm_projector.0.bias" in message
    assert "1 of a wrong shape: model.norm.weight is [7], config.json means [64]" in message
    assert "2 doubled: " in message
    assert "1 not floating point: model.image_newline (I8)" in message
    assert "config.json belongs to these weights" in caught.value.hint


def test_weights_of_another_size_are_refused_before_anything_is_allocated(
    tiny_folder: Path, tmp_path: Path
):
    config = with_overrides(read_model_config(tiny_folder), {"hidden_size": 128})
    with pytest.raises(CheckpointError, match="of a wrong shape") as caught:
        load(tiny_folder, config=config)
    assert "more" in caught.value.message  # the first few, not hundreds


def test_a_missing_shard_is_refused(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny", num_shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00003"):
        load(folder)


def test_a_truncated_shard_is_refused(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny", num_shards=2)
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load(folder)


def test_a_separator_comes_from_the_files_or_from_the_caller(tiny_folder: Path, tmp_path: Path):
    slow_fast = with_overrides(
        read_model_config(tiny_folder), {"add_faster_video": True, "faster_token_stride": 4}
    )
    with pytest.raises(CheckpointError, match=r"1 missing: model\.faster_token"):
        load(tiny_folder, config=slow_fast)
    row = torch.arange(64.0)
    assert torch.equal(load(tiny_folder, config=slow_fast, extra={"separator": row}).separator, row)
    stored = write_tiny_checkpoint(tmp_path / "stored", slow_every=4)
    assert load(stored).separator.shape == (64,)


def test_shards_are_reported_as_they_come(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny", num_shards=3)
    seen: list[tuple[int, int]] = []
    load(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_cast_to_the_asked_dtype(tiny_folder: Path, dtype: torch.dtype):
    exact, cast = tensors_of(load(tiny_folder)), tensors_of(load(tiny_folder, dtype=dtype))
    assert {tensor.dtype for tensor in cast.values()} == {dtype}
    assert all(torch.equal(exact[name].to(dtype), cast[name]) for name in exact)


def test_the_stored_dtype_is_the_default(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny", dtype="bfloat16")
    assert load(folder).dtype == torch.bfloat16
    config = with_overrides(read_model_config(folder), {"torch_dtype": "int8"})
    with pytest.raises(CheckpointError, match="torch_dtype = 'int8'"):
        load(folder, config=config)


def test_the_model_does_not_depend_on_the_file_afterwards(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    model = load(folder)
    before = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    path = folder / SINGLE
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:  # in place: a view of the mapped file would change with it
        file.seek(size_bytes // 2)
        file.write(b"\x00" * (size_bytes - size_bytes // 2))
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors_of(model).items())


def test_no_room_on_the_device_is_a_capacity_error(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 1 GiB")

    monkeypatch.setattr(checkpoint, "_load_shard", full)
    with pytest.raises(CapacityError, match="does not fit") as caught:
        load(tiny_folder)
    assert "smaller checkpoint" in caught.value.hint


@pytest.mark.parametrize("layout", ["original", "hf"])
@pytest.mark.parametrize(
    "options", [{}, {"tie_embeddings": True, "dtype": "bfloat16"}, {"slow_every": 2}]
)
def test_saving_and_loading_is_bit_equal(tmp_path: Path, layout: str, options):
    folder = write_tiny_checkpoint(tmp_path / "tiny", **options)
    config, model = read_model_config(folder), load(folder)
    target = save_model(
        model,
        tmp_path / "saved",
        config=config,
        layout=layout,
        shard_bytes=200_000,
        tokenizer_from=folder,
    )
    again = read_model_config(target)
    assert_equal(load(target), model)
    assert again.layout == layout
    assert (again.dimensions, again.visual) == (config.dimensions, config.visual)
    assert (target / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert len(list(target.glob("*.safetensors"))) > 1


def test_converting_there_and_back_gives_the_same_file(tiny_folder: Path, tmp_path: Path):
    config = read_model_config(tiny_folder)
    save_model(load(tiny_folder), tmp_path / "hf", config=config, layout="hf")
    hf_config = read_model_config(tmp_path / "hf")
    save_model(load(tmp_path / "hf"), tmp_path / "back", config=hf_config)
    assert (tmp_path / "back" / SINGLE).read_bytes() == (tiny_folder / SINGLE).read_bytes()


# ---------------------------------------------------------------------------- against transformers


@pytest.fixture(scope="module")
def transformers() -> Iterator[object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.logging.set_verbosity_error()
        yield transformers


def hf_logits(theirs, ids: torch.Tensor, frames: torch.Tensor | None) -> torch.Tensor:
    """Run transformers' model on ids with a video between the first five and the rest."""
    inputs = {"input_ids": ids[None]}
    if frames is not None:
        side = -(-(theirs.config.vision_config.image_size // 14) // 2)
        count = frames.shape[0] * side**2 + 1
        marks = torch.full((count,), theirs.config.video_token_id)
        inputs = {
            "input_ids": torch.cat([ids[:5], marks, ids[5:]])[None],
            "pixel_values_videos": frames[None],
        }
    with torch.inference_mode():
        return theirs(**inputs).logits[0]


def assert_same_logits(model: LlavaModel, theirs) -> None:
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(0, 250, (24,), generator=generator)
    frames = torch.rand(3, 3, 56, 56, generator=generator) * 2 - 1
    text = logits_of(model, model.language_model.embed(ids))
    torch.testing.assert_close(text, hf_logits(theirs, ids, None), atol=1e-4, rtol=0)
    video = logits_of(model, onevision_rows(model, ids, frames))
    expected = hf_logits(theirs, ids, frames)
    torch.testing.assert_close(video, expected, atol=1e-4, rtol=0)
    # A mutant must not pass: two frames swapped move the logits by far more than the tolerance.
    swapped = logits_of(model, onevision_rows(model, ids, frames.flip(0)))
    assert (swapped - expected).abs().max() > 1e-2


@pytest.mark.parametrize("layout", ["original", "hf"])
@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_transformers_loads_what_we_save(
    tmp_path: Path, transformers, layout: str, tie_embeddings: bool
):
    options = {"newline_position": "one_token", "tie_embeddings": tie_embeddings, "seed": 5}
    folder = write_tiny_checkpoint(tmp_path / "tiny", layout=layout, **options)
    model = load(folder)
    target = tmp_path / "saved"
    config = read_model_config(folder)
    save_model(model, target, config=config, layout="hf", shard_bytes=200_000)
    theirs, report = transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(
        target, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], kind
    assert_same_logits(model, theirs.eval())


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_we_load_what_transformers_saves(tmp_path: Path, transformers, tie_embeddings: bool):
    config = transformers.LlavaOnevisionConfig(
        text_config={
            "model_type": "qwen2",
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "vocab_size": 260,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0},
            "tie_word_embeddings": tie_embeddings,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 40,
            "intermediate_size": 72,
            "num_hidden_layers": 2,
            "num_attention_heads": 5,
            "image_size": 56,
            "patch_size": 14,
            "vision_use_head": False,
        },
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
        image_token_index=258,
        video_token_index=259,
        tie_word_embeddings=tie_embeddings,
    )
    torch.manual_seed(11)
    theirs = transformers.LlavaOnevisionForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.ndim > 1:  # away from the almost linear model of the usual small draw
                parameter.mul_(4.0 if "embed" not in name else 1.0)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    ours = read_model_config(tmp_path / "theirs")
    assert ours.text.rope_scale == 2.0
    assert ours.text.rope_theta == 5e5
    assert ours.visual.canvases == ((56, 112), (112, 56), (112, 112))
    assert_same_logits(load(tmp_path / "theirs"), theirs)


# ------------------------------------------------------------------------------------------ memory

# Peak resident memory of one load, in a process of its own. "all at once" is the obvious loader:
# read every shard, then build the model from the dictionary.
MEASURE = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from llava_video.model.checkpoint import load_model
from llava_video.model.model_config import read_model_config

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

folder, how, dtype = Path(sys.argv[1]), sys.argv[2], getattr(torch, sys.argv[3])
torch.set_num_threads(1)
load_model(Path(sys.argv[4]), config=read_model_config(sys.argv[4]), device="cpu")  # warm up
config = read_model_config(folder)
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = status("VmRSS")
if how == "shard by shard":
    model = load_model(folder, config=config, device="cpu", dtype=dtype)
else:
    read = {n: t for p in sorted(folder.glob("*.safetensors")) for n, t in load_file(p).items()}
    model = {n: t.to(dtype, copy=True) for n, t in read.items()}
print(status("VmHWM") - before)
"""


def peak_bytes(folder: Path, tiny_folder: Path, how: str, dtype: str) -> int:
    arguments = [sys.executable, "-c", MEASURE, str(folder), how, dtype, str(tiny_folder)]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 280 MB in eight shards, as fast as weights can be written: all ones."""
    folder = tmp_path_factory.mktemp("large")
    options = {"hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "num_layers": 4}
    tiny = write_tiny_checkpoint(folder / "tiny")
    values = json.loads((tiny / "config.json").read_text())
    values |= {
        "hidden_size": options["hidden_size"],
        "intermediate_size": options["intermediate_size"],
        "num_attention_heads": options["num_heads"],
        "num_key_value_heads": 4,
        "num_hidden_layers": options["num_layers"],
        "vocab_size": 2048,
    }
    config = parse_model_config(values)
    with torch.device("meta"):
        model = LlavaModel(config.dimensions)
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    return save_model(model, folder / "large", config=config, shard_bytes=36_000_000)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_peaks_at_the_weights_and_one_shard(
    large_folder: Path, tiny_folder: Path, dtype: str
):
    files = [path.stat().st_size for path in large_folder.glob("*.safetensors")]
    kept_bytes = sum(files) * (1.0 if dtype == "float32" else 0.5)
    limit_bytes = 1.1 * kept_bytes + max(files)
    assert len(files) >= 6
    assert sum(files) > 200_000_000
    assert peak_bytes(large_folder, tiny_folder, "shard by shard", dtype) <= limit_bytes
    assert peak_bytes(large_folder, tiny_folder, "all at once", dtype) > limit_bytes
