"""A server's address and a model's name → the model, answered by the server.

Frames are planned, decoded and chosen here, as for a model whose weights are loaded; of the model
that plans, configuration and tokenizer are read and no weights.
"""

from dataclasses import replace
from pathlib import Path

from llava_video.api import LlavaVideo
from llava_video.engine.remote import RemoteEngine
from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.hub import commit_of
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.remote.address import read_address
from llava_video.remote.client import ChatClient
from llava_video.remote.facts import ServerFacts
from llava_video.remote.listing import read_facts
from llava_video.remote.settings import RemoteSettings
from llava_video.running import OnEvent


def connect(
    base_url: str,
    model: str,
    *,
    plan_as: str | Path | None = None,
    settings: RemoteSettings | None = None,
    on_event: OnEvent | None = None,
) -> LlavaVideo:
    """Return a model that an OpenAI-compatible server answers for: vLLM, SGLang or another.

    Its verbs are those of a model that was loaded. The server makes prompt, tiles and tokens its
    own way, so a plan's tokens are an estimate, and says so. Where the server wants a key, it is
    taken from the environment variable LLAVA_VIDEO_API_KEY (`RemoteSettings.key_variable`).

    Args:
        base_url: where the interface is, "http://localhost:8000/v1".
        model: its name there; `GET /models` is asked for it.
        plan_as: the checkpoint whose configuration and tokenizer plan frames and prompt, a folder,
            hub id or "demo"; None is the one that `model` names.
        settings: how frames are sent, how many requests at once, and how patiently.
        on_event: called with every engine event of every request.

    Raises:
        ServerError: the server cannot be reached, or is none.
        ServerRefusedError: it wants another key, or does not serve the model.
        ConfigError: no such URL, or a model whose frames are fused with the prompt.
        CheckpointError: as `load`, of the model that plans.
    """
    settings = settings or RemoteSettings()
    client = ChatClient(read_address(base_url, settings.key_variable), settings)
    try:
        facts = read_facts(client, model, settings.of_frames())
        spec = _spec_of(facts, plan_as)
    except BaseException:
        client.close()
        raise
    engine = RemoteEngine(client, facts, settings, spec.tokenizer, spec.geometry.tile_px)
    return LlavaVideo(spec, engine, on_event=on_event)


def _spec_of(facts: ServerFacts, plan_as: str | Path | None) -> ModelSpec:
    """Return the facts of the model that plans, under the name of the one that answers."""
    try:
        spec = read_spec(facts.model if plan_as is None else plan_as)
    except CheckpointError as error:
        if plan_as is not None:
            raise
        raise CheckpointError(
            f"{facts.model!r} is served, and frames cannot be planned for it: {error.message}",
            "name the checkpoint it was made of, or one that sees frames alike, by plan_as=.",
        ) from error
    geometry = spec.geometry
    if geometry.compressed_side:
        raise ConfigError(
            f"{spec.name} fuses what it sees with the prompt, which no server is told of.",
            "plan as another model of the family, by plan_as=.",
        )
    # A server keeps positions as they are, and perhaps fewer of them than the checkpoint has.
    context_tokens = min(geometry.context_tokens, facts.context_tokens or geometry.context_tokens)
    geometry = replace(geometry, model=facts.model, stretches=False, context_tokens=context_tokens)
    commit = commit_of(spec.folder)
    facts = replace(facts, planned_as=f"{spec.name} at {commit}" if commit else spec.name)
    # Another checkpoint's card says nothing of what answers.
    card = spec.card if plan_as is None else None
    return replace(spec, name=facts.model, geometry=geometry, server=facts, card=card)
