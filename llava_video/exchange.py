"""One question and its answer: plan and opened visuals → engine request → description.

Turns the plan's prompt and visuals into the parts an engine runs, watches the frames that really
pass, and folds the engine's answer into a `Description`. Knows no scheduler and no weights.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import platform
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from llava_video import backends
from llava_video.config import to_mapping
from llava_video.engine.request import Answer, FusedPart, Part, Request, TextPart, VisualPart
from llava_video.engine.settings import GenerationSettings
from llava_video.errors import ConfigError
from llava_video.footage import footage_warnings
from llava_video.inputs import Opened, OpenedVideo, close_all, open_visuals
from llava_video.model.hub import commit_of
from llava_video.model.prompt import Turn
from llava_video.model.spec import ModelSpec
from llava_video.options import Settings
from llava_video.planning.memory import fused_bytes
from llava_video.preview import Prompt, follow_up, make_plan, spoken_turns, turns_of
from llava_video.seen import SeenVisuals
from llava_video.values import Clip, Description, Plan, Segment, TokenUsage, VisualPlan
from llava_video.video.ahead import read_ahead
from llava_video.video.evidence import Evidence

if TYPE_CHECKING:
    from llava_video.engine.sequence import Sequence as KvSequence

_PROVENANCE_PACKAGES = ("torch", "av", "decord", "transformers")


class Exchange:
    """One question on its way to an answer; a context manager that closes its visuals.

    Args:
        spec: the checkpoint's facts.
        plan: what will be done.
        opened: the plan's visuals, opened, in order; closed by `close`.
        settings: the request's settings.
        turns: the conversation the plan was made from; () when only the plan is known.
        request_id: names the request's events.
        seen: what was seen of visuals that the cache may hold already.
    """

    def __init__(
        self,
        spec: ModelSpec,
        plan: Plan,
        opened: Sequence[Opened],
        settings: Settings,
        *,
        turns: Sequence[Turn] = (),
        request_id: int = 0,
        seen: SeenVisuals | None = None,
    ) -> None:
        self.seen = seen or SeenVisuals()
        self.spec, self.plan, self.opened, self.settings = spec, plan, tuple(opened), settings
        self.turns, self.request_id = tuple(turns), request_id
        self.evidence = [Evidence(visual.num_frames) for visual in plan.visuals]
        # What was wanted before any frame was lost: coverage has its gaps there.
        self._asked = plan.visuals
        self._visual_stops: list[int] = []  # prompt tokens up to the end of each visual
        self._started_s = time.perf_counter()
        self._decode_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def follow(self, turns: Sequence[Turn], settings: Settings, request_id: int = 0) -> "Exchange":
        """Ask something else of the same visuals: what was opened, planned and seen is shared.

        Raises:
            BudgetError: the words leave no room for the answer.
        """
        plan = follow_up(self.spec, self.plan, turns, settings)
        other = Exchange(
            self.spec,
            plan,
            self.opened,
            settings,
            turns=turns,
            request_id=request_id,
            seen=self.seen,
        )
        other._asked = self._asked
        if plan.reusable_prefix:  # otherwise it looks at all frames itself
            other.evidence = self.evidence
        return other

    def take_frames_of(self, other: "Exchange") -> None:
        """Share the plan and the frames of an exchange that had to leave frames out."""
        self.plan, self.opened, self.evidence = other.plan, other.opened, other.evidence

    def drop_lost_frames(self) -> bool:
        """Plan again with only the frames that the decoder gave, when it gave some but not all.

        Returns:
            Whether there is something new to try.
        """
        counts = [len(evidence.frames) for evidence in self.evidence]
        planned = [visual.num_frames for visual in self.plan.visuals]
        if not self.turns or not all(counts) or counts == planned:
            return False
        self.opened = tuple(
            visual.only_at([ref.pts_s for ref in evidence.frames])
            for visual, evidence in zip(self.opened, self.evidence, strict=True)
        )
        plan = make_plan(self.spec, self.opened, self.turns, self.settings)
        lost = f"{sum(planned) - sum(counts)} of {sum(planned)} frames cannot be decoded"
        self.plan = dataclasses.replace(
            plan, warnings=(*plan.warnings, f"{lost}; they are left out.")
        )
        self.evidence = [Evidence(visual.num_frames) for visual in self.plan.visuals]
        return True

    def request(self, *, reuse: "KvSequence | None" = None, keep: bool = False) -> Request:
        """Make the engine's request: the prompt's text ids with the visuals at their marks.

        Raises:
            ConfigError: a model that fuses its prompt with a visual is shown more than one.
        """
        parts: list[Part] = []
        self._visual_stops, num_tokens = [], 0
        for piece in self.spec.tokenizer.encode_prompt(self.plan.prompt):
            if isinstance(piece, list):
                parts.append(TextPart(tuple(piece)))
                num_tokens += len(piece)
            else:
                part = self._visual_part(len(self._visual_stops))
                parts.append(part)
                num_tokens += part.plan.num_tokens
                self._visual_stops.append(num_tokens)
        if any(visual.is_fused for visual in self.plan.visuals):
            held_bytes = fused_bytes(self.spec.geometry, self.spec.setup, self.plan)
            parts = [_fused(parts, held_bytes)]
        return Request(
            parts=tuple(parts),
            generation=self._generation(),
            request_id=self.request_id,
            position_scale=self.plan.position_scale,
            kv_format=self.plan.kv_format,
            reuse=reuse,
            keep=keep,
            turns=spoken_turns(self.spec, self.plan, self.turns) if self.spec.server else (),
        )

    def description(self, answer: Answer) -> Description:
        """Fold the engine's answer and what was seen, now or earlier, into the result."""
        self._recall(answer.reused_tokens)
        frames = tuple(ref for evidence in self.evidence for ref in evidence.frames)
        timings = dict(answer.timings) | {
            "decode": self._decode_s,
            "total": time.perf_counter() - self._started_s,
        }
        thumbnails, thumbnail_times_s = self._thumbnails()
        return Description(
            text=answer.text,
            parsed=answer.parsed,
            confidence=answer.confidence,
            plan=self.plan,
            frames=frames,
            usage=TokenUsage(
                answer.text_tokens, answer.visual_tokens, answer.new_tokens, answer.reused_tokens
            ),
            finish_reason=answer.finish_reason,
            coverage=self._coverage(),
            warnings=self._warnings(answer),
            timings=timings,
            provenance=self._provenance(),
            thumbnails=thumbnails,
            thumbnail_times_s=thumbnail_times_s,
        )

    def close(self) -> None:
        """Close the visuals."""
        close_all(self.opened)

    def _recall(self, reused_tokens: int) -> None:
        """Remember what was seen; of visuals that the cache held already, recall it."""
        for idx, stop in enumerate(self._visual_stops):
            key, evidence = self._key(idx), self.evidence[idx]
            if evidence.frames:
                self.seen.remember(key, evidence)
            elif stop <= reused_tokens:
                self.evidence[idx] = self.seen.recall(key, self.plan.visuals[idx])

    def _visual_part(self, idx: int) -> VisualPart:
        visual, plan, evidence = self.opened[idx], self.plan.visuals[idx], self.evidence[idx]

        def clips() -> Iterator[Clip]:
            decoded = self._timed(visual.clips(plan))
            # A picture is there already: there is nothing to do ahead.
            is_video = isinstance(visual, OpenedVideo)
            with contextlib.closing(read_ahead(decoded) if is_video else decoded) as ready:
                yield from evidence.watch(ready)

        return VisualPart(plan=plan, clips=clips, key=self._key(idx))

    def _generation(self) -> GenerationSettings:
        """Return how to answer: a free answer ends where the template ends it, too."""
        asked = self.settings.generation
        if asked.response_format is not None:
            return asked
        return dataclasses.replace(asked, stop=(*asked.stop, *self.spec.end_texts))

    def _key(self, idx: int) -> str:
        return _visual_key(self.opened[idx].identity, self.plan.visuals[idx])

    def _timed(self, clips: Iterator[Clip]) -> Generator[Clip]:
        """Count the decoder's own seconds, in the thread that it runs in."""
        while True:
            before_s = time.perf_counter()
            clip = next(clips, None)
            self._decode_s += time.perf_counter() - before_s
            if clip is None:
                return
            yield clip

    def _coverage(self) -> tuple[Segment, ...]:
        """Return the spans that the seen frames of each video stand for, s."""
        spans: list[Segment] = []
        for visual, asked, evidence in zip(self.opened, self._asked, self.evidence, strict=True):
            if isinstance(visual, OpenedVideo):
                times_s = visual.decoder.info.pts_s[list(asked.frame_idxs)].tolist()
                spans += evidence.coverage(asked.frame_idxs, times_s, asked.end_s or 0.0)
        return tuple(spans)

    def _warnings(self, answer: Answer) -> tuple[str, ...]:
        seen = [warning for evidence in self.evidence for warning in evidence.warnings()]
        faults = [
            f"{visual.name}: {fault}"
            for visual in self.opened
            if isinstance(visual, OpenedVideo)
            for fault in visual.decoder.info.faults
        ]
        names = [visual.name for visual in self.opened]
        unlike = footage_warnings(self.spec.card, names, self.evidence)
        found = (*self.plan.warnings, *unlike, *faults, *seen, *answer.warnings)
        return tuple(dict.fromkeys(found))

    def _provenance(self) -> dict[str, Any]:
        readers = [
            {
                "source": visual.name,
                "identity": visual.identity,
                "reader": visual.decoder.backend,
                "reason": visual.decoder.reason,
            }
            for visual in self.opened
            if isinstance(visual, OpenedVideo)
        ]
        server = self.spec.server
        return {
            "model": self.spec.name,
            "revision": commit_of(self.spec.folder) or self.spec.revision
            if server is None
            else None,
            "seed": self.settings.generation.seed,
            "videos": readers,
            **({} if server is None else {"server": server.to_mapping()}),
            "python": platform.python_version(),
            **_versions(),
        }

    def _thumbnails(self) -> tuple[npt.NDArray[np.uint8] | None, tuple[float, ...]]:
        """Return the thumbnails of all visuals, in order, in cells of one size."""
        sheets = [e.thumbnails for e in self.evidence if e.thumbnails is not None]
        if not sheets:
            return None, ()
        height_px, width_px = (max(sheet.shape[axis] for sheet in sheets) for axis in (1, 2))
        cells = np.zeros((sum(map(len, sheets)), height_px, width_px, 3), np.uint8)
        start = 0
        for sheet in sheets:
            stop = start + len(sheet)
            cells[start:stop, : sheet.shape[1], : sheet.shape[2]] = sheet
            start = stop
        return cells, tuple(time_s for e in self.evidence for time_s in e.thumbnail_times_s)


def open_exchange(
    spec: ModelSpec,
    video: Any,
    prompt: Prompt,
    settings: Settings,
    *,
    request_id: int = 0,
    seen: SeenVisuals | None = None,
) -> Exchange:
    """Open the visuals and plan the request; nothing stays open when the plan fails.

    Raises:
        SourceError, DecodeError, BudgetError, ConfigError: as `LlavaVideo.describe`.
    """
    opened = open_visuals(video, settings.sampling, *settings.reading)
    try:
        turns = turns_of(prompt, opened, spec.card)
        plan = make_plan(spec, opened, turns, settings)
    except BaseException:
        close_all(opened)
        raise
    return Exchange(spec, plan, opened, settings, turns=turns, request_id=request_id, seen=seen)


@functools.cache
def _versions() -> dict[str, str | None]:
    """Return the versions of what decides answers; looking them up takes milliseconds."""
    return {name: backends.version(name) for name in _PROVENANCE_PACKAGES}


def _visual_key(identity: str, plan: VisualPlan) -> str:
    """Name the rows a visual gives: the same bytes planned the same way give the same rows."""
    facts = to_mapping(dataclasses.replace(plan, source=""))
    return hashlib.sha256(json.dumps([identity, facts]).encode()).hexdigest()


def _fused(parts: Sequence[Part], held_bytes: int) -> FusedPart:
    """Return a prompt about one visual as the one part that it is where the two are fused."""
    sides: list[list[int]] = [[]]
    visuals: list[VisualPart] = []
    for part in parts:
        if isinstance(part, TextPart):
            sides[-1] += part.ids
        elif isinstance(part, VisualPart):
            visuals.append(part)
            sides.append([])
    if len(visuals) > 1:
        raise ConfigError(
            f"the prompt shows {len(visuals)} videos or pictures; this model fuses it with one.",
            "ask of each by itself.",
        )
    before, after = map(tuple, sides)
    return FusedPart(before=before, visual=visuals[0], after=after, held_bytes=held_bytes)
