import pytest
import torch
from kernels import interpreted
from torch.utils._python_dispatch import TorchDispatchMode

from llava_video.engine import decode_state
from llava_video.engine.decode_state import STEPS_AHEAD, DecodeState, WriterRow, decode_step
from llava_video.engine.settings import GenerationSettings
from llava_video.engine.writer import AnswerWriter
from llava_video.model import step_keys
from llava_video.model.kv_cache import KvCache
from llava_video.model.step_rows import Row, decode_keys
from llava_video.ops import dispatch

CPU = torch.device("cpu")
VOCAB = 320


@pytest.fixture
def writer(tiny):
    """Return a maker of writers that have said these ids."""

    def make(ids, **options):
        generation = GenerationSettings(**{"max_new_tokens": 200, "loop_guard": False, **options})
        made = AnswerWriter(generation, tiny.tokenizer, eos_ids=(), repetition_penalty=1.2)
        for token_id in ids:
            made.write_chosen(token_id)
        return made

    return make


def rows_of(*rows):
    return [
        WriterRow(writer=writer, source_idx=source_idx, num_pending=num_pending)
        for writer, source_idx, num_pending in rows
    ]


def logits_of(seed, num_rows=4):
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def test_new_rows_begin_with_what_their_writers_said(writer):
    state = DecodeState(4, VOCAB, CPU)
    state.arrange(rows_of((writer([5, 9, 5]), None, 0), (writer([7]), None, 0)), 2)
    assert state.ids[:2].tolist() == [5, 7]
    assert [row.nonzero()[:, 0].tolist() for row in state.seen[:2]] == [[5, 9], [7]]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.9}])
def test_rows_write_what_their_choosers_would(writer, options):
    """Rows join, move and leave while their last tokens are still on the device."""
    asked = [{**options, "seed": seed} for seed in range(4)]
    begun = [[11, 12], [13], [14, 15, 16], [17]]
    lineups = [[0, 1], [2, 1, 0], [3, 1], [1, 3]]  # whose rows, for three steps each
    expected = []
    for who, (ids, one) in enumerate(zip(begun, asked, strict=True)):
        plain = writer(ids, **one)
        for step in range(12):
            if who in lineups[step // 3]:
                plain.write(logits_of(step)[who])
        expected.append(plain.ids)

    state = DecodeState(4, VOCAB, CPU)
    writers = [writer(ids, **one) for ids, one in zip(begun, asked, strict=True)]
    given = {idx: list(begun[idx]) for idx in range(4)}
    before, pending = [], {}
    for number, lineup in enumerate(lineups):
        rows = [
            (writers[who], before.index(who) if who in before else None, pending.get(who, 0))
            for who in lineup
        ]
        state.arrange(rows_of(*rows), 4)
        for step in range(3 * number, 3 * number + 3):
            logits = torch.zeros(4, VOCAB)
            logits[: len(lineup)] = torch.stack([logits_of(step)[who] for who in lineup])
            state.choose(logits, "cut")
            for who, token_id in zip(lineup, state.tokens.tolist(), strict=False):
                given[who].append(token_id)
            for who in lineup:  # one token stays behind, as when it is read late
                said = len(writers[who].ids)
                for token_id in given[who][said:-1]:
                    writers[who].write_chosen(token_id)
                pending[who] = 1
        for who in set(lineup) - set(lineups[min(number + 1, 3)]):
            writers[who].write_chosen(given[who][-1])  # it leaves: all is read
            pending[who] = 0
        before = lineup
    assert [given[who] for who in range(4)] == expected


def test_a_row_without_finite_logits_says_so_and_the_others_go_on(writer):
    state = DecodeState(2, VOCAB, CPU)
    state.arrange(rows_of((writer([5]), None, 0), (writer([7]), None, 0)), 2)
    logits = logits_of(0, 2)
    logits[0, 3] = torch.nan
    state.choose(logits, "greedy")
    assert state.tokens.tolist() == [-1, int(logits_of(0, 2)[1].argmax())]
    assert state.ids[0] >= 0  # it is embedded once more before the host knows


def test_numbers_are_drawn_for_all_steps_ahead(writer):
    state = DecodeState(1, VOCAB, CPU)
    sampled, plain = (writer([5], temperature=1.0) for _ in range(2))
    state.arrange(rows_of((sampled, None, 0)), 1)
    for step in range(STEPS_AHEAD):
        state.choose(logits_of(step, 1), "sampled")
        plain.write(logits_of(step, 1)[0])
        assert int(state.tokens[0]) == plain.ids[-1]
    assert len(plain.ids) == 1 + STEPS_AHEAD


class NoWaiting(TorchDispatchMode):
    """Fails where a value is read from a tensor: on a GPU the host would wait for it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.masked_select,
        ), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("choosing", ["greedy", "sampled", "cut"])
def test_choosing_waits_for_nothing(writer, choosing):
    state = DecodeState(2, VOCAB, CPU)
    rows = rows_of((writer([5], temperature=1.0, top_p=0.5), None, 0), (writer([7]), None, 0))
    state.arrange(rows, 2)
    with NoWaiting():
        state.choose(logits_of(0, 2), choosing)
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        state.tokens[0].item()


@pytest.fixture
def begun(tiny):
    """Return a cache in which two prompts of 9 and 4 tokens were read, and a maker of keys."""
    model, config = tiny.model.language_model, tiny.model.language_model.config

    def make():
        cache = KvCache(
            config.num_layers,
            config.num_kv_heads,
            config.head_dim,
            dtype=torch.float32,
            devices=[CPU],
            slab_tokens=64,
        )
        spans = [cache.reserve(24).span, cache.reserve(20).span]
        for span, length in zip(spans, (9, 4), strict=True):
            hidden = model.embed(torch.arange(40, 40 + length))
            model(hidden, torch.arange(length), [Row(0, length, (), span.part(0, length))], cache)

        def keys_at(step):
            lengths = [9 + step, 4 + step]
            rows = [
                Row(idx, idx + 1, (span.part(0, length),), span.part(length, length + 1))
                for idx, (span, length) in enumerate(zip(spans, lengths, strict=True))
            ]
            idxs, scales = torch.tensor(lengths), [1.0, 2.5]
            return decode_keys(idxs, rows, scales, config, mode="exact", device=CPU, num_items=8)

        return cache, keys_at

    return make


def last_items(keys):
    is_last_item = torch.zeros(8, dtype=torch.int32)
    is_last_item[keys.work.row_items[1:].long() - 1] = 1
    return is_last_item


@torch.inference_mode()
def test_a_step_leaves_everything_as_the_next_one_needs_it(tiny, writer, begun):
    """Ten steps in place equal ten steps whose keys are made anew."""

    def run(*, is_new_each_step):
        cache, keys_at = begun()
        state = DecodeState(2, VOCAB, CPU)
        state.arrange(rows_of((writer([60]), None, 0), (writer([61]), None, 0)), 2)
        keys, said = keys_at(0), []
        tensors = [keys.slots, keys.work.items, keys.rotation.idxs, keys.rotation.cos]
        places = [tensor.data_ptr() for tensor in tensors]
        for step in range(10):
            if is_new_each_step:
                keys = keys_at(step)
            decode_step(tiny.model.language_model, cache, keys, last_items(keys), state, "greedy")
            said.append(state.tokens.tolist())
        if not is_new_each_step:  # a graph would find everything where it was
            tensors = [keys.slots, keys.work.items, keys.rotation.idxs, keys.rotation.cos]
            assert [tensor.data_ptr() for tensor in tensors] == places
        return said

    assert run(is_new_each_step=False) == run(is_new_each_step=True)


@interpreted
@torch.inference_mode()
def test_kernels_find_in_place_what_the_next_step_needs(tiny, writer, begun, monkeypatch):
    """Where kernels make the angles there are no tables: indices alone are moved on."""

    def run():
        cache, keys_at = begun()
        state = DecodeState(2, VOCAB, CPU)
        state.arrange(rows_of((writer([60]), None, 0), (writer([61]), None, 0)), 2)
        keys, said = keys_at(0), []
        for _ in range(4):
            decode_step(tiny.model.language_model, cache, keys, last_items(keys), state, "greedy")
            said.append(state.tokens.tolist())
        return keys, said

    plain_keys, plain = run()
    monkeypatch.setattr(dispatch, "_choice", lambda: "triton")
    keys, said = run()
    assert said == plain
    assert (plain_keys.rotation.cos is None, keys.rotation.cos is None) == (False, True)


@torch.inference_mode()
def test_a_step_waits_for_nothing(tiny, writer, begun, monkeypatch):
    # Torch's attention reads which tokens each row sees; on a GPU a kernel does.
    monkeypatch.setattr(step_keys, "decode_attention", lambda q, store, work, scale: q)
    cache, keys_at = begun()
    state = DecodeState(2, VOCAB, CPU)
    rows = rows_of((writer([60], temperature=1.0, top_k=5), None, 0), (writer([61]), None, 0))
    state.arrange(rows, 2)
    keys = keys_at(0)
    with NoWaiting():
        decode_step(tiny.model.language_model, cache, keys, last_items(keys), state, "cut")


@torch.inference_mode()
def test_a_step_that_runs_out_of_memory_can_be_run_again(tiny, writer, begun, monkeypatch):
    def run(*, fails):
        cache, keys_at = begun()
        state = DecodeState(2, VOCAB, CPU)
        options = {"temperature": 1.0}
        rows = rows_of((writer([60], **options), None, 0), (writer([61], **options), None, 0))
        state.arrange(rows, 2)
        keys, said = keys_at(0), []
        for step in range(6):
            arguments = (tiny.model.language_model, cache, keys, last_items(keys), state)
            if fails and step % 2:
                with monkeypatch.context() as patch:
                    patch.setattr(decode_state, "choose_tokens", no_memory)
                    with pytest.raises(torch.OutOfMemoryError):
                        decode_step(*arguments, "sampled")
            decode_step(*arguments, "sampled")
            said.append(state.tokens.tolist())
        return said

    assert run(fails=True) == run(fails=False)


def no_memory(*_):
    raise torch.OutOfMemoryError("no memory")
