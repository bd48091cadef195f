"""What the planner must know of a model: tiles, canvases, newlines, context, and sizes for memory.

A plain value that the reader of a checkpoint's configuration fills in. Knows no file, no tensor and
no request.
"""

from dataclasses import dataclass
from typing import Literal

from llava_video.errors import ConfigError
from llava_video.values import Fit, Newline, PoolMode, PoolOf

Aspect = Literal["anyres", "pad", "square"]
Merge = Literal["spatial", "flat"]
# Whose arithmetic compat="reference" repeats: LLaVA-Video's loader (a step of whole seconds, or
# evenly spread), LLaVA-NeXT-Video's first release (evenly spread), LLaVA-Mini's midpoints.
ReferenceRule = Literal["steps", "spread", "midpoints"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The shape of a model's visual input and of its memory.

    Attributes:
        model: the checkpoint's name or path, for people.
        tile_px: side of the square the vision tower sees, px.
        patch_px: side of one patch, px; pixels beyond the last whole patch of a tile are unused.
        canvases: (height, width) in px, in the checkpoint's order (the first of equals wins).
        aspect: what becomes of one still picture: tiles on a canvas, a padded square, a square.
        pads_several: whether each of several pictures is one padded tile, where one is tiled.
        square_fit: how "square" is made: SigLIP's processor squeezes, CLIP's crops the middle.
        video_fit: how a video's frame reaches its one tile.
        anyres_max: N of "anyres_max_N": a picture's map is shrunk to about N tiles; None for no
            limit.
        keeps_line: whether a sliver of a picture keeps one line of its map that the reference's
            rounding would cut; there, later stages cannot do without.
        unpad: whether the canvas's border is cut off the map (merge types with "unpad").
        merge: "spatial" arranges tiles as one map; "flat" concatenates them, without any newline.
        newline: where the newline token stands in a video.
        has_newline: whether the checkpoint has a newline token at all.
        pool_mode: how a video's maps are pooled.
        pool_stride: side reduction of a video's maps.
        pool_of: what is pooled, see `VisualPlan`.
        slow_every: 0, or k: the slow-fast layout (see `VisualPlan.slow_every`); only with ROW.
        context_tokens: positions the model accepts, its own `rope_scale` included.
        rope_scale: linear scaling of positions that the checkpoint brings itself; 1 for none.
        max_frames: frames of a video when nothing else is asked for.
        fps: frames per second of a video when nothing else is asked for; None spreads `max_frames`.
        reference_rule: which frames compat="reference" takes.
        is_video_trained: whether the model was trained on videos; others get frames as pictures.
        stretches: whether positions are scaled unasked where the context is too short.
        is_qwen: whether the decoder is Qwen's.
        compressed_side: rows and columns of tokens of a frame that are fused with the prompt
            (LLaVA-Mini); 0 for maps that are pooled.
        split: a fused frame is cut into split x split tiles beside the whole.
        fusion_layers: decoder layers a fused frame and the prompt go through together.
        time_instruction: whether the model was trained with the time sentence.
        num_layers: decoder layers.
        num_heads: query heads of a layer.
        num_kv_heads: key and value heads of a layer.
        head_dim: channels of a head.
        hidden_size: channels of the language model.
        intermediate_size: channels inside its gated MLP.
        vocab_size: rows of its head.
        vision_width: channels of the vision tower (SigLIP so400m by default).
        vision_intermediate_size: channels inside its MLP.
        projector_layers: linear layers of the projector.
        value_bytes: bytes of one number of the model's dtype.
        weights_bytes: bytes of all weights in that dtype.
    """

    model: str
    tile_px: int = 384
    patch_px: int = 14
    canvases: tuple[tuple[int, int], ...]
    aspect: Aspect
    pads_several: bool = True
    square_fit: Fit = "squeeze"
    video_fit: Fit = "squeeze"
    keeps_line: bool = True
    anyres_max: int | None
    unpad: bool
    merge: Merge
    newline: Newline
    has_newline: bool
    pool_mode: PoolMode
    pool_stride: int = 2
    pool_of: PoolOf = "tokens"
    slow_every: int = 0
    context_tokens: int
    rope_scale: float = 1.0
    max_frames: int
    fps: float | None = None
    reference_rule: ReferenceRule = "steps"
    is_video_trained: bool = True
    stretches: bool = False
    is_qwen: bool = False
    compressed_side: int = 0
    split: int = 1
    fusion_layers: int = 0
    time_instruction: bool
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    vision_width: int = 1152
    vision_intermediate_size: int = 4304
    projector_layers: int = 2
    value_bytes: int = 2
    weights_bytes: int

    def __post_init__(self) -> None:
        """Refuse numbers no model can have."""
        positive = ("patch_px", "pool_stride", "context_tokens", "max_frames")
        for name in positive:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} of {self.model}.", "at least 1.")
        if self.tile_px < self.patch_px:
            raise ConfigError(f"a tile of {self.tile_px} px holds no patch of {self.patch_px} px.")
        for height_px, width_px in self.canvases:
            if min(height_px, width_px) < 1 or height_px % self.tile_px or width_px % self.tile_px:
                raise ConfigError(
                    f"canvas {height_px} x {width_px} px is not whole tiles of {self.tile_px} px.",
                    "every side is a multiple of tile_px.",
                )
        if self.aspect == "anyres" and not self.canvases:
            raise ConfigError(f"{self.model} tiles pictures, but names no canvases.")

    @property
    def patches_per_side(self) -> int:
        """Rows and columns of one tile's map: 384 // 14 = 27."""
        return self.tile_px // self.patch_px

    @property
    def frame_tiles(self) -> int:
        """Tiles of a frame unless a grid is asked for: 1, or the parts and the whole of one."""
        return self.split**2 + 1 if self.split > 1 else 1
