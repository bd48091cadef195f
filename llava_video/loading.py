"""A checkpoint's name → its facts, and the engine over its weights. Chooses device and dtype.

The one place that asks which hardware is there, and only when a model is loaded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from llava_video.engine.scheduler import Scheduler
from llava_video.engine.settings import EngineSettings
from llava_video.errors import ConfigError
from llava_video.model.checkpoint import load_model
from llava_video.model.spec import ModelSpec, read_spec

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
    name_or_path: str | Path, *, revision: str | None, device: str, dtype: str
) -> ModelSpec:
    """Read the facts of a checkpoint whose weights will be loaded, fetching all its files.

    Raises:
        CheckpointError: as `read_spec`.
    """
    chosen = choose_dtype(dtype, device)
    return read_spec(name_or_path, revision=revision, files="all", dtype=chosen)


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
        spec.folder,
        config=spec.config,
        device=device,
        dtype=_DTYPES[choose_dtype(dtype, device)],
        progress=on_shard,
        attn=attn,
    )
    generation = spec.config.generation
    return Scheduler(
        model,
        spec.tokenizer,
        eos_ids=generation.eos_ids,
        repetition_penalty=generation.repetition_penalty,
        settings=settings or EngineSettings(),
    )
