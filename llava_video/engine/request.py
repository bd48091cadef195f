"""What an engine is asked and what it tells: requests, events, answers, and the engine's interface.

A request is a list of parts in the order of the prompt; its visuals are plans with a way to get
their frames, so a request holds no pixels. Knows no model, no cache and no scheduler.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llava_video.engine.elements import Element, VisualRun
from llava_video.engine.settings import GenerationSettings
from llava_video.errors import ConfigError
from llava_video.model.prompt import Turn
from llava_video.values import Clip, FinishReason, KvFormat, VisualPlan

if TYPE_CHECKING:
    # It holds tensors; who asks a server has no torch.
    from llava_video.engine.sequence import Sequence

Stage = Literal["vision", "prefill", "generate"]


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text tokens of the prompt."""

    ids: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt that it makes."""
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualPart:
    """One video or picture of the prompt.

    Attributes:
        plan: how it becomes visual tokens.
        clips: returns its frames, in order, in pieces; called once, and not at all when the cache
            holds the visual already.
        key: names the rows it gives; equal keys must mean equal pixels and plans.
    """

    plan: VisualPlan
    clips: Callable[[], Iterator[Clip]] = field(repr=False)
    key: str

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt that it makes."""
        return self.plan.num_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedPart:
    """A whole prompt about one visual, for a model that fuses the two (LLaVA-Mini).

    Every row depends on all frames and on all words, so a cache holds all of it or nothing: it is
    one visual to it, whose key names the words too.

    Attributes:
        before: ids before the visual.
        visual: the visual.
        after: ids after it.
        held_bytes: memory it takes beside its cache from its first frame until all its rows are
            read.
    """

    before: tuple[int, ...]
    visual: VisualPart
    after: tuple[int, ...]
    held_bytes: int

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt that it makes."""
        return len(self.before) + self.visual.num_tokens + len(self.after)

    @property
    def key(self) -> str:
        """What names its rows."""
        words = repr((self.before, self.visual.key, self.after))
        return hashlib.sha256(words.encode()).hexdigest()


Part = TextPart | VisualPart | FusedPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One answer to be made.

    Attributes:
        parts: the prompt, in order; at least one token in all. A `FusedPart` is alone.
        generation: how to answer.
        request_id: names the request in its events; unique within one `run`.
        position_scale: positions are index / position_scale, on top of the checkpoint's own scale.
        kv_format: how its keys and values are stored.
        reuse: a kept sequence; the longest prefix it shares with this prompt is not computed again.
            It stays the caller's, unchanged. None lets the engine use what it kept itself.
        keep: return the answer's sequence; the caller releases it.
        cancelled: asked before every step, from any thread; True ends the answer there.
        turns: the conversation that the parts were made of, a mark in it for every visual; for
            engines that make prompts their own way, () where the model runs here.
    """

    parts: tuple[Part, ...]
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    request_id: int = 0
    position_scale: float = 1.0
    kv_format: KvFormat = "plain"
    reuse: "Sequence | None" = None
    keep: bool = False
    cancelled: Callable[[], bool] = field(default=_never, repr=False)
    turns: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        if not self.elements():
            raise ConfigError(
                f"request {self.request_id} has an empty prompt.", "give it at least one token."
            )
        if not self.position_scale > 0.0:
            raise ConfigError(f"position_scale = {self.position_scale!r}.", "above 0; 1 for none.")
        if self.is_fused and len(self.parts) > 1:
            raise ConfigError(
                f"request {self.request_id} has {len(self.parts)} parts, one of them fused.",
                "a visual that is fused with its prompt is one part with all of it.",
            )

    @property
    def is_fused(self) -> bool:
        """Whether the prompt is one that is fused with its visual."""
        return any(isinstance(part, FusedPart) for part in self.parts)

    @property
    def held_bytes(self) -> int:
        """Memory it takes beside its cache while its prompt is fused and read."""
        return sum(part.held_bytes for part in self.parts if isinstance(part, FusedPart))

    @property
    def visuals(self) -> tuple[VisualPart, ...]:
        """The visuals of the prompt, in order."""
        found = (part.visual if isinstance(part, FusedPart) else part for part in self.parts)
        return tuple(part for part in found if isinstance(part, VisualPart))

    @property
    def text_ids(self) -> tuple[int, ...]:
        """The text tokens of the prompt, in order."""
        ids: list[int] = []
        for part in self.parts:
            if isinstance(part, TextPart):
                ids += part.ids
            elif isinstance(part, FusedPart):
                ids += (*part.before, *part.after)
        return tuple(ids)

    @property
    def text_tokens(self) -> int:
        """Text tokens of the prompt."""
        return sum(part.num_tokens for part in self.parts) - self.visual_tokens

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of the prompt."""
        return sum(visual.num_tokens for visual in self.visuals)

    def elements(self) -> list[Element]:
        """Return the prompt as a cache names it: ids, and whole visuals or fused prompts."""
        elements: list[Element] = []
        for part in self.parts:
            if isinstance(part, TextPart):
                elements.extend(part.ids)
            else:
                elements.append(VisualRun(part.key, part.num_tokens))
        return elements


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request gave.

    Attributes:
        text: the answer, without special tokens, stripped.
        token_ids: the generated ids; the end token that closed the answer is not among them.
        finish_reason: "stop" (an end token, a stop string, or a typed answer that is complete),
            "length", "loop" or "cancelled".
        text_tokens: text tokens of the prompt.
        visual_tokens: visual tokens of the prompt.
        new_tokens: length of `token_ids`; of a server, by its own count.
        reused_tokens: first tokens of the prompt that were taken from the cache, from
            `Request.reuse` or from what an earlier request left; visuals among them were not made.
        parsed: the value of a typed answer: the chosen text, or what the JSON says; None when the
            answer is free or was cut short.
        confidence: with choices, the chosen one's probability among them, 0..1; else None.
        warnings: what the reader should know before believing the text.
        timings: seconds: "wait" before the request began, "vision" (decoding and encoding its
            frames), "prefill" (the rest up to the first token), "generate".
        sequence: the kept sequence; None unless `Request.keep`, or when the request was cancelled
            before its prompt was read.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    text_tokens: int
    visual_tokens: int
    new_tokens: int
    reused_tokens: int = 0
    parsed: Any = None
    confidence: float | None = None
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    sequence: "Sequence | None" = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a request is: frames for "vision", tokens for "prefill" and "generate"."""

    request_id: int
    stage: Stage
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class TextPiece:
    """The next characters of an answer; the pieces joined are `Answer.text`."""

    request_id: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a request that was answered."""

    request_id: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a request that was not; the other requests go on."""

    request_id: int
    error: Exception


Event = Progress | TextPiece | Finished | Failed


class Engine(Protocol):
    """What answers requests: the scheduler over a model, the oracle, a server elsewhere."""

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answer requests; their events come interleaved, each request's in order."""
        ...


def answer_of(engine: Engine, request: Request) -> Answer:
    """Run one request to its answer.

    Raises:
        Exception: the request's own error.
    """
    for event in engine.run([request]):
        if isinstance(event, Finished):
            return event.answer
        if isinstance(event, Failed):
            raise event.error
    raise AssertionError("an engine ended without finishing its request")
