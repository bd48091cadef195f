import itertools

import pytest
import torch

from llava_video.engine.choices import ChoiceScorer
from llava_video.engine.request import answer_of
from llava_video.engine.sequence import Sequence
from llava_video.engine.settings import GenerationSettings
from llava_video.engine.step import Work, run_step
from llava_video.errors import CapacityError, ConfigError

PROMPT = list(b"Is there a dog?")


@pytest.fixture
def arena(arena_of):
    return arena_of(slab_tokens=256)


def read(tiny, arena, ids):
    """Read ids in one step; return their sequence and the log-probabilities after each."""
    sequence = Sequence(arena)
    sequence.reserve(len(ids))
    hidden = tiny.model.language_model.embed(torch.tensor(ids))
    work = Work(sequence=sequence, hidden=hidden, num_logits=len(ids))
    logits = run_step(tiny.model.language_model, arena, [work])
    sequence.append(len(ids), completes=ids)
    return sequence, logits


def expected_log_prob(tiny, arena, ids, eos_ids):
    """Compute one choice after the prompt from one forward over both."""
    sequence, logits = read(tiny, arena, PROMPT + ids)
    sequence.release()
    log_probs = torch.log_softmax(logits.double(), dim=-1)[len(PROMPT) - 1 :]
    total = sum(float(log_probs[i, token_id]) for i, token_id in enumerate(ids))
    return total + (float(log_probs[-1, sorted(eos_ids)].logsumexp(0)) if eos_ids else 0.0)


def score(tiny, arena, choices, eos_ids):
    prompt, logits = read(tiny, arena, PROMPT)
    scorer = ChoiceScorer(choices, arena, eos_ids)
    scorer.begin(prompt, logits[-1:])
    num_steps = 0
    while not scorer.is_done:
        works = scorer.works(tiny.model)
        sizes = [work.num_logits for work in works]
        assert sum(sizes) <= 64
        scorer.read(torch.split(run_step(tiny.model.language_model, arena, works), sizes))
        num_steps += 1
    prompt.release()
    return scorer, num_steps


@torch.inference_mode()
@pytest.mark.parametrize("with_end", [True, False])
def test_scores_are_those_of_each_choice_read_with_the_prompt(tiny, arena, with_end):
    eos_ids = tiny.generation.eos_ids if with_end else ()
    choices = [list(text) for text in (b"yes", b"no", b"y", b"yes, a large brown dog", b"x" * 90)]
    scorer, num_steps = score(tiny, arena, choices, eos_ids)
    expected = [expected_log_prob(tiny, arena, ids, eos_ids) for ids in choices]
    assert scorer.log_probs.tolist() == pytest.approx(expected, abs=1e-3)
    assert num_steps > 1  # 119 tokens, 64 a step
    scorer.release()
    assert arena.used_tokens == 0


@torch.inference_mode()
def test_leaving_out_the_end_would_be_noticed(tiny, arena):
    """The mutant: without the end, a choice that another one begins with could not lose to it."""
    choices = [list(b"y"), list(b"ye")]
    with_end, _ = score(tiny, arena, choices, tiny.generation.eos_ids)
    without, _ = score(tiny, arena, choices, ())
    assert without.log_probs[0] > without.log_probs[1]
    assert (with_end.log_probs - without.log_probs).abs().min() > 0.1
    with_end.release()
    without.release()


@torch.inference_mode()
def test_the_chosen_branch_is_handed_over(tiny, arena):
    scorer, _ = score(tiny, arena, [list(b"yes"), list(b"no")], tiny.generation.eos_ids)
    sequence = scorer.take(1)
    scorer.release()
    assert list(sequence.elements) == PROMPT + list(b"no")
    sequence.release()
    assert arena.used_tokens == 0


def test_no_room_reserves_nothing(tiny, arena_of):
    text = tiny.model.language_model.config
    limit_bytes = 8 * 2 * text.num_layers * text.num_kv_heads * text.head_dim * 4
    arena = arena_of(slab_tokens=8, limit_bytes=limit_bytes)
    with pytest.raises(CapacityError):
        ChoiceScorer([[1, 2, 3], [4, 5, 6], [7, 8, 9]], arena, ())
    assert arena.used_tokens == 0


def test_an_answer_among_choices_has_a_confidence(engine, ask):
    choices = ["yes", "no", "cannot be seen"]
    answer = answer_of(engine, ask("A dog?", response_format=choices, max_new_tokens=20))
    assert answer.text == answer.parsed == choices[choices.index(answer.text)]
    assert answer.finish_reason == "stop"
    assert 1 / 3 <= answer.confidence <= 1.0
    assert bytes(answer.token_ids).decode() == answer.text


def test_confidence_does_not_depend_on_the_order_of_choices(engine, ask):
    answers = [
        answer_of(engine, ask("A dog?", response_format=list(order), max_new_tokens=20))
        for order in itertools.permutations(["yes", "no", "cannot be seen"])
    ]
    assert len({answer.text for answer in answers}) == 1
    assert max(a.confidence for a in answers) - min(a.confidence for a in answers) < 1e-4


def test_sampled_choices_follow_their_confidence(engine, ask, run_all):
    # A pair of digits that the random model is undecided about.
    pairs = [list(pair) for pair in itertools.combinations("0123456789", 2)]
    answers = {tuple(p): answer_of(engine, ask("A dog?", response_format=p)) for p in pairs}
    pair, greedy = min(answers.items(), key=lambda item: item[1].confidence)
    assert greedy.confidence < 0.9
    requests = [
        ask("A dog?", response_format=pair, temperature=1.0, seed=seed, request_id=seed)
        for seed in range(200)
    ]
    drawn = [answer.text for answer in run_all(engine, requests)]
    assert set(drawn) == set(pair)
    deviation = (greedy.confidence * (1 - greedy.confidence) / len(drawn)) ** 0.5
    share = drawn.count(greedy.text) / len(drawn)
    assert share == pytest.approx(greedy.confidence, abs=5 * deviation)
    assert [answer_of(engine, request).text for request in requests[:9]] == drawn[:9]


def test_a_choice_that_could_only_be_cut_is_refused(engine, ask):
    with pytest.raises(ConfigError, match="a choice takes 8 tokens"):
        answer_of(engine, ask("Sure?", response_format=["maybe so", "no"], max_new_tokens=6))
    with pytest.raises(ConfigError, match="stop"):
        GenerationSettings(response_format=["yes", "no"], stop=("y",))
