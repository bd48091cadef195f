"""LLaVA-Mini: the features of frames and a prompt -> the prompt's rows, fused with what was seen.

A few queries read the features of each frame (the compressor); what they found, the frame's
projected patches and the prompt's embeddings then go through some decoder layers together (the
pre-fusion). Of a frame only the queries' rows are left; the prompt's rows are means over all
frames, so they are there when the last frame has passed, and belong to this prompt alone.

Some of the prompt is hidden: the visual's place, token 0, and in training the answers. It is seen
by no row, takes no position (positions count what is seen), and keeps its raw embedding. So it
takes no part at all: the layers run over what is seen, with positions 0, 1, 2, … and plain causal
attention, and give what a mask and positions counted around it would.

Source: Zhang et al. 2025 (arXiv 2501.03895), section 4. Knows no file, no tile and no loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from llava_video.model.decoder import DecoderLayer
from llava_video.model.dimensions import FusionConfig, ModelDimensions
from llava_video.model.kv_cache import KvCache
from llava_video.model.layers import LayerNorm, Linear
from llava_video.ops.attention import AttentionKind, attention
from llava_video.ops.kv_format import StoredKv
from llava_video.ops.linear import linear
from llava_video.ops.rope import rotate_and_store
from llava_video.ops.rotation import Rotation, RotationMode, make_rotation
from llava_video.planning.activations import FUSION_ROWS

_NORM_EPS: Final = 1e-5
# The label of a token that is not part of an answer.
_NO_ANSWER: Final = -100


def hidden_positions(ids: Sequence[int], labels: Sequence[int] | None = None) -> list[bool]:
    """Say of each token of a prompt whether the fusion leaves it out.

    Args:
        ids: token ids; a negative one stands for the visual.
        labels: of training, -100 where a token is not part of an answer; None without answers.

    Example:
        >>> hidden_positions([5, -200, 0, 7])
        [False, True, True, False]
        >>> hidden_positions([5, -200, 0, 7], labels=[-100, -100, -100, 7])
        [False, True, True, True]
    """
    answers = (
        [label != _NO_ANSWER for label in labels] if labels is not None else [False] * len(ids)
    )
    return [id_ <= 0 or is_answer for id_, is_answer in zip(ids, answers, strict=True)]


class QueryAttention(nn.Module):
    """Attention of the same queries to every frame's keys, with the weights of all three joined.

    Args:
        width: channels.
        num_heads: heads; `width` must divide by it.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.in_proj = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)
        self.num_heads = num_heads

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return (F, Q, w) of queries (Q, w), and keys and values (F, K, w) of F frames."""
        bias = self.in_proj.bias
        assert bias is not None  # it was made with one
        parts = zip((q, k, v), self.in_proj.weight.chunk(3), bias.chunk(3), strict=True)
        q, k, v = (linear(*part) for part in parts)
        q, k, v = (
            x.view(*x.shape[:-1], self.num_heads, -1).transpose(1, 2)
            for x in (q.expand(len(k), *q.shape), k, v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)  # (F, H, Q, w / H)
        out: torch.Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


@dataclass(frozen=True, slots=True)
class _FrameKeys:
    """Frames of equally many rows, each attending to its own causally; nothing is stored.

    Attributes:
        num_frames: F; the rows stand frame by frame.
        rotation: of all rows.
    """

    num_frames: int
    rotation: Rotation

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: KvCache | None,
        layer_idx: int,
        kind: AttentionKind,
    ) -> torch.Tensor:
        """See `StepKeys.attend`."""
        own = StoredKv(torch.empty_like(k), torch.empty_like(v))
        slots = torch.arange(len(q), device=q.device)
        q = rotate_and_store(q, k, v, self.rotation, own, slots)
        length, scale = len(q) // self.num_frames, q.shape[2] ** -0.5
        outs = [
            attention(q[i : i + length], (), own.part(i, i + length), scale, kind=kind)
            for i in range(0, len(q), length)
        ]
        return torch.cat(outs)


class Fusion(nn.Module):
    """The compressor and the pre-fusion layers.

    Args:
        dimensions: of the whole model, with a `fusion`.

    Attributes:
        rope: as the language model's; may be set before the first frame.

    Raises:
        ValueError: without one.
    """

    def __init__(self, dimensions: ModelDimensions) -> None:
        super().__init__()
        if dimensions.fusion is None:
            raise ValueError("a fusion of no sizes.")
        self.config: FusionConfig = dimensions.fusion
        self.rope: RotationMode = "exact"
        self._text = dimensions.text
        width, num_queries = dimensions.vision.hidden_size, self.config.side**2
        self.query = nn.Parameter(torch.empty(num_queries, width))
        self.position = nn.Parameter(torch.empty(num_queries, width))
        self.norm_q = LayerNorm(width, _NORM_EPS)
        self.norm_kv = LayerNorm(width, _NORM_EPS)
        self.attention = QueryAttention(width, self.config.num_heads)
        self.layers = nn.ModuleList(
            DecoderLayer(self._text, "sdpa") for _ in range(self.config.num_layers)
        )

    def compress(self, maps: torch.Tensor) -> torch.Tensor:
        """Return what the queries find in some frames.

        Args:
            maps: (F, h, w, C) features of the tower, all tiles of a frame as one map.

        Returns:
            (F, Q, C), Q = side x side, row by row.
        """
        side = self.config.side
        own = self.position.T.float().reshape(1, -1, side, side)
        size = maps.shape[1:3]
        spread = F.interpolate(own, size=size, mode="bicubic", align_corners=False)
        values = self.norm_kv(maps.flatten(1, 2))
        keys = values + spread[0].flatten(1).T.to(values)
        found: torch.Tensor = self.attention(self.norm_q(self.query) + self.position, keys, values)
        return found

    def fuse(
        self, patches: torch.Tensor, found: torch.Tensor, text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what some frames' queries and the prompt become, side by side.

        Args:
            patches: (F, P, D) projected patches.
            found: (F, Q, D) projected results of the queries.
            text: (V, D) embeddings of what is seen of the prompt.

        Returns:
            (F, Q, D), and (F, V, D): the prompt after each frame.
        """
        num_frames, num_patches = patches.shape[:2]
        rows = torch.cat([patches, found, text.expand(num_frames, *text.shape)], dim=1)
        length = rows.shape[1]
        rotation = make_rotation(
            torch.arange(length).repeat(num_frames),
            [self._text.rope_scale],
            head_dim=self._text.head_dim,
            theta=self._text.rope_theta,
            device=rows.device,
            mode=self.rope,
            bands=self._text.rope_bands,
        )
        keys = _FrameKeys(num_frames, rotation)
        rows = rows.flatten(0, 1)  # (F L, D)
        for layer_idx, layer in enumerate(self.layers):
            rows = layer(rows, keys, None, layer_idx)  # a cache would store what nobody reads again
        rows = rows.view(num_frames, length, -1)
        stop = length - len(text)
        return rows[:, num_patches:stop], rows[:, stop:]


class FusedPrompt:
    """A prompt that takes in its frames, some at a time, and then gives its rows.

    Holds the rows of the whole prompt and one float32 sum over frames; of a frame that has passed
    nothing else. How frames are divided among calls of `add` changes no row.

    Args:
        fusion: the layers.
        project: (…, C) features -> (…, D), the model's projector.
        embeddings: (T, D) of the prompt's tokens; at the visual's place anything.
        ids: the T tokens, one of them negative: the visual's place.
        num_frames: frames there will be.
        labels: as in `hidden_positions`.

    Attributes:
        num_done: frames taken in so far.
        num_visual: visual tokens there will be.

    Raises:
        ValueError: not one place for the visual.
    """

    def __init__(
        self,
        fusion: Fusion,
        project: Callable[[torch.Tensor], torch.Tensor],
        embeddings: torch.Tensor,
        ids: Sequence[int],
        num_frames: int,
        *,
        labels: Sequence[int] | None = None,
    ) -> None:
        places = [idx for idx, id_ in enumerate(ids) if id_ < 0]
        if len(places) != 1:
            raise ValueError(f"{len(places)} visuals in a prompt that is fused with one.")
        (self._place,) = places
        self._fusion, self._project = fusion, project
        self._num_frames = num_frames
        self._num_queries = fusion.config.side**2
        self.num_visual = num_visual = num_frames * self._num_queries
        seen = [i for i, hidden in enumerate(hidden_positions(ids, labels)) if not hidden]
        shifted = [i if i < self._place else i - 1 + num_visual for i in seen]
        self._seen_rows = torch.tensor(shifted, dtype=torch.int64, device=embeddings.device)
        device = fusion.query.device
        self._text = embeddings[torch.tensor(seen, dtype=torch.int64)].to(device)
        self._sum = torch.zeros(self._text.shape, dtype=torch.float32, device=device)
        self._rows = embeddings.new_empty(len(ids) - 1 + num_visual, embeddings.shape[1])
        self._rows[: self._place] = embeddings[: self._place]
        self._rows[self._place + num_visual :] = embeddings[self._place + 1 :]
        self.num_done = 0

    def frames_at_once(self, num_patches: int) -> int:
        """Return how many frames of so many patches one call of `add` should take, at least 1."""
        return max(1, FUSION_ROWS // (num_patches + self._num_queries + len(self._text)))

    def add(self, features: torch.Tensor) -> None:
        """Take in the next frames; when it raises, nothing was taken in.

        Args:
            features: (F, tiles, P, C) of the tower: the tiles of the frame's parts row by row, then
                the whole frame; or the whole alone.
        """
        here = self._text.device  # several GPUs may hold the model
        maps = self._map_of(features)
        found = self._project(self._fusion.compress(maps.to(here)))
        patches = maps.flatten(1, 2)
        if features.shape[1] > 1:
            patches = torch.cat([patches, features[:, -1]], dim=1)
        patches = self._project(patches).to(here)
        visual, text = self._fusion.fuse(patches, found.to(here), self._text)
        summed = text.sum(dim=0, dtype=torch.float32)
        start = self._place + self.num_done * self._num_queries
        visual = visual.flatten(0, 1)
        self._rows[start : start + len(visual)] = visual
        self._sum += summed
        self.num_done += len(features)

    def rows(self) -> torch.Tensor:
        """Return the rows (T - 1 + visual tokens, D) of the prompt, all frames having passed.

        Raises:
            ValueError: frames are missing.
        """
        if self.num_done != self._num_frames:
            raise ValueError(f"{self.num_done} of {self._num_frames} frames were taken in.")
        self._rows[self._seen_rows] = (self._sum / self.num_done).to(self._rows)
        return self._rows

    def _map_of(self, features: torch.Tensor) -> torch.Tensor:
        """Return the parts' features (or the whole's, where there is no part) as one map."""
        split = self._fusion.config.split
        num_frames, num_tiles, num_patches, width = features.shape
        expected = split**2 + (split > 1)
        if num_tiles != expected:
            raise ValueError(f"{num_tiles} tiles of a frame, the fusion reads {expected}.")
        side = round(num_patches**0.5)
        tiles = features[:, : split**2].view(num_frames, split, split, side, side, width)
        return tiles.transpose(2, 3).reshape(num_frames, split * side, split * side, width)
