"""Frames of a stream, one after another → answers about the last of them, at a cost that stays.

The loaded model's side of `engine/sliding`: frames in as pixels and times, questions over the
window in words, `Description`s out. The prompt before the first frame is read once, each frame
once, and each question on a branch that is dropped. The model is told the window's own times, from
0 at its oldest frame, as it would be told of a clip of these frames; a `Description` names the
stream's. Holds no pixels but those of the frame that is read. Decodes nothing and alerts nobody.
"""

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, Self, Unpack

import numpy as np
import numpy.typing as npt

from llava_video.engine.request import Answer, Engine, Request, VisualPart
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.engine.sliding import SlidingWindow
from llava_video.errors import BudgetError, ConfigError, LlavaVideoError
from llava_video.exchange import Exchange
from llava_video.inputs import OpenedVideo
from llava_video.model.prompt import Turn
from llava_video.model.spec import ModelSpec
from llava_video.options import PLAN_OPTIONS, Options, settings_of
from llava_video.planning.settings import SamplingSettings
from llava_video.preview import follow_up, make_plan
from llava_video.running import OnEvent, checked, descriptions_in_order
from llava_video.values import (
    Clip,
    Description,
    FrameRef,
    Newline,
    Plan,
    Segment,
    TokenUsage,
    VisualPlan,
)
from llava_video.video.decoder import open_decoder
from llava_video.video.evidence import Evidence, thumbnail
from llava_video.video.source import Source

_ANSWER_LENGTH: Final = "max_new_tokens"
_SAMPLING: Final = frozenset(field.name for field in dataclasses.fields(SamplingSettings)) | {
    "start",
    "end",
    "times",
    "sampling",
}
# Before the first frames say how far apart they are, s; only the length of a sentence is planned.
_SPACING_S: Final = 1.0


class LiveWindow:
    """The last frames of one stream, to be asked about; a context manager that frees its cache.

    One thread at a time: frames and questions follow one another. Several streams of one model each
    have a window and a thread of their own.

    Args:
        spec: the checkpoint's facts, `LlavaVideo.spec`.
        engine: its scheduler, `LlavaVideo.engine`.
        window_frames: frames of the window; the oldest leaves when another comes.
        longest: the longest question there will be; the window leaves room for it.
        on_event: called with every event of answers.
        **options: see `Options`: how frames fit, and the answers'. Which frames is the caller's.

    Raises:
        ConfigError: no frames, an option of sampling, or a model that fuses frames with the prompt.
        TypeError: an option is unknown.
    """

    def __init__(
        self,
        spec: ModelSpec,
        engine: Engine,
        *,
        window_frames: int,
        longest: str = "",
        on_event: OnEvent | None = None,
        **options: Unpack[Options],
    ) -> None:
        if window_frames < 1:
            raise ConfigError(f"window_frames = {window_frames}.", "a window of at least 1 frame.")
        if spec.geometry.compressed_side:
            raise ConfigError(
                f"{spec.name} fuses all frames with the prompt: no frame has rows that stay.",
                "ask() about the last frames as a clip.",
            )
        sampled = sorted(_SAMPLING & set(options))
        if sampled:
            raise ConfigError(
                f"{', '.join(sampled)}: a window sees the frames that are added.",
                "leave it out, and add fewer frames.",
            )
        self._settings = settings_of(options)
        self._options = options
        self._spec, self._engine, self._on_event = spec, engine, on_event
        self._num_frames, self._longest = window_frames, longest
        self._plan: Plan | None = None
        self._window: SlidingWindow | None = None
        self._seen: deque[FrameRef] = deque(maxlen=window_frames)
        self._thumbnails: deque[npt.NDArray[np.uint8]] = deque(maxlen=window_frames)
        self._num_added = 0

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        """The frames a question would see: their numbers in the stream, from 0, and times, s."""
        return tuple(self._seen)

    def add(self, frame: npt.NDArray[np.uint8], time_s: float) -> None:
        """Read the next frame.

        When something is raised the window is as it was.

        Args:
            frame: (H, W, 3) uint8 RGB, of the same size as the frames before.
            time_s: when it was seen, s, later than the frames before.

        Raises:
            BudgetError: the window, a question and an answer do not fit the context or the memory.
            CapacityError: there is no memory now.
            ConfigError: no such frame, a size or a time that does not follow, or a layout in which
                a frame's rows depend on its place.
        """
        _check_frame(frame, time_s)
        plan, window = self._opened(frame)
        visual = plan.visuals[0]
        if self._seen and time_s <= self._seen[-1].pts_s:
            raise ConfigError(
                f"a frame of {time_s} s after one of {self._seen[-1].pts_s} s.",
                "add frames in the order of time.",
            )
        if frame.shape[:2] != (visual.height_px, visual.width_px):
            raise ConfigError(
                f"a frame of {frame.shape[0]} x {frame.shape[1]} px (height x width) after frames "
                f"of {visual.height_px} x {visual.width_px}.",
                "begin a new window, or resize it.",
            )
        ref = FrameRef(self._num_added, time_s)
        window.add(_part_of(frame, ref, visual))
        self._seen.append(ref)
        self._thumbnails.append(thumbnail(frame))
        self._num_added += 1

    def ask(self, question: str, **options: Unpack[Options]) -> Description:
        """Ask about the window; it stays as it is.

        Args:
            question: not empty.
            **options: of the answer, over the window's own.

        Raises:
            BudgetError: the question leaves no room for the answer.
            CapacityError: there is no memory now.
            ConfigError: no frame yet, no question, or an option of the plan.
        """
        return checked(next(self.ask_each([(question, options)])))

    def ask_each(self, asked: Sequence[tuple[str, Options]]) -> Iterator[Description | Exception]:
        """Ask several questions about the window at once, each with its own kind of answer.

        Args:
            asked: questions, each with options of its own answer, such as `response_format`.

        Yields:
            One description per question, in their order; the error of one that failed in its place.
        """
        exchanges = (self._exchange(*one, idx) for idx, one in enumerate(asked))
        yield from descriptions_in_order(self._engine, exchanges, on_event=self._on_event)

    def close(self) -> None:
        """Give back the memory; the next frame begins a new window."""
        if self._window is not None:
            self._window.close()
        self._plan = self._window = None
        self._seen.clear()
        self._thumbnails.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _opened(self, frame: npt.NDArray[np.uint8]) -> tuple[Plan, SlidingWindow]:
        """Return the plan of a full window and its cache, made for the first frame."""
        if self._plan is None or self._window is None:
            plan = self._full_plan(frame)
            self._window = SlidingWindow(
                self._engine,
                _sink_ids(self._spec, plan),
                num_frames=self._num_frames,
                context_tokens=int(plan.context_tokens * plan.position_scale),
                position_scale=plan.position_scale,
                kv_format=plan.kv_format,
            )
            self._plan = plan
        return self._plan, self._window

    def _full_plan(self, frame: npt.NDArray[np.uint8]) -> Plan:
        times_s = [_SPACING_S * idx for idx in range(self._num_frames)]
        video = _video_of(frame.shape[0], frame.shape[1], times_s)
        turns = (Turn("user", _question(self._longest or "?")),)
        plan = make_plan(self._spec, [video], turns, self._settings)
        sampled = f"{times_s[0]:.2f} s to {times_s[-1]:.2f} s."
        plan = replace(plan, reasons=tuple(r for r in plan.reasons if not r.endswith(sampled)))
        visual = plan.visuals[0]
        if visual.num_frames < self._num_frames:
            raise BudgetError(
                f"a window of {self._num_frames} frames; {visual.num_frames} fit beside a question "
                f"and an answer of {plan.max_new_tokens} tokens.",
                f"window_frames={visual.num_frames}, a larger pool_stride, or a coarser kv_cache.",
                visual.num_tokens // visual.num_frames * self._num_frames,
                plan.budget_tokens,
            )
        if visual.newline is Newline.CLIP or visual.slow_every:
            layout = "slow-fast" if visual.slow_every else f"newline={visual.newline.value!r}"
            raise ConfigError(
                f"{layout}: a frame's rows depend on its place in the clip, and a window moves.",
                "newline='frame' or 'none', or ask() about the last frames as a clip.",
            )
        return plan

    def _exchange(self, question: str, options: Options, request_id: int) -> Exchange | Exception:
        """Return a question about the window as it is; an error where it cannot be asked."""
        try:
            return self._branch(question, options, request_id)
        except LlavaVideoError as error:
            return error

    def _branch(self, question: str, options: Options, request_id: int) -> Exchange:
        if not question.strip():
            raise ConfigError("the question is empty.", "ask something.")
        planned = sorted((PLAN_OPTIONS - {_ANSWER_LENGTH}) & set(options))
        if planned:
            raise ConfigError(
                f"the window's plan decides {', '.join(planned)}.", "open another window with it."
            )
        if self._plan is None or self._window is None or not self._seen:
            raise ConfigError("no frame was added yet.", "add one, then ask.")
        settings = settings_of({**self._options, **options})
        visual = self._plan.visuals[0]
        video = _video_of(visual.height_px, visual.width_px, [ref.pts_s for ref in self._seen])
        chosen = f"The last {len(self._seen)} of {self._num_added} frames of a stream."
        reasons = (chosen, *self._plan.reasons)
        now = replace(self._plan, visuals=(_visual_of(visual, video),), reasons=reasons)
        turns = (Turn("user", _question(question)),)
        plan = follow_up(self._spec, now, turns, settings)
        branch = _Branch(self._spec, plan, [video], settings, turns=turns, request_id=request_id)
        branch.go_on_from(self._window, self.frames, tuple(self._thumbnails))
        return branch


class _Branch(Exchange):
    """A question about a window: its frames are in the cache, and none is read."""

    def go_on_from(
        self,
        window: SlidingWindow,
        frames: Sequence[FrameRef],
        thumbnails: Sequence[npt.NDArray[np.uint8]],
    ) -> None:
        """Say where the frames are, which of the stream they were, and what they looked like."""
        self._window, self._frames = window, tuple(frames)
        own = [FrameRef(idx, time_s) for idx, time_s in enumerate(self.plan.visuals[0].times_s)]
        self.evidence = [Evidence.recalled(own, thumbnails)]

    def request(self, *, reuse: KvSequence | None = None, keep: bool = False) -> Request:
        """Return the words after the window's frames, on a branch of it."""
        whole = super().request()
        _, _, *rest = whole.parts  # what the window begins with, and its frames
        return self._window.branch(replace(whole, parts=tuple(rest)))

    def description(self, answer: Answer) -> Description:
        """As of a clip of the window's frames, with the stream's numbers and times."""
        told = super().description(answer)
        plan, first_s = self.plan, self._frames[0].pts_s
        usage = TokenUsage(
            plan.text_tokens, plan.visual_tokens, answer.new_tokens, answer.reused_tokens
        )
        coverage = tuple(Segment(s.start_s + first_s, s.end_s + first_s) for s in told.coverage)
        times_s = tuple(time_s + first_s for time_s in told.thumbnail_times_s)
        return replace(
            told,
            frames=self._frames,
            usage=usage,
            coverage=coverage,
            thumbnail_times_s=times_s,
        )


def _check_frame(frame: Any, time_s: float) -> None:
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
        found = getattr(frame, "shape", type(frame).__name__)
        raise ConfigError(f"a frame is {found}.", "(H, W, 3) uint8, RGB.")
    if frame.dtype != np.uint8 or not frame.size:
        raise ConfigError(f"a frame of {frame.dtype}, {frame.shape}.", "(H, W, 3) uint8, RGB.")
    if not np.isfinite(time_s):
        raise ConfigError(f"a frame of time {time_s}.", "seconds.")


def _question(words: str) -> str:
    """Return a question whose text says nothing of where the frames stand."""
    return words.replace("<image>", "< image >")


def _sink_ids(spec: ModelSpec, plan: Plan) -> tuple[int, ...]:
    first = spec.tokenizer.encode_prompt(plan.prompt)[0]
    return tuple(first) if isinstance(first, list) else ()


def _video_of(height_px: int, width_px: int, times_s: Sequence[float]) -> OpenedVideo:
    """Return a video of these times, from 0, without pixels: what a plan is made for."""
    own_s = np.asarray(times_s, dtype=np.float64) - times_s[0]
    frames = np.broadcast_to(np.zeros((1, 1, 1, 3), np.uint8), (len(own_s), height_px, width_px, 3))
    name = f"a window of {len(own_s)} frames, {width_px}x{height_px}"
    source = Source(kind="frames", name=name, frames=frames, times_s=own_s)
    sampling = SamplingSettings(times_s=tuple(own_s.tolist()))
    return OpenedVideo(
        source=source, decoder=open_decoder(source), identity=name, sampling=sampling
    )


def _visual_of(full: VisualPlan, video: OpenedVideo) -> VisualPlan:
    """Return the plan of a window as it is, of the plan of a full one."""
    times_s = tuple(video.decoder.info.pts_s.tolist())
    return replace(
        full,
        source=video.name,
        times_s=times_s,
        frame_idxs=tuple(range(len(times_s))),
        num_tokens=full.num_tokens // full.num_frames * len(times_s),
        duration_s=video.span.end_s,
        end_s=video.span.end_s,
    )


def _part_of(frame: npt.NDArray[np.uint8], ref: FrameRef, full: VisualPlan) -> VisualPart:
    """Return one frame as a visual, planned as in a full window."""
    plan = replace(
        full,
        times_s=(ref.pts_s,),
        frame_idxs=(ref.frame_idx,),
        num_tokens=full.num_tokens // full.num_frames,
    )

    def clips() -> Iterator[Clip]:
        yield Clip(frame[None], np.array([ref.pts_s]), np.array([ref.frame_idx]))

    return VisualPart(plan=plan, clips=clips, key=f"frame {ref.frame_idx}")
