"""Videos, pictures, a prompt and a budget → the plan: every frame and token, before any pixel.

Puts sampler, layouts, budget and time sentences together. Text is counted by a function that the
caller brings; knows no tokenizer, no template and no decoder.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from llava_video.errors import BudgetError
from llava_video.planning.budget import Limit, Room, fair_level, free_tokens
from llava_video.planning.draft import Draft
from llava_video.planning.geometry import Aspect, Geometry
from llava_video.planning.hints import hints, other_setups
from llava_video.planning.layout import (
    ONE_TILE,
    Layout,
    image_layout,
    layout_tokens,
    visual_plan,
)
from llava_video.planning.memory import Setup, plan_memory
from llava_video.planning.model_notes import check_visuals, crop_warnings, model_reasons
from llava_video.planning.precision import draft_in_memory, lighter_setups
from llava_video.planning.sacrifice import (
    Choice,
    NoteCost,
    fit_video,
    layout_steps,
    wanted_stride,
    whole_note,
)
from llava_video.planning.sampler import Sample, sample_frames
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.planning.stretch import (
    scale_range,
    scale_reasons,
    scale_warnings,
    smallest_scale,
)
from llava_video.planning.time_note import TimeNote
from llava_video.planning.way_out import way_out
from llava_video.values import MemoryEstimate, Plan, Scan, VideoInfo, VisualPlan

TextOf = Callable[[Sequence[TimeNote | None]], tuple[str, int]]

_UNKNOWN = MemoryEstimate(0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoItem:
    """A video of the request; `sampling` None takes the request's.

    `scan` is what was seen of it before, where its sampling needs that.
    """

    info: VideoInfo
    name: str
    sampling: SamplingSettings | None = None
    scan: Scan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageItem:
    """A still picture of the request."""

    height_px: int
    width_px: int
    name: str


Item = VideoItem | ImageItem


def plan_request(
    items: Sequence[Item],
    geometry: Geometry,
    planning: PlanningSettings,
    sampling: SamplingSettings,
    text_of: TextOf,
    setup: Setup = Setup(),  # noqa: B008  # a frozen value
) -> Plan:
    """Plan one request.

    Text, visual and answer tokens together stay within the context (stretched by
    `position_scale`), the bytes of their cache within what the setup's limit leaves, the videos'
    visual tokens within `max_video_tokens`; the prompt is never cut. Videos share the room equally,
    and what one does not need goes to the others; pictures are not reduced.

    Args:
        items: videos and pictures in the order of their marks; () for text alone.
        geometry: the model.
        planning: how frames become tokens.
        sampling: which frames, for videos that say nothing else.
        text_of: gives the prompt's whole text and its tokens (marks not counted) for one time note
            per item; None where an item has none.
        setup: how the model is set up; by default without a limit, and all at once.

    Raises:
        BudgetError: nothing fits; the hint names settings that do.
        ConfigError: a setting is impossible for this video or model.
        DecodeError: a video has no frames.
    """
    check_visuals(geometry, len(items))
    counted, lighter = _remembered(text_of), lighter_setups(geometry, setup)
    samples = _samples(items, sampling, geometry)

    def draft_with(changed: PlanningSettings, own: Setup, shorter_by: int = 0) -> Draft:
        def shorter(notes: Sequence[TimeNote | None]) -> tuple[str, int]:
            text, num_tokens = counted(notes)
            return text, num_tokens - shorter_by

        def draft_at(position_scale: float) -> Draft:
            def draft_within(limit: Limit) -> Draft:
                request = _Request(items, samples, geometry, changed, shorter)
                return request.draft(limit, own, position_scale)

            return draft_in_memory(changed, position_scale, geometry, own, draft_within)

        low, high = scale_range(
            changed.position_scale,
            geometry,
            num_frames=sum(sample.num_frames for sample in samples if sample),
            pool_stride=wanted_stride(geometry, changed),
        )
        if low == high:
            return draft_at(low)
        return smallest_scale(geometry.context_tokens, draft_at, high)

    try:
        draft = draft_with(planning, setup)
    except BudgetError as refusal:
        hint = way_out(
            planning,
            lambda changed, shorter_by: draft_with(changed, setup, shorter_by).plan,
            prompt_tokens=counted([None] * len(items))[1],
            others=other_setups(setup, lighter, lambda own: draft_with(planning, own).plan),
        )
        raise BudgetError(
            refusal.message, hint, refusal.need_tokens, refusal.have_tokens
        ) from refusal
    reasons = scale_reasons(geometry, draft.plan, planning.position_scale)
    warnings = scale_warnings(geometry, draft.plan.position_scale)
    draft = draft.saying(*reasons, warnings=tuple(warnings))
    return draft.saying(*hints(draft, planning, setup, lighter, draft_with), *setup.reasons).plan


def _samples(
    items: Sequence[Item], sampling: SamplingSettings, geometry: Geometry
) -> tuple[Sample | None, ...]:
    """Choose the frames of each video, once: a user's sampler may not say the same twice."""
    return tuple(
        sample_frames(
            item.info,
            item.sampling or sampling,
            max_frames=geometry.max_frames,
            fps=geometry.fps,
            reference_rule=geometry.reference_rule,
            scan=item.scan,
        )
        if isinstance(item, VideoItem)
        else None
        for item in items
    )


def _remembered(text_of: TextOf) -> TextOf:
    """Return the same function, which writes each prompt once: several drafts ask for the same."""

    @cache
    def written(notes: tuple[TimeNote | None, ...]) -> tuple[str, int]:
        return text_of(notes)

    return lambda notes: written(tuple(notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What one video would get if there were no limit."""

    idx: int
    item: VideoItem
    sample: Sample
    steps: tuple[Layout, ...]
    visual_tokens: int
    tokens: int


class _Request:
    """One request while it is planned."""

    def __init__(
        self,
        items: Sequence[Item],
        samples: Sequence[Sample | None],
        geometry: Geometry,
        planning: PlanningSettings,
        text_of: TextOf,
    ) -> None:
        self._items, self._samples = items, samples
        self._geometry = geometry
        self._planning = planning
        self._text_of = text_of
        self._notes: list[TimeNote | None] = [None] * len(items)
        has_video = any(isinstance(item, VideoItem) for item in items)
        self._reasons = [*model_reasons(geometry, has_video=has_video, has_visual=bool(items))]
        self._warnings: list[str] = []
        self._is_whole = True
        asked = planning.time_instruction
        self._has_notes = geometry.time_instruction if asked is None else asked

    def draft(self, limit: Limit, setup: Setup, position_scale: float) -> Draft:
        visuals = [self._image(item) for item in self._items]
        image_tokens = sum(visual.num_tokens for visual in visuals if visual)
        room_tokens = free_tokens(
            limit,
            self._planning,
            text_tokens=self._text_of(self._notes)[1],
            image_tokens=image_tokens,
        )
        for idx, visual in self._videos(room_tokens, limit):
            visuals[idx] = visual
        prompt, text_tokens = self._text_of(self._notes)
        planning, geometry = self._planning, self._geometry
        budget_tokens = limit.tokens - text_tokens - planning.max_new_tokens
        if planning.max_video_tokens is not None:
            budget_tokens = min(budget_tokens, planning.max_video_tokens + image_tokens)
        plan = Plan(
            model=geometry.model,
            prompt=prompt,
            visuals=tuple(visual for visual in visuals if visual),
            text_tokens=text_tokens,
            max_new_tokens=planning.max_new_tokens,
            context_tokens=geometry.context_tokens,
            budget_tokens=budget_tokens,
            position_scale=position_scale,
            kv_format=limit.kv_format,
            weight_format=setup.weight_format,
            memory=_UNKNOWN,
            reusable_prefix=not any(visual.is_fused for visual in visuals if visual),
            reasons=tuple(self._reasons),
            warnings=(*self._warnings, *crop_warnings(filter(None, visuals))),
        )
        memory = plan_memory(geometry, setup, plan, limit.kv_format)
        return Draft(plan=replace(plan, memory=memory), limit=limit, is_whole=self._is_whole)

    def _image(self, item: Item) -> VisualPlan | None:
        if isinstance(item, VideoItem):
            return None
        size_px = (item.height_px, item.width_px)
        return visual_plan(
            image_layout(*size_px, self._geometry, self._image_aspect()),
            kind="image",
            source=item.name,
            size_px=size_px,
            frame_idxs=(0,),
            times_s=(0.0,),
        )

    def _image_aspect(self) -> Aspect:
        if self._planning.image_aspect is not None:
            return self._planning.image_aspect
        num_images = sum(isinstance(item, ImageItem) for item in self._items)
        is_tiled = self._geometry.aspect == "anyres" and self._geometry.pads_several
        if num_images < 2 or not is_tiled:
            return self._geometry.aspect
        reason = f"Each of {num_images} pictures is one padded tile, as several are trained."
        if reason not in self._reasons:
            self._reasons.append(reason)
        return "pad"

    def _videos(self, room_tokens: int, limit: Limit) -> Iterator[tuple[int, VisualPlan]]:
        """Plan the videos in turn; none takes more than its fair share, small ones leave theirs."""
        wishes = [
            self._wish(idx, item, sample, room_tokens)
            for idx, (item, sample) in enumerate(zip(self._items, self._samples, strict=True))
            if isinstance(item, VideoItem) and sample is not None
        ]
        level_tokens = fair_level([wish.tokens for wish in wishes], room_tokens)
        cap_tokens = self._planning.max_video_tokens
        if cap_tokens is not None:
            cap_tokens = fair_level([wish.visual_tokens for wish in wishes], cap_tokens)
        kept_tokens = sum(min(wish.tokens, level_tokens) for wish in wishes)
        for wish in wishes:
            kept_tokens -= min(wish.tokens, level_tokens)  # for those that come after it
            room = Room(
                total_tokens=min(level_tokens, room_tokens - kept_tokens),
                visual_tokens=cap_tokens,
                time_share=self._planning.time_share,
                limit=limit,
            )
            note_cost = self._note_cost(wish.idx)
            choice = fit_video(
                wish.sample,
                wish.steps,
                room,
                note_cost,
                is_trained=self._geometry.is_video_trained,
            )
            visual = self._visual(wish, choice)
            room_tokens -= visual.num_tokens
            if note_cost and choice.note:
                room_tokens -= note_cost(choice.note)
            self._notes[wish.idx] = choice.note
            self._is_whole &= choice.is_whole
            yield wish.idx, visual

    def _wish(self, idx: int, item: VideoItem, sample: Sample, room_tokens: int) -> _Wish:
        geometry, info = self._geometry, item.info
        steps = layout_steps(info.height_px, info.width_px, geometry, self._planning)
        visual_tokens = layout_tokens(steps[0], sample.num_frames)
        has_room = visual_tokens <= room_tokens  # else it wants all
        note_cost = self._note_cost(idx) if has_room else None
        note_tokens = note_cost(whole_note(sample)) if note_cost else 0
        return _Wish(
            idx=idx,
            item=item,
            sample=sample,
            steps=steps,
            visual_tokens=visual_tokens,
            tokens=visual_tokens + note_tokens,
        )

    def _visual(self, wish: _Wish, choice: Choice) -> VisualPlan:
        info = wish.item.info
        wants_tiles = self._planning.grid == "auto" or self._planning.detail == "high"
        why = "One tile holds all of so small a frame."
        if not self._geometry.canvases:
            why = "This model has no grids: a frame is one tile."
        is_alone = wants_tiles and wish.steps[0].grid == ONE_TILE
        self._tell(choice, wish.item.name, (why,) * is_alone)
        return visual_plan(
            choice.layout,
            kind="video",
            source=wish.item.name,
            size_px=(info.height_px, info.width_px),
            frame_idxs=choice.sample.frame_idxs,
            times_s=choice.sample.times_s,
            duration_s=choice.sample.duration_s,
            end_s=choice.sample.end_s,
            note_every=choice.note.every if choice.note else 0,
        )

    def _note_cost(self, idx: int) -> NoteCost | None:
        """Return what a note of this video adds to the prompt beside the notes already chosen."""
        if not self._has_notes:
            return None
        bare_tokens = self._text_of(self._notes)[1]

        def cost(note: TimeNote) -> int:
            notes = [*self._notes]
            notes[idx] = note
            return self._text_of(notes)[1] - bare_tokens

        return cost

    def _tell(self, choice: Choice, name: str, more: tuple[str, ...]) -> None:
        several = sum(isinstance(item, VideoItem) for item in self._items) > 1
        prefix = f"{name}: " if several else ""
        self._reasons += [prefix + reason for reason in (*choice.reasons, *more)]
        self._warnings += [prefix + warning for warning in choice.warnings]
