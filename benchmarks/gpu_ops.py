"""The kernels alone, beside what memory allows and beside their peers: pool, rope and tiles."""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from gpu_bench import Bench, Measured, Section, Target, try_peer

from llava_video.ops.kv_format import StoredKv, empty_stored
from llava_video.ops.newline import fill_rows
from llava_video.ops.pool import Pooling
from llava_video.ops.pool_rows import pool_rows
from llava_video.ops.rope import rotate_and_store
from llava_video.ops.rotation import make_rotation
from llava_video.ops.tile_frames import tile_frames
from llava_video.values import Fit, Grid, KvFormat

# SigLIP's map and its pooling by 2.
_SIDE, _OUT = 27, 14
# Qwen2-7B.
_WIDTH = 3584
_Q_HEADS, _KV_HEADS, _HEAD_DIM, _THETA = 28, 4, 128, 1e6
_HALF = (0.5, 0.5, 0.5)
_LAYOUTS: dict[str, tuple[Fit, Grid, bool]] = {
    "one tile": ("squeeze", Grid(1, 1), False),
    "3 x 3 and overview": ("letterbox", Grid(3, 3), True),
}


def measure_pool(bench: Bench, found: Measured) -> None:
    """Pool the first linear layer's outputs of 64 frames, and write their newline rows."""
    num_frames, width = bench.of(64, 2), bench.of(_WIDTH, 64)
    ceiling = bench.copy_bytes_per_s()
    shape = (num_frames, _SIDE * _SIDE, width)
    features = torch.randn(shape, device=bench.device, dtype=bench.dtype)
    maps = features.view(num_frames, 1, 1, _SIDE, _SIDE, width)
    # The next linear layer reads `rows` and writes the language model's; ends stand in those.
    rows, embeddings = (
        torch.empty(num_frames, _OUT, _OUT + 1, width, device=bench.device, dtype=bench.dtype)
        for _ in range(2)
    )
    newline = torch.randn(width, device=bench.device, dtype=bench.dtype)
    pooling = Pooling(crop=(0, _SIDE, 0, _SIDE), stride=2, mode="bilinear", size=(_OUT, _OUT))

    def ours() -> None:
        pool_rows(maps, rows, pooling, gelu=True)
        fill_rows(embeddings[:, :, -1], newline)

    with torch.inference_mode():
        taken = bench.seconds(ours, cold=True)
    moved = features.nbytes + rows.nbytes + embeddings[:, :, -1].numel() * rows.itemsize
    found.values["share"] = 100 * moved / taken / ceiling
    found.details |= {"seconds": taken, "bytes": moved, "copy_bytes_per_s": ceiling}
    best = None
    for name, run in _pool_peers(bench, features, newline).items():
        with torch.inference_mode():
            peer = try_peer(name, lambda run=run: bench.seconds(run, cold=True), found.details)
        best = peer if name == "transformers" else best
    if best:
        found.values["times_hf"] = best / taken


def _pool_peers(
    bench: Bench, features: torch.Tensor, newline: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """Return transformers' way from the GELU to the embeddings, without its linear layer."""
    from transformers import LlavaOnevisionModel

    num_frames, _, width = features.shape
    vision = SimpleNamespace(image_size=_SIDE * 14, patch_size=14)
    model = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    num_tokens = num_frames * _OUT * _OUT + 1
    ids = torch.full((1, num_tokens + 64), 7, device=bench.device)
    ids[:, 32 : 32 + num_tokens] = 9
    embeddings = torch.randn(1, ids.shape[1], width, device=bench.device, dtype=bench.dtype)

    def theirs() -> torch.Tensor:
        activated = F.gelu(features)
        pooled = LlavaOnevisionModel.apply_pooling(model, activated)
        flat = pooled.reshape(1, num_tokens - 1, width)
        flat = torch.cat((flat, newline[None, None]), dim=1).flatten(0, 1)
        mask = (ids == 9).unsqueeze(-1).expand_as(embeddings)
        return embeddings.masked_scatter(mask, flat)

    compiled = torch.compile(theirs) if bench.device.type == "cuda" else theirs
    return {"transformers": theirs, "torch.compile": compiled}


def measure_rope(bench: Bench, found: Measured) -> None:
    """Rotate 16,384 tokens of one layer and write them into the cache, with a cold cache."""
    num_tokens = bench.of(16_384, 16)
    ceiling = bench.copy_bytes_per_s()
    q, k, v = (
        torch.randn(num_tokens, heads, _HEAD_DIM, device=bench.device, dtype=bench.dtype)
        for heads in (_Q_HEADS, _KV_HEADS, _KV_HEADS)
    )
    idxs = torch.arange(num_tokens)
    rotation = make_rotation(idxs, [1.0], head_dim=_HEAD_DIM, theta=_THETA, device=bench.device)
    slots = idxs.to(bench.device)
    formats: tuple[KvFormat, ...] = ("plain", "int8", "int4")
    times: dict[str, float] = {}
    for kv_format in formats:
        store = empty_stored(
            num_tokens,
            _KV_HEADS,
            _HEAD_DIM,
            kv_format=kv_format,
            dtype=bench.dtype,
            device=bench.device,
        )
        with torch.inference_mode():
            times[kv_format] = bench.seconds(
                lambda store=store: rotate_and_store(q, k, v, rotation, store, slots), cold=True
            )
        moved = 2 * q.nbytes + k.nbytes + v.nbytes + _stored_bytes(store)
        found.details[kv_format] = {
            "seconds": times[kv_format],
            "bytes": moved,
            "share_of_copy": moved / times[kv_format] / ceiling,
        }
    found.values["share"] = 100 * found.details["plain"]["share_of_copy"]
    found.values["int8_share"] = 100 * found.details["int8"]["share_of_copy"]
    found.details["copy_bytes_per_s"] = ceiling
    peers = _rope_peers(bench, q, k, v, found.details)
    for key, name in (("times_eager", "eager"), ("times_liger", "liger and two copies")):
        if peers.get(name):
            found.values[key] = peers[name] / times["plain"]
    if bench.is_check:  # Liger-Kernel runs on GPUs only
        found.values.setdefault("times_liger", 1.0)


def _rope_peers(
    bench: Bench, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, details: dict[str, Any]
) -> dict[str, float]:
    """Time transformers' functions, the same compiled, and Liger's kernel with two copies."""
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    num_tokens = q.shape[0]
    keys, values = torch.empty_like(k), torch.empty_like(v)
    positions = torch.arange(num_tokens, device=bench.device, dtype=torch.float32)
    steps = torch.arange(0, _HEAD_DIM, 2, device=bench.device, dtype=torch.float32)
    angles = positions[:, None] * _THETA ** (-steps / _HEAD_DIM)
    cos = torch.cat((angles, angles), -1).cos().to(bench.dtype)[None]  # (1, L, d), as theirs are
    sin = torch.cat((angles, angles), -1).sin().to(bench.dtype)[None]
    q4, k4 = q.transpose(0, 1)[None], k.transpose(0, 1)[None]  # (1, H, L, d) views

    def eager() -> None:
        _, rotated = apply_rotary_pos_emb(q4, k4, cos, sin)
        keys.copy_(rotated[0].transpose(0, 1))
        values.copy_(v)

    def liger() -> Callable[[], None]:
        from liger_kernel.transformers.rope import liger_rotary_pos_emb

        def run() -> None:
            _, rotated = liger_rotary_pos_emb(q4, k4, cos, sin)
            keys.copy_(rotated[0].transpose(0, 1))
            values.copy_(v)

        return run

    compiled = torch.compile(eager) if bench.device.type == "cuda" else eager
    runs: dict[str, Callable[[], Callable[[], None]]] = {
        "eager": lambda: eager,
        "torch.compile": lambda: compiled,
        "liger and two copies": liger,
    }
    found: dict[str, float] = {}
    with torch.inference_mode():
        for name, make in runs.items():
            taken = try_peer(name, lambda make=make: bench.seconds(make(), cold=True), details)
            if taken is not None:
                found[name] = taken
    return found


def _stored_bytes(store: StoredKv) -> int:
    parts = (store.k, store.v, store.k_scales, store.v_scales)
    return sum(part.nbytes for part in parts if part is not None)


def measure_tiles(bench: Bench, found: Measured) -> None:
    """Cut 16 frames of 1080p that are on the device, beside torch's resize and beside uploads."""
    shape = (bench.of(16, 1), bench.of(1080, 20), bench.of(1920, 30), 3)
    tile_px = bench.of(384, 8)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, device=bench.device)
    ceiling = bench.copy_bytes_per_s()
    found.details |= {
        "frames": shape,
        "copy_bytes_per_s": ceiling,
        "upload": _upload(bench, frames),
    }
    for name, (fit, grid, overview) in _LAYOUTS.items():
        options = (fit, grid, tile_px, _HALF, _HALF)
        cut = functools.partial(tile_frames, frames, *options, overview=overview, dtype=bench.dtype)
        tiles = cut()
        taken = bench.seconds(cut, cold=True)
        moved = frames.nbytes + tiles.nbytes
        found.details[name] = {
            "seconds": taken,
            "frames_per_s": len(frames) / taken,
            "bytes": moved,
            "share_of_copy": moved / taken / ceiling,
            # What would come up instead, had the CPU cut them.
            "upload_of_tiles": _upload(bench, tiles.float()),
        }

    def theirs() -> torch.Tensor:
        size = (tile_px, tile_px)
        planes = frames.permute(0, 3, 1, 2).float()
        resized = F.interpolate(planes, size, mode="bicubic", antialias=True)
        return ((resized.round().clamp(0, 255) / 255 - 0.5) / 0.5).to(bench.dtype)

    compiled = torch.compile(theirs) if bench.device.type == "cuda" else theirs
    ours = found.details["one tile"]
    for name, run in {"torch": theirs, "torch.compile": compiled}.items():
        peer = try_peer(name, lambda run=run: bench.seconds(run, cold=True), found.details)
        if peer:
            ours[f"times_{name}"] = peer / ours["seconds"]


def _upload(bench: Bench, there: torch.Tensor) -> dict[str, float]:
    """Time the copy of as many bytes from pinned memory."""
    here = torch.empty(there.shape, dtype=there.dtype, pin_memory=bench.device.type == "cuda")
    taken = bench.seconds(lambda: there.copy_(here, non_blocking=True))
    return {"bytes": there.nbytes, "seconds": taken}


SECTIONS = {
    "pool": Section(
        question="GELU, pooling of 64 frames by 2, newline rows: how near to the memory's speed?",
        targets=(
            Target(key="share", what="of copy bandwidth", unit="%", target=85, limit=100),
            Target(key="times_hf", what="of transformers' rate", unit="x", target=5),
        ),
        run=measure_pool,
    ),
    "rope": Section(
        question="rotary embedding and cache write, 16,384 tokens of a 7B's layer",
        targets=(
            Target(
                key="share", what="plain cache, of copy bandwidth", unit="%", target=88, limit=100
            ),
            Target(key="times_eager", what="of transformers' eager rate", unit="x", target=8),
            Target(key="times_liger", what="of Liger and two copies", unit="x", target=1.2),
            Target(
                key="int8_share",
                what="int8 cache, of copy bandwidth",
                unit="%",
                target=None,
                limit=100,
            ),
        ),
        run=measure_rope,
    ),
    # Nothing is promised of it: the figures are details of the row.
    "tiles": Section(
        question="16 frames of 1080p on the device into tiles, beside torch and beside uploads",
        targets=(),
        run=measure_tiles,
    ),
}
