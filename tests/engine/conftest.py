import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from seeded_models import filled

from llava_video.engine.arena import Arena
from llava_video.engine.constraint import ConstraintCompiler
from llava_video.engine.job import Job
from llava_video.engine.prefixes import KeptPrefixes
from llava_video.engine.request import (
    Failed,
    Finished,
    FusedPart,
    Progress,
    Request,
    TextPart,
    TextPiece,
    VisualPart,
)
from llava_video.engine.scheduler import Scheduler
from llava_video.engine.settings import EngineSettings, GenerationSettings
from llava_video.engine.sliding import SlidingWindow
from llava_video.engine.tools import Tools
from llava_video.model.checkpoint import load_model
from llava_video.model.dimensions import FusionConfig
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.tokenizer import Tokenizer
from llava_video.values import Clip, Grid, Newline, VisualPlan
from llava_video.world.bars import paint_index

_REQUEST_FIELDS = ("request_id", "position_scale", "kv_format", "reuse", "keep", "cancelled")


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    """Return the tiny checkpoint: its model, tokenizer and generation defaults."""
    torch.set_num_threads(1)
    config = read_model_config(tiny_folder)
    model = load_model(tiny_folder, config=config, device="cpu", dtype=torch.float32)
    return SimpleNamespace(
        model=model, tokenizer=Tokenizer(tiny_folder), generation=config.generation
    )


@pytest.fixture(scope="session")
def mini(tiny):
    """Return the tiny model with a fusion beside it: four queries a frame, two layers."""
    dimensions = dataclasses.replace(
        tiny.model.dimensions, fusion=FusionConfig(side=2, num_layers=2)
    )
    model = LlavaModel(dimensions)
    filled(model.fusion)
    left = model.load_state_dict(tiny.model.state_dict(), strict=False)
    assert all(name.startswith("fusion.") for name in left.missing_keys)
    return model.eval()


@pytest.fixture
def make_engine(tiny) -> Callable[..., Scheduler]:
    """Return a maker of schedulers over the tiny model; keywords are `EngineSettings`' fields.

    At the end of the test every arena must be empty. So that it is, prefixes are kept only where a
    test says so.
    """
    made: list[Scheduler] = []

    def make(
        *, model: Any = None, eos_ids: Any = None, penalty: float | None = None, **settings: Any
    ) -> Scheduler:
        defaults = tiny.generation
        engine = Scheduler(
            model or tiny.model,
            tiny.tokenizer,
            eos_ids=defaults.eos_ids if eos_ids is None else eos_ids,
            repetition_penalty=defaults.repetition_penalty if penalty is None else penalty,
            settings=EngineSettings(
                **{"slab_tokens": 512, "tile_chunk": 2, "kept_prefixes": 0, **settings}
            ),
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        assert engine.arena.used_tokens == 0
        assert engine.arena.held_tokens == 0


@pytest.fixture
def arena_of(tiny):
    """Return a maker of arenas for the tiny model; keywords are `Arena`'s."""
    text = tiny.model.language_model.config

    def make(**settings):
        return Arena(
            text.num_layers,
            text.num_kv_heads,
            text.head_dim,
            dtype=torch.float32,
            devices=[torch.device("cpu")],
            **settings,
        )

    return make


@pytest.fixture
def make_job(tiny, arena_of):
    """Return a maker of jobs: the job, its arena (a new one of some tokens or the one given), and
    the list of its events.
    """

    def make_arena(limit_tokens=None):
        arena = arena_of(slab_tokens=64)
        if limit_tokens is not None:
            arena.limit_bytes = limit_tokens * arena.token_bytes("plain")
        return arena

    def make(request, limit_tokens=None, *, arena=None, prefixes=None, model=None):
        vocab_size = tiny.model.language_model.config.vocab_size
        arena = arena or make_arena(limit_tokens)
        tools = Tools(
            model=model or tiny.model,
            tokenizer=tiny.tokenizer,
            eos_ids=frozenset(tiny.generation.eos_ids),
            repetition_penalty=1.05,
            constraints=ConstraintCompiler(tiny.tokenizer.to_json, vocab_size, ()),
            tile_chunk=2,
            arena=arena,
            prefixes=KeptPrefixes(0) if prefixes is None else prefixes,
        )
        told = []
        return Job(request, tools, told.append), arena, told

    return make


@pytest.fixture
def engine(make_engine) -> Scheduler:
    """Return a scheduler with small chunks, so that every prompt takes several steps."""
    return make_engine(prefill_chunk_tokens=7)


class Frames:
    """Pictures of bars whose reading is counted: `opened` and `closed` iterators."""

    def __init__(self, idxs, *, fail_at=None, chunk_frames=2):
        self.idxs, self.fail_at, self.chunk_frames = list(idxs), fail_at, chunk_frames
        self.opened = self.closed = self.given = 0

    def __call__(self):
        self.opened += 1
        try:
            for start in range(0, len(self.idxs), self.chunk_frames):
                chunk = self.idxs[start : start + self.chunk_frames]
                if self.fail_at is not None and self.fail_at in chunk:
                    raise RuntimeError("the file ends here")
                frames = np.stack([paint_index(idx, 40, 64) for idx in chunk])
                self.given += len(chunk)
                yield Clip(frames, np.array(chunk) / 2.0, np.array(chunk))
        finally:
            self.closed += 1


def _video_plan(num_frames: int, **changes: Any) -> VisualPlan:
    """Plan frames of 4 x 4 patches pooled to 2 x 2 with a newline per row: 6 tokens a frame."""
    idxs = tuple(range(num_frames))
    plan = VisualPlan(
        kind="video",
        source="bars",
        height_px=40,
        width_px=64,
        times_s=tuple(idx / 2.0 for idx in idxs),
        frame_idxs=idxs,
        fit="squeeze",
        grid=Grid(1, 1),
        overview=False,
        pool_mode="bilinear",
        pool_stride=2,
        newline=Newline.ROW,
        crop=(0, 4, 0, 4),
        map_size=(2, 2),
        num_tokens=6 * num_frames,
    )
    return dataclasses.replace(plan, **changes)


@pytest.fixture
def video() -> Callable[..., VisualPart]:
    """Return a maker of visual parts that show these numbers as bars; 6 tokens each.

    Keywords are those of `Frames`; its counts stand in `part.clips`.
    """

    def make(idxs: Any, *, plan: dict[str, Any] | None = None, **options: Any) -> VisualPart:
        frames = Frames(idxs, **options)
        key = "bars " + ",".join(map(str, frames.idxs))
        return VisualPart(plan=_video_plan(len(frames.idxs), **(plan or {})), clips=frames, key=key)

    return make


@pytest.fixture
def fused(tiny, video) -> Callable[..., FusedPart]:
    """Return a maker of prompts that are fused with frames; 4 tokens each.

    Arguments: the words before, the numbers shown, the words after; keywords as
    `video`'s, and `held_bytes`.
    """

    def make(before: str, idxs: Any, after: str, **options: Any) -> FusedPart:
        idxs = list(idxs)
        facts = {"is_fused": True, "newline": Newline.NONE, "num_tokens": 4 * len(idxs)}
        held_bytes = options.pop("held_bytes", 0)
        part = video(idxs, plan={**facts, **options.pop("plan", {})}, **options)
        ids = [tuple(tiny.tokenizer.encode(words)) for words in (before, after)]
        return FusedPart(before=ids[0], visual=part, after=ids[1], held_bytes=held_bytes)

    return make


@pytest.fixture
def ask(tiny):
    """Return a maker of requests: texts and visual parts, then settings of either kind."""

    def make(*parts: Any, **options: Any) -> Request:
        own = {name: options.pop(name) for name in _REQUEST_FIELDS if name in options}
        made = tuple(
            TextPart(tuple(tiny.tokenizer.encode(part))) if isinstance(part, str) else part
            for part in parts
        )
        settings = {"max_new_tokens": 12, "loop_guard": False, **options}
        return Request(parts=made, generation=GenerationSettings(**settings), **own)

    return make


@pytest.fixture
def run_all() -> Callable[..., list[Any]]:
    """Return a function that runs requests to their answers (or errors), in order.

    On the way it checks the order of every request's events.
    """

    def run(engine: Any, requests: Any) -> list[Any]:
        requests = list(requests)
        events: dict[int, list[Any]] = {request.request_id: [] for request in requests}
        for event in engine.run(requests):
            events[event.request_id].append(event)
        for told in events.values():
            _check_events(told)
        lasts = [told[-1] for told in events.values()]
        return [last.answer if isinstance(last, Finished) else last.error for last in lasts]

    return run


def _check_events(told: list[Any]) -> None:
    """Check one request's events: one end, at the end; text joins; progress grows by stage."""
    ends = [isinstance(event, Finished | Failed) for event in told]
    assert ends == [False] * (len(told) - 1) + [True]
    pieces = [event.text for event in told if isinstance(event, TextPiece)]
    assert all(pieces)
    if isinstance(told[-1], Finished):
        assert "".join(pieces) == told[-1].answer.text
    done: dict[str, int] = {}
    for event in told:
        if isinstance(event, Progress):
            assert done.get(event.stage, 0) < event.done <= event.total
            done[event.stage] = event.done
    order = [event.stage for event in told if isinstance(event, Progress)]
    assert "generate" not in order or "prefill" not in order[order.index("generate") :]


@pytest.fixture
def replaced(tiny: Any) -> Callable[..., Any]:
    """Return a function that gives the tiny model another forward and other logits."""
    inner = tiny.model.language_model

    def make(forward: Callable[..., Any], logits: Callable[..., Any]) -> Any:
        class LanguageModel:
            config, dtype, devices, embed = inner.config, inner.dtype, inner.devices, inner.embed

            def __call__(self, *args: Any) -> Any:
                return forward(*args)

            def logits(self, hidden: Any) -> Any:
                return logits(hidden)

        return SimpleNamespace(
            device=tiny.model.device, language_model=LanguageModel(), fusion=None
        )

    return make


@pytest.fixture
def mixed(ask, video):
    """Return a maker of requests of every kind, numbered from 0."""

    def make(num=8, **options):
        kinds = [
            lambda i, **o: ask(f"Question {i}?", request_id=i, **o),
            lambda i, **o: ask("A ", video([i, 2, 3]), " what?", request_id=i, **o),
            lambda i, **o: ask("Say ", video([i]), " and ", video([9, i]), ".", request_id=i, **o),
            lambda i, **o: ask(f"Roll {i}", request_id=i, temperature=1.0, seed=i, **o),
            lambda i, **o: ask(f"Yes? {i}", request_id=i, response_format=["yes", "no"], **o),
        ]
        return [
            kinds[i % len(kinds)](i, **{"max_new_tokens": 5 + i % 7, **options}) for i in range(num)
        ]

    return make


@pytest.fixture
def facts() -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that keeps of an answer what must not depend on company.

    That is everything but the times and the last digits.
    """

    def keep(answer: Any) -> tuple[Any, ...]:
        confidence = None if answer.confidence is None else round(answer.confidence, 3)
        return (answer.text, answer.token_ids, answer.finish_reason, answer.parsed, confidence)

    return keep


@pytest.fixture
def sinks(tiny):
    """Return the ids before the first frame of a stream."""
    return tiny.tokenizer.encode("You see: ")


@pytest.fixture
def question(tiny):
    """Return the rows of a question about a stream, (7, D)."""
    return tiny.model.language_model.embed(torch.tensor(tiny.tokenizer.encode(" What?"))).detach()


@pytest.fixture
def frame(video):
    """Return a maker of the stream's frames, of 6 tokens, or every third of 4."""

    def make(idx, *, mixed=False, **options):
        plan = {}
        if mixed and idx % 3 == 1:
            plan = {"newline": Newline.NONE, "num_tokens": 4}
        return video([idx], plan=plan, **options)

    return make


@pytest.fixture
def opened(make_engine, sinks):
    """Return a maker of windows of three frames; they are closed before the engine is looked at."""
    made = []

    def make(engine=None, **options):
        engine = engine or make_engine()
        made.append(SlidingWindow(engine, sinks, **{"num_frames": 3, **options}))
        return made[-1]

    yield make
    for window in made:
        window.close()
