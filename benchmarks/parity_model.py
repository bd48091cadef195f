"""A set's model folders → loaded models, each with the configuration a case asks for.

Says which visual layout a case means. The reference keeps pooling, newlines and picture handling in
the original config.json; transformers' class has one video layout and its config.json no words for
the others. A set's outputs come from one original folder, so a folder in transformers' layout takes
these keys from the original folder it was converted from: the one whose name its own begins with,
else the only one. A case's `config_overrides` then apply to every folder alike. Everything else
(sizes, rotary base, ids, tensor names) is each folder's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llava_video.errors import CheckpointError
from llava_video.model.checkpoint import load_model
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import ModelConfig, read_model_config, with_overrides
from llava_video.model.shards import find_shards
from llava_video.model.sources import Sources, find_sources
from llava_video.model.tokenizer import Tokenizer

LAYOUT_KEYS = (
    "add_faster_video",
    "add_time_instruction",
    "faster_token_stride",
    "force_sample",
    "image_aspect_ratio",
    "mm_newline_position",
    "mm_patch_merge_type",
    "mm_pooling_position",
    "mm_spatial_pool_mode",
    "mm_spatial_pool_stride",
    "tokenizer_padding_side",
)


@dataclass(slots=True)
class Candidate:
    """One model folder under test.

    Attributes:
        name: the folder's name.
        origin: the name of the original folder it was converted from; its own for an original.
        sources: its folder, and those of what it lies over.
        config: its configuration with the visual layout of its original.
        tokenizer: its tokenizer.
        vocab_size: rows of its original's vocabulary; a conversion may have added some.
    """

    name: str
    origin: str
    sources: Sources
    config: ModelConfig
    tokenizer: Tokenizer
    vocab_size: int
    _loaded: dict[tuple[ModelDimensions, bytes], LlavaModel] = field(default_factory=dict)

    def config_with(self, overrides: Mapping[str, Any]) -> ModelConfig:
        """Return the configuration with a case's overrides."""
        return with_overrides(self.config, overrides) if overrides else self.config

    def model_with(
        self, config: ModelConfig, separator: npt.NDArray[np.float32] | None, device: str
    ) -> LlavaModel:
        """Return the weights in float32 for a configuration; loaded once per set of sizes.

        Args:
            config: from `config_with`.
            separator: (D,) the separator token, used where the files lack it.
            device: where to.
        """
        needs = config.dimensions.has_separator and separator is not None
        extra = {}
        if needs and separator is not None and not _has_separator(self.sources.folder):
            extra = {"separator": torch.from_numpy(separator).reshape(-1)}
        key = (config.dimensions, separator.tobytes() if extra and separator is not None else b"")
        if key not in self._loaded:
            self._loaded[key] = load_model(
                self.sources, config=config, device=device, dtype=torch.float32, extra=extra
            )
        return self._loaded[key]


def candidate(name: str, folders: Mapping[str, Path], base: Path | None = None) -> Candidate:
    """Read one model folder of a set.

    Args:
        name: which.
        folders: every model folder of the set.
        base: what the folder lies over, where it holds changes of another or a part.

    Raises:
        CheckpointError: the folder is of a kind this version does not read.
    """
    config = read_model_config(folders[name])
    origin, vocab_size = name, config.text.vocab_size
    if config.layout != "original":
        originals = _originals(folders)
        origin = _origin_of(name, originals)
        if origin in originals:
            theirs, vocab_size = originals[origin].values, originals[origin].text.vocab_size
            config = with_overrides(config, {k: theirs[k] for k in LAYOUT_KEYS if k in theirs})
    sources = find_sources(folders[name], base=base)
    tokenizer = Tokenizer(sources.tokenizer_folder)
    return Candidate(name, origin, sources, config, tokenizer, vocab_size)


def _originals(folders: Mapping[str, Path]) -> dict[str, ModelConfig]:
    found: dict[str, ModelConfig] = {}
    for name, folder in folders.items():
        try:
            config = read_model_config(folder)
        except CheckpointError:  # another kind of model, which nothing here came from
            continue
        if config.layout == "original":
            found[name] = config
    return found


def _origin_of(name: str, originals: Mapping[str, ModelConfig]) -> str:
    named = [original for original in originals if name.startswith(original)]
    if named:
        return max(named, key=len)
    return next(iter(originals)) if len(originals) == 1 else name


def _has_separator(folder: Path) -> bool:
    return any(
        name.endswith("faster_token") for shard in find_shards(folder) for name in shard.shapes
    )
