"""Device, dtype and memory are settled once, before any weight is read; a wrong one is named."""

from dataclasses import replace
from pathlib import Path

import overlay_cases as cases
import pytest
import torch

from llava_video import loading
from llava_video.engine.settings import EngineSettings
from llava_video.errors import BudgetError, CheckpointError, ConfigError
from llava_video.loading import (
    choose_device,
    choose_dtype,
    free_gpu_bytes,
    load_engine,
    load_spec,
)
from llava_video.model.model_config import GenerationDefaults
from llava_video.model.quantize import format_of
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.planning.memory import cache_bytes, weights_bytes
from llava_video.planning.settings import MemorySettings

GIB = 2**30


def test_auto_follows_the_hardware() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto") == expected
    assert choose_dtype("auto", "cpu") == "float32"
    assert choose_dtype("auto", "cuda") == "bfloat16" if expected == "cuda" else True
    assert choose_dtype("auto", "cpu:0") == "float32"
    assert choose_dtype("float16", "cpu") == "float16"


@pytest.mark.parametrize("device", ["gpu", "cuda:97", "cuda:x", "meta", "mps"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device = '{device}'"):
        choose_device(device)


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(ConfigError, match="dtype = 'int8'"):
        choose_dtype("int8", "cpu")


def test_an_unknown_attention_is_named(tiny_folder: Path) -> None:
    spec = read_spec(tiny_folder)
    with pytest.raises(ConfigError, match="attn = 'flash2'"):
        load_engine(spec, device="cpu", dtype="float32", attn="flash2")  # type: ignore[arg-type]  # what is tested


def spec_of(folder: Path, **asked: object) -> ModelSpec:
    memory = MemorySettings(**asked)
    return load_spec(folder, revision=None, device="cpu", dtype="auto", memory=memory)


def test_on_a_cpu_nothing_is_limited_unless_asked(tiny_folder: Path) -> None:
    plain = load_spec(tiny_folder, revision=None, device="cpu", dtype="auto")
    assert (plain.setup.limit_bytes, plain.setup.weight_format) == (None, "plain")
    assert plain.setup.tile_chunk == 2 * 27**2 // plain.geometry.patches_per_side**2
    assert spec_of(tiny_folder, memory="1GiB").setup.limit_bytes == GIB


def test_weights_that_do_not_fit_are_not_fetched(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("weights were looked for")

    monkeypatch.setattr(loading, "find_sources", never)
    with pytest.raises(BudgetError, match=r"weights .* memory = 100\.0 KiB"):
        spec_of(tiny_folder, memory="100KiB")
    with pytest.raises(AssertionError, match="looked for"):
        spec_of(tiny_folder)


def test_a_tokenizer_with_more_ids_than_rows_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    num_ids = read_spec(tiny_folder).tokenizer.num_ids
    rows = {n: cases.stored(tiny_folder)[n][: num_ids - 1] for n in (cases.EMBEDDING, cases.HEAD)}
    tensors = cases.stored(tiny_folder) | rows
    folder = cases.write_model(tiny_folder, tmp_path / "few", tensors, vocab_size=num_ids - 1)
    found = f"has ids up to {num_ids - 1}, the embedding has {num_ids - 1} rows"
    with pytest.raises(CheckpointError, match=found) as caught:
        spec_of(folder)
    assert "was trained with" in caught.value.hint
    rows = {n: cases.stored(tiny_folder)[n][:num_ids] for n in (cases.EMBEDDING, cases.HEAD)}
    just = cases.write_model(tiny_folder, tmp_path / "just", tensors | rows, vocab_size=num_ids)
    assert spec_of(just).config.text.vocab_size == num_ids


def test_base_and_tower_are_found_for_the_engine(tiny_folder: Path, tmp_path: Path) -> None:
    """A projector over a base whose tower lies apart: three folders make one model."""
    apart = cases.write_tower_apart(tiny_folder, tmp_path / "apart")
    tower = (tmp_path / "owner" / "tower").rename(tmp_path / "tower")
    bias = {"model.mm_projector.2.bias": torch.full((64,), 9.0)}
    folder = cases.write_projector(apart, tmp_path / "projector", bias, _name_or_path=None)
    asked = {"revision": None, "device": "cpu", "dtype": "auto"}
    spec = load_spec(folder, base=apart, vision_tower=tower, **asked)
    assert (spec.sources.base, spec.sources.tower) == (apart, tower)
    engine = load_engine(spec, device="cpu", dtype="auto")
    model = engine._tools.model  # type: ignore[union-attr]  # open until it is closed
    assert model.projector.linear2.bias.unique().tolist() == [9.0]
    expected = cases.stored(tiny_folder)[
        f"{cases.TOWER}vision_model.embeddings.patch_embedding.bias"
    ]
    assert torch.equal(model.vision_tower.patch_embedding.bias, expected)
    engine.close()


def test_a_template_is_checked_before_weights_are_fetched(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"revision": None, "device": "cpu", "dtype": "auto"}
    assert load_spec(tiny_folder, template="mpt", **asked).config.template == "mpt"
    monkeypatch.delattr(loading, "find_sources")
    with pytest.raises(ConfigError, match="template = 'mptt'"):
        load_spec(tiny_folder, template="mptt", **asked)


def test_the_engine_is_told_where_the_template_ends_an_answer(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(loading, "Scheduler", lambda *_, eos_ids, **__: told.append(eos_ids))
    spec = spec_of(tiny_folder)
    silent = replace(spec, config=replace(spec.config, generation=GenerationDefaults()))
    load_engine(silent, device="cpu", dtype="auto")
    assert told == [(spec.tokenizer.token_id("<|im_end|>"),)]


@pytest.mark.parametrize("quantize", ["plain", "int8", "int4"])
def test_the_engine_is_as_it_was_set_up(tiny_folder: Path, quantize: str) -> None:
    spec = spec_of(tiny_folder, memory="1GiB", quantize=quantize)
    engine = load_engine(spec, device="cpu", dtype="auto")
    model = engine._tools.model  # type: ignore[union-attr]  # open until it is closed
    assert format_of(model) == spec.setup.weight_format == quantize
    tensors = [*model.parameters(), *model.buffers()]
    held = sum(tensor.numel() * tensor.itemsize for tensor in tensors)
    assert held == weights_bytes(spec.geometry, quantize)
    assert engine.arena.limit_bytes == cache_bytes(spec.geometry, spec.setup)
    engine.close()


def test_a_smaller_limit_of_the_engines_own_stays(tiny_folder: Path) -> None:
    own = EngineSettings(max_cache_bytes=10**6)
    spec = spec_of(tiny_folder, memory="1GiB")
    engine = load_engine(spec, device="cpu", dtype="auto", settings=own)
    assert engine.arena.limit_bytes == 10**6
    engine.close()


class FakeGpus:
    """Two GPUs of 24 and 16 GiB, whose allocator holds 2 GiB of which 1.5 are used."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *free_gib: float) -> None:
        free = [int(gib * GIB) for gib in free_gib]
        fakes = {
            "device_count": lambda: len(free),
            "mem_get_info": lambda idx: (free[idx], 48 * GIB),
            "memory_reserved": lambda idx: 2 * GIB,
            "memory_allocated": lambda idx: 3 * GIB // 2,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)


def test_what_gpus_have_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free, and what the allocator holds unused; of all where one does not take the weights."""
    FakeGpus(monkeypatch, 20, 16)
    assert free_gpu_bytes("cpu", 1, is_auto=True) is None
    assert free_gpu_bytes("cuda", 15 * GIB, is_auto=True) == 20.5 * GIB
    assert free_gpu_bytes("cuda", 17 * GIB, is_auto=True) == 37 * GIB
    assert free_gpu_bytes("cuda", 17 * GIB, is_auto=False) == 20.5 * GIB
    assert free_gpu_bytes("cuda:1", 17 * GIB, is_auto=False) == 16.5 * GIB
