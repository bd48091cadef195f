import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.engine import sampler
from llava_video.engine.logits import TokenChooser
from llava_video.engine.sampler import RowRules, choose_tokens, choosing_of, rules_of
from llava_video.engine.settings import GenerationSettings

CPU = torch.device("cpu")

generations = st.builds(
    GenerationSettings,
    temperature=st.sampled_from([0.0, 1e-6, 0.3, 0.7, 1.0, 2.5]),
    top_p=st.sampled_from([1e-3, 0.3, 0.8, 0.95, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 40, 59, 60, 61, 1000]),
    seed=st.integers(0, 50),
    repetition_penalty=st.sampled_from([None, 0.5, 1.0, 1.3]),
)


def step_logits(seed, num_rows, vocab, *, levels=None):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, vocab, generator=generator) * 3
    return logits if levels is None else (logits * levels).round() / levels  # many are equal


def write_together(choosers, steps, vocab):
    """Choose every row's tokens at once, as the engine does; return them per row."""
    rules = rules_of(choosers, vocab, CPU)
    ahead = torch.tensor([c.uniforms.ahead(len(steps)) for c in choosers], dtype=torch.float64)
    seen = torch.zeros(len(choosers), vocab, dtype=torch.bool)
    tokens = []
    for idx, logits in enumerate(steps):
        chosen = choose_tokens(logits, seen, rules, ahead[:, idx], choosing_of(choosers))
        seen.scatter_(1, chosen[:, None], value=True)
        tokens.append(chosen.tolist())
    return [list(row) for row in zip(*tokens, strict=True)]


def write_alone(chooser, rows):
    ids = []
    for logits in rows:
        ids.append(chooser.next_token(logits, ids))
    return ids


@settings(max_examples=150, deadline=None)
@given(
    st.lists(generations, min_size=1, max_size=5),
    st.integers(0, 10_000),
    st.sampled_from([None, 1, 4]),
)
def test_together_as_alone(asked, seed, levels):
    steps = [step_logits(seed + idx, len(asked), 60, levels=levels) for idx in range(8)]
    alone = [
        write_alone(TokenChooser(one, 1.05), [logits[row] for logits in steps])
        for row, one in enumerate(asked)
    ]
    assert write_together([TokenChooser(one, 1.05) for one in asked], steps, 60) == alone


def test_at_the_size_of_a_real_vocabulary():
    asked = [
        GenerationSettings(),
        GenerationSettings(temperature=0.7, top_p=0.9, seed=1),
        GenerationSettings(temperature=1.0, top_k=50, seed=2),
        GenerationSettings(temperature=1.3, seed=3, repetition_penalty=1.1),
    ]
    steps = [step_logits(idx, 4, 151_936) for idx in range(3)]
    alone = [
        write_alone(TokenChooser(one), [s[row] for s in steps]) for row, one in enumerate(asked)
    ]
    assert write_together([TokenChooser(one) for one in asked], steps, 151_936) == alone


def test_temperature_after_the_cut_is_rejected(monkeypatch):
    """The mutant: top-p of the plain shares, then the temperature."""
    asked = [GenerationSettings(temperature=2.5, top_p=0.6, seed=seed) for seed in range(20)]
    steps = [step_logits(idx, 20, 60) for idx in range(3)]
    right = write_together([TokenChooser(one) for one in asked], steps, 60)
    cut = sampler._cut

    def mutant(scaled, rules):
        return cut(scaled * rules.temperatures, rules) / rules.temperatures

    monkeypatch.setattr(sampler, "_cut", mutant)
    assert write_together([TokenChooser(one) for one in asked], steps, 60) != right


def test_what_a_batch_needs():
    def needs(*asked):
        return choosing_of([TokenChooser(GenerationSettings(**one)) for one in asked])

    assert needs({}, {"top_k": 5, "top_p": 0.5}) == "greedy"  # greedy rows need no cut
    assert needs({}, {"temperature": 1.0}) == "sampled"
    assert needs({"temperature": 1.0}, {"temperature": 1.0, "top_k": 5}) == "cut"
    assert needs({"temperature": 1.0, "top_p": 0.5}) == "cut"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("choosing", ["greedy", "sampled", "cut"])
def test_rows_that_are_not_finite_say_so(bad, choosing):
    choosers = [TokenChooser(GenerationSettings(temperature=1.0)) for _ in range(3)]
    logits = step_logits(0, 3, 60)
    seen, uniforms = torch.zeros(3, 60, dtype=torch.bool), torch.full((3,), 0.5).double()
    rules = rules_of(choosers, 60, CPU)
    fine = choose_tokens(logits, seen, rules, uniforms, choosing)
    logits[1, 7] = bad
    chosen = choose_tokens(logits, seen, rules, uniforms, choosing)
    assert chosen.tolist() == [fine[0], -1, fine[2]]


def test_rules_are_overwritten_in_place():
    one = [TokenChooser(GenerationSettings()), TokenChooser(GenerationSettings(temperature=2.0))]
    other = [TokenChooser(GenerationSettings(temperature=0.5, top_k=3), 1.2), None]
    rules = rules_of([*one, *one], 60, CPU)
    places = [getattr(rules, name).data_ptr() for name in RowRules.__slots__]
    rules.copy_(rules_of(other, 60, CPU))
    assert [getattr(rules, name).data_ptr() for name in RowRules.__slots__] == places
    assert rules.temperatures[:, 0].tolist() == [0.5, 1.0, 1.0, 2.0]
    assert rules.is_greedy.tolist() == [False, True, True, False]
    assert rules.first(2).top_ks[:, 0].tolist() == [3, 60]
    assert rules.penalties[0].item() == pytest.approx(1.2)
