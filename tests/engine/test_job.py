import pytest
import torch

from llava_video.engine.arena import Arena
from llava_video.engine.constraint import ConstraintCompiler
from llava_video.engine.job import Job, Tools
from llava_video.engine.request import Failed, Finished, Progress, TextPart, answer_of
from llava_video.engine.sequence import Sequence
from llava_video.engine.step import run_step
from llava_video.errors import CapacityError, ConfigError


@pytest.fixture
def make_job(tiny):
    """Return a maker of jobs over an arena of some tokens; their events are in `job.told`."""

    def make(request, limit_tokens=None):
        text = tiny.model.language_model.config
        arena = Arena(
            text.num_layers,
            text.num_kv_heads,
            text.head_dim,
            dtype=torch.float32,
            devices=[torch.device("cpu")],
            slab_tokens=64,
            limit_tokens=limit_tokens,
        )
        tools = Tools(
            model=tiny.model,
            tokenizer=tiny.tokenizer,
            eos_ids=frozenset(tiny.generation.eos_ids),
            repetition_penalty=1.05,
            constraints=ConstraintCompiler(tiny.tokenizer.to_json, text.vocab_size, ()),
            tile_chunk=2,
            arena=arena,
        )
        told = []
        return Job(request, tools, told.append), arena, told

    return make


@torch.inference_mode()
def step(tiny, job, arena, prefill_tokens):
    works = job.works(prefill_tokens)
    logits = run_step(tiny.model.language_model, arena, works)
    job.receive(works, torch.split(logits, [work.num_logits for work in works]))


def test_a_job_runs_through_its_stages(tiny, make_job, ask, video):
    job, arena, told = make_job(ask("ab", video([1, 2]), "c", max_new_tokens=3, request_id=7))
    assert job.need_tokens() == 2 + 12 + 1 + 3
    assert (job.prefill_left_tokens, arena.used_tokens) == (0, 0)
    job.admit()
    assert (job.prefill_left_tokens, arena.used_tokens) == (15, 18)
    assert job.works(0) == []  # no share of the chunk, nothing to bring
    for prefill_tokens, left in ((4, 11), (100, 0)):
        step(tiny, job, arena, prefill_tokens)
        assert job.prefill_left_tokens == left
    assert told[:5] == [
        Progress(7, "vision", 1, 2),
        Progress(7, "prefill", 4, 15),
        Progress(7, "vision", 2, 2),
        Progress(7, "prefill", 15, 15),
        Progress(7, "generate", 1, 3),
    ]
    while not job.has_ended:
        step(tiny, job, arena, 100)
    assert isinstance(told[-1], Finished)
    assert told[-1].answer.new_tokens == 3
    assert arena.used_tokens == 0


def test_a_request_without_room_reserves_nothing(make_job, ask):
    job, arena, _ = make_job(ask("abc", max_new_tokens=10), limit_tokens=12)
    with pytest.raises(CapacityError):
        job.admit()
    assert arena.used_tokens == 0
    choices, arena, _ = make_job(ask("abc", response_format=["yes", "no"]), limit_tokens=6)
    assert choices.need_tokens() == 3 + 3 + 2
    with pytest.raises(CapacityError):
        choices.admit()
    assert arena.used_tokens == 0


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
def test_failing_at_any_time_frees_and_tells(tiny, make_job, ask, video, num_steps):
    part = video([1, 2])
    job, arena, told = make_job(ask("ab", part, "c"))
    if num_steps:
        job.admit()
    for _ in range(num_steps - 1):
        step(tiny, job, arena, 9)
    job.fail(RuntimeError("broken"))
    assert isinstance(told[-1], Failed)
    assert job.has_ended
    assert arena.used_tokens == 0
    assert part.clips.opened == part.clips.closed
    assert job.works(9) == []
    job.receive([], [])  # too late, and harmless
    assert isinstance(told[-1], Failed)


def test_what_a_kept_prefix_saves(engine, ask, video):
    with answer_of(engine, ask("ab", video([1, 2]), "cd", keep=True)).sequence as kept:
        cases = [
            (("ab", video([1, 2]), "cd\n"), 16),
            (("ab", video([1, 2]), "\n"), 14),
            (("ab", video([1, 3]), "cd"), 2),
            (("a", TextPart(()), "b", video([1, 2]), "c", "d"), 15),
            (("x", video([1, 2])), 0),
        ]
        for parts, reused_tokens in cases:
            answer = answer_of(engine, ask(*parts, reuse=kept))
            assert answer.reused_tokens == reused_tokens


def test_another_engines_sequence_is_refused(make_engine, ask):
    first, second = make_engine(), make_engine()
    with (
        answer_of(first, ask("ab", keep=True)).sequence as kept,
        pytest.raises(ConfigError, match="another engine"),
    ):
        answer_of(second, ask("abc", reuse=kept))


def test_a_kept_sequence_names_exactly_its_tokens(engine, ask, video):
    part = video([1, 2])
    answer = answer_of(engine, ask("ab", part, "c", max_new_tokens=5, keep=True))
    with answer.sequence as kept:
        assert isinstance(kept, Sequence)
        assert kept.elements[:2] == (97, 98)
        assert kept.elements[2].key == part.key
        # The last token was chosen and never read.
        assert kept.elements[3:] == (99, *answer.token_ids[:-1])
        assert kept.num_tokens == 2 + 12 + 1 + 4
