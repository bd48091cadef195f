"""A model, an engine's settings and memory → how the model is set up to run.

Decides before any weight is read. Knows a device by its kind only, and imports no torch: a plan is
made without one.
"""

from dataclasses import replace

from llava_video.engine.settings import EngineSettings
from llava_video.errors import ConfigError
from llava_video.model.adapters import Adapter, adapter_of
from llava_video.model.spec import ModelSpec
from llava_video.plan_table import bytes_words
from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import Setup, cache_bytes, weights_bytes
from llava_video.planning.precision import choose_weights
from llava_video.planning.settings import MemorySettings

# On a GPU, what cuBLAS (32 to 64 MiB), captured graphs, Triton and the gaps of the caching
# allocator take beside what is asked of it. The CUDA context itself (about 0.45 GiB) is not in it:
# a GPU's free memory is told without.
GPU_WORKSPACE_BYTES = int(0.35 * 2**30)


def device_kind(device: str) -> str:
    """Return "cpu" or "cuda" for a device's name; "auto" counts as a GPU, which is not looked for.

    Raises:
        ConfigError: a kind of device this library does not run on.
    """
    kind = device.partition(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device = {device!r}.", "allowed: 'auto', 'cpu', 'cuda', 'cuda:1', ….")
    return "cpu" if kind == "cpu" else "cuda"


def set_up(
    geometry: Geometry,
    memory: MemorySettings,
    engine: EngineSettings,
    *,
    kind: str,
    free_bytes: int | None = None,
) -> Setup:
    """Choose the precision of the weights, and say what the model may take.

    Args:
        geometry: the model.
        memory: what was asked.
        engine: chunk sizes.
        kind: "cpu" or "cuda".
        free_bytes: what the GPUs have free; None where that is not known, or counts no limit.

    Raises:
        BudgetError: no weights fit; nothing was read.
    """
    asked_bytes = memory.limit_bytes
    limits = [num_bytes for num_bytes in (asked_bytes, free_bytes) if num_bytes is not None]
    setup = Setup(
        prefill_chunk_tokens=engine.prefill_chunk_tokens,
        tile_chunk=engine.tiles_per_call(kind, geometry.patches_per_side),
        pools_by_torch=kind == "cpu",
        limit_bytes=min(limits, default=None),
        workspace_bytes=GPU_WORKSPACE_BYTES if kind == "cuda" else 0,
    )
    chosen = choose_weights(geometry, setup, memory.pinned)
    if asked_bytes is not None and free_bytes is not None and free_bytes < asked_bytes:
        less = f"Of the {bytes_words(asked_bytes)} asked for, {bytes_words(free_bytes)} are free."
        chosen = replace(chosen, reasons=(*chosen.reasons, less))
    return chosen


def set_up_spec(
    spec: ModelSpec,
    memory: MemorySettings,
    engine: EngineSettings,
    *,
    kind: str,
    free_bytes: int | None = None,
    merge_adapter: bool | None = None,
) -> ModelSpec:
    """Return a model's facts as it will run: the precision of its weights, and its adapter's place.

    An adapter that stands beside the decoder's weights counts as weights in the model's dtype.

    Args:
        spec: the facts as they were read.
        memory: as `set_up`.
        engine: as `set_up`.
        kind: as `set_up`.
        free_bytes: as `set_up`.
        merge_adapter: whether a LoRA adapter is merged with its base; None where the weights are
            plain: beside quantised ones it stays what was trained.

    Raises:
        BudgetError: as `set_up`.
        CheckpointError: the adapter does not fit the model.
        ConfigError: there is no adapter whose place could be chosen.
    """
    is_adapter = spec.sources.kind == "adapter"
    adapter = adapter_of(spec.sources, spec.config.dimensions)
    if merge_adapter is not None and not is_adapter:
        raise ConfigError(
            f"merge_adapter = {merge_adapter} was given, and {spec.name} has no adapter.",
            "leave it out, or name one by adapter=.",
        )
    if not is_adapter or merge_adapter is not False:
        setup = set_up(spec.geometry, memory, engine, kind=kind, free_bytes=free_bytes)
        if not is_adapter or merge_adapter or setup.weight_format == "plain":
            setup = replace(setup, reasons=(*setup.reasons, *_rounded(adapter, "merged")))
            return replace(spec, setup=setup, sources=replace(spec.sources, is_merged=True))
    own_bytes = adapter.num_beside * spec.geometry.value_bytes if adapter else 0
    all_bytes = spec.geometry.weights_bytes + own_bytes
    geometry = replace(spec.geometry, weights_bytes=all_bytes)
    setup = set_up(geometry, memory, engine, kind=kind, free_bytes=free_bytes)
    kept = setup.weight_format
    size = (
        f"takes {bytes_words(own_bytes)}" if adapter else "is not counted, for it is not here yet"
    )
    reasons = [*setup.reasons, f"The adapter stands beside {kept} weights and {size}."]
    return replace(
        spec,
        geometry=geometry,
        setup=replace(setup, reasons=(*reasons, *_rounded(adapter, kept))),
        sources=replace(spec.sources, is_merged=False),
    )


def _rounded(adapter: Adapter | None, kept: str) -> tuple[str, ...]:
    """Say where the decoder's numbers are those that an adapter was trained over."""
    own = adapter.base_weights if adapter else "plain"
    if own in ("plain", kept):
        return ()
    return (f"The adapter was trained over {own} weights: the decoder's are rounded to these.",)


def weights_words(spec: ModelSpec) -> str:
    """Say where a model's answers come from: its weights and their bytes, or a server."""
    if spec.server is not None:
        return f"served by {spec.server.base_url}"
    setup = spec.setup
    limit = "" if setup.limit_bytes is None else f" of {bytes_words(setup.limit_bytes)}"
    weights = bytes_words(weights_bytes(spec.geometry, setup.weight_format))
    return f"{setup.weight_format} weights={weights}{limit}"


def with_spare(spec: ModelSpec, spare_tokens: int) -> ModelSpec:
    """Return the spec whose plans leave so many tokens of cache free."""
    return replace(spec, setup=replace(spec.setup, spare_tokens=spare_tokens))


def with_cache_limit(engine: EngineSettings, geometry: Geometry, setup: Setup) -> EngineSettings:
    """Return the engine's settings with the bytes of cache that the setup leaves it."""
    limits = [
        num_bytes
        for num_bytes in (engine.max_cache_bytes, cache_bytes(geometry, setup))
        if num_bytes is not None
    ]
    return replace(engine, max_cache_bytes=min(limits, default=None))
