import dataclasses

import pytest
import torch

from llava_video.engine.prefixes import KeptPrefixes
from llava_video.engine.request import Failed, Finished, Progress, TextPart, answer_of
from llava_video.engine.sequence import Sequence
from llava_video.engine.step import run_step
from llava_video.errors import CapacityError, ConfigError


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


def test_a_fused_prompt_brings_nothing_before_its_last_frame(tiny, mini, make_job, ask, fused):
    part = fused("ab", [1, 2, 3], "c", chunk_frames=1)
    job, arena, told = make_job(ask(part, max_new_tokens=3, request_id=7), model=mini)
    assert job.need_tokens() == 2 + 12 + 1 + 3
    job.admit()
    assert arena.used_tokens == 18
    for done in (2, 3):  # two tiles a call
        assert job.prefill_left_tokens == 0  # it takes nobody's share of the chunk
        assert job.works(0) == []
        assert told[-1] == Progress(7, "vision", done, 3)
    assert job.prefill_left_tokens == 15
    for prefill_tokens, left in ((4, 11), (100, 0)):
        step(tiny, job, arena, prefill_tokens)
        assert job.prefill_left_tokens == left
    while not job.has_ended:
        step(tiny, job, arena, 100)
    answer = told[-1].answer
    assert (answer.text_tokens, answer.visual_tokens, answer.new_tokens) == (3, 12, 3)
    assert answer.timings["vision"] > 0
    assert arena.used_tokens == 0
    # Words that were fused come from the visual too.
    assert all(job.is_visual(idx) for idx in range(15))
    assert not job.is_visual(15)


def test_ids_beyond_the_vocabulary_are_refused_in_a_fused_prompt_too(make_job, ask, fused):
    part = fused("ab", [1], "c")
    with pytest.raises(ConfigError, match="the prompt has ids from 97 to 999"):
        make_job(ask(dataclasses.replace(part, after=(999,))))


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


def test_rows_of_visuals_are_told_from_words(make_job, ask, video):
    job, _, _ = make_job(ask("ab", video([1, 2]), "c"))
    assert [job.is_visual(idx) for idx in range(17)] == [False] * 2 + [True] * 12 + [False] * 3


@pytest.mark.parametrize(
    ("options", "is_free"),
    [
        ({}, True),
        ({"temperature": 1.0}, True),
        ({"response_format": ["yes", "no"]}, False),
        ({"response_format": {"type": "integer"}}, False),
    ],
)
def test_an_answer_is_free_once_its_prompt_was_read(tiny, make_job, ask, options, is_free):
    job, arena, _ = make_job(ask("abcdef", **options))
    assert job.writing() is None
    job.admit()
    step(tiny, job, arena, 4)
    assert job.writing() is None
    step(tiny, job, arena, 2)
    writing = job.writing()
    assert (writing is not None) == is_free
    if writing:
        sequence, writer = writing
        assert (sequence.num_tokens, len(writer.ids)) == (6, 1)
    job.abandon()
    assert job.writing() is None


def test_tokens_chosen_elsewhere_are_taken_like_its_own(tiny, make_job, ask):
    own, own_arena, own_told = make_job(ask("ab", max_new_tokens=5))
    own.admit()
    while not own.has_ended:
        step(tiny, own, own_arena, 9)
    answer = own_told[-1].answer
    job, arena, told = make_job(ask("ab", max_new_tokens=5))
    job.admit()
    step(tiny, job, arena, 9)
    for token_id in answer.token_ids[1:]:
        job.take(token_id)
    assert told[:-1] == own_told[:-1]
    assert told[-1].answer.token_ids == answer.token_ids
    job.take(7)  # too late, and harmless
    assert isinstance(told[-1], Finished)


def test_which_prefix_a_job_would_use(tiny, make_job, ask, video):
    prefixes = KeptPrefixes(1)
    first, arena, _ = make_job(ask("ab", video([1, 2]), "c", max_new_tokens=1), prefixes=prefixes)
    first.admit()
    step(tiny, first, arena, 15)
    assert first.has_ended
    cases = [
        (ask("ab", video([1, 2]), "d"), True),
        (ask("ab", video([1, 2]), "d", position_scale=2.0), False),
        (ask("ab", video([1, 3]), "d"), False),
        (ask("ab"), False),
    ]
    for request, is_found in cases:
        job, _, _ = make_job(request, arena=arena, prefixes=prefixes)
        assert (job.find_prefix(prefixes) is not None) == is_found
    prefixes.clear()
    assert arena.used_tokens == 0
