"""A stream's cache: the first tokens for ever, the last frames, and positions without a gap.

Notation, in tokens: S sinks (the prompt up to the first frame), n_f rows of frame f (its newlines
among them, never split), W frames of window. When frame t is read, or a question after it, what it
sees is
    sinks 0 .. S - 1, then the rows of frames t - W + 1 .. t, then the question's own rows
and of m such rows in that order the j-th has position j, 0 <= j < m, whatever t is. A cached row is
never computed again: its keys and values are of the window that it saw itself.
Source: Xiao et al. 2023, StreamingLLM (arXiv 2309.17453), section 3.2: the first tokens stay, and
positions are those within the cache. There the unit that leaves is a token; here it is a frame.

How positions move without touching the window. A score depends on the difference of two indices
alone (`model/sinks`). Frames' rows keep the index they were written at, for ever; the index of the
next one grows by n_f a frame, exactly (2^63: 46 million years of 30 frames of 210 tokens a second).
When D tokens have left, the sinks are stored anew at the indices D .. D + S - 1, right before the
window: every difference is that of the positions above. The other ways, and why not:
    rotate the window's keys back   W n_f rows a step instead of S, and a bfloat16 key loses 2^-9 of
                                    itself each time: after 10,000 slides noise; int8 the same
    store keys without rotation     every read rotates all of them, in every kernel and format
    this one                        S rows a step (14 of LLaVA-Video's), each time from the keys as
                                    the layer made them: bit for bit a fresh write, no drift
Cost of a step at a full window: the frame's rows over at most S + W n_f tokens, a constant. Memory:
S + W n_f places and one frame more while it is read, in places that are used again.

A question is a branch: it forks the sequence, and its rows and answer are given back at its end.
The sinks of a slide stand in new places, so a branch that was forked before sees what it saw.

The models were trained on whole clips, not on rows that saw frames which have left. `docs/live.md`
says when plain rolling windows are right. Knows no pixels, no prompt's words and no clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from llava_video.engine.arena import Arena
from llava_video.engine.elements import Element, VisualRun, tokens_of
from llava_video.engine.request import Engine, Request, VisualPart, answer_of
from llava_video.engine.scheduler import Scheduler
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.engine.settings import GenerationSettings
from llava_video.errors import BudgetError, ConfigError
from llava_video.model.sinks import Sinks
from llava_video.values import KvFormat

# A prompt's last logits choose a token that nobody asked for and that is never computed.
_NOTHING: Final = GenerationSettings(max_new_tokens=1, loop_guard=False)
# Frames of room beside the window in the slab that is made for it: the one that is read, one whose
# places were given back in two pieces, and some for questions.
_SPARE_FRAMES: Final = 4


@dataclass(frozen=True, slots=True)
class _Onward:
    """What a request of a stream goes on from; see `Beginning`.

    Attributes:
        sinks: the stream's first tokens.
        held: the stream so far; None before its first frame.
        num_leaving: oldest frames that the request does not see.
        wanted_tokens: places of a slab that is made for the stream.
    """

    sinks: Sinks
    held: KvSequence | None
    num_leaving: int = 0
    wanted_tokens: int = 0

    @property
    def elements(self) -> tuple[Element, ...]:
        """The sinks and the frames that are seen."""
        if self.held is None:
            return self.sinks.ids
        num_sinks = len(self.sinks.ids)
        return self.sinks.ids + self.held.elements[num_sinks + self.num_leaving :]

    def begin(self, arena: Arena) -> KvSequence:
        """See `Beginning.begin`."""
        if self.held is None:
            return self._first(arena)
        if not self.held.is_in(arena):
            raise ConfigError("the window is another engine's.", "ask the window's own engine.")
        sequence = self.held.fork()
        if not self.num_leaving:
            return sequence
        try:
            self._slide(sequence, arena)
        except BaseException:
            sequence.release()
            raise
        return sequence

    def _first(self, arena: Arena) -> KvSequence:
        sinks = self.sinks
        sequence = KvSequence(arena, position_scale=sinks.position_scale, kv_format=sinks.kv_format)
        num_tokens = len(sinks.ids)
        sequence.reserve(num_tokens, wanted_tokens=self.wanted_tokens)
        sinks.write(arena, sequence.writable(num_tokens), 0)
        sequence.append(num_tokens, completes=sinks.ids)
        return sequence

    def _slide(self, sequence: KvSequence, arena: Arena) -> None:
        num_sinks = len(self.sinks.ids)
        leaving = sequence.elements[num_sinks : num_sinks + self.num_leaving]
        num_left = sequence.next_idx - sequence.num_tokens + tokens_of(leaving)
        near = sequence.past[-1].slab_idx
        moved = arena.reserve(num_sinks, self.sinks.kv_format, near=near)
        self.sinks.write(arena, moved.span, num_left)
        sequence.drop_oldest(self.num_leaving, num_sinks=num_sinks, moved=moved)


class SlidingWindow:
    """The cache of one stream, a context manager; frames and questions come one at a time.

    Args:
        engine: computes rows and answers; the scheduler of a loaded model.
        ids: the S tokens before the first frame.
        num_frames: W, frames that are seen at once.
        context_tokens: most tokens a frame may see, itself among them; None for no limit.
        position_scale: positions are index / position_scale.
        kv_format: how keys and values are stored.

    Raises:
        CapacityError: there is no memory for the first tokens.
        ConfigError: no ids, no frames, or an engine without a cache or with float32 angles.
    """

    def __init__(
        self,
        engine: Engine,
        ids: Sequence[int],
        *,
        num_frames: int,
        context_tokens: int | None = None,
        position_scale: float = 1.0,
        kv_format: KvFormat = "plain",
    ) -> None:
        if num_frames < 1:
            raise ConfigError(f"num_frames = {num_frames}.", "a window of at least 1 frame.")
        if not isinstance(engine, Scheduler):
            raise ConfigError(
                f"a {type(engine).__name__} keeps no cache of a stream.",
                "a model that was loaded, or whole clips of the last frames.",
            )
        self.num_frames = num_frames
        self._engine = engine
        self._context_tokens = context_tokens
        self._sinks = engine.read_sinks(ids, position_scale=position_scale, kv_format=kv_format)
        self._held: KvSequence | None = None

    @property
    def frame_keys(self) -> tuple[str, ...]:
        """Keys of the frames that a question would see, oldest first."""
        return tuple(run.key for run in self._frames)

    @property
    def num_tokens(self) -> int:
        """Tokens that a question would see, its own not among them."""
        return self._held.num_tokens if self._held else len(self._sinks.ids)

    @property
    def sequence(self) -> KvSequence | None:
        """The stream's tokens; the window's own, another one after the next frame."""
        return self._held

    def add(self, frame: VisualPart) -> None:
        """Read the next frame; where the window is full the oldest leaves first.

        When something is raised the window is as it was.

        Args:
            frame: a visual of one frame.

        Raises:
            BudgetError: a full window of such frames is longer than the context.
            CapacityError: there is no memory now.
            ConfigError: it is of more frames than one.
            Exception: whatever reading the frame raises.
        """
        self._check(frame)
        sinks, frames = self._sinks, self._frames
        onward = _Onward(
            sinks,
            self._held,
            num_leaving=max(0, len(frames) + 1 - self.num_frames),
            wanted_tokens=2 * len(sinks.ids) + (self.num_frames + _SPARE_FRAMES) * frame.num_tokens,
        )
        request = Request(
            parts=(frame,),
            generation=_NOTHING,
            position_scale=sinks.position_scale,
            kv_format=sinks.kv_format,
            after=onward,
            keep=True,
        )
        read = answer_of(self._engine, request).sequence
        self.close()
        self._held = read

    def branch(self, request: Request) -> Request:
        """Return a request whose parts follow the window's last frame; the window stays as it is.

        Several may run at once. They have to end before the next frame is added.

        Args:
            request: whose parts are what comes after the frames; what it reuses is left out.

        Raises:
            ConfigError: no frame was added yet.
        """
        if self._held is None:
            raise ConfigError("no frame was added yet.", "add one, then ask.")
        return replace(
            request,
            position_scale=self._sinks.position_scale,
            kv_format=self._sinks.kv_format,
            reuse=None,
            after=_Onward(self._sinks, self._held),
        )

    def close(self) -> None:
        """Give back the frames' memory; the next frame would be a first one."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def _frames(self) -> list[VisualRun]:
        elements = self._held.elements if self._held else ()
        return [element for element in elements if isinstance(element, VisualRun)]

    def _check(self, frame: VisualPart) -> None:
        if frame.plan.num_frames != 1 or frame.plan.is_fused:
            raise ConfigError(
                f"a visual of {frame.plan.num_frames} frames, fused: {frame.plan.is_fused}.",
                "one frame at a time, of a model whose frames have rows of their own.",
            )
        num_sinks, have = len(self._sinks.ids), self._context_tokens
        need = num_sinks + self.num_frames * frame.num_tokens
        if have is not None and need > have:
            alone = num_sinks + frame.num_tokens
            num = 1 if alone > have else self.num_frames
            need = num_sinks + num * frame.num_tokens
            raise BudgetError(
                f"{num_sinks} tokens and {num} frame(s) of {frame.num_tokens} need {need} tokens, "
                f"the context holds {have}.",
                "a window of fewer frames, or a larger pool_stride.",
                need,
                have,
            )
