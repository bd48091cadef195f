"""Logits → one answer: its ids, its text in pieces, and why it ended.

Puts the pieces of generation in their order: choose, end token, text, stop strings, schema, loop
guard, length. Knows no cache and no other request.
"""

import json
from collections.abc import Collection
from typing import Any

from torch import Tensor

from llava_video.engine.constraint import SchemaConstraint
from llava_video.engine.guard import LoopGuard
from llava_video.engine.logits import TokenChooser
from llava_video.engine.settings import GenerationSettings
from llava_video.engine.stop import StopText
from llava_video.model.tokenizer import TextStream, Tokenizer
from llava_video.values import FinishReason


class AnswerWriter:
    """Writes one answer.

    Args:
        generation: the request's settings.
        tokenizer: turns ids into text.
        eos_ids: ids that end an answer.
        repetition_penalty: the checkpoint's.
        constraint: the schema the answer follows, or None.

    Attributes:
        ids: the answer so far; an end token is not among them.
        finish_reason: None while the answer goes on.
        chooser: draws from the request's own generator.
    """

    def __init__(
        self,
        generation: GenerationSettings,
        tokenizer: Tokenizer,
        *,
        eos_ids: Collection[int],
        repetition_penalty: float,
        constraint: SchemaConstraint | None = None,
    ) -> None:
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.chooser = TokenChooser(generation, repetition_penalty)
        self._generation = generation
        self._tokenizer = tokenizer
        self._eos_ids = frozenset(eos_ids)
        self._constraint = constraint
        self._stream = TextStream(tokenizer)
        self._stop = StopText(generation.stop)
        # A list of equal objects, one per frame, is a loop to the guard and a good typed answer.
        guarded = generation.loop_guard and constraint is None
        self._guard = LoopGuard() if guarded else None
        self._pieces: list[str] = []
        self._choice: str | None = None

    @property
    def is_free(self) -> bool:
        """Whether any token may come next: what a device may then choose alone."""
        return self._constraint is None

    @property
    def text(self) -> str:
        """The text shown so far; the whole answer once it has ended."""
        return "".join(self._pieces)

    @property
    def parsed(self) -> Any:
        """The value of a typed answer; None when it is free or was cut short."""
        if self._choice is not None:
            return self._choice
        if self._constraint is None or not self._constraint.is_complete or self._stop.stopped:
            return None
        return json.loads(self.text)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader should know of how the answer ended."""
        if self.finish_reason == "loop":
            looped: tuple[str, ...] = ("the answer repeated itself and was stopped.",)
        else:
            looped = ()
        is_typed = self._choice is not None or self._constraint is not None
        if is_typed and self.parsed is None:
            return (*looped, f"the typed answer is not complete after {len(self.ids)} tokens.")
        return looped

    def write(self, logits: Tensor) -> str:
        """Choose the next token; return the text that may be shown now, perhaps "".

        Args:
            logits: (vocab,) float32, finite.

        Raises:
            ConfigError: the schema's grammar hit its limits.
        """
        constraint = self._constraint
        allowed = constraint.allowed(logits.device) if constraint else None
        return self._push(self.chooser.next_token(logits, self.ids, allowed))

    def write_chosen(self, token_id: int) -> str:
        """Take a token that was chosen elsewhere, by the rules of `chooser`; else as `write`."""
        self.chooser.skip()
        return self._push(token_id)

    def write_choice(self, choice: str, ids: list[int]) -> str:
        """Write a whole chosen answer."""
        self._choice = choice
        self.ids = ids
        self.finish_reason = "stop"
        return self._show(choice)

    def end(self, reason: FinishReason) -> str:
        """End the answer; return the rest of its text."""
        self.finish_reason = reason
        rest = self._stop.push(self._stream.finish())
        return self._show(rest + self._stop.finish())

    def _push(self, token_id: int) -> str:
        constraint = self._constraint
        if token_id in self._eos_ids:
            if constraint:
                constraint.end()
            return self.end("stop")
        self.ids.append(token_id)
        piece = self._show(self._stop.push(self._stream.push(token_id)))
        if constraint:
            constraint.push(token_id)
        reason = self._reason(token_id)
        return piece if reason is None else piece + self.end(reason)

    def _show(self, piece: str) -> str:
        self._pieces.append(piece)
        return piece

    def _reason(self, token_id: int) -> FinishReason | None:
        if self._stop.stopped or (self._constraint and self._constraint.is_complete):
            return "stop"
        if self._guard and self._guard.push(token_id):
            return "loop"
        return "length" if len(self.ids) >= self._generation.max_new_tokens else None
