"""A record → an example: opened, planned and labelled as a request is, then decoded and tiled.

The planner is inference's, with a context without end: frames and layout are what the settings and
the checkpoint say, never fewer because an example is long. A too long one is refused. Knows no
batch.
"""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from llava_video.errors import ConfigError, DecodeError, ExampleError, LlavaVideoError
from llava_video.inputs import Opened, OpenedVideo, Picture, Video, close_all, open_visuals
from llava_video.model.labels import IGNORED, Labelled, label_conversation
from llava_video.model.preprocess import make_levels
from llava_video.model.prompt import Turn, place_marks
from llava_video.model.spec import ModelSpec
from llava_video.model.tokenizer import IMAGE_MARK
from llava_video.planning.planner import ImageItem, VideoItem, plan_request
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.planning.time_note import TimeNote, time_note
from llava_video.train.forward import Example
from llava_video.train.known_videos import KnownVideos
from llava_video.train.mixture import Media, Record
from llava_video.train.settings import DataSettings
from llava_video.values import VisualPlan
from llava_video.video.frame_folder import FrameFolder
from llava_video.video.source import Source

# No example comes near: what would be cut here is refused by `max_tokens`.
_NO_LIMIT = 2**40
# A picture's own bytes in the place of its path are megabytes; their beginning tells what it is.
_MOST_SHOWN = 200
_MARKS_FIRST = re.compile(rf"(?:{IMAGE_MARK}\s*)+")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What is known of an example before it is decoded.

    Attributes:
        num_tokens: rows of the language model.
        num_visual: of these, visual ones.
        num_learned: tokens that are learned.
    """

    num_tokens: int
    num_visual: int
    num_learned: int


class ExampleMaker:
    """Makes examples of records, for one model.

    Args:
        spec: the model's facts.
        data: how much of a video is looked at, and how long an example may be.

    Raises:
        ConfigError: the model fuses frames with the prompt (LLaVA-Mini), which is not trained here.
    """

    def __init__(self, spec: ModelSpec, data: DataSettings) -> None:
        if spec.config.dimensions.fusion is not None:
            raise ConfigError(
                f"{spec.name} fuses frames with the prompt, which cannot be trained here.",
                "train a member that does not: LLaVA-1.5, NeXT, OneVision, LLaVA-Video.",
            )
        self._spec = spec
        self._known = KnownVideos()
        self._folder_rate_hz = data.folder_fps
        self._max_tokens, self._shares = data.max_tokens, data.share_visuals
        self._geometry = replace(spec.geometry, context_tokens=_NO_LIMIT)
        self._sampling = SamplingSettings(max_frames=data.max_frames, fps=data.fps)
        self._planning = PlanningSettings(
            pool_stride=data.pool_stride,
            newline=data.newline,
            time_instruction=data.time_instruction,
            image_aspect=data.image_aspect,
            position_scale=1,
            max_new_tokens=1,
        )

    def measure(self, record: Record) -> Measure:
        """Open everything an example shows and count its tokens; of a video one frame is decoded.

        Of a folder of frames every picture's header is read.

        Raises:
            ExampleError: see `example`.
        """
        return self._with_opened(record, _measured)

    def example(self, record: Record) -> Example:
        """Return the example of a record.

        Raises:
            ExampleError: it cannot be learned from: a file is missing or unreadable, marks and
                media do not match, an answer is empty, it is too long, or nothing is learned.
        """
        return self._with_opened(record, self._decoded)

    def _with_opened(self, record: Record, use: Callable[["Written", Sequence[Opened]], T]) -> T:
        said, media = self._conversations(record)
        for one in media:
            _check_there(record, one)
        try:
            with contextlib.ExitStack() as stack:
                opened: list[Opened] = []
                stack.callback(close_all, opened)
                for one in media:
                    opened.append(self._opened(record, one))
                written = self._put_together(said, self.plans([one.item for one in opened]))
                self.check(record, written.measure())
                return use(written, opened)
        except ExampleError:
            raise
        except ConfigError as cause:
            raise record.error(cause.message.rstrip("."), "conversation", cause.hint) from cause
        except LlavaVideoError as cause:
            raise record.error(cause.message.rstrip("."), "unreadable file", cause.hint) from cause

    def _conversations(self, record: Record) -> tuple[Sequence[Sequence[Turn]], tuple[Media, ...]]:
        """Return what is said after the same beginning, and what each mark shows."""
        turns, media = record.conversation()
        return _said(turns, len(media), shares=self._shares), media

    def _opened(self, record: Record, media: Media) -> Opened:
        if media.kind == "image":
            return open_visuals(Picture(media.path), self._sampling)[0]
        if "://" not in media.path and Path(media.path).is_dir():
            return OpenedVideo(
                source=Source(kind="path", name=media.path, path=Path(media.path)),
                decoder=FrameFolder(media.path, self._rate_of(record)),
                identity=media.path,
                sampling=self._sampling,
            )
        known = self._known.info_of(media.path)
        (opened,) = open_visuals(Video(media.path, info=known), self._sampling)
        if isinstance(opened, OpenedVideo):
            self._known.add(media.path, opened.decoder.info)
        return opened

    def _rate_of(self, record: Record) -> float:
        """Return the frames per second of a record's folder of pictures."""
        rate_hz = record.values.get("fps", self._folder_rate_hz)
        if isinstance(rate_hz, bool) or not isinstance(rate_hz, int | float) or rate_hz <= 0:
            raise record.error(f"has fps = {rate_hz!r}", "frame rate", "a number above 0.")
        return float(rate_hz)

    def plans(self, items: Sequence[VideoItem | ImageItem]) -> tuple[VisualPlan, ...]:
        """Return the plans of some visuals.

        Args:
            items: what is known of them before they are decoded.
        """

        def text_of(notes: Sequence[TimeNote | None]) -> tuple[str, int]:
            text = "".join(note.sentence() for note in notes if note)
            return text, self._spec.tokenizer.num_text_tokens(text)

        plan = plan_request(
            items,
            geometry=self._geometry,
            planning=self._planning,
            sampling=self._sampling,
            text_of=text_of,
        )
        return plan.visuals

    def ids_of(self, text: str) -> tuple[int, ...]:
        """Return the ids of a piece of text, as they stand in the midst of a turn."""
        return tuple(self._spec.tokenizer.encode(text))

    def written(
        self, turns: Sequence[Turn], plans: tuple[VisualPlan, ...], *, shares: bool | None = None
    ) -> "Written":
        """Return a conversation as ids and labels.

        Args:
            turns: in alternation, with a mark for each visual.
            plans: of the visuals.
            shares: whether each question is learned by itself, after the same visuals; None for
                what the settings say.
        """
        shares = self._shares if shares is None else shares
        return self._put_together(_said(turns, len(plans), shares=shares), plans)

    def _put_together(
        self, said: Sequence[Sequence[Turn]], plans: tuple[VisualPlan, ...]
    ) -> "Written":
        """Return conversations, each learned as alone, with what they begin with there once."""
        notes = [time_note(plan) for plan in plans]
        sentences = [note.sentence() if note else None for note in notes]
        apart = [self._labelled(turns, sentences) for turns in said]
        if len(apart) == 1:
            return Written(apart[0].ids, apart[0].labels, plans)
        begun = _num_shared(apart, [self._first_learned(one.labels) for one in apart])
        ids, labels = list(apart[0].ids[:begun]), [IGNORED] * begun
        tails: list[int] = []
        for one in apart:
            tails.append(len(ids))
            ids += one.ids[begun:]
            labels += one.labels[begun:]
        return Written(tuple(ids), tuple(labels), plans, tuple(tails))

    def _first_learned(self, labels: Sequence[int]) -> int:
        """Return where that begins which one of several conversations learns apart."""
        return next(idx for idx, label in enumerate([*labels, 0]) if label != IGNORED)

    def _labelled(self, turns: Sequence[Turn], sentences: Sequence[str | None]) -> Labelled:
        config = self._spec.config
        marked = place_marks(turns, sentences) if sentences else turns
        return label_conversation(
            marked, self._spec.tokenizer, config.template, has_mark_ends=config.has_mark_ends
        )

    def check(self, record: Record, measure: Measure) -> None:
        """See that an example may be learned from.

        Args:
            record: what it is made of, for the error.
            measure: of it.

        Raises:
            ExampleError: it is too long, or nothing of it is learned.
        """
        if measure.num_tokens > self._max_tokens:
            raise record.error(
                f"has {measure.num_tokens} tokens, {measure.num_visual} of them visual; "
                f"max_tokens is {self._max_tokens}",
                "too long",
                "raise max_tokens, or lower max_frames.",
            )
        if not measure.num_learned:
            raise record.error("teaches no token", "nothing learned")

    def _decoded(self, written: "Written", opened: Sequence[Opened]) -> Example:
        vision = self._spec.config.dimensions.vision
        px = vision.image_px
        tiles = [torch.zeros(0, 3, px, px, dtype=torch.uint8)]
        for visual, plan in zip(opened, written.plans, strict=True):
            num_found = 0
            for clip in visual.clips(plan):
                num_found += len(clip.frames)
                mean, std = vision.pixel_mean, vision.pixel_std
                tiles.append(make_levels(clip, plan, tile_px=px, mean=mean, std=std))
            if num_found != plan.num_frames:
                raise DecodeError(
                    f"{visual.name}: {num_found} of {plan.num_frames} frames can be decoded."
                )
        return Example(
            ids=written.ids,
            labels=written.labels,
            plans=written.plans,
            tiles=torch.cat(tiles),
            tails=written.tails,
        )


@dataclass(frozen=True, slots=True)
class Written:
    """An example without its pixels.

    Attributes:
        ids: as of `Example`.
        labels: as of `Example`.
        plans: as of `Example`.
        tails: as of `Example`.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    plans: tuple[VisualPlan, ...]
    tails: tuple[int, ...] = ()

    def measure(self) -> Measure:
        """Count its rows."""
        num_visual = sum(plan.num_tokens for plan in self.plans)
        return Measure(
            num_tokens=len(self.ids) - len(self.plans) + num_visual,
            num_visual=num_visual,
            num_learned=sum(label != IGNORED for label in self.labels),
        )

    def learned_from(self, start: int) -> int:
        """Return where what is learned begins, at or behind an id."""
        return next(at for at in range(start, len(self.labels)) if self.labels[at] != IGNORED)


def _check_there(record: Record, media: Media) -> None:
    """See that a file or folder is there.

    One that cannot be asked for is as good as missing: it lies in a folder that may not be entered,
    or no file can have such a name, as where a record holds the picture itself.
    """
    if "://" in media.path:
        return
    try:
        is_there = Path(media.path).exists()
    except (OSError, ValueError) as cause:
        why = getattr(cause, "strerror", None) or str(cause)
        shown = media.path[:_MOST_SHOWN] + "…" * (len(media.path) > _MOST_SHOWN)
        what = f"shows {shown}, which cannot be looked for: {why}"
        raise record.error(what, "missing file") from cause
    if not is_there:
        raise record.error(f"shows {media.path}, which is not there", "missing file")


def _measured(written: Written, opened: Sequence[Opened]) -> Measure:
    for visual in opened:
        if isinstance(visual, OpenedVideo) and isinstance(visual.decoder, FrameFolder):
            visual.decoder.check_headers()
    return written.measure()


def _num_shared(apart: Sequence[Labelled], learned: Sequence[int]) -> int:
    """Return how many first ids all conversations share, up to what any of them learns."""
    most = min(learned) - 1  # what is learned is led to by a row of its own
    columns = zip(*(one.ids[:most] for one in apart), strict=True)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), most)


def _said(turns: Sequence[Turn], num_visuals: int, *, shares: bool) -> Sequence[Sequence[Turn]]:
    """Return a conversation, or each of its questions by itself where they share their visuals."""
    pairs = _pairs_after_marks(turns, num_visuals) if shares else []
    return pairs if len(pairs) > 1 else [turns]


def _pairs_after_marks(turns: Sequence[Turn], num_visuals: int) -> list[tuple[Turn, Turn]]:
    """Return each question, all visuals before it, with its answer; [] where one comes later."""
    found = _MARKS_FIRST.match(turns[0].text)
    if found is None or found[0].count(IMAGE_MARK) != num_visuals:
        return []
    marks = found[0]
    first = replace(turns[0], text=turns[0].text[len(marks) :])
    questions = [first, *turns[2::2]]
    return [
        (replace(question, text=marks + question.text), answer)
        for question, answer in zip(questions, turns[1::2], strict=True)
    ]
