"""A checkpoint's name → its facts, and the engine over its weights. Chooses device and dtype.

The one place that asks which hardware is there, how much memory it has free, and only when a model
is loaded.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from llava_video.engine.scheduler import Scheduler
from llava_video.engine.settings import EngineSettings
from llava_video.errors import ConfigError
from llava_video.fitting import set_up_spec, with_cache_limit
from llava_video.model.checkpoint import load_model
from llava_video.model.placement import ROOM_FOR_WEIGHTS
from llava_video.model.sources import find_sources
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.planning.settings import MemorySettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_dtype(dtype: str, device: str) -> str:
    """Resolve "auto": bfloat16 on a GPU; float32 on a CPU, whose bfloat16 arithmetic is slow.

    Raises:
        ConfigError: an unknown dtype.
    """
    if dtype == "auto":
        return "float32" if choose_device(device).startswith("cpu") else "bfloat16"
    if dtype not in _DTYPES:
        raise ConfigError(
            f"dtype = {dtype!r}.", f"allowed: 'auto', {', '.join(map(repr, _DTYPES))}."
        )
    return dtype


def choose_device(device: str) -> str:
    """Resolve "auto" to "cuda" where there is a GPU, else "cpu"; check any other name.

    Raises:
        ConfigError: a kind of device this library does not run on, or a GPU that is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    allowed = "allowed: 'auto', 'cpu', 'cuda', 'cuda:1', …."
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as cause:
        raise ConfigError(f"device = {device!r}.", allowed) from cause
    if wanted.type not in ("cpu", "cuda"):
        raise ConfigError(f"device = {device!r}.", allowed)
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device = {device!r}, {torch.cuda.device_count()} GPUs found.",
            "device='auto' or 'cpu'.",
        )
    return str(wanted)


def load_spec(
    name_or_path: str | Path,
    *,
    revision: str | None,
    device: str,
    dtype: str,
    base: str | Path | None = None,
    vision_tower: str | Path | None = None,
    adapter: str | Path | None = None,
    merge_adapter: bool | None = None,
    template: str | None = None,
    memory: MemorySettings | None = None,
    settings: EngineSettings | None = None,
) -> ModelSpec:
    """Read the facts of a checkpoint whose weights will be loaded, and fetch all its files.

    Whether the weights fit is settled before they are fetched.

    Args:
        name_or_path: a folder or a hub id.
        revision: hub revision.
        device: as `load`.
        dtype: as `load`.
        base: as `load`.
        vision_tower: as `load`.
        adapter: as `load`.
        merge_adapter: as `load`.
        template: as `load`.
        memory: what the model may take, and how its weights are kept; None for the defaults.
        settings: the engine's; None for the defaults.

    Raises:
        CheckpointError: as `read_spec`; or the tokenizer knows more ids than the model has rows.
        BudgetError: the weights do not fit.
        ConfigError: an unknown template, or `merge_adapter` without an adapter.
    """
    chosen = choose_dtype(dtype, device)
    spec = read_spec(
        name_or_path,
        revision=revision,
        base=base,
        vision_tower=vision_tower,
        adapter=adapter,
        dtype=chosen,
    ).with_template(template)
    spec.tokenizer.check_rows(spec.config.text.vocab_size)
    where = choose_device(device)
    as_it_runs = partial(
        set_up_spec,
        memory=memory or MemorySettings(),
        engine=settings or EngineSettings(),
        kind=torch.device(where).type,
        free_bytes=free_gpu_bytes(where, spec.geometry.weights_bytes, is_auto=device == "auto"),
        merge_adapter=merge_adapter,
    )
    as_it_runs(spec)  # before anything large is fetched
    sources = find_sources(
        name_or_path, revision=revision, base=base, vision_tower=vision_tower, adapter=adapter
    )
    return as_it_runs(replace(spec, sources=sources))


def free_gpu_bytes(device: str, plain_bytes: int, *, is_auto: bool) -> int | None:
    """Return what this process may still take on the GPUs that will be used; None on a CPU.

    What the allocator holds and does not use counts as free.

    Args:
        device: "cpu", "cuda", "cuda:1", ….
        plain_bytes: all weights in the model's dtype: what does not fit on one GPU is spread.
        is_auto: whether weights may be spread over all GPUs.
    """
    if torch.device(device).type != "cuda":
        return None
    own_idx = torch.device(device).index or 0
    own_bytes = _free_bytes(own_idx)
    if not is_auto or plain_bytes <= ROOM_FOR_WEIGHTS * own_bytes:
        return own_bytes
    return sum(_free_bytes(idx) for idx in range(torch.cuda.device_count()))


def _free_bytes(idx: int) -> int:
    unused_bytes = torch.cuda.memory_reserved(idx) - torch.cuda.memory_allocated(idx)
    return torch.cuda.mem_get_info(idx)[0] + unused_bytes


def load_engine(
    spec: ModelSpec,
    *,
    device: str,
    dtype: str,
    attn: Literal["sdpa", "flash"] = "sdpa",
    on_shard: Callable[[int, int], None] | None = None,
    settings: EngineSettings | None = None,
) -> Scheduler:
    """Load the weights onto the device and put the scheduler over them.

    Raises:
        CheckpointError, BackendMissingError, ConfigError: as `load`.
    """
    if attn not in ("sdpa", "flash"):
        raise ConfigError(f"attn = {attn!r}.", "allowed: 'sdpa', 'flash'.")
    if device != "auto":  # "auto" may spread the layers over several GPUs
        device = choose_device(device)
    model = load_model(
        spec.sources,
        config=spec.config,
        device=device,
        dtype=_DTYPES[choose_dtype(dtype, device)],
        progress=on_shard,
        attn=attn,
        weights=spec.setup.weight_format,
    )
    return Scheduler(
        model,
        spec.tokenizer,
        eos_ids=spec.end_ids,
        repetition_penalty=spec.config.generation.repetition_penalty,
        settings=with_cache_limit(settings or EngineSettings(), spec.geometry, spec.setup),
    )
