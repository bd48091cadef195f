"""The name of a stored array → which quantity it is of, and which part: one grammar for all sets.

A key is a set's word for a quantity followed by parts, as in `clip_features_frame0_first96`: the
features of the first frame, of them the first 96 rows. Sets differ in their words, not in the parts
they may be followed by. Knows no model and no file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]

# A set's word → the quantity.
WORDS = {
    "clip_features": "features",
    "compressor_output": "compressed",
    "embeds_position": "embeddings",
    "fused_text": "fused text",
    "image_tokens": "visual rows",
    "inputs_embeds": "embeddings",
    "last_image_token": "visual rows",
    "logits": "logits",
    "pixel_values": "pixels",
    "pixel_values_u8": "levels",
    "pooled": "pooled",
    "projected": "projected",
    "resized_u8": "levels",
    "spliced": "visual rows",
    "vision_features": "features",
    "vision_tokens": "visual rows",
}
# Words for what every set knows by itself.
SAME_WORDS = {
    "attention_mask": "attention_mask_in",
    "expanded_attention_mask": "attention_mask_out",
    "expanded_lengths": "lengths",
    "greedy_ids": "greedy_tokens",
    "image_token_count": "feature_counts",
    "image_token_start": "feature_starts",
    "loss_batch": "loss",
}
_PARTS = re.compile(r"_(frame0|first\d+|last\d*|every\d+|row_mean|mean|rows|all)$")
_FLAGS = re.compile(r"_(valid|without_labels)$")
_WHOLE_FRAMES = re.compile(r"frames\d+")


@dataclass(frozen=True, slots=True)
class Key:
    """What a key says.

    Attributes:
        quantity: what was stored of.
        parts: which part of it, outermost first.
        is_free: whether it was made without the labels that stand beside it.
    """

    quantity: str
    parts: tuple[str, ...] = ()
    is_free: bool = False


def read_key(key: str) -> Key | None:
    """Read a key; None when it is no word with parts."""
    word, parts, is_free = key, [], False
    while word not in WORDS:
        flag, part = _FLAGS.search(word), _PARTS.search(word)
        if flag:
            is_free |= flag[1] == "without_labels"
            word = word[: flag.start()]
        elif part:
            parts.insert(0, part[1])
            word = word[: part.start()]
        elif _WHOLE_FRAMES.fullmatch(word):
            return Key("whole frames", tuple(parts), is_free)
        else:
            return None
    if word == "last_image_token":
        parts.append("last")
    return Key(WORDS[word], tuple(parts), is_free)


def part_of(
    frames: npt.NDArray[Any], parts: tuple[str, ...], index: npt.NDArray[Any] | None
) -> npt.NDArray[Any] | None:
    """Return the part of a quantity that a key names.

    Args:
        frames: (T, R, D) rows of every frame, or (T, C, H, W) pictures.
        parts: from the key.
        index: which rows the set stored, counted over all frames; None where it does not say.

    Returns:
        None when it stored rows and does not say which.
    """
    is_rows = frames.ndim == 3
    found = frames[0] if "frame0" in parts else frames
    if is_rows:
        found = found.reshape(-1, frames.shape[-1])
    for part in parts:
        if part == "rows":
            if index is None:
                return None
            found = rows_at(found, index)
        elif part != "frame0":
            name, number = re.fullmatch(r"(\D+)(\d*)", part).groups()  # type: ignore[union-attr]  # every part is one
            found = _PICKS[name](found, int(number or 0))
    return found


def aligned(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give ours the axes of theirs where only the grouping of rows differs: (1, L, D), (T, P)."""
    return ours.reshape(theirs.shape) if ours.size == theirs.size else ours


def rows_at(array: npt.NDArray[Any], index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the rows a set stores, or nothing where an index lies outside."""
    inside = index.size == 0 or (index.min() >= 0 and index.max() < len(array))
    return array[index] if inside else array[:0]


def stored(arrays: Arrays, name: str) -> tuple[str, npt.NDArray[Any]] | None:
    """Return what a set stores under a name or another word for it: its own key, and the array."""
    for key in (name, *(own for own, same in SAME_WORDS.items() if same == name)):
        if key in arrays:
            return key, arrays[key]
    return None


def index_of(key: str, arrays: Arrays) -> npt.NDArray[Any] | None:
    """Return which rows a key's array has, where the set says so beside it."""
    return arrays.get(f"{key.removesuffix('_rows')}_row_index")


_PICKS: Mapping[str, Callable[[npt.NDArray[Any], int], npt.NDArray[Any]]] = {
    "all": lambda array, _: array,
    "every": lambda array, step: array[..., ::step, ::step],
    "first": lambda array, count: array[:count],
    "last": lambda array, count: array[-count:] if count else array[-1],
    "mean": lambda array, _: array.mean(axis=-1, dtype=np.float64),
    "row_mean": lambda array, _: array.mean(axis=-1, dtype=np.float64),
}
