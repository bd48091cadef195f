"""Shapes and chunk sizes → the most that is alive at once beside weights and cache.

A request alternates: vision calls make the rows of some frames, then forward passes of a chunk of
rows empty the queue. So it is the larger of the two that counts. Per patch or row, in channels of
the model's dtype (w the tower's, f inside its MLP; D the language model's, F inside its MLP; q all
query heads, v all value heads):

    vision    rows of the prompt made already: for the chunk, or those of the call before, and the
              largest of
              cutting on the device: tiles of a call or frame, and beside one frame's at most as
              much again as they take in float32
              attention: tiles, hidden, norm, q, k, v, mixed, out   7 w
              MLP: tiles, hidden, inner, out                                  2 w + f
              projector, before the pooling: tiles, features, its last two layers there: w + 2 D,
              of one w + D, of none nothing: linear pooling stands before the last layer, the
              largest of some values behind it, and features are pooled before all
              pooling: maps of all tiles of a call or frame (w wide before any layer, else D), and
              pooled rows; without a kernel, as on a CPU, the map of one frame joined from its tiles
              too, and what it becomes if resized; of 16 bits these are float32
              projector, after it: pooled rows, its last two layers there
              a frame of more tiles than a call holds has its maps beside the first three of these
              tiles are a call's in float32, as they come from the CPU, or all of a call's frames
              or of one frame in the model's dtype, where they are cut on the device
    prefill   the rows of a call that wait for the next chunk, and the largest of
              attention: rows, residual, norm, q twice (as projected, rotated), k, v, and two
              parts being merged in float32: 6 q               3 D + 8 q + 2 v
              (a chunk with nothing in the cache before it has one part, and rotates: 7 q; counted
              as 8, for any prompt may begin with what is kept of another: at most a twelfth more)
              a block of a quantised cache beside it: K and V of 32,768 tokens of one layer
              MLP: rows, residual, norm, gate, up (product in place)          3 D + 2 F
              quantised weights: the largest linear layer plain, up to 256 MiB, beside either
    logits    one row of the vocabulary, as it comes and in float32

Frames that are fused with the prompt are encoded, and then go through the fusion's own decoder
layers: of each frame the patches of its tiles, its queries and the prompt's text tokens are rows;
as many frames are encoded and pass at a time as a call holds and as have 8,192 rows, or one. The
prefill begins when all frames are through, so that these stand beside each phase:

    held      the rows of all frames and of the text                          D
              the text before it is fused, and its running sum in float32     D each
    fusion    of each patch its features, as one map, beside the whole's, and projected:
                                                                    3 w + D
              and of each row the larger of
              attention: rows, norm, q, k and v twice (as projected, rotated),
              K and V for every head, mixed                         2 D + 5 q + 4 v
              MLP: rows, norm, gate, up, out                        3 D + 2 F

Knows no tensor; the terms are those of the code in `model/` and `ops/`, and a test compares the
sums with what that code holds at real sizes.
"""

from dataclasses import dataclass, replace

from llava_video.planning.geometry import Geometry
from llava_video.values import KvFormat, WeightFormat

# Tokens of a quantised cache that are made plain at once, and bytes of a quantised weight.
BLOCK_TOKENS = 32_768
WEIGHT_BLOCK_BYTES = 2**28

# Rows of one pass through the layers that fuse frames with the prompt, unless one frame has more.
FUSION_ROWS = 8192

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """What is worked on at a time.

    Attributes:
        tokens: of one forward pass.
        tiles: of one vision call.
        frame_tiles: of one frame or picture; at least one where there are tiles.
        rows_per_tile: visual tokens that a tile gives, at most.
        seen_tokens: in the cache in the end.
        prompt_tokens: of text and visuals; None for any number.
        pools_by_torch: torch's own operations pool, which need more than the kernel.
        layers_before: of the projector, that come before the pooling.
        text_tokens: of the prompt, fused with every frame; 0 where nothing is fused.
        held_rows: visual and text rows that wait for the last frame's; 0 where nothing is fused.
    """

    tokens: int
    tiles: int
    frame_tiles: int
    rows_per_tile: int
    seen_tokens: int
    prompt_tokens: int | None = None
    pools_by_torch: bool = False
    layers_before: int = 2
    text_tokens: int = 0
    held_rows: int = 0

    @property
    def call_rows(self) -> int:
        """Visual tokens that are made together: those of a call, or of a larger frame."""
        return max(self.tiles, self.frame_tiles) * self.rows_per_tile

    @property
    def made_rows(self) -> int:
        """Rows that are made when a vision call begins: for the chunk, or of the call before."""
        most = max(self.tokens, self.call_rows)
        if self.prompt_tokens is None:
            return most
        return min(most, max(0, self.prompt_tokens - self.call_rows))

    @property
    def waiting_rows(self) -> int:
        """Rows of a vision call that are alive beside a chunk: none where it is the only one."""
        is_only = self.prompt_tokens is not None and self.prompt_tokens <= self.tokens
        return 0 if is_only else self.call_rows


def activation_bytes(
    geometry: Geometry, chunks: Chunks, *, kv_format: KvFormat, weight_format: WeightFormat
) -> int:
    """Return the most bytes that are alive at once beside weights and cache.

    Args:
        geometry: the model.
        chunks: what is worked on at a time.
        kv_format: how the cache is stored.
        weight_format: how the decoder's linear weights are stored.
    """
    if geometry.compressed_side and chunks.tiles:
        passed = _fused_frames(geometry, chunks) * chunks.frame_tiles
        chunks = replace(chunks, tiles=min(chunks.tiles, passed))
    block_tokens = 0 if kv_format == "plain" else min(chunks.seen_tokens, BLOCK_TOKENS)
    weight = geometry.hidden_size * geometry.intermediate_size * geometry.value_bytes
    dequantised = 0 if weight_format == "plain" else min(weight, WEIGHT_BLOCK_BYTES)
    held = (chunks.held_rows + chunks.text_tokens) * geometry.hidden_size * geometry.value_bytes
    summed = chunks.text_tokens * geometry.hidden_size * _FLOAT_BYTES
    return (
        held
        + summed
        + max(
            _vision_bytes(geometry, chunks) if chunks.tiles else 0,
            _fusion_bytes(geometry, chunks) if geometry.compressed_side and chunks.tiles else 0,
            _prefill_bytes(geometry, chunks, block_tokens) + dequantised,
            geometry.vocab_size * (geometry.value_bytes + _FLOAT_BYTES),
        )
    )


def _vision_bytes(geometry: Geometry, chunks: Chunks) -> int:
    width, hidden = geometry.vision_width, geometry.hidden_size
    patches = geometry.patches_per_side**2
    tile = 3 * geometry.tile_px**2
    most_tiles = max(chunks.tiles, chunks.frame_tiles)
    cut = most_tiles * tile * geometry.value_bytes
    pixels = max(chunks.tiles * tile * _FLOAT_BYTES, cut)
    # Of more than one frame, each is copied to where the tiles of all stand.
    copied = chunks.frame_tiles if chunks.frame_tiles < chunks.tiles else 0
    cutting = cut + tile * (chunks.frame_tiles * _FLOAT_BYTES + copied * geometry.value_bytes)
    tower = max(7 * width, 2 * width + geometry.vision_intermediate_size)
    if geometry.compressed_side:
        features = most_tiles * patches * width if chunks.frame_tiles > chunks.tiles else 0
        encoded = chunks.tiles * patches * tower + features
        return max(cutting, pixels + encoded * geometry.value_bytes)
    before, after = chunks.layers_before, geometry.projector_layers - chunks.layers_before
    pooled = hidden if before else width
    in_call = chunks.tiles * patches * max(tower, width + min(before, 2) * hidden)
    maps = most_tiles * patches * pooled
    if chunks.frame_tiles > chunks.tiles:
        in_call += maps
    numbers = max(
        maps + chunks.call_rows * pooled,
        chunks.call_rows * (pooled + min(max(after, 0), 2) * hidden),
    )
    pooling = numbers * geometry.value_bytes
    if chunks.pools_by_torch:
        beside = pooled * _pooling_bytes_by_torch(geometry, chunks)
        pooling = max(pooling, (maps + chunks.call_rows * pooled) * geometry.value_bytes + beside)
    most = max(cutting, pixels + in_call * geometry.value_bytes, pooling)
    return chunks.made_rows * hidden * geometry.value_bytes + most


def _pooling_bytes_by_torch(geometry: Geometry, chunks: Chunks) -> int:
    """Return the bytes of a channel beside maps and rows: one frame is joined, then resized."""
    patches = geometry.patches_per_side**2
    frame = max(1, chunks.frame_tiles - 1) * patches  # an overview is pooled before, alone
    joined = frame * geometry.value_bytes if chunks.frame_tiles > 1 else 0
    is_resized = chunks.rows_per_tile < patches
    resized = chunks.frame_tiles * chunks.rows_per_tile * _FLOAT_BYTES if is_resized else 0
    if geometry.value_bytes == _FLOAT_BYTES:
        return joined + resized
    return frame * _FLOAT_BYTES + max(joined, resized)


def _fused_frames(geometry: Geometry, chunks: Chunks) -> int:
    """Return how many frames pass through the fusion's layers at a time."""
    length = chunks.frame_tiles * geometry.patches_per_side**2
    length += geometry.compressed_side**2 + chunks.text_tokens
    in_call = max(1, chunks.tiles // chunks.frame_tiles)
    return min(in_call, max(1, FUSION_ROWS // length))


def _fusion_bytes(geometry: Geometry, chunks: Chunks) -> int:
    hidden, width = geometry.hidden_size, geometry.vision_width
    query = geometry.num_heads * geometry.head_dim
    value = geometry.num_kv_heads * geometry.head_dim
    patches = chunks.frame_tiles * geometry.patches_per_side**2
    length = patches + geometry.compressed_side**2 + chunks.text_tokens
    frames = _fused_frames(geometry, chunks)
    row = max(2 * hidden + 5 * query + 4 * value, 3 * hidden + 2 * geometry.intermediate_size)
    numbers = frames * (patches * (hidden + 3 * width) + length * row)
    tables = frames * length * geometry.head_dim * _FLOAT_BYTES
    return tables + numbers * geometry.value_bytes


def _prefill_bytes(geometry: Geometry, chunks: Chunks, block_tokens: int) -> int:
    hidden, inner = geometry.hidden_size, geometry.intermediate_size
    query = geometry.num_heads * geometry.head_dim
    value = geometry.num_kv_heads * geometry.head_dim
    tables = chunks.tokens * geometry.head_dim * _FLOAT_BYTES
    attention = chunks.tokens * (3 * hidden + 8 * query + 2 * value) + 2 * block_tokens * value
    mlp = chunks.tokens * (3 * hidden + 2 * inner)
    waiting = chunks.waiting_rows * hidden
    return tables + (waiting + max(attention, mlp)) * geometry.value_bytes
