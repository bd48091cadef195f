"""The fusion of one frame and a prompt by its definition: every token there, a mask, positions.

All of the prompt goes through the layers, the visual's place included; what is hidden is masked as
a key, and positions are counted around it. In float64, from the formulas alone: torch's own
multi-head attention for the queries, bicubic weights written out. The wrong formulas that tests
must tell from the right ones are named here too.
"""

import math

import torch
import torch.nn.functional as F

from llava_video.model.fusion import Fusion
from llava_video.model.llava import LlavaModel

WRONG = (
    "hidden tokens are seen",
    "hidden tokens take a position",
    "values have positions",
    "corners are aligned",
    "the whole comes first",
    "queries have no positions",
    "layers are not causal",
    "a norm comes last",
)


def fuse_by_hand(
    model: LlavaModel,
    features: torch.Tensor,
    ids: list[int],
    labels: list[int] | None = None,
    *,
    wrong: str = "",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the visual rows (Q, D) of one frame and the prompt's rows (T, D) after it, float64.

    Args:
        model: with a fusion and any tower.
        features: (tiles, P, C), the whole last.
        ids: the prompt, a negative id at the visual's place.
        labels: -100 where a token is no answer.
        wrong: one of `WRONG`.
    """
    assert model.fusion is not None
    split, num_queries = model.fusion.config.split, model.fusion.config.side**2
    embeddings = model.language_model.embed_tokens.weight.double()[torch.tensor(ids).clamp(min=0)]
    answers = torch.tensor([label != -100 for label in labels or [-100] * len(ids)])
    hidden = (torch.tensor(ids) <= 0) | answers
    grid = grid_by_hand(features.double(), split)  # (N p, N p, C)
    found = compress_by_hand(model.fusion, grid, wrong)
    patches = [grid.flatten(0, 1)] + ([features[-1].double()] if split > 1 else [])
    if wrong == "the whole comes first":
        patches.reverse()
    before = [project(model, x) for x in (*patches, found)]
    rows = torch.cat([*before, embeddings])
    unseen = F.pad(hidden, (len(rows) - len(ids), 0))
    for layer in model.fusion.layers:
        rows = layer_by_hand(model, layer, rows, unseen, wrong)
    if wrong == "a norm comes last":
        rows = rms(rows, model.language_model.norm.weight, model.dimensions.text.rms_norm_eps)
    text = torch.where(hidden[:, None], embeddings, rows[-len(ids) :])
    return rows[-len(ids) - num_queries : -len(ids)], text


def prompt_by_hand(
    model: LlavaModel,
    features: torch.Tensor,
    ids: list[int],
    labels: list[int] | None = None,
    *,
    wrong: str = "",
) -> torch.Tensor:
    """Return the whole prompt's rows of frames (F, tiles, P, C): the text is their mean."""
    fused = [fuse_by_hand(model, frame, ids, labels, wrong=wrong) for frame in features]
    text = torch.stack([text for _, text in fused]).mean(dim=0)
    place = next(idx for idx, id_ in enumerate(ids) if id_ < 0)
    return torch.cat([text[:place], *(visual for visual, _ in fused), text[place + 1 :]])


def grid_by_hand(features: torch.Tensor, split: int) -> torch.Tensor:
    """Return the parts' features as one map, patch by patch."""
    side = round(features.shape[1] ** 0.5)
    lines = [
        torch.stack(
            [
                features[(y // side) * split + x // side, (y % side) * side + x % side]
                for x in range(split * side)
            ]
        )
        for y in range(split * side)
    ]
    return torch.stack(lines)


def compress_by_hand(fusion: Fusion, grid: torch.Tensor, wrong: str = "") -> torch.Tensor:
    """Return what the queries (Q, C) find in one map (h, w, C)."""
    height, width, num_channels = grid.shape
    own, side = fusion.position.double(), fusion.config.side
    weights = (_cubic_weights(side, out, wrong) for out in (height, width))
    spread = torch.einsum("ya,xb,abc->yxc", *weights, own.view(side, side, num_channels))
    values = _norm(fusion.norm_kv, grid.flatten(0, 1))
    keys = values + spread.flatten(0, 1)
    if wrong == "values have positions":
        values = keys
    queries = _norm(fusion.norm_q, fusion.query.double())
    if wrong != "queries have no positions":
        queries = queries + own
    attention = torch.nn.MultiheadAttention(num_channels, fusion.config.num_heads, dtype=own.dtype)
    state = fusion.attention.state_dict()
    attention.load_state_dict(
        {
            "in_proj_weight": state["in_proj.weight"],
            "in_proj_bias": state["in_proj.bias"],
            "out_proj.weight": state["out_proj.weight"],
            "out_proj.bias": state["out_proj.bias"],
        }
    )
    return attention(queries, keys, values, need_weights=False)[0]


def project(model: LlavaModel, features: torch.Tensor) -> torch.Tensor:
    """Linear, GELU, linear."""
    one, two = model.projector.linear1, model.projector.linear2
    inner = F.gelu(features @ one.weight.double().T + one.bias.double())
    return inner @ two.weight.double().T + two.bias.double()


def layer_by_hand(
    model: LlavaModel, layer: torch.nn.Module, rows: torch.Tensor, hidden: torch.Tensor, wrong: str
) -> torch.Tensor:
    """One decoder layer over rows (L, D); `hidden` (L,) says which are no keys."""
    text = model.dimensions.text
    normed = rms(rows, layer.input_norm.weight, text.rms_norm_eps)
    q, k, v = (
        (normed @ p.weight.double().T + (0 if p.bias is None else p.bias.double())).view(
            len(rows), -1, text.head_dim
        )
        for p in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    positions = torch.where(hidden, 1, (~hidden).cumsum(0) - 1)
    if wrong == "hidden tokens take a position":
        positions = torch.arange(len(rows))
    q, k = (_turned(x, positions / text.rope_scale, text.rope_theta) for x in (q, k))
    group = text.num_heads // text.num_kv_heads
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(text.head_dim)
    unseen = torch.ones(len(rows), len(rows), dtype=torch.bool).triu(1)
    if wrong == "layers are not causal":
        unseen[:] = False
    if wrong != "hidden tokens are seen":
        unseen |= hidden[None]
    scores.masked_fill_(unseen, -torch.inf)
    mixed = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).flatten(1)
    rows = rows + mixed @ layer.o_proj.weight.double().T
    normed = rms(rows, layer.post_norm.weight, text.rms_norm_eps)
    gate, up = (normed @ p.weight.double().T for p in (layer.gate_proj, layer.up_proj))
    return rows + (F.silu(gate) * up) @ layer.down_proj.weight.double().T


def rms(rows: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMS norm."""
    return rows / (rows.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def _norm(norm: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    spread = ((x - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return (x - mean) / spread * norm.weight.double() + norm.bias.double()


def _turned(x: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    half = x.shape[2] // 2
    angles = positions[:, None].double() * theta ** (-torch.arange(half).double() / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)


def _cubic_weights(side: int, out: int, wrong: str) -> torch.Tensor:
    """Return the weights (out, side) of bicubic interpolation with a = -3/4, edges repeated."""
    weights = torch.zeros(out, side, dtype=torch.float64)
    for idx in range(out):
        at = (idx + 0.5) * side / out - 0.5
        if wrong == "corners are aligned":
            at = idx * (side - 1) / (out - 1)
        first = math.floor(at) - 1
        for place in range(first, first + 4):
            weights[idx, min(max(place, 0), side - 1)] += _cubic(abs(at - place))
    return weights


def _cubic(x: float, a: float = -0.75) -> float:
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0
