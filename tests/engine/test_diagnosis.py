import copy

import pytest
import torch

from llava_video.engine import step_runner
from llava_video.engine.diagnosis import diagnose, finite_rows
from llava_video.engine.request import answer_of
from llava_video.engine.sequence import Sequence
from llava_video.engine.step import Work
from llava_video.errors import CheckpointError
from llava_video.model import decoder, step_keys

NUM_TOKENS = 5


@pytest.fixture
def model(tiny):
    """Return a copy of the tiny model that a test may damage."""
    return copy.deepcopy(tiny.model)


@pytest.fixture
def diagnosis(make_job, ask):
    """Return a function that diagnoses a prompt of five tokens; each call writes the same cache."""
    _, arena, _ = make_job(ask("a"))
    sequence = Sequence(arena)
    sequence.reserve(NUM_TOKENS)

    @torch.inference_mode()
    def run(model, *, bad_row=None, is_visual=lambda idx: False):
        hidden = model.language_model.embed(torch.arange(40, 40 + NUM_TOKENS)).clone()
        if bad_row is not None:
            hidden[bad_row] = torch.nan
        work = Work(sequence=sequence, hidden=hidden, num_logits=1)
        return diagnose(model.language_model, arena, work, is_visual)

    return run


@pytest.mark.parametrize("layer_idx", [0, 1])
@pytest.mark.parametrize(
    "kind",
    ["input_norm", "q_proj", "k_proj", "v_proj", "o_proj", "post_norm", "gate_proj", "up_proj"],
)
def test_the_first_layer_that_overflows_is_named(model, diagnosis, layer_idx, kind):
    with torch.no_grad():
        getattr(model.language_model.layers[layer_idx], kind).weight.fill_(3e38)
    error = diagnosis(model)
    assert isinstance(error, CheckpointError)
    assert f"decoder layer {layer_idx}, {kind}." in error.message
    assert "float32" in error.message


def test_the_last_layer_of_a_block_is_named(model, diagnosis):
    with torch.no_grad():
        model.language_model.layers[1].down_proj.weight.fill_(torch.inf)
    assert "decoder layer 1, down_proj." in diagnosis(model).message


def broken_at(call, made):
    """Return a function like another, whose result is infinite the n-th time."""
    num_calls = 0

    def run(*args, **kwargs):
        nonlocal num_calls
        num_calls += 1
        result = made(*args, **kwargs)
        return result * torch.inf if num_calls == call else result

    return run


@pytest.mark.parametrize(
    ("module", "name", "call", "place"),
    [
        (step_keys, "attention", 2, "decoder layer 1, attention"),
        (decoder, "gated_silu", 1, "decoder layer 0, the gated product before down_proj"),
        (decoder, "add_residual", 1, "decoder layer 0, the residual sum after o_proj"),
        (decoder, "add_residual", 2, "decoder layer 0, the residual sum after down_proj"),
        (decoder, "add_residual", 4, "the last decoder layer, the residual sum after down_proj"),
    ],
)
def test_what_stands_between_layers_is_named(
    model, diagnosis, monkeypatch, module, name, call, place
):
    monkeypatch.setattr(module, name, broken_at(call, getattr(module, name)))
    assert f"the first came from {place}." in diagnosis(model).message


def test_the_final_norm_and_the_head_are_named(model, diagnosis, monkeypatch):
    language_model = model.language_model
    logits = language_model.logits
    monkeypatch.setattr(language_model, "logits", lambda hidden: logits(hidden) * torch.inf)
    assert "the head (lm_head)" in diagnosis(model).message
    with torch.no_grad():
        language_model.norm.weight.fill_(torch.nan)
    assert "the layer norm" in diagnosis(model).message


def test_rows_that_came_in_bad_are_not_blamed_on_the_decoder(model, diagnosis):
    """Rows 2 and 3 are a visual's."""
    for row, place in ((1, "token embeddings"), (2, "vision tower or the projector")):
        error = diagnosis(model, bad_row=row, is_visual=lambda idx: idx in (2, 3))
        assert f"the first came from the {place}." in error.message


def test_what_does_not_happen_again_says_so(model, diagnosis):
    assert "nowhere when computed again" in diagnosis(model).message


def test_no_hook_is_left(model, diagnosis):
    diagnosis(model)
    assert not any(module._forward_hooks for module in model.modules())


def test_float16_says_how_to_load(tiny, diagnosis, model):
    model.language_model.half()
    with torch.no_grad():
        model.language_model.layers[1].q_proj.weight.fill_(6e4)
    error = diagnosis(model)
    assert "float16 hold NaN or infinity; the first came from decoder layer 1, q_proj" in (
        error.message
    )
    assert "bfloat16" in error.hint
    assert "damaged" in diagnosis(copy.deepcopy(tiny.model)).hint


def test_rows_are_judged_one_by_one():
    logits = torch.zeros(4, 5)
    logits[1, 3], logits[2, 0], logits[3, 4] = torch.nan, torch.inf, -torch.inf
    assert finite_rows(logits) == [True, False, False, False]
    assert finite_rows(logits[:0]) == []


class TestInTheEngine:
    def test_a_vision_tower_that_overflows_ends_its_requests_alone(
        self, model, make_engine, ask, video, run_all
    ):
        with torch.no_grad():
            model.projector.get_parameter(_last_weight(model)).fill_(torch.nan)
        engine = make_engine(model=model, prefill_chunk_tokens=7)
        error, answer = run_all(engine, [ask("A ", video([1, 2]), "?"), ask("Hello", request_id=1)])
        assert "the vision tower or the projector" in error.message
        assert answer.token_ids == answer_of(make_engine(), ask("Hello")).token_ids

    def test_it_is_noticed_in_the_chunk_that_made_it(self, model, make_engine, ask, monkeypatch):
        """Not at the prompt's end, where only the cache would hold it."""
        with torch.no_grad():
            model.language_model.layers[0].up_proj.weight.fill_(3e38)
        steps = []
        run_step = step_runner.run_step
        monkeypatch.setattr(
            step_runner, "run_step", lambda *args: steps.append(1) or run_step(*args)
        )
        with pytest.raises(CheckpointError, match="decoder layer 0, up_proj"):
            answer_of(make_engine(model=model, prefill_chunk_tokens=4), ask("x" * 40))
        assert len(steps) == 1

    @pytest.mark.parametrize("free_running", ["off", "on"])
    def test_a_token_of_the_answer_can_be_the_cause(
        self, model, make_engine, ask, run_all, free_running
    ):
        free = answer_of(make_engine(), ask("Hello"))
        other = answer_of(make_engine(), ask("b"))
        culprit = next(i for i in free.token_ids[2:] if i not in (*b"Hello", *other.token_ids))
        embed = model.language_model.embed_tokens

        def damaged(module, inputs, rows):
            return torch.where((inputs[0] == culprit)[:, None], torch.nan, rows)

        embed.register_forward_hook(damaged)
        engine = make_engine(model=model, free_running=free_running)
        error, answer = run_all(engine, [ask("Hello"), ask("b", request_id=1)])
        assert "the first came from the token embeddings" in error.message
        assert answer.token_ids == other.token_ids
        assert engine.arena.used_tokens == 0


def _last_weight(model):
    return [name for name, _ in model.projector.named_parameters() if "weight" in name][-1]
