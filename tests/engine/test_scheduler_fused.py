"""Prompts that are fused with their frames: alone, side by side, beside others, and ended early."""

import weakref

import pytest
import torch

from llava_video.engine.request import (
    Failed,
    Finished,
    Progress,
    TextPiece,
    answer_of,
)
from llava_video.model.fusion import FusedPrompt
from llava_video.model.kv_cache import KvCache
from llava_video.model.step_rows import Row


@pytest.fixture
def engine(make_engine, mini):
    return make_engine(model=mini, prefill_chunk_tokens=7, kept_prefixes=0)


@torch.inference_mode()
def naive_tokens(model, request, num_tokens: int) -> list[int]:
    """Answer greedily by one whole forward per token: fused rows, then raw embeddings."""
    (part,) = request.parts
    prompt = model.fused_prompt((*part.before, -1, *part.after), part.visual.plan.num_frames)
    list(model.fuse(prompt, part.visual.plan, part.visual.clips(), 64))
    text, ids = model.language_model.config, []
    for _ in range(num_tokens):
        answer = model.language_model.embed(torch.tensor(ids, dtype=torch.int64))
        hidden = torch.cat([prompt.rows(), answer])
        cache = KvCache(
            text.num_layers,
            text.num_kv_heads,
            text.head_dim,
            dtype=torch.float32,
            devices=[torch.device("cpu")],
            slab_tokens=len(hidden),
        )
        rows = [Row(0, len(hidden), (), cache.reserve(len(hidden)).span)]
        last = model.language_model(hidden, torch.arange(len(hidden)), rows, cache)[-1:]
        ids.append(int(model.language_model.logits(last)[0].argmax()))
    return ids


@pytest.mark.parametrize("prefill_chunk_tokens", [3, 2048])
@pytest.mark.parametrize("tile_chunk", [1, 4])
def test_tokens_are_those_of_whole_forwards(
    mini, make_engine, ask, fused, prefill_chunk_tokens, tile_chunk
):
    engine = make_engine(
        model=mini,
        penalty=1.0,
        prefill_chunk_tokens=prefill_chunk_tokens,
        tile_chunk=tile_chunk,
    )
    request = ask(fused("A ", [3, 4, 5], " what?"), max_new_tokens=12)
    expected = naive_tokens(mini, request, 12)
    answer = answer_of(engine, request)
    assert list(answer.token_ids) == expected
    assert (answer.text_tokens, answer.visual_tokens) == (2 + 6, 12)
    other = ask(fused("A ", [3, 4, 6], " what?"), max_new_tokens=12)
    assert naive_tokens(mini, other, 12) != expected


def test_two_at_once_are_what_each_is_alone(engine, ask, fused, facts, run_all):
    def requests():
        return [
            ask(fused("A ", [3, 4, 5], " what?"), request_id=0),
            ask(fused("Say ", [9, 1], " why?"), request_id=1),
        ]

    alone = [answer_of(engine, request) for request in requests()]
    assert list(map(facts, run_all(engine, requests()))) == list(map(facts, alone))


def test_words_go_on_while_frames_are_taken_in(engine, ask, fused):
    """Twelve frames are six calls: an answer of four words is written meanwhile."""
    slow = ask(fused("A ", range(12), " what?"), request_id=0)
    quick = ask("Hello", request_id=1, max_new_tokens=4)
    told = [
        (event.request_id, getattr(event, "stage", type(event).__name__))
        for event in engine.run([slow, quick])
        if not isinstance(event, TextPiece)
    ]
    assert told.index((1, "Finished")) < told.index((0, "prefill"))
    assert [stage for idx, stage in told if idx == 0][:6] == ["vision"] * 6
    # One call of tower and fusion a step, and one token of the other.
    assert told.index((1, "generate")) < len(told) - 1 - told[::-1].index((0, "vision"))


def test_words_alone_run_the_plain_way(engine, make_engine, ask):
    assert answer_of(engine, ask("Hello")).text == answer_of(make_engine(), ask("Hello")).text


def test_no_prompt_begins_with_anothers_rows(mini, make_engine, ask, fused, facts):
    engine = make_engine(model=mini, kept_prefixes=2)
    first = ask(fused("A ", [3, 4], " what?"), keep=True)
    with answer_of(engine, first).sequence as kept:
        other = answer_of(engine, ask(fused("A ", [3, 4], " why?"), reuse=kept))
        again = answer_of(engine, ask(fused("A ", [3, 4], " what?")))
    assert (other.reused_tokens, again.reused_tokens) == (0, 0)
    fresh = make_engine(model=mini)
    assert facts(other) == facts(answer_of(fresh, ask(fused("A ", [3, 4], " why?"))))
    assert facts(again) == facts(answer_of(fresh, ask(fused("A ", [3, 4], " what?"))))
    assert engine.arena.used_tokens == 0  # what nobody can begin with is not kept


def test_choices_are_scored_behind_it(engine, ask, fused):
    answer = answer_of(engine, ask(fused("A ", [3], " ?"), response_format=["yes", "no"]))
    assert answer.parsed in ("yes", "no")
    assert 0.5 <= answer.confidence <= 1


@pytest.mark.parametrize("at", [2, 4])
def test_a_cancelled_one_frees_everything(engine, ask, fused, at):
    part, done = fused("A ", range(12), " what?", chunk_frames=1), [0]
    request = ask(part, cancelled=lambda: done[0] >= at)
    for event in engine.run([request]):
        if isinstance(event, Progress):
            assert event.stage == "vision"
            done[0] = event.done
    assert isinstance(event, Finished)
    assert (event.answer.finish_reason, event.answer.new_tokens) == ("cancelled", 0)
    assert (part.visual.clips.given, part.visual.clips.closed) == (at, 1)
    assert engine.arena.used_tokens == 0


def test_leaving_the_run_stops_the_frames(engine, ask, fused):
    part = fused("A ", range(12), " what?", chunk_frames=1)
    events = engine.run([ask(part)])
    assert next(events) == Progress(0, "vision", 2, 12)
    events.close()
    assert (part.visual.clips.given, part.visual.clips.closed) == (2, 1)
    assert engine.arena.used_tokens == 0


def test_a_damaged_video_fails_its_own_request_alone(engine, ask, fused, facts, run_all):
    broken = fused("A ", range(6), " what?", fail_at=5)

    def good():
        return ask(fused("Say ", [9, 1], " why?"), request_id=1)

    expected = facts(answer_of(engine, good()))
    error, answer, words = run_all(
        engine, [ask(broken, request_id=0), good(), ask("Hello", request_id=2)]
    )
    assert "the file ends here" in str(error)
    assert facts(answer) == expected
    assert words.new_tokens == 12
    assert broken.visual.clips.closed == 1
    assert engine.arena.used_tokens == 0


def test_a_model_that_fuses_nothing_fails_the_request(make_engine, ask, fused):
    events = list(make_engine().run([ask(fused("A ", [1], "?"))]))
    assert isinstance(events[-1], Failed)
    assert "no layers for it" in str(events[-1].error)


class TestTurns:
    """One prompt has rows at a time, in the order of admission; the others go on."""

    @pytest.fixture
    def alive(self, monkeypatch):
        """Return the prompts that hold rows, and how many there were when one took frames in."""
        held, counts = weakref.WeakSet(), []
        begin, add = FusedPrompt.__init__, FusedPrompt.add

        def beginning(self, *args, **options):
            held.add(self)
            begin(self, *args, **options)

        def adding(self, features):
            counts.append(len(held))
            add(self, features)

        monkeypatch.setattr(FusedPrompt, "__init__", beginning)
        monkeypatch.setattr(FusedPrompt, "add", adding)
        return held, counts

    def test_one_call_a_step_and_one_prompts_rows(self, engine, ask, fused, alive, monkeypatch):
        held, counts = alive
        calls_of_steps = []
        step = engine._stepper.step

        def counted(jobs):
            before = len(counts)
            step(jobs)
            calls_of_steps.append(len(counts) - before)

        monkeypatch.setattr(engine._stepper, "step", counted)
        requests = [ask(fused("A ", range(6), " what?"), request_id=i) for i in range(4)]
        words = ask("Hello", request_id=9, max_new_tokens=4)
        told = [
            (event.request_id, getattr(event, "stage", type(event).__name__))
            for event in engine.run([*requests, words])
        ]
        assert max(calls_of_steps) == max(counts) == 1
        assert len(counts) == 4 * 3
        assert not held
        turns = [idx for idx, stage in told if stage == "vision"]
        assert turns == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
        # The next begins when the one before is read, not when it is answered.
        assert told.index((1, "vision")) < told.index((0, "Finished"))
        assert told.index((9, "Finished")) < told.index((1, "vision"))

    @pytest.mark.parametrize("ended", ["waiting", "fusing", "reading", "failed"])
    def test_the_next_has_its_turn_however_one_ends(self, engine, ask, fused, alive, ended):
        parts = [
            fused(
                "A ", range(6), " what?", chunk_frames=1, fail_at=4 if ended == "failed" else None
            ),
            fused("B ", range(4), " what?", chunk_frames=1),
        ]
        stops, stage = set(), {"fusing": "vision", "reading": "prefill"}.get(ended)
        requests = [
            ask(part, request_id=i, cancelled=lambda i=i: i in stops)
            for i, part in enumerate(parts)
        ]
        last = {}
        for event in engine.run(requests):
            if isinstance(event, Progress) and event.request_id == 0:
                stops |= {0} if event.stage == stage else {1} if ended == "waiting" else set()
            last[event.request_id] = event
        assert max(alive[1]) == 1
        assert not alive[0]
        if ended == "failed":
            assert isinstance(last[0], Failed)
        else:
            reasons = [last[i].answer.finish_reason for i in range(2)]
            assert (reasons[0] == "cancelled") == (ended != "waiting")
            assert (reasons[1] == "cancelled") == (ended == "waiting")
        assert parts[1].visual.clips.opened == (ended != "waiting")
        assert all(p.visual.clips.closed == p.visual.clips.opened for p in parts)
        assert engine.arena.used_tokens == 0


def test_the_fusions_angles_are_the_engines(make_engine, mini):
    for rope in ("compat", "exact"):
        make_engine(model=mini, rope=rope)
        assert mini.fusion.rope == mini.language_model.rope == rope


def test_frames_that_are_fused_are_not_kept(mini, make_engine, ask, fused, video):
    """Their rows depend on the prompt: the same frame under other words has others."""
    engine = make_engine(model=mini, kept_rows_bytes=2**20)
    for words in (" what?", " who?"):
        answer_of(engine, ask(fused("A ", [3, 3], words), max_new_tokens=2))
    assert (len(engine.kept_rows), engine.kept_rows.num_found) == (0, 0)
    answer_of(engine, ask("A ", video([3, 3]), " what?", max_new_tokens=2))
    assert (len(engine.kept_rows), engine.kept_rows.num_found) == (1, 1)
