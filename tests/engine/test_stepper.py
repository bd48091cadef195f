import pytest
import torch

from llava_video.engine import stepper as stepper_module
from llava_video.engine.prefixes import KeptPrefixes
from llava_video.engine.request import Failed, Finished, answer_of
from llava_video.engine.settings import EngineSettings
from llava_video.engine.stepper import Stepper


@pytest.fixture
def stepper(tiny, make_job, ask):
    """Return a maker of steppers, each with the arena it steps in."""

    def make(**settings):
        _, arena, _ = make_job(ask("a"))
        arena.slab_tokens = 512
        options = EngineSettings(**{"prefill_chunk_tokens": 8, **settings})
        return Stepper(tiny.model.language_model, arena, KeptPrefixes(0), options), arena

    return make


@torch.inference_mode()
@pytest.mark.parametrize("free_running", ["off", "on"])
def test_one_step_takes_everybody_one_step_further(
    stepper, make_job, ask, make_engine, monkeypatch, free_running
):
    steps, arena = stepper(free_running=free_running)
    requests = [
        ask("ab", max_new_tokens=4),
        ask("x" * 30, request_id=1, max_new_tokens=3),
        ask("Yes?", request_id=2, response_format=["yes", "no"]),
        ask("n", request_id=3, response_format={"type": "integer"}, max_new_tokens=5),
    ]
    made = [make_job(request, arena=arena) for request in requests]
    for job, _, _ in made:
        job.admit()
    sizes = []
    run = steps._runner.run
    monkeypatch.setattr(
        steps._runner,
        "run",
        lambda works: sizes.append(sum(len(w.hidden) for w in works)) or run(works),
    )
    for _ in range(40):
        steps.step([job for job, _, _ in made if not job.has_ended])
    plain = make_engine(penalty=1.05)
    for request, (_, _, told) in zip(requests, made, strict=True):
        assert isinstance(told[-1], Finished)
        assert told[-1].answer.token_ids == answer_of(plain, request).token_ids
    assert sizes[0] == 8
    assert max(sizes) <= 8 + 3 + 5  # a chunk, a token of each that writes, and "yes" and "no"
    assert arena.used_tokens == 0


@torch.inference_mode()
def test_prompts_share_a_chunk_shortest_first(stepper, make_job, ask):
    steps, arena = stepper(prefill_chunk_tokens=10)
    jobs = [make_job(ask("x" * length), arena=arena)[0] for length in (50, 2, 4)]
    for job in jobs:
        job.admit()
    assert steps._shares(jobs) == [4, 2, 4]
    jobs[2].abandon()
    assert steps._shares(jobs[:2]) == [8, 2]
    for job in jobs:
        job.abandon()


@torch.inference_mode()
@pytest.mark.parametrize("free_running", ["off", "on"])
def test_logits_that_are_not_finite_end_their_request_alone(
    tiny, stepper, make_job, ask, make_engine, monkeypatch, free_running
):
    """The third step's first row holds NaN."""
    steps, arena = stepper(free_running=free_running)
    bad, _, bad_told = make_job(ask("ab"), arena=arena)
    good, _, good_told = make_job(ask("abc", request_id=1), arena=arena)
    bad.admit()
    good.admit()
    logits, calls = tiny.model.language_model.logits, []

    def damaged(hidden):
        calls.append(len(hidden))
        made = logits(hidden)
        if len(calls) == 3:
            made[0] = torch.nan
        return made

    monkeypatch.setattr(tiny.model.language_model, "logits", damaged)
    while not (bad.has_ended and good.has_ended):
        steps.step([job for job in (bad, good) if not job.has_ended])
    assert isinstance(bad_told[-1], Failed)
    assert "hold NaN or infinity" in bad_told[-1].error.message
    expected = answer_of(make_engine(penalty=1.05), ask("abc")).token_ids
    assert good_told[-1].answer.token_ids == expected


@torch.inference_mode()
def test_the_failing_work_is_the_one_diagnosed(tiny, stepper, make_job, ask, monkeypatch):
    """Of the two choices read in one step, the second is not finite."""
    steps, arena = stepper(prefill_chunk_tokens=100)
    job, _, _ = make_job(ask("ab", response_format=["yes", "no"]), arena=arena)
    job.admit()
    steps.step([job])
    logits, diagnosed = tiny.model.language_model.logits, []

    def damaged(hidden):
        made = logits(hidden)
        made[-1] = torch.inf
        return made

    def diagnose(model, cache, work, is_visual):
        diagnosed.append(len(work.hidden))
        return ValueError("not finite")

    monkeypatch.setattr(tiny.model.language_model, "logits", damaged)
    monkeypatch.setattr(stepper_module, "diagnose", diagnose)
    steps.step([job])
    assert diagnosed == [2]  # "no", not "yes"
    assert job.has_ended
