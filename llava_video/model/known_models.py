"""The facts of public checkpoints, from the JSON files in `known/`: names, sizes, frames, tokens.

Facts that config.json does not hold (the frame limit of training, the licence of the weights) and
those a table of models shows before anything is downloaded. Imports no torch, fetches nothing.
"""

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from llava_video.values import Newline

_PATCHES_PER_SIDE = 27  # 384 px tiles of 14 px patches
_POOLED_SIDE = -(-_PATCHES_PER_SIDE // 2)  # bilinear, stride 2, rounds up


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """One public checkpoint.

    Attributes:
        name: its hub id.
        family: "LLaVA-OneVision" or "LLaVA-Video".
        size: parameters of its language model in words, "7B".
        layout: "original" or "hf", whose files it has.
        context_tokens: positions it accepts.
        max_frames: frames of a video it was trained with, the default limit.
        newline: where newline tokens stand in a video.
        time_instruction: whether videos come with a time sentence.
        video_trained: whether it was trained on videos at all.
        licence: of the weights, as its model card states it, or where to read it.
    """

    name: str
    family: str
    size: str
    layout: str
    context_tokens: int
    max_frames: int
    newline: Newline
    time_instruction: bool
    video_trained: bool
    licence: str

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of one frame: 14 x 14 = 196, and 14 newlines when one ends each row."""
        newlines = {Newline.ROW: _POOLED_SIDE, Newline.FRAME: 1}.get(self.newline, 0)
        return _POOLED_SIDE**2 + newlines

    @property
    def tokens_per_video(self) -> int:
        """Visual tokens of a video of `max_frames` frames."""
        return self.tokens_per_frame * self.max_frames + int(self.newline is Newline.CLIP)


@functools.cache
def known_models() -> tuple[KnownModel, ...]:
    """Return every known checkpoint, family by family, small to large."""
    folder = resources.files("llava_video.model").joinpath("known")
    found: list[KnownModel] = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".json"):
            found.extend(_read_family(json.loads(path.read_text(encoding="utf-8"))))
    return tuple(found)


def find_known(name: str) -> KnownModel | None:
    """Return the known checkpoint of a hub id, or of a folder whose last part is its name."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    for model in known_models():
        if last and last == model.name.rpartition("/")[2].lower():
            return model
    return None


def _read_family(family: dict[str, Any]) -> list[KnownModel]:
    shared = {**family["shared"], "family": family["family"]}
    merged = [{**shared, **own} for own in family["models"]]
    return [KnownModel(**{**one, "newline": Newline(one["newline"])}) for one in merged]
