"""The chunks of a server's reply → the pieces of an answer, and the answer.

A try that broke off is followed by another one: what was shown already is not shown again, and an
answer that then reads otherwise is no answer. Knows no connection.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from llava_video.engine.guard import LoopGuard
from llava_video.engine.remote_confidence import confidence_of
from llava_video.engine.remote_messages import CHOICE_FIELD
from llava_video.engine.request import Answer, Request
from llava_video.engine.stop import StopText
from llava_video.errors import ServerError
from llava_video.model.tokenizer import Tokenizer
from llava_video.values import FinishReason

# What servers call the end of an answer; "abort" and the like are no answer.
_REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
}
_ABORTS: Final = ("abort", "cancelled", "error")
# Characters of an answer that its longest length could be, and some more.
_MOST_TOKEN_CHARS: Final = 64
_MOST_MORE_CHARS: Final = 4096


class RemoteAnswer:
    """One answer on its way.

    Args:
        request: what was asked.
        tokenizer: counts what the server does not.
        is_wrapped: whether a choice comes inside of a JSON object.

    Attributes:
        is_over: whether no more of the reply is wanted.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, *, is_wrapped: bool) -> None:
        self.is_over = False
        self._request, self._tokenizer = request, tokenizer
        self._is_wrapped = is_wrapped and bool(request.generation.choices)
        self._told = ""
        self.begin()

    def begin(self) -> None:
        """Begin with nothing: a try of its own."""
        generation = self._request.generation
        self._stop = StopText(generation.stop)
        guarded = generation.loop_guard and generation.response_format is None
        self._guard = LoopGuard() if guarded else None
        self._shown, self._raw, self._reason = "", "", ""
        self._is_loop, self._num_pieces = False, 0
        self._tokens: list[Any] = []
        self._usage: Mapping[str, Any] = {}

    @property
    def num_tokens(self) -> int:
        """Tokens so far, as the server says, else by the number of pieces."""
        return _count(self._usage.get("completion_tokens")) or self._num_pieces

    def read(self, chunk: Mapping[str, Any]) -> str:
        """Take a chunk; return the text that may be shown now, perhaps "".

        Raises:
            ServerError: the answer was given up there, or reads otherwise than an earlier try's.
        """
        usage = chunk.get("usage")
        self._usage = usage if isinstance(usage, Mapping) else self._usage
        choice = next((one for one in chunk["choices"] if isinstance(one, Mapping)), {})
        inner = choice.get("delta") or choice.get("message")
        piece = inner.get("content") if isinstance(inner, Mapping) else None
        listed = choice.get("logprobs")
        if isinstance(listed, Mapping) and isinstance(listed.get("content"), list):
            self._tokens += listed["content"]
        reason = choice.get("finish_reason")
        self._reason = str(reason) if reason else self._reason
        if self._reason in _ABORTS:
            raise ServerError(f"the server ended the answer by {self._reason!r}.", "ask again.")
        return self._push(piece) if isinstance(piece, str) and piece else ""

    def end(self, *, cancelled: bool = False) -> str:
        """Say that nothing follows; return the rest of the text.

        Raises:
            ServerError: an earlier try had said more.
        """
        is_choice = bool(self._request.generation.choices)
        rest = self._show(self._choice or self._raw.strip() if is_choice else self._stop.finish())
        if self._shown != self._told:
            if not cancelled:
                raise _another_answer()
            self._shown = self._told
        return rest

    def answer(self, timings: dict[str, float], *, reused_tokens: int, cancelled: bool) -> Answer:
        """Return the answer.

        Args:
            timings: seconds per stage.
            reused_tokens: prompt tokens up to the end of visuals that were not decoded again.
            cancelled: whether it was cut short by the caller.
        """
        asked, usage = self._request.generation, self._usage
        reason = "cancelled" if cancelled else self._finish_reason
        is_whole = reason == "stop" and not self._stop.stopped
        parsed, warnings = None, [*self._warnings(reason)]
        if asked.choices:
            parsed = self._choice if is_whole else None
        elif asked.schema is not None and is_whole:
            parsed = _parsed(self._shown)
        if asked.response_format is not None and parsed is None:
            warnings.append(f"the server's typed answer is not complete: {self._shown[:200]!r}.")
        prompt_tokens = _count(usage.get("prompt_tokens"))
        text_tokens = self._request.text_tokens
        details = usage.get("prompt_tokens_details")
        cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
        ids = self._tokenizer.encode(self._shown) if self._shown else []
        return Answer(
            text=self._shown,
            token_ids=tuple(ids),
            finish_reason=reason,
            text_tokens=text_tokens,
            visual_tokens=(
                max(0, prompt_tokens - text_tokens)
                if prompt_tokens
                else self._request.visual_tokens
            ),
            new_tokens=_count(usage.get("completion_tokens")) or len(ids),
            reused_tokens=max(cached, reused_tokens),
            parsed=parsed,
            confidence=self._confidence() if isinstance(parsed, str) and asked.choices else None,
            warnings=tuple(warnings),
            timings=timings,
        )

    @property
    def _finish_reason(self) -> FinishReason:
        if self._is_loop:
            return "loop"
        if self._stop.stopped:
            return "stop"
        return "length" if self.is_over else _REASONS.get(self._reason, "stop")

    @property
    def _choice(self) -> str | None:
        """The choice that was made; None where it is none of them."""
        said: Any = self._raw.strip()
        if self._is_wrapped:
            value = _parsed(said)
            said = value.get(CHOICE_FIELD) if isinstance(value, Mapping) else said
        if not isinstance(said, str):
            return None
        choices = self._request.generation.choices
        if said in choices:
            return said
        alike = [choice for choice in choices if choice.casefold() == said.strip().casefold()]
        return alike[0] if len(alike) == 1 else None

    def _confidence(self) -> float | None:
        choices = self._request.generation.choices
        if not self._is_wrapped:
            return confidence_of(self._tokens, choices)
        raw = self._raw.lstrip()
        written = json.dumps(self._choice, ensure_ascii=False)
        start = raw.find(written)
        if start < 0:  # escaped in another way
            return None
        opening = raw[:start]
        return confidence_of(
            self._tokens, [opening + json.dumps(one, ensure_ascii=False) for one in choices]
        )

    def _push(self, piece: str) -> str:
        self._raw += piece
        self._num_pieces += 1
        longest = self._request.generation.max_new_tokens * _MOST_TOKEN_CHARS + _MOST_MORE_CHARS
        self.is_over = len(self._raw) > longest
        if self._request.generation.choices:
            return ""  # shown at once, when it is known to be one
        shown = self._stop.push(piece)
        guard = self._guard
        if guard and any(guard.push(token_id) for token_id in self._tokenizer.encode(piece)):
            self._is_loop = True
        self.is_over = self.is_over or self._is_loop or self._stop.stopped
        return self._show(shown)

    def _show(self, piece: str) -> str:
        """Return what of a piece was not told by an earlier try."""
        self._shown += piece
        if not self._told.startswith(self._shown):
            if not self._shown.startswith(self._told):
                raise _another_answer()
            more, self._told = self._shown[len(self._told) :], self._shown
            return more
        return ""

    def _warnings(self, reason: FinishReason) -> Sequence[str]:
        found = []
        if reason == "loop":
            found.append("the answer repeated itself and was stopped.")
        if self._reason and self._reason not in _REASONS:
            found.append(f"the server ended the answer by {self._reason!r}.")
        if not self._usage:
            found.append("the server told no usage: tokens of the prompt are the plan's.")
        return found


def _another_answer() -> ServerError:
    message = "the server broke its answer off, and began another one."
    return ServerError(message, "ask again.")


def _parsed(text: str) -> Any:
    """Return the value of a JSON text; None of one that is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
