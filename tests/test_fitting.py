"""A model is set up for the memory there is, before any weight is read."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import overlay_cases as cases
import pytest

from llava_video.engine.settings import EngineSettings
from llava_video.errors import BudgetError, ConfigError
from llava_video.fitting import (
    GPU_WORKSPACE_BYTES,
    device_kind,
    set_up,
    set_up_spec,
    with_cache_limit,
    with_spare,
)
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import Setup, cache_bytes, weights_bytes
from llava_video.planning.settings import MemorySettings

pytest_plugins = ["planning_fixtures"]

GIB = 2**30


def setup_of(geometry: Geometry, kind: str = "cuda", free: int | None = None, **asked) -> Setup:
    memory = MemorySettings(**asked)
    return set_up(geometry, memory, EngineSettings(), kind=kind, free_bytes=free)


@pytest.mark.parametrize(
    ("device", "kind"),
    [("auto", "cuda"), ("cuda", "cuda"), ("cuda:3", "cuda"), ("cpu", "cpu"), ("cpu:0", "cpu")],
)
def test_kinds_of_devices(device: str, kind: str):
    assert device_kind(device) == kind


def test_other_devices_are_refused():
    with pytest.raises(ConfigError, match="device = 'mps'"):
        device_kind("mps")


def test_chunks_are_the_engines(geometry: Geometry):
    gpu, cpu = setup_of(geometry), setup_of(geometry, "cpu")
    assert (gpu.prefill_chunk_tokens, gpu.tile_chunk) == (2048, 16)
    assert (cpu.prefill_chunk_tokens, cpu.tile_chunk) == (2048, 2)
    assert gpu.workspace_bytes == GPU_WORKSPACE_BYTES == 375_809_638  # 0.35 GiB
    assert cpu.workspace_bytes == 0
    assert (gpu.pools_by_torch, cpu.pools_by_torch) == (False, True)
    own = EngineSettings(prefill_chunk_tokens=100, tile_chunk=3)
    chosen = set_up(geometry, MemorySettings(), own, kind="cuda")
    assert (chosen.prefill_chunk_tokens, chosen.tile_chunk) == (100, 3)


def test_nothing_asked_is_no_limit_on_a_cpu_and_what_is_free_on_a_gpu(geometry: Geometry):
    assert setup_of(geometry, "cpu").limit_bytes is None
    assert setup_of(geometry, "cpu").weight_format == "plain"
    gpu = setup_of(geometry, free=12 * GIB)
    assert (gpu.limit_bytes, gpu.weight_format) == (12 * GIB, "int8")
    assert len(gpu.reasons) == 1


def test_what_is_asked_counts_as_far_as_it_is_free(geometry: Geometry):
    assert setup_of(geometry, free=40 * GIB, memory="24GiB").limit_bytes == 24 * GIB
    less = setup_of(geometry, free=12 * GIB, memory="24GiB")
    assert less.limit_bytes == 12 * GIB
    assert less.reasons[-1] == "Of the 24.0 GiB asked for, 12.0 GiB are free."
    assert setup_of(geometry, "cpu", memory=8 * GIB).weight_format == "int4"


def test_named_weights_are_kept(geometry: Geometry):
    assert setup_of(geometry, free=40 * GIB, quantize="int4").weight_format == "int4"
    for none in (None, "plain"):
        with pytest.raises(BudgetError, match=r"memory = 8\.0 GiB"):
            setup_of(geometry, memory="8GiB", quantize=none)


def test_the_engine_gets_what_is_left_for_its_cache(geometry: Geometry):
    setup = setup_of(geometry, memory="24GiB")
    left = cache_bytes(geometry, setup)
    assert 8 * GIB < left < 9 * GIB
    engine = EngineSettings(slab_tokens=77)
    limited = with_cache_limit(engine, geometry, setup)
    assert limited == replace(engine, max_cache_bytes=left)
    small = replace(engine, max_cache_bytes=1000)
    assert with_cache_limit(small, geometry, setup).max_cache_bytes == 1000
    large = replace(engine, max_cache_bytes=10**12)
    assert with_cache_limit(large, geometry, setup).max_cache_bytes == left
    unlimited = setup_of(geometry, "cpu")
    assert with_cache_limit(engine, geometry, unlimited) == engine
    assert with_cache_limit(small, geometry, unlimited) == small


def test_a_spec_may_leave_cache_free(tiny_folder: Path):
    spec = read_spec(tiny_folder)
    assert with_spare(spec, 77).setup == replace(spec.setup, spare_tokens=77)
    assert with_spare(spec, 0) == spec


def test_it_needs_no_torch():
    code = "import sys; import llava_video.fitting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def adapted(tiny_folder: Path, tmp_path: Path) -> ModelSpec:
    """Return the tiny model with an adapter of rank 4 on a layer of 64 x 64."""
    pairs = {cases.Q_PROJ: cases.low_rank(4, 64, 64, 1)}
    folder = cases.write_adapter(tiny_folder, tmp_path / "adapter", pairs)
    return read_spec(tiny_folder, adapter=folder, dtype="float32")


ADAPTER_BYTES = 4 * (64 + 64) * 4  # A and B in float32


@pytest.mark.parametrize(
    ("quantize", "merge", "is_merged"),
    [
        ("plain", None, True),
        ("int4", None, False),
        ("plain", False, False),
        ("int8", True, True),
    ],
)
def test_an_adapter_is_weights_where_it_is_not_merged(
    adapted: ModelSpec, quantize: str, merge: bool | None, is_merged: bool
):
    asked = MemorySettings(quantize=quantize)
    spec = set_up_spec(adapted, asked, EngineSettings(), kind="cpu", merge_adapter=merge)
    assert spec.sources.is_merged == is_merged
    own = weights_bytes(spec.geometry, quantize) - weights_bytes(adapted.geometry, quantize)
    assert own == (0 if is_merged else ADAPTER_BYTES)
    told = [reason for reason in spec.setup.reasons if "stands beside" in reason]
    assert told == [] if is_merged else "takes 2.0 KiB" in told[0]


def format_in(spec: ModelSpec, num_bytes: int, merge: bool | None) -> str | None:
    """Return how weights are kept in so much memory; None where nothing fits."""
    asked = MemorySettings(memory=num_bytes)
    try:
        made = set_up_spec(spec, asked, EngineSettings(), kind="cpu", merge_adapter=merge)
    except BudgetError:
        return None
    return made.setup.weight_format


def test_plain_weights_that_fit_take_the_adapter_in(adapted: ModelSpec):
    """In the least memory that plain weights alone fit, they stay plain; with a byte less, not."""
    low, high = 2**16, 2**30
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if format_in(adapted, middle, True) == "plain" else (middle, high)
    assert format_in(adapted, high, None) == "plain"
    assert format_in(adapted, low, None) != "plain"
    assert format_in(adapted, high, False) != "plain"
    assert format_in(adapted, high + ADAPTER_BYTES, False) == "plain"


def test_an_adapter_that_is_not_fetched_is_said_not_to_be_counted(adapted: ModelSpec):
    (adapted.folder / "adapter_model.bin").unlink()
    spec = set_up_spec(adapted, MemorySettings(quantize="int8"), EngineSettings(), kind="cpu")
    assert weights_bytes(spec.geometry, "int8") == weights_bytes(adapted.geometry, "int8")
    assert "is not counted" in spec.setup.reasons[-1]


def test_the_place_of_an_adapter_that_is_not_there_is_no_choice(tiny_folder: Path):
    spec = read_spec(tiny_folder)
    with pytest.raises(ConfigError, match="has no adapter"):
        set_up_spec(spec, MemorySettings(), EngineSettings(), kind="cpu", merge_adapter=True)
