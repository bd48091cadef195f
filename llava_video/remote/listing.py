"""A server's listing of models and a name → what the server says of itself, or that it has none."""

import difflib
from collections.abc import Mapping
from typing import Any

from llava_video.errors import LlavaVideoError, ServerRefusedError
from llava_video.remote.client import ChatClient
from llava_video.remote.facts import ServerFacts, ServerKind

# Where each kind says its version, behind the server's root.
_VERSION_PATHS: dict[ServerKind, tuple[str, ...]] = {
    "vllm": ("/version",),
    "sglang": ("/get_server_info", "/server_info"),
}
_LISTED = ("owned_by", "root", "max_model_len")
_MOST_NAMED = 20


def read_facts(client: ChatClient, model: str, frames: Mapping[str, Any]) -> ServerFacts:
    """Ask a server what it says of a model.

    Args:
        client: the server's.
        model: its name there.
        frames: how frames are sent.

    Raises:
        ServerError: it cannot be reached, or is none.
        ServerRefusedError: it wants another key, or does not serve the model.
    """
    listing = client.get(client.address.base_url + "/models")
    entry = _entry_of(listing, model, client.address.base_url)
    kind = _kind_of(entry)
    longest = entry.get("max_model_len")
    return ServerFacts(
        base_url=client.address.base_url,
        model=model,
        kind=kind,
        version=_version_of(client, kind),
        context_tokens=longest if isinstance(longest, int) and longest > 0 else None,
        says={name: entry[name] for name in _LISTED if isinstance(entry.get(name), str)},
        frames=frames,
    )


def _entry_of(listing: Any, model: str, base_url: str) -> Mapping[str, Any]:
    listed = listing.get("data") if isinstance(listing, Mapping) else None
    if not isinstance(listed, list):
        raise ServerRefusedError(
            f"{base_url}/models lists no models.", "is base_url right, with its /v1?"
        )
    entries = {str(one["id"]): one for one in listed if isinstance(one, Mapping) and "id" in one}
    if model in entries:
        return entries[model]
    near = difflib.get_close_matches(model, entries, n=1)
    named = ", ".join(sorted(entries)[:_MOST_NAMED]) or "none"
    nearest = f"did you mean {near[0]!r}? " if near else ""
    raise ServerRefusedError(
        f"{base_url} does not serve {model!r}.", f"{nearest}it serves {named}."
    )


def _kind_of(entry: Mapping[str, Any]) -> ServerKind:
    owner = str(entry.get("owned_by", "")).lower()
    return "vllm" if "vllm" in owner else "sglang" if "sglang" in owner else "other"


def _version_of(client: ChatClient, kind: ServerKind) -> str:
    for path in _VERSION_PATHS.get(kind, ()):
        try:
            told = client.get(client.address.root_url + path)
        except LlavaVideoError:  # what it does not say is no reason not to ask it
            continue
        if isinstance(told, Mapping) and told.get("version"):
            return str(told["version"])
    return ""
