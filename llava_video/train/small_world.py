"""Numbers of clips → examples drawn from the small world, without a file or a decoder.

The scene, its truth and its texts are `world/`'s; frames, layout, prompt and labels are what
inference would make of the clip's file. A clip depends on the seed and its number alone, so a run
that goes on sees the clips an unbroken one would.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from llava_video.errors import ConfigError
from llava_video.model.dimensions import VisionConfig
from llava_video.model.prompt import Turn
from llava_video.model.tokenizer import IMAGE_MARK
from llava_video.planning.planner import VideoItem
from llava_video.train.batches import Made, first_good
from llava_video.train.dense_labels import check_rows, dense_labels
from llava_video.train.examples import ExampleMaker, Written
from llava_video.train.forward import Example as PackedExample
from llava_video.train.mixture import Record
from llava_video.train.pointer import Pointer
from llava_video.train.pointer_labels import (
    pointers_of,
    pointers_of_caption,
    rows_shown,
    trails_of,
)
from llava_video.train.raw_frames import FilmedFrames, grouped_by_size, step_of, tiles_of_frames
from llava_video.train.settings import DataSettings
from llava_video.train.world_settings import DenseSettings, WorldSource
from llava_video.values import VideoInfo, VisualPlan
from llava_video.world.caption import Telling, caption, tellings
from llava_video.world.composer import compose
from llava_video.world.dice import Dice
from llava_video.world.example import PROMPTS, questions_of
from llava_video.world.mentions import NOUNS
from llava_video.world.render import render_at
from llava_video.world.splits import split_settings
from llava_video.world.witness import Witness

_TICK_S: Final = 1e-6
_SELDOM: Final = 1 / 8
Pair = tuple[str, str]
_Shape = tuple[int, int, float, int]  # height, width, px; rate, Hz; frames
_ANY_SHAPE: Final[_Shape] = (64, 64, 2.0, 16)
# Two questions that begin with different letters, and what stands in the place of none.
_UNLIKE: Final[tuple[Pair, Pair]] = (("What?", "A."), ("Is it?", "B."))
_STYLES: Final = {prompt: style for style, prompts in PROMPTS.items() for prompt in prompts}
_SILENT: Final[Pair] = ("What is this?", "A clip.")


class WorldExamples(Dataset[Made]):
    """The clips of an epoch, by number.

    Args:
        maker: plans, and writes conversations.
        source: which clips, and what is asked of them.
        data: what becomes of clips that are too long.
        vision: side of a tile, and its normalisation.
        dense: which labels of cells and pointers are wanted; None for answers alone.
        tiles_here: whether frames become tiles here; else where the model is.

    Raises:
        ConfigError: cells are labelled, and the rows of a clip are no cells; of a clip, captions
            are pointed out, and its tokenizer cuts one otherwise than its parts.
    """

    def __init__(
        self,
        maker: ExampleMaker,
        source: WorldSource,
        data: DataSettings,
        vision: VisionConfig,
        *,
        dense: DenseSettings | None,
        tiles_here: bool,
    ) -> None:
        self._maker, self._source, self._data, self._vision = maker, source, data, vision
        self._dense, self._tiles_here = dense, tiles_here
        self._nouns = {maker.ids_of(f" {noun}") for noun in NOUNS}
        self._settings = source.settings or split_settings(source.split)
        self._plan_of = lru_cache(maxsize=4096)(self._planned)
        self._beginning_of = lru_cache(maxsize=4096)(self._begun)
        self._end_of = lru_cache(maxsize=65_536)(self._ended)
        self._ids_of = lru_cache(maxsize=65_536)(maker.ids_of)
        if dense is not None:
            check_rows(self._plan_of(*_ANY_SHAPE))

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how a worker makes the same; what was kept for later stays behind."""
        made = partial(
            WorldExamples,
            self._maker,
            self._source,
            self._data,
            self._vision,
            dense=self._dense,
            tiles_here=self._tiles_here,
        )
        return made, ()

    def __len__(self) -> int:
        """Return the clips of one epoch."""
        return self._source.clips

    def order(self, batch_size: int, seed: int) -> "Counting":
        """Return the numbers of each epoch's clips; the clips themselves are drawn."""
        del batch_size, seed
        return Counting(self._source.clips)

    def __getitem__(self, idx: int) -> Made:
        """Return the clip of a number; where it breaks, the next that does not.

        Raises:
            ExampleError: the settings say so, or all that follow break too.
        """
        return first_good(self._example, itertools.count(idx), self._data)

    def _example(self, idx: int) -> PackedExample:
        """Return the clip of a number.

        Raises:
            ExampleError: it is too long.
        """
        settings, source = self._settings, self._source
        if idx < source.growing:
            steps = settings.max_objects - settings.min_objects + 1
            most = settings.min_objects + idx * steps // source.growing
            settings = replace(settings, max_objects=most)
        scene = compose(settings, source.split, source.seed, idx)
        shape = (scene.height_px, scene.width_px, scene.rate_hz, scene.num_frames)
        dice = Dice(scene.name, "training")
        witness = Witness(scene, settings)
        written, pairs = self._written(witness, shape, dice)
        self._maker.check(Record(name=scene.name, values={}, folder=""), written.measure())
        (plan,) = written.plans
        frames = torch.from_numpy(render_at(scene, plan.frame_idxs))
        step = 0.0 if dice.chance(source.plain_share) else step_of(scene.crf) * dice.real(0.5, 1.5)
        filmed = FilmedFrames(frames=frames, step=step)
        vision = self._vision
        labels = dense_labels(scene, plan, vision.patches_per_side) if self._dense else None
        px = vision.image_px
        return PackedExample(
            ids=written.ids,
            labels=written.labels,
            plans=written.plans,
            tails=written.tails,
            tiles=tiles_of_frames(grouped_by_size([filmed]), plan, self._vision)
            if self._tiles_here
            else torch.zeros(0, 3, px, px),
            filmed=None if self._tiles_here else filmed,
            looks=None if labels is None else torch.from_numpy(labels.looks),
            story=None if labels is None else torch.from_numpy(labels.story),
            patches=None if labels is None else torch.from_numpy(labels.patches),
            pointers=self._pointers(witness, written, pairs),
        )

    def _pointers(
        self, witness: Witness, written: Written, pairs: Sequence[Pair]
    ) -> tuple[Pointer, ...]:
        if self._dense is None or not self._dense.pointers:
            return ()
        (plan,) = written.plans
        shown = rows_shown(witness.scene, plan)
        found = trails_of(shown) if self._dense.trail_heads else ()
        found += pointers_of(
            witness.scene, shown, pairs, written.tails, written.ids, written.labels,
            self._nouns, at_moments=self._dense.moments,
        )  # fmt: skip
        if self._dense.captions:
            for (question, _), tail in zip(pairs, written.tails, strict=True):
                if question in _STYLES:
                    told = tellings(witness, _STYLES[question])
                    start = written.learned_from(tail)
                    found += pointers_of_caption(self._sized(told, written, start), shown, start)
        return found

    def _sized(
        self, told: Sequence[Telling], written: Written, start: int
    ) -> list[tuple[Telling, int]]:
        """Return how many ids each part of a caption has, of which the first id is at `start`.

        Raises:
            ConfigError: the ids of the parts are not those of the whole caption.
        """
        parts = [self._ids_of(one.text) for one in told]
        ids = tuple(itertools.chain.from_iterable(parts))
        if written.ids[start : start + len(ids)] != ids:
            raise ConfigError(
                "dense.captions: the tokenizer cuts a whole caption otherwise than its parts: "
                f"{''.join(one.text for one in told)!r}.",
                "leave dense.captions out, or begin with a model of the small world (new: {}).",
            )
        return [(one, len(own)) for one, own in zip(told, parts, strict=True)]

    def _written(
        self, witness: Witness, shape: _Shape, dice: Dice
    ) -> tuple[Written, Sequence[Pair]]:
        """Write what is asked and told of a clip; and the questions and answers of its tails."""
        source = self._source
        asked = self._asked(witness, dice)
        styles = dice.shuffled(list(PROMPTS))[: source.captions]
        told = [(dice.pick(PROMPTS[style]), caption(witness, style)) for style in styles]
        is_chat = len(asked) > 1 and dice.chance(source.chat_share)
        pairs = asked if is_chat else dice.shuffled(asked + told)
        if is_chat:
            return self._chat(pairs, shape), ()
        pairs = pairs or [_SILENT]
        return self._apart(pairs, shape), pairs

    def _asked(self, witness: Witness, dice: Dice) -> list[Pair]:
        """Draw what is asked of a clip."""
        source = self._source
        rounds = range(source.rounds if source.questions else 0)
        every = [one for idx in rounds for one in questions_of(witness, self._settings, idx)]
        if len(rounds) > 1:
            every = dice.shuffled(every)
        wanted = [q for q in every if q.kind not in source.seldom or dice.chance(_SELDOM)]
        pairs = dict.fromkeys((one.text, one.answer) for one in wanted)
        return list(pairs)[: source.questions]

    def _chat(self, pairs: Sequence[Pair], shape: _Shape) -> Written:
        """Write questions in turn."""
        turns = [turn for pair in pairs for turn in _turns(*pair)]
        turns[0] = Turn("user", f"{IMAGE_MARK}\n{turns[0].text}")
        return self._maker.written(turns, (self._plan_of(*shape),), shares=False)

    def _apart(self, pairs: Sequence[Pair], shape: _Shape) -> Written:
        """Write questions each after the clip alone, from parts that were written before.

        What comes before a question is the same for all clips of a shape, and so is what follows
        it whatever came before: most questions are asked of many clips.
        """
        first = self._beginning_of(*shape)
        ids, labels, tails = list(first.ids), list(first.labels), []
        for pair in pairs:
            tails.append(len(ids))
            end = self._end_of(*pair)
            ids += end.ids
            labels += end.labels
        return Written(tuple(ids), tuple(labels), first.plans, tuple(tails))

    def _begun(self, *shape: Any) -> Written:
        """Return all that stands before a question."""
        plan = self._plan_of(*shape)
        turns = [turn for pair in _UNLIKE for turn in _turns(*pair)]
        turns[0] = Turn("user", f"{IMAGE_MARK}\n{turns[0].text}")
        both = self._maker.written(turns, (plan,), shares=True)
        return Written(both.ids[: both.tails[0]], both.labels[: both.tails[0]], both.plans)

    def _ended(self, question: str, answer: str) -> Written:
        """Return a question and its answer, without what stands before."""
        num_first = len(self._beginning_of(*_ANY_SHAPE).ids)
        whole = self._chat([(question, answer)], _ANY_SHAPE)
        return Written(whole.ids[num_first:], whole.labels[num_first:], ())

    def _planned(
        self, height_px: int, width_px: int, rate_hz: float, num_frames: int
    ) -> VisualPlan:
        info = VideoInfo(
            duration_s=num_frames / rate_hz,
            num_frames=num_frames,
            frame_rate_hz=rate_hz,
            height_px=height_px,
            width_px=width_px,
            codec="raw",
            container="array",
            pts_s=np.arange(num_frames) / rate_hz,
            tick_s=_TICK_S,
        )
        return self._maker.plans([VideoItem(info=info, name="small world")])[0]


class Counting(Sampler[int]):
    """Numbers that go on from epoch to epoch.

    Args:
        num_clips: of an epoch.
    """

    def __init__(self, num_clips: int) -> None:
        self._num_clips = num_clips
        self.epoch = 0

    def __len__(self) -> int:
        """Return the clips of an epoch."""
        return self._num_clips

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next pass gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of one epoch."""
        first = self.epoch * self._num_clips
        return iter(range(first, first + self._num_clips))


def _turns(question: str, answer: str) -> tuple[Turn, Turn]:
    return Turn("user", question), Turn("assistant", answer)
