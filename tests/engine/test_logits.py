import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llava_video.engine.logits import (
    TokenChooser,
    Uniforms,
    draw,
    log_probs_of,
    penalize,
    warp,
)
from llava_video.engine.settings import GenerationSettings


def random_logits(seed, vocab=50):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(vocab, generator=generator) * 3


@settings(deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 49), max_size=20),
    st.sampled_from([0.5, 1.0, 1.05, 1.1, 2.0]),
)
def test_the_penalty_is_that_of_transformers(seed, generated_ids, penalty):
    logits = random_logits(seed)
    ids = torch.tensor([generated_ids], dtype=torch.int64)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits[None].clone())[0]
    torch.testing.assert_close(penalize(logits, generated_ids, penalty), expected, rtol=0, atol=0)


def test_a_penalty_that_always_divides_is_rejected():
    """The mutant: dividing a negative logit would make a repeated token more probable."""
    logits = torch.tensor([-1.0, -1.05, 2.0])
    right = penalize(logits, [0, 0], 1.1)
    mutant = logits.clone()
    mutant[0] /= 1.1
    assert right.tolist() == pytest.approx([-1.1, -1.05, 2.0])
    assert right[0] < right[1] < mutant[0]


def test_the_penalty_counts_an_id_once():
    logits = torch.tensor([4.0, 1.0])
    assert penalize(logits, [0, 0, 0], 2.0).tolist() == [2.0, 1.0]
    assert logits.tolist() == [4.0, 1.0]  # not changed in place


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.2, 0.7, 1.0, 3.0]),
    st.sampled_from([0, 1, 5, 49, 50, 1000]),
    st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]),
)
def test_warping_is_that_of_transformers(seed, temperature, top_k, top_p):
    logits = random_logits(seed)
    scores = TemperatureLogitsWarper(temperature)(None, logits[None].clone())
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1.0:
        scores = TopPLogitsWarper(top_p)(None, scores)
    mine = warp(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    torch.testing.assert_close(mine, scores[0], rtol=0, atol=0)


def test_top_p_before_the_temperature_is_rejected():
    """Shares are 0.67 0.24 0.09 as they are, and 0.42 0.33 0.25 at temperature 4."""
    logits = torch.tensor([2.0, 1.0, 0.0])
    kept = warp(logits, temperature=4.0, top_k=0, top_p=0.66).isfinite()
    mutant = (warp(logits, temperature=1.0, top_k=0, top_p=0.66) / 4.0).isfinite()
    assert kept.tolist() == [True, True, False]
    assert mutant.tolist() == [True, False, False]


def test_greedy_is_argmax_after_penalty_and_constraint():
    logits = torch.tensor([3.0, 2.9, 1.0, 0.5])
    chooser = TokenChooser(GenerationSettings())
    assert chooser.next_token(logits, [0]) == 0
    assert TokenChooser(GenerationSettings(), repetition_penalty=1.1).next_token(logits, [0]) == 1
    asked_none = GenerationSettings(repetition_penalty=1.0)
    assert TokenChooser(asked_none, repetition_penalty=1.1).next_token(logits, [0]) == 0
    allowed = torch.tensor([False, False, True, True])
    assert chooser.next_token(logits, [], allowed) == 2


def test_draws_follow_the_probabilities():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2])
    uniforms, num = Uniforms(0), 20_000
    counts = torch.bincount(
        torch.tensor([draw(probabilities, uniforms.next()) for _ in range(num)]), minlength=4
    )
    assert counts[1] == 0
    # Five standard deviations of a binomial with p = 1/2 are 0.0177 of 20,000.
    assert torch.allclose(counts / num, probabilities, atol=0.018)


def test_uniform_numbers_are_used_once_and_in_order():
    generator = torch.Generator().manual_seed(5)
    expected = [float(torch.rand((), generator=generator, dtype=torch.float64)) for _ in range(40)]
    uniforms, used = Uniforms(5), []
    for num_ahead in (0, 3, 1, 30, 2):
        assert uniforms.ahead(num_ahead) == expected[len(used) : len(used) + num_ahead]
        used += [uniforms.next(), uniforms.next()]
    assert used == expected[: len(used)]


def test_a_token_chosen_elsewhere_takes_its_number():
    logits = [random_logits(seed) for seed in range(6)]
    plain, other = (TokenChooser(GenerationSettings(temperature=1.0)) for _ in range(2))
    expected = [plain.next_token(row, []) for row in logits]
    other.skip()
    other.skip()
    assert [other.next_token(row, []) for row in logits[2:]] == expected[2:]
    greedy = TokenChooser(GenerationSettings())
    greedy.skip()
    assert greedy.uniforms.next() == Uniforms(0).next()


def test_one_seed_gives_one_answer_whatever_else_is_drawn():
    logits = [random_logits(seed) for seed in range(20)]
    sampled = GenerationSettings(temperature=1.0, seed=7)

    def tokens(generation, *, disturb=False):
        chooser = TokenChooser(generation)
        ids = []
        for row in logits:
            if disturb:
                torch.rand(3)  # the global generator moves on
            ids.append(chooser.next_token(row, ids))
        return ids

    assert tokens(sampled) == tokens(sampled, disturb=True)
    assert tokens(sampled) != tokens(GenerationSettings(temperature=1.0, seed=8))


def test_a_cold_sample_is_greedy():
    chooser = TokenChooser(GenerationSettings(temperature=1e-4))
    for seed in range(20):
        logits = random_logits(seed)
        assert chooser.next_token(logits, []) == int(logits.argmax())


def test_sampling_never_takes_a_token_that_is_not_allowed():
    allowed = torch.zeros(50, dtype=torch.bool)
    allowed[[3, 11]] = True
    chooser = TokenChooser(GenerationSettings(temperature=5.0, top_k=40, top_p=0.99))
    drawn = {chooser.next_token(random_logits(seed), [], allowed) for seed in range(60)}
    assert drawn == {3, 11}


def test_choosing_among_answers():
    log_probs = torch.tensor([0.6, 0.4]).log()
    assert TokenChooser(GenerationSettings()).choose_among(log_probs) == 0
    chooser = TokenChooser(GenerationSettings(temperature=1.0))
    drawn = [chooser.choose_among(log_probs) for _ in range(2000)]
    assert sum(drawn) / 2000 == pytest.approx(0.4, abs=0.055)  # five standard deviations


def test_log_probs_are_those_of_log_softmax():
    logits = torch.stack([random_logits(seed) for seed in range(4)])
    ids = torch.tensor([0, 7, 49, 3])
    expected = torch.log_softmax(logits, dim=-1)[torch.arange(4), ids]
    torch.testing.assert_close(log_probs_of(logits, ids), expected)
