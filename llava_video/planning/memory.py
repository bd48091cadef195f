"""Shapes, precisions and chunk sizes → bytes of weights, cache, activations and workspace.

    weights     plain: all in the model's dtype. int8: a byte per number and a 2-byte scale per
                output of the decoder's linear layers; int4: half a byte, and a 2-byte scale and
                zero per 128 inputs. Embeddings, head, norms, biases, tower, projector stay plain
    cache       2 (K, V) x layers x heads x bytes of a head of d channels: plain d x bytes of a
                number; int8 d + 2 (a scale); int4 d / 2 + 4 per 64 channels (scale and offset)
    activations `activations.py`
    rows        of visuals that are fused with the prompt, beside the cache: a row of the language
                model's width per token, held until the last frame is fused
    workspace   what libraries and the allocator keep for themselves, a stated constant

LLaVA-Video-7B in bfloat16: 57,344, 29,120 or 16,128 bytes of cache per token; weights of 16.06,
9.54 or 6.48 GB. A LLaVA-Mini of 32 layers, 8 heads of 128 and 4,096 channels takes 131,072 bytes of
cache per token and 8,192 of rows, 1.0625 of the cache alone; of its int8 cache (66,560) 1.123, of
its int4 (36,864) 1.222. Arithmetic only: knows no device, no tensor and no request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llava_video.planning.activations import BLOCK_TOKENS, Chunks, activation_bytes
from llava_video.planning.geometry import Geometry
from llava_video.planning.grid import pooled_side
from llava_video.values import (
    KvFormat,
    MemoryEstimate,
    Plan,
    PoolMode,
    PoolOf,
    VisualPlan,
    WeightFormat,
)

KV_FORMATS: tuple[KvFormat, ...] = ("plain", "int8", "int4")
WEIGHT_FORMATS: tuple[WeightFormat, ...] = ("plain", "int8", "int4")

_SCALE_BYTES = 2
_WEIGHT_GROUPS = (128, 64, 32)
_CACHE_GROUP = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a model is set up to run, as far as memory goes.

    Attributes:
        weight_format: how the decoder's linear weights are stored.
        prefill_chunk_tokens: tokens of one forward pass; None for all at once.
        tile_chunk: tiles of one vision call; None for all at once.
        pools_by_torch: there is no kernel that pools, as on a CPU.
        limit_bytes: what weights, cache, activations and workspace may take together; None for no
            limit.
        workspace_bytes: what libraries and the allocator keep for themselves.
        spare_tokens: tokens of cache that a plan leaves free, for another question about the same
            visuals while the first one's are kept.
        reasons: why the weights are stored so, for every plan.
    """

    weight_format: WeightFormat = "plain"
    prefill_chunk_tokens: int | None = None
    tile_chunk: int | None = None
    pools_by_torch: bool = False
    limit_bytes: int | None = None
    workspace_bytes: int = 0
    spare_tokens: int = 0
    reasons: tuple[str, ...] = ()


def weights_bytes(geometry: Geometry, weight_format: WeightFormat) -> int:
    """Return the bytes of all weights, those of the decoder's linear layers stored so."""
    if weight_format == "plain":
        return geometry.weights_bytes
    num_bytes = geometry.weights_bytes
    for outputs, inputs in _linear_shapes(geometry):
        if weight_format == "int8":
            stored = outputs * (inputs + _SCALE_BYTES)
        else:
            groups = next((inputs // n for n in _WEIGHT_GROUPS if inputs % n == 0), 1)
            stored = outputs * (inputs // 2 + 2 * _SCALE_BYTES * groups)
        num_bytes += geometry.num_layers * (stored - outputs * inputs * geometry.value_bytes)
    return num_bytes


def token_bytes(geometry: Geometry, kv_format: KvFormat) -> int:
    """Return the bytes of one token's keys and values in all layers."""
    width = geometry.head_dim
    if kv_format == "plain":
        head_bytes = width * geometry.value_bytes
    elif kv_format == "int8":
        head_bytes = width + _SCALE_BYTES
    else:
        groups = 1 if width % _CACHE_GROUP else width // _CACHE_GROUP
        head_bytes = width // 2 + 2 * _SCALE_BYTES * groups
    return 2 * geometry.num_layers * geometry.num_kv_heads * head_bytes


def request_token_bytes(
    geometry: Geometry, kv_format: KvFormat, visuals: Sequence[VisualPlan]
) -> int:
    """Return the bytes a request takes for one token more: its cache, and a row if it is fused."""
    is_fused = any(visual.is_fused for visual in visuals)
    row_bytes = geometry.hidden_size * geometry.value_bytes if is_fused else 0
    return token_bytes(geometry, kv_format) + row_bytes


def fused_bytes(geometry: Geometry, setup: Setup, plan: Plan) -> int:
    """Return what a fused plan takes of `cache_bytes(geometry, setup)` beside its own cache.

    That is its rows, and what its text adds to the activations; 0 where nothing is fused.
    """
    if not any(visual.is_fused for visual in plan.visuals):
        return 0
    rows_bytes = plan.tokens * geometry.hidden_size * geometry.value_bytes
    own_bytes = fixed_bytes(geometry, setup, plan.visuals, plan.text_tokens)
    return rows_bytes + max(0, own_bytes - fixed_bytes(geometry, setup))


def kv_formats(geometry: Geometry) -> tuple[KvFormat, ...]:
    """Return the formats a model's cache can have, the finest first: int4 pairs channels."""
    return KV_FORMATS[:2] if geometry.head_dim % 2 else KV_FORMATS


def weight_formats(geometry: Geometry) -> tuple[WeightFormat, ...]:
    """Return the formats a model's weights can have, the finest first: int4 pairs inputs."""
    has_odd = any(inputs % 2 for _, inputs in _linear_shapes(geometry))
    return WEIGHT_FORMATS[:2] if has_odd else WEIGHT_FORMATS


def plan_memory(
    geometry: Geometry, setup: Setup, plan: Plan, kv_format: KvFormat
) -> MemoryEstimate:
    """Predict what a plan takes, its text, visual and answer tokens cached in a format."""
    num_tokens = plan.tokens + plan.max_new_tokens
    is_fused = any(visual.is_fused for visual in plan.visuals)
    words = Chunks(
        tokens=min(num_tokens, setup.prefill_chunk_tokens or num_tokens),
        tiles=0,
        frame_tiles=0,
        rows_per_tile=0,
        seen_tokens=num_tokens,
        prompt_tokens=plan.tokens,
        pools_by_torch=setup.pools_by_torch,
        text_tokens=plan.text_tokens if is_fused else 0,
        held_rows=plan.tokens if is_fused else 0,
    )
    # No call of the vision tower has tiles of two visuals.
    calls = [_with_calls(words, geometry, setup, visual) for visual in plan.visuals]
    return MemoryEstimate(
        weights_bytes=weights_bytes(geometry, setup.weight_format),
        kv_bytes=num_tokens * token_bytes(geometry, kv_format),
        activation_bytes=max(
            activation_bytes(
                geometry, chunks, kv_format=kv_format, weight_format=setup.weight_format
            )
            for chunks in calls or [words]
        ),
        workspace_bytes=setup.workspace_bytes,
    )


def fixed_bytes(
    geometry: Geometry, setup: Setup, visuals: Sequence[VisualPlan] = (), text_tokens: int = 0
) -> int:
    """Return what is set aside beside the cache: weights, workspace, activations of full chunks.

    The rows of fused visuals are not in it: they grow with the request.

    Args:
        geometry: the model.
        setup: weights and chunks.
        visuals: of a request, in their finest layout; () sets aside what videos in the layout they
            are trained with take, which is the least for any request.
        text_tokens: of its prompt; only those that are fused with every frame count.
    """
    side = geometry.compressed_side or pooled_side(
        geometry.patches_per_side, geometry.pool_stride, geometry.pool_mode
    )
    poolings = [(visual.pool_stride, visual.pool_mode) for visual in visuals if not visual.is_fused]
    sides = [pooled_side(geometry.patches_per_side, *pooling) for pooling in poolings]
    # At most a newline after each row of a tile, and one more token; a frame that loses its grid
    # has more rows per tile than before.
    rows = [one * (one + 1) + 1 for one in (side, *sides)]
    chunks = Chunks(
        tokens=setup.prefill_chunk_tokens or geometry.context_tokens,
        tiles=setup.tile_chunk or -(-geometry.context_tokens // max(1, side**2)),
        frame_tiles=max(
            (visual.tiles_per_frame for visual in visuals), default=geometry.frame_tiles
        ),
        rows_per_tile=max([*rows, *map(_rows_per_tile, visuals)]),
        seen_tokens=BLOCK_TOKENS,
        pools_by_torch=setup.pools_by_torch,
        text_tokens=text_tokens if any(visual.is_fused for visual in visuals) else 0,
    )
    layouts = visuals or (geometry,)
    befores = {_layers_before(geometry, each.pool_of, each.pool_mode) for each in layouts}
    most = max(
        activation_bytes(geometry, each, kv_format=fmt, weight_format=setup.weight_format)
        for each in (replace(chunks, layers_before=before) for before in befores)
        for fmt in kv_formats(geometry)
    )
    return weights_bytes(geometry, setup.weight_format) + most + setup.workspace_bytes


def cache_bytes(
    geometry: Geometry, setup: Setup, visuals: Sequence[VisualPlan] = (), text_tokens: int = 0
) -> int | None:
    """Return what the limit leaves for the cache (and the rows of fused visuals).

    None without a limit. Args as `fixed_bytes`.
    """
    if setup.limit_bytes is None:
        return None
    return max(0, setup.limit_bytes - fixed_bytes(geometry, setup, visuals, text_tokens))


def _with_calls(chunks: Chunks, geometry: Geometry, setup: Setup, visual: VisualPlan) -> Chunks:
    """Return the chunks of a prompt with the vision calls of one of its visuals."""
    per_frame = visual.tiles_per_frame
    tiles = min(per_frame * visual.num_frames, setup.tile_chunk or per_frame * visual.num_frames)
    return replace(
        chunks,
        tiles=max(tiles % per_frame, tiles - tiles % per_frame),  # whole frames, or part of one
        frame_tiles=per_frame,
        rows_per_tile=_rows_per_tile(visual),
        layers_before=_layers_before(geometry, visual.pool_of, visual.pool_mode),
    )


def _layers_before(geometry: Geometry, pool_of: PoolOf, pool_mode: PoolMode) -> int:
    """Return how many layers of the projector come before the pooling."""
    if pool_of == "features":
        return 0
    return geometry.projector_layers - (pool_mode != "max")


def _rows_per_tile(visual: VisualPlan) -> int:
    return -(-visual.num_tokens // (visual.tiles_per_frame * visual.num_frames))


def _linear_shapes(geometry: Geometry) -> tuple[tuple[int, int], ...]:
    """Return (outputs, inputs) of the linear layers of one decoder layer."""
    wide, inner = geometry.hidden_size, geometry.intermediate_size
    query = geometry.num_heads * geometry.head_dim
    value = geometry.num_kv_heads * geometry.head_dim
    return (
        (query, wide),
        (value, wide),
        (value, wide),
        (wide, query),
        (inner, wide),
        (inner, wide),
        (wide, inner),
    )
