"""The oracle: requests → true answers, read from the index bars of synthetic frames.

Stands behind the same interface as the scheduler and tells the same events, so that applications
prove their logic against a truth without a model. Every frame of a `world/bars.py` picture says
which one it is; the oracle reads them all and answers questions of this small grammar, wherever
they stand in the prompt, the last one counting, in any case:

    which indices           the indices in order of time         3, 4, 5        array
    how many frames         their number                         3              integer
    first index             the first one                        3              integer
    last index              the last one                         5              integer
    is index N shown        whether N is among them              yes            boolean
    when is index N shown   time of the first such frame, s      1.50 or never  number or null
    bits A to B             those of the last index, a number    2              integer
    is bit A set            whether it is, in the last index     yes            boolean
    anything else           one sentence with all of it                         string

With choices the answer is the choice that says the same, whatever its case, or the letter of the
line in the prompt, "B. 3" or "(B) 3", that does. With a JSON schema it is the value in the
right-hand column, or the text where the schema wants a string; of an object, the properties
`indices`, `count`, `first`, `last` and `description` are filled by their names and all others with
the answer. Ranges and patterns of a schema are not checked. Knows no model.
"""

import contextlib
import json
import re
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llava_video.engine.request import (
    Answer,
    Event,
    Failed,
    Finished,
    Progress,
    Request,
    TextPiece,
)
from llava_video.engine.stop import StopText
from llava_video.errors import ConfigError, DecodeError
from llava_video.model.tokenizer import TextStream, Tokenizer
from llava_video.values import FinishReason
from llava_video.world.bars import read_index

_QUESTION = re.compile(
    r"(?P<indices>which\s+indices)|(?P<count>how\s+many\s+frames)|(?P<first>first\s+index)"
    r"|(?P<last>last\s+index)|when\s+is\s+index\s+(?P<when>\d+)\s+shown"
    r"|is\s+index\s+(?P<shown>\d+)\s+shown"
    r"|bits\s+(?P<bits>\d\s+to\s+\d)|is\s+bit\s+(?P<bit>\d)\s+set",
    re.IGNORECASE,
)

_LETTERED = re.compile(r"^\(?([A-Z])[.)] *(.*?) *$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the frames of a request say."""

    idxs: tuple[int, ...]
    times_s: tuple[float, ...]

    def facts(self) -> dict[str, Any]:
        """Return what needs no number from the question, by name."""
        return {
            "indices": list(self.idxs),
            "count": len(self.idxs),
            "first": self.idxs[0] if self.idxs else None,
            "last": self.idxs[-1] if self.idxs else None,
            "description": self.describe(),
        }

    def answer(self, question: str) -> Any:
        """Return the value of the last question of the grammar in a text."""
        asked = list(_QUESTION.finditer(question))
        if not asked:
            return self.describe()
        found = asked[-1]
        kind = str(found.lastgroup)
        if kind == "shown":
            return int(found["shown"]) in self.idxs
        if kind == "when":
            wanted = int(found["when"])
            return next(
                (s for i, s in zip(self.idxs, self.times_s, strict=True) if i == wanted), None
            )
        if kind in ("bits", "bit"):
            low, *high = map(int, re.findall(r"\d", found[kind]))
            last = self.idxs[-1] if self.idxs else 0
            return _bits(last, low, high[0]) if high else bool(last >> low & 1)
        return self.facts()[kind]

    def describe(self) -> str:
        """Return one sentence."""
        if not self.idxs:
            return "No frame was shown."
        listed = ", ".join(map(str, self.idxs))
        span = f"{self.times_s[0]:.2f} s to {self.times_s[-1]:.2f} s"
        return f"{len(self.idxs)} frames from {span} show the indices {listed}."


class OracleEngine:
    """Answers from the truth; an `Engine` for tests and demonstrations.

    Keeps no cache: `Answer.sequence` is None, and frames are read anew for every request.

    Args:
        tokenizer: reads the prompt and counts the answer's tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answer requests one after another."""
        for request in requests:
            try:
                yield from self._answer(request)
            except Exception as error:  # noqa: BLE001 - one bad request must not end the others
                yield Failed(request.request_id, error)

    def _answer(self, request: Request) -> Iterator[Event]:
        started_s = time.perf_counter()
        seen = yield from _look(request)
        looked_s = time.perf_counter()
        if seen is None:
            text, value, confidence = "", None, None
        else:
            text, value, confidence = self._say(request, seen)
        ids, reason, pieces = self._cut(request, text)
        if seen is None:
            reason = "cancelled"
        for piece in pieces:
            yield TextPiece(request.request_id, piece)
        is_typed = request.generation.response_format is not None
        is_whole = reason == "stop" and "".join(pieces) == text
        answer = Answer(
            text="".join(pieces),
            token_ids=ids,
            finish_reason=reason,
            text_tokens=request.text_tokens,
            visual_tokens=request.visual_tokens,
            new_tokens=len(ids),
            parsed=value if is_typed and is_whole else None,
            confidence=confidence,
            warnings=() if is_whole or not is_typed else ("the typed answer is not complete.",),
            timings={
                "wait": 0.0,
                "vision": looked_s - started_s,
                "prefill": 0.0,
                "generate": time.perf_counter() - looked_s,
            },
        )
        yield Finished(request.request_id, answer)

    def _say(self, request: Request, seen: _Seen) -> tuple[str, Any, float | None]:
        """Return the answer's text, its typed value, and the confidence of a choice."""
        prompt = self._tokenizer.decode(request.text_ids)
        value = seen.answer(prompt)
        if request.generation.choices:
            said = {_text_of(value).casefold(), *_letters_of(_text_of(value), prompt)}
            for choice in request.generation.choices:
                if choice.casefold() in said:
                    return choice, choice, 1.0
            raise ConfigError(
                f"the answer is {_text_of(value)!r}, the choices are "
                f"{list(request.generation.choices)}.",
                "give a choice for every answer, or none.",
            )
        if request.generation.schema is not None:
            typed = _fit(request.generation.schema, value, seen.facts())
            return json.dumps(typed, ensure_ascii=False), typed, None
        return _text_of(value), value, None

    def _cut(self, request: Request, text: str) -> tuple[tuple[int, ...], FinishReason, list[str]]:
        """Cut a text at `max_new_tokens` and stop strings, as generation would."""
        stream, stop = TextStream(self._tokenizer), StopText(request.generation.stop)
        ids = self._tokenizer.encode(text)
        kept: list[int] = []
        pieces: list[str] = []
        for token_id in ids[: request.generation.max_new_tokens]:
            kept.append(token_id)
            pieces.append(stop.push(stream.push(token_id)))
            if stop.stopped:
                break
        pieces += [stop.push(stream.finish()), stop.finish()]
        reason: FinishReason = "stop" if stop.stopped or len(kept) == len(ids) else "length"
        return tuple(kept), reason, [piece for piece in pieces if piece]


def _bits(idx: int, low: int, high: int) -> int:
    """Return the number that the bits from `low` up to `high`, itself included, are."""
    return idx >> low & (1 << (high - low + 1)) - 1


def _look(request: Request) -> Generator[Event, None, _Seen | None]:
    """Read every frame of a request; return None when it was cancelled meanwhile."""
    num_frames = sum(visual.plan.num_frames for visual in request.visuals)
    idxs: list[int] = []
    times_s: list[float] = []
    for visual in request.visuals:
        for clip in visual.clips():
            if request.cancelled():
                return None
            idxs += [read_index(frame) for frame in clip.frames]
            times_s += clip.pts_s.tolist()
            yield Progress(request.request_id, "vision", len(idxs), num_frames)
    if len(idxs) != num_frames:
        raise DecodeError(f"{num_frames} frames were planned, {len(idxs)} came.", "plan again.")
    return None if request.cancelled() else _Seen(tuple(idxs), tuple(times_s))


def _letters_of(text: str, prompt: str) -> set[str]:
    """Return the letters, in lower case, of the lines of a prompt that say this."""
    lines = _LETTERED.findall(prompt)
    return {letter.casefold() for letter, line in lines if line.casefold() == text.casefold()}


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "never"
    if isinstance(value, float):
        return f"{value:.2f}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _fit(schema: Mapping[str, Any], value: Any, facts: Mapping[str, Any]) -> Any:
    """Shape an answer as a schema asks.

    Raises:
        ConfigError: the schema wants something the answer is not.
    """
    options = schema.get("anyOf") or schema.get("oneOf")
    kinds = schema.get("type")
    if options is None and isinstance(kinds, list):
        options = [{**schema, "type": kind} for kind in kinds]
    if options is not None:
        return _first_fit(options, value, facts)
    if "enum" in schema:
        return _member(schema["enum"], value)
    if kinds == "object":
        properties = schema.get("properties", {})
        return {name: _fit(sub, facts.get(name, value), facts) for name, sub in properties.items()}
    if kinds is None:
        return value
    return _plain(kinds, value)


def _first_fit(options: Iterable[Mapping[str, Any]], value: Any, facts: Mapping[str, Any]) -> Any:
    for option in options:
        with contextlib.suppress(ConfigError):
            return _fit(option, value, facts)
    raise ConfigError(
        f"no option of the schema fits the answer {value!r}.", "ask for another type."
    )


def _member(members: Iterable[Any], value: Any) -> Any:
    for member in members:
        if type(member) is type(value) and member == value:
            return member
        if isinstance(member, str) and member.casefold() == _text_of(value).casefold():
            return member
    raise ConfigError(f"the answer {value!r} is not in the schema's enum.", "list every answer.")


def _plain(kind: str, value: Any) -> Any:
    if kind == "string":
        return _text_of(value)
    if kind == "array":
        return value if isinstance(value, list) else [value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        "boolean": isinstance(value, bool),
        "number": is_number,
        "integer": is_number and value == int(value),
        "null": value is None,
    }
    if not fits.get(kind):
        raise ConfigError(
            f"the schema wants {kind!r}, the answer is {value!r}.", "ask for its type."
        )
    return int(value) if kind == "integer" else value
