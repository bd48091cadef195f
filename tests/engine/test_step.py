import pytest
import torch

from llava_video.engine.sequence import Sequence
from llava_video.engine.step import Work, run_step
from llava_video.model.step_rows import Row


@pytest.fixture
def arena(arena_of):
    return arena_of(slab_tokens=64)


def begin(arena, num_tokens, **options):
    sequence = Sequence(arena, **options)
    sequence.reserve(num_tokens)
    return sequence


def alone(tiny, arena, ids, scale=1.0):
    """Compute one prompt in one forward, with the model's own interface: logits of every token."""
    model = tiny.model.language_model
    extent = arena.reserve(len(ids))
    hidden = model(
        model.embed(torch.tensor(ids)),
        torch.arange(len(ids)),
        [Row(0, len(ids), (), extent.span)],
        arena,
        [scale],
    )
    arena.release(extent)
    return model.logits(hidden)


@torch.inference_mode()
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_mixture_of_chunks_and_single_tokens_is_each_alone(tiny, arena, scale):
    embed = tiny.model.language_model.embed
    prompts = [list(range(40, 61)), [70, 71, 72], [90] * 9]
    expected = [alone(tiny, arena, ids, scale) for ids in prompts]
    sequences = [begin(arena, len(ids), position_scale=scale) for ids in prompts]
    got = [[] for _ in prompts]
    for sizes in ((5, 1, 0), (1, 0, 8), (14, 2, 1), (1, 0, 0)):
        works = []
        for sequence, ids, size in zip(sequences, prompts, sizes, strict=True):
            if size:
                start = sequence.num_tokens
                hidden = embed(torch.tensor(ids[start : start + size]))
                works.append(Work(sequence=sequence, hidden=hidden, num_logits=size))
        parts = iter(
            torch.split(
                run_step(tiny.model.language_model, arena, works), [w.num_logits for w in works]
            )
        )
        for sequence, logits, size in zip(sequences, got, sizes, strict=True):
            if size:
                logits.append(next(parts))
                sequence.append(size)
    for sequence, logits, wanted in zip(sequences, got, expected, strict=True):
        torch.testing.assert_close(torch.cat(logits), wanted, rtol=0, atol=1e-4)
        sequence.release()
    assert arena.used_tokens == 0


@torch.inference_mode()
def test_only_the_logits_asked_for_are_made(tiny, arena):
    model = tiny.model.language_model
    works = [
        Work(sequence=begin(arena, 3), hidden=model.embed(torch.tensor(ids)), num_logits=num)
        for ids, num in (([50, 51, 52], 1), ([60, 61, 62], 0), ([70, 71, 72], 2))
    ]
    logits = run_step(model, arena, works)
    expected = [alone(tiny, arena, [50, 51, 52])[-1:], alone(tiny, arena, [70, 71, 72])[-2:]]
    torch.testing.assert_close(logits, torch.cat(expected), rtol=0, atol=1e-4)
    assert logits.dtype == torch.float32


@torch.inference_mode()
def test_a_step_may_want_no_logits(tiny, arena):
    model = tiny.model.language_model
    work = Work(sequence=begin(arena, 2), hidden=model.embed(torch.tensor([5, 6])), num_logits=0)
    assert run_step(model, arena, [work]).shape == (0, model.config.vocab_size)


@torch.inference_mode()
def test_a_scale_that_is_ignored_would_be_noticed(tiny, arena):
    ids = list(range(40, 61))
    scaled, plain = alone(tiny, arena, ids, 2.5), alone(tiny, arena, ids)
    assert (scaled - plain).abs().max() > 1e-2
