"""The options that name a model → a loaded model that shows its progress on the console.

Imports torch, through `llava_video.api`, only when a model is loaded.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llava_video.cli.console import Console
from llava_video.cli.words import MODEL_NAMES

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo


def split_options(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell apart what names a model and what belongs to a request."""
    model = {name: value for name, value in given.items() if name in MODEL_NAMES}
    return model, {name: value for name, value in given.items() if name not in MODEL_NAMES}


def load_model(console: Console, named: Mapping[str, Any], **more: Any) -> "LlavaVideo":
    """Load a model.

    Args:
        console: shows shards now, frames and tokens later.
        named: "model" and the keywords of `load`.
        **more: keywords of `load` that no option names.

    Raises:
        LlavaVideoError: as `load`.
    """
    quiet_downloads(console)
    from llava_video.api import load

    keywords = {name: value for name, value in named.items() if name != "model"}
    if keywords.get("quantize", "") is None:  # not asked for, which is not the API's None
        del keywords["quantize"]
    progress = console.progress
    return load(
        named["model"], on_event=progress.on_event, on_shard=progress.on_shard, **keywords, **more
    )


def quiet_downloads(console: Console) -> None:
    """Let the hub's client draw bars only where ours are drawn."""
    if not console.progress.is_on:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
