"""A conversation about the same visuals: the cache of the last turn is kept and continued.

Each turn renders the whole conversation anew and reuses the longest common prefix of tokens, so an
answer equals the one a fresh request would give. The visuals are planned and encoded once.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Self

from llava_video.engine.request import Engine
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.errors import BudgetError, ConfigError
from llava_video.exchange import Exchange, open_exchange
from llava_video.model.prompt import Turn
from llava_video.model.spec import ModelSpec
from llava_video.options import Settings
from llava_video.running import OnEvent, answer_one
from llava_video.values import Description

# A video that filled the whole context would leave the second question no room: the first plan
# keeps this many answers' worth free.
_TURNS_KEPT_FREE = 4


class Session:
    """A conversation; made by `LlavaVideo.chat`, a context manager that frees its cache.

    One thread at a time: turns follow one another.

    Args:
        spec: the checkpoint's facts.
        engine: answers the turns.
        video: as `LlavaVideo.describe`; None for text alone.
        settings: every turn's settings.
        on_event: called with every event.
    """

    def __init__(
        self,
        spec: ModelSpec,
        engine: Engine,
        video: Any,
        settings: Settings,
        on_event: OnEvent | None = None,
    ) -> None:
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
            self._engine, exchange, reuse=self._cache, keep=True, on_event=self._on_event
        )
        if self._first is not None:
            self._first.take_frames_of(exchange)
        self._release()
        self._cache = answer.sequence
        self._turns = (*turns, Turn("assistant", answer.text))
        return exchange.description(answer)

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
                self._first = open_exchange(self._spec, self._video, turns, roomy)
            except BudgetError:  # a small context: better a short conversation than none
                self._first = open_exchange(self._spec, self._video, turns, self._settings)
        return self._first.follow(turns, self._settings)

    def _release(self) -> None:
        if self._cache is not None:
            self._cache.release()
            self._cache = None
