"""A conversation about the same visuals: the cache of the last turn is kept and continued.

Each turn renders the whole conversation anew and reuses the longest common prefix of tokens, so an
answer equals the one a fresh request would give. The visuals are planned and encoded once, except
by a model that fuses them with the prompt: there each turn sees them anew, and none is kept.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llava_video.engine.request import Engine
from llava_video.errors import BudgetError, CheckpointError, ConfigError
from llava_video.exchange import Exchange, open_exchange
from llava_video.inputs import reopen
from llava_video.model.prompt import Turn
from llava_video.model.spec import ModelSpec
from llava_video.options import Settings, answer_settings
from llava_video.planning.plan_json import plan_from_json
from llava_video.preview import check_planned_for
from llava_video.running import OnEvent, answer_one
from llava_video.seen import SeenVisuals
from llava_video.values import Description, Plan

if TYPE_CHECKING:
    from llava_video.engine.sequence import Sequence as KvSequence

# A video that filled the whole context would leave the second question no room: the first plan
# keeps this many answers' worth free.
_TURNS_KEPT_FREE = 4
# Of each weights file, read to tell it from another of the same size.
_SAMPLE_BYTES = 65_536


class Session:
    """A conversation; made by `LlavaVideo.chat`, a context manager that frees its cache.

    One thread at a time: turns follow one another.

    Args:
        spec: the checkpoint's facts.
        engine: answers the turns.
        video: as `LlavaVideo.describe`; None for text alone.
        settings: every turn's settings.
        on_event: called with every event.
        seen: what was seen of visuals that the cache may hold already.
    """

    def __init__(
        self,
        spec: ModelSpec,
        engine: Engine,
        video: Any,
        settings: Settings,
        on_event: OnEvent | None = None,
        seen: SeenVisuals | None = None,
    ) -> None:
        self._seen = seen
        self._spec, self._engine, self._on_event = spec, engine, on_event
        self._video, self._settings = video, settings
        self._first: Exchange | None = None
        self._cache: KvSequence | None = None
        self._turns: tuple[Turn, ...] = ()
        self._closed = False

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What was said so far."""
        return self._turns

    def __iter__(self) -> Iterator[Turn]:
        return iter(self._turns)

    def ask(self, question: str) -> Description:
        """Ask the next question.

        Raises:
            ConfigError: the question is empty.
            BudgetError: the conversation has outgrown the context. Otherwise as `describe`.
        """
        if self._closed:
            raise ConfigError("the conversation was closed.", "begin a new one with chat().")
        if not question.strip():
            raise ConfigError("the question is empty.", "ask something.")
        if self._turns:  # the visuals have their place in the first question
            question = question.replace("<image>", "< image >")
        turns = (*self._turns, Turn("user", question))
        exchange = self._exchange(turns)
        answer = answer_one(
            self._engine,
            exchange,
            reuse=self._cache,
            keep=exchange.plan.reusable_prefix,
            on_event=self._on_event,
        )
        if self._first is not None:
            self._first.take_frames_of(exchange)
        self._release()
        self._cache = answer.sequence
        self._turns = (*turns, Turn("assistant", answer.text))
        return exchange.description(answer)

    def save(self, path: str | Path) -> None:
        """Write the conversation and its cache to a safetensors file, for `LlavaVideo.resume`.

        The file holds the keys and values of every token bit for bit, so it is as large as they
        are: `plan.memory.kv_bytes` and the answers. Of a model that fuses what it sees with the
        prompt it holds the plan and the turns alone: the next turn looks again.

        Args:
            path: written under another name and renamed when it is whole.

        Raises:
            ConfigError: nothing was asked yet, or the conversation was closed.
        """
        if not self._turns or self._first is None:
            raise ConfigError("there is nothing to save yet.", "ask something first.")
        facts = {
            "plan": self._first.plan.to_json(),
            "turns": json.dumps([dataclasses.asdict(turn) for turn in self._turns]),
            "max_new_tokens": str(self._settings.generation.max_new_tokens),
            "weights": _weights_of(self._spec),
        }
        if self._cache is None:
            from llava_video.engine.sequence import save_facts

            save_facts(path, **facts)
        else:
            self._cache.save(path, **facts)

    def close(self) -> None:
        """Free the cache and close the visuals; the conversation has ended."""
        self._closed = True
        self._release()
        if self._first is not None:
            self._first.close()
            self._first = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _exchange(self, turns: tuple[Turn, ...]) -> Exchange:
        if self._first is None:
            planning = dataclasses.replace(
                self._settings.planning,
                max_new_tokens=_TURNS_KEPT_FREE * self._settings.generation.max_new_tokens,
            )
            roomy = dataclasses.replace(self._settings, planning=planning)
            try:
                self._first = self._open(turns, roomy)
            except BudgetError:  # a small context: better a short conversation than none
                self._first = self._open(turns, self._settings)
        return self._first.follow(turns, self._settings)

    def _open(self, turns: tuple[Turn, ...], settings: Settings) -> Exchange:
        return open_exchange(self._spec, self._video, turns, settings, seen=self._seen)

    def _release(self) -> None:
        if self._cache is not None:
            self._cache.release()
            self._cache = None


def load_session(
    spec: ModelSpec,
    engine: Engine,
    path: str | Path,
    video: Any,
    options: Mapping[str, Any],
    on_event: OnEvent | None,
    seen: SeenVisuals,
) -> Session:
    """Read a conversation that was saved; see `LlavaVideo.resume`.

    Raises:
        CheckpointError: the file is damaged, or of other weights.
        ConfigError: the engine keeps no cache of its own, or an option would change the plan.
    """
    # Caches are tensors; conversations with a server do without torch.
    from llava_video.engine.arena import Arena
    from llava_video.engine.sequence import load_facts, load_sequence

    cache, facts = None, load_facts(path)
    if facts is None:
        arena = getattr(engine, "arena", None)
        if not isinstance(arena, Arena):
            raise ConfigError("this engine keeps no cache.", "resume with a model that was loaded.")
        cache, facts = load_sequence(arena, path)
    try:
        plan, turns = _facts_of(path, facts, _weights_of(spec))
        check_planned_for(spec, plan)
        # The plan kept several answers' worth of tokens free; each turn takes one.
        asked = dict(options)
        max_new_tokens = asked.pop("max_new_tokens", int(facts["max_new_tokens"]))
        settings = answer_settings(plan, asked)
        generation = dataclasses.replace(settings.generation, max_new_tokens=max_new_tokens)
        settings = dataclasses.replace(settings, generation=generation)
        opened = reopen(plan, video, *settings.reading)
    except BaseException:
        if cache is not None:
            cache.release()
        raise
    session = Session(spec, engine, video, settings, on_event, seen)
    session._first = Exchange(spec, plan, opened, settings, turns=turns[:1], seen=seen)
    session._cache, session._turns = cache, turns
    return session


def _facts_of(
    path: str | Path, facts: Mapping[str, str], weights: str
) -> tuple[Plan, tuple[Turn, ...]]:
    try:
        plan = plan_from_json(facts["plan"])
        turns = tuple(Turn(**turn) for turn in json.loads(facts["turns"]))
        saved = facts["weights"]
    except (KeyError, TypeError, ValueError) as cause:  # ConfigError of a damaged plan is one
        raise CheckpointError(
            f"{path} holds a cache, but no conversation ({cause!r}).", "save the session again."
        ) from cause
    if saved != weights:
        raise CheckpointError(
            f"{path} was made by the weights {saved}, these are {weights}.",
            "load those, or ask again.",
        )
    return plan, turns


def _weights_of(spec: ModelSpec) -> str:
    """Name the weights a cache was computed by: checkpoint, files, precision; or the server."""
    if spec.server is not None:
        told = json.dumps(spec.server.to_mapping(), sort_keys=True)
        return f"{spec.name} ({hashlib.sha256(told.encode()).hexdigest()[:12]}, a server's)"
    digest = hashlib.sha256()
    for path in spec.sources.weight_files():
        with path.open("rb") as file:  # the end of each file: other weights end otherwise
            num_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, num_bytes - _SAMPLE_BYTES))
            digest.update(num_bytes.to_bytes(8, "little") + file.read())
    beside = "" if spec.sources.is_merged else ", its adapter beside them"
    return f"{spec.name} ({digest.hexdigest()[:12]}, {spec.setup.weight_format}{beside})"
