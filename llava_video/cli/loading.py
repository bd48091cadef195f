"""The options that name a model → a loaded model that shows its progress on the console.

Imports torch, through `llava_video.api`, only when a model is loaded.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llava_video.cli.console import Console
from llava_video.cli.words import MODEL_NAMES
from llava_video.errors import ConfigError

SERVED = "openai"
_OF_FRAMES = ("picture", "jpeg_quality", "sends")
SERVER_NAMES = ("engine", "base_url", "plan_as", *_OF_FRAMES)
# Nobody's option: how many requests a command has under way, which a server is given at once.
_AT_ONCE = "max_running"
_NOT_LOADS = ("model", _AT_ONCE, *SERVER_NAMES)

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
        named: "model" and the keywords of `load`, or of a server; "max_running" for how many
            requests it is given at once.
        **more: keywords of `load` that no option names; a server has no use for them.

    Raises:
        LlavaVideoError: as `load` and `connect`; options that belong to another engine.
    """
    quiet_downloads(console)
    check_engine(named)
    if named.get("engine") == SERVED:
        return server_of(named)(on_event=console.progress.on_event)
    from llava_video.api import load

    keywords = load_keywords(named)
    progress = console.progress
    return load(
        named["model"], on_event=progress.on_event, on_shard=progress.on_shard, **keywords, **more
    )


def load_keywords(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of `load` among the options that name a model."""
    keywords = {name: value for name, value in named.items() if name not in _NOT_LOADS}
    if keywords.get("quantize", "") is None:  # not asked for, which is not the API's None
        del keywords["quantize"]
    return keywords


def server_of(named: Mapping[str, Any]) -> "Callable[..., LlavaVideo]":
    """Return what connects to the server that was named; other processes can be handed it."""
    from llava_video.connecting import connect
    from llava_video.remote.settings import RemoteSettings

    names = (*_OF_FRAMES, _AT_ONCE)
    asked = {name: named[name] for name in names if named.get(name) is not None}
    return functools.partial(
        connect,
        named["base_url"],
        named["model"],
        plan_as=named.get("plan_as"),
        settings=RemoteSettings(**asked),
    )


def check_engine(named: Mapping[str, Any]) -> None:
    """See that what was given belongs to the engine that was.

    Raises:
        ConfigError: it does not, or a server's address is missing.
    """
    is_served = named.get("engine") == SERVED
    own = ("model", "engine", _AT_ONCE)
    others = [name for name in named if name not in own and (name in SERVER_NAMES) != is_served]
    strange = [name for name in others if named[name] not in (None, "auto", "sdpa")]
    if strange:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in strange)
        where = "for a server" if not is_served else "for weights that are loaded here"
        engine = "openai with --base-url URL" if not is_served else "local"
        raise ConfigError(f"{flags} {'is' if len(strange) == 1 else 'are'} {where}.",
                          f"leave it out, or --engine {engine}.")  # fmt: skip
    if is_served and not named.get("base_url"):
        raise ConfigError(
            "--engine openai without an address.", "--base-url http://localhost:8000/v1"
        )


def quiet_downloads(console: Console) -> None:
    """Let the hub's client draw bars only where ours are drawn."""
    if not console.progress.is_on:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
