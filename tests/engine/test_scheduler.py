import gc
import threading
import time

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.engine.request import Failed, Finished, Progress, TextPart, TextPiece, answer_of
from llava_video.errors import CapacityError, CheckpointError, ConfigError
from llava_video.model.decoder import Row
from llava_video.model.kv_cache import KvCache


@torch.inference_mode()
def naive_tokens(tiny, request, num_tokens, penalty):
    """Answer greedily without any of the engine: one whole forward per token, no kept cache."""
    model, text = tiny.model, tiny.model.language_model.config
    pieces = []
    for part in request.parts:
        if isinstance(part, TextPart):
            pieces.append(model.language_model.embed(torch.tensor(part.ids)))
        else:
            pieces += list(model.visual_rows(part.plan, part.clips(), 3))
    ids = []
    for _ in range(num_tokens):
        hidden = torch.cat(
            [*pieces, model.language_model.embed(torch.tensor(ids, dtype=torch.long))]
        )
        cache = KvCache(
            text.num_layers,
            text.num_kv_heads,
            text.head_dim,
            dtype=torch.float32,
            devices=[torch.device("cpu")],
            slab_tokens=len(hidden),
        )
        positions = torch.arange(len(hidden), dtype=torch.float64) / request.position_scale
        rows = [Row(0, len(hidden), (), cache.reserve(len(hidden)).span)]
        logits = model.language_model.logits(
            model.language_model(hidden, positions, rows, cache)[-1:]
        )[0]
        for token_id in set(ids):
            logits[token_id] *= penalty if logits[token_id] < 0 else 1 / penalty
        ids.append(int(logits.argmax()))
    return ids


@pytest.fixture
def mixed(ask, video):
    """Return a maker of requests of every kind, numbered from 0."""

    def make(num=8, **options):
        kinds = [
            lambda i, **o: ask(f"Question {i}?", request_id=i, **o),
            lambda i, **o: ask("A ", video([i, 2, 3]), " what?", request_id=i, **o),
            lambda i, **o: ask("Say ", video([i]), " and ", video([9, i]), ".", request_id=i, **o),
            lambda i, **o: ask(f"Roll {i}", request_id=i, temperature=1.0, seed=i, **o),
            lambda i, **o: ask(f"Yes? {i}", request_id=i, response_format=["yes", "no"], **o),
        ]
        return [
            kinds[i % len(kinds)](i, **{"max_new_tokens": 5 + i % 7, **options}) for i in range(num)
        ]

    return make


def facts(answer):
    """Return what must not depend on company: everything but times and the last digits."""
    confidence = None if answer.confidence is None else round(answer.confidence, 3)
    return (answer.text, answer.token_ids, answer.finish_reason, answer.parsed, confidence)


class TestAnswers:
    @pytest.mark.parametrize("penalty", [1.0, 1.3])
    @pytest.mark.parametrize("scale", [1.0, 3.0])
    def test_greedy_tokens_are_those_of_whole_forwards(
        self, tiny, make_engine, ask, video, penalty, scale
    ):
        engine = make_engine(prefill_chunk_tokens=5, penalty=penalty)
        request = ask("A ", video([3, 4, 5]), " what?", max_new_tokens=16, position_scale=scale)
        expected = naive_tokens(tiny, request, 16, penalty)
        assert list(answer_of(engine, request).token_ids) == expected

    def test_the_penalty_changes_the_answer(self, tiny, make_engine, ask):
        """The mutants: no penalty, and a penalty on the prompt's tokens too, give other tokens."""
        request = ask("what what what is this? " * 3, max_new_tokens=24)
        right = answer_of(make_engine(penalty=1.3), request).token_ids
        assert list(right) == naive_tokens(tiny, request, 24, 1.3)
        assert list(right) != naive_tokens(tiny, request, 24, 1.0)

    def test_the_settings_penalty_wins_over_the_checkpoints(self, make_engine, ask):
        request = ask("Hello", max_new_tokens=24)
        asked = ask("Hello", max_new_tokens=24, repetition_penalty=1.3)
        plain = answer_of(make_engine(penalty=1.0), request).token_ids
        assert (
            answer_of(make_engine(penalty=1.0), asked).token_ids
            == answer_of(make_engine(penalty=1.3), request).token_ids
        )
        assert answer_of(make_engine(penalty=1.0), asked).token_ids != plain

    def test_any_chunk_size_gives_the_same_tokens(self, make_engine, ask, video):
        def request():
            return ask("A ", video([3, 4, 5]), " what?", max_new_tokens=16)

        expected = answer_of(make_engine(prefill_chunk_tokens=4096), request()).token_ids

        @settings(max_examples=20, deadline=None)
        @given(st.integers(1, 40), st.integers(1, 4))
        def check(prefill_chunk_tokens, tile_chunk):
            engine = make_engine(prefill_chunk_tokens=prefill_chunk_tokens, tile_chunk=tile_chunk)
            assert answer_of(engine, request()).token_ids == expected

        check()

    def test_many_at_once_answer_as_one_at_a_time(self, engine, mixed, run_all):
        alone = [facts(answer_of(engine, request)) for request in mixed(15)]
        assert [facts(answer) for answer in run_all(engine, mixed(15))] == alone
        assert len({text for text, *_ in alone}) > 8

    def test_usage_is_counted(self, engine, ask, video):
        answer = answer_of(engine, ask("ab", video([1, 2]), "c", max_new_tokens=4))
        assert (answer.text_tokens, answer.visual_tokens, answer.new_tokens) == (3, 12, 4)
        assert answer.sequence is None
        assert set(answer.timings) == {"wait", "vision", "prefill", "generate"}
        assert all(seconds >= 0 for seconds in answer.timings.values())
        assert answer.timings["vision"] > 0

    def test_end_ids_end_an_answer(self, make_engine, ask):
        free = answer_of(make_engine(eos_ids=()), ask("Hello", max_new_tokens=8))
        end_id = free.token_ids[5]
        answer = answer_of(make_engine(eos_ids=[end_id]), ask("Hello", max_new_tokens=8))
        num = free.token_ids.index(end_id)
        assert answer.token_ids == free.token_ids[:num]
        assert answer.finish_reason == "stop"
        assert free.finish_reason == "length"

    def test_stop_strings_never_leak(self, make_engine, ask):
        engine = make_engine()
        free = answer_of(engine, ask("Hello", max_new_tokens=20)).text
        stop = free[6:9]
        request = ask("Hello", max_new_tokens=20, stop=(stop,))
        pieces = [event.text for event in engine.run([request]) if isinstance(event, TextPiece)]
        assert "".join(pieces) == free[: free.index(stop)].strip()

    def test_the_loop_guard_stops_a_loop(self, make_engine, ask):
        # Without penalty this random model soon repeats itself.
        engine = make_engine(penalty=1.0)
        prompts = [f"{i}" for i in range(6)]
        guarded = [answer_of(engine, ask(p, max_new_tokens=400, loop_guard=True)) for p in prompts]
        looped = [answer for answer in guarded if answer.finish_reason == "loop"]
        assert looped
        assert all(answer.new_tokens < 400 and answer.warnings for answer in looped)

    def test_seeds_belong_to_the_request(self, engine, ask, mixed, run_all):
        def sampled(seed):
            return ask("Hello", temperature=1.0, seed=seed, request_id=99, max_new_tokens=12)

        alone = answer_of(engine, sampled(1)).token_ids
        beside = run_all(engine, [*mixed(6), sampled(1)])[-1].token_ids
        assert alone == beside
        assert alone != answer_of(engine, sampled(2)).token_ids

    def test_json_answers_of_random_weights_are_valid(self, engine, ask, run_all):
        schema = {
            "type": "object",
            "properties": {
                "colour": {"enum": ["red", "blue"]},
                "count": {"type": "integer", "minimum": 0, "maximum": 50},
                "name": {"type": "string", "maxLength": 5},
            },
            "required": ["colour", "count", "name"],
            "additionalProperties": False,
        }
        requests = [
            ask(f"{i}", request_id=i, response_format=schema, max_new_tokens=80, temperature=i / 3)
            for i in range(6)
        ]
        for answer in run_all(engine, requests):
            jsonschema.validate(answer.parsed, schema)
            assert answer.finish_reason == "stop"
            assert answer.warnings == ()

    def test_a_typed_answer_that_is_too_long_says_so(self, engine, ask):
        schema = {"type": "string", "minLength": 30}
        answer = answer_of(engine, ask("x", response_format=schema, max_new_tokens=10))
        assert (answer.finish_reason, answer.parsed) == ("length", None)
        assert "not complete" in answer.warnings[0]


class TestReuse:
    def test_a_kept_prefix_gives_the_answer_of_a_fresh_prompt(self, engine, ask, video):
        def parts(question):
            return ("A ", video([3, 4, 5]), f" {question}")

        first = answer_of(engine, ask(*parts("what?"), keep=True))
        with first.sequence as kept:
            for question in ("when?", "what?", "what? And then?", "W"):
                shown = parts(question)
                again = answer_of(engine, ask(*shown, reuse=kept))
                fresh = answer_of(engine, ask(*parts(question)))
                assert again.token_ids == fresh.token_ids
                assert again.reused_tokens >= 21
                assert shown[1].clips.opened == 0  # neither decoded nor encoded
                assert fresh.reused_tokens == 0
            assert kept.num_tokens == 26 + 11  # unchanged: the prompt and all but the last token

    def test_the_last_token_of_the_prompt_is_always_computed(self, engine, ask, video):
        first = answer_of(engine, ask("ab", video([3, 4]), keep=True))
        shown = video([3, 4])
        with first.sequence as kept:
            again = answer_of(engine, ask("ab", shown, reuse=kept))
        assert again.token_ids == first.token_ids
        assert again.reused_tokens == 2  # a visual at the end is computed whole
        assert shown.clips.opened == 1

    def test_another_video_at_the_same_place_is_not_reused(self, engine, ask, video):
        first = answer_of(engine, ask("ab", video([3, 4]), "?", keep=True))
        with first.sequence as kept:
            other = answer_of(engine, ask("ab", video([3, 5]), "?", reuse=kept))
        assert other.reused_tokens == 2
        assert other.token_ids == answer_of(engine, ask("ab", video([3, 5]), "?")).token_ids

    def test_other_positions_are_not_reused(self, engine, ask):
        first = answer_of(engine, ask("Hello", keep=True))
        with first.sequence as kept:
            scaled = answer_of(engine, ask("Hello", reuse=kept, position_scale=2.0))
        assert scaled.reused_tokens == 0

    def test_a_chat_continues_its_cache(self, engine, ask, video):
        shown = video([1, 2, 3])
        said = ["Look ", shown, " what? "]
        kept, reused = None, []
        for turn in range(4):
            fresh = [video([1, 2, 3]) if part is shown else part for part in said]
            alone = answer_of(engine, ask(*fresh))
            answer = answer_of(engine, ask(*said, reuse=kept, keep=True))
            assert answer.token_ids == alone.token_ids
            if kept is not None:
                kept.release()
            kept = answer.sequence
            reused.append(answer.reused_tokens)
            said += [TextPart(answer.token_ids), f" and {turn}? "]
        kept.release()
        assert shown.clips.opened == 1
        # Each turn computes the last token said and the new question, 8 tokens.
        assert reused == [0, 41, 61, 81]

    def test_several_questions_share_one_prefix(self, engine, ask, video, run_all):
        shown = video([5, 6, 7])
        first = answer_of(engine, ask("See ", shown, " A?", keep=True))
        with first.sequence as kept:
            before = engine.arena.used_tokens
            requests = [
                ask("See ", shown, f" {letter}?", reuse=kept, request_id=i)
                for i, letter in enumerate("BCDE")
            ]
            events = engine.run(requests)
            most = max(engine.arena.used_tokens for _ in events)
            assert most <= before + 4 * (3 + 12)  # the prefix is held once
            answers = run_all(engine, requests)
        for letter, answer in zip("BCDE", answers, strict=True):
            assert answer.reused_tokens == 23
            alone = answer_of(engine, ask("See ", video([5, 6, 7]), f" {letter}?"))
            assert answer.token_ids == alone.token_ids
        assert shown.clips.opened == 1

    def test_a_choice_can_be_continued(self, engine, ask):
        first = answer_of(engine, ask("A dog?", response_format=["yes", "no"], keep=True))
        with first.sequence as kept:
            answer = answer_of(
                engine, ask("A dog?", TextPart(first.token_ids), " Why?", reuse=kept)
            )
        assert answer.reused_tokens == 6 + len(first.token_ids)

    def test_a_released_sequence_fails_its_request_only(self, engine, ask, run_all):
        first = answer_of(engine, ask("Hello", keep=True))
        first.sequence.release()
        error, answer = run_all(
            engine, [ask("Hello", reuse=first.sequence), ask("Hello", request_id=1)]
        )
        assert isinstance(error, ConfigError)
        assert answer.token_ids == first.token_ids


class TestMemory:
    def test_exactly_the_prompt_and_the_answer_are_reserved(self, engine, ask, video):
        request = ask("ab", video([1, 2]), max_new_tokens=9)
        assert max(engine.arena.used_tokens for _ in engine.run([request])) == 2 + 12 + 9

    def test_a_request_that_can_never_fit_fails_at_once(self, make_engine, ask, run_all):
        engine = make_engine(max_cache_tokens=20)
        error, answer = run_all(
            engine, [ask("x" * 15, max_new_tokens=6), ask("x", request_id=1, max_new_tokens=6)]
        )
        assert isinstance(error, CapacityError)
        assert "21 tokens" in error.message
        assert "limit is 20" in error.message
        assert answer.new_tokens == 6

    def test_others_wait_for_room_and_are_answered(self, make_engine, mixed, run_all):
        expected = [facts(answer) for answer in run_all(make_engine(), mixed(12))]
        tight = make_engine(max_cache_tokens=64, slab_tokens=64)
        assert [facts(answer) for answer in run_all(tight, mixed(12))] == expected

    def test_kept_answers_that_fill_the_cache_are_an_error_not_a_wait(self, make_engine, ask):
        engine = make_engine(max_cache_tokens=30, slab_tokens=30)
        first = answer_of(engine, ask("x" * 10, max_new_tokens=10, keep=True))
        with pytest.raises(CapacityError):
            answer_of(engine, ask("y" * 10, max_new_tokens=10))
        first.sequence.release()
        assert answer_of(engine, ask("y" * 10, max_new_tokens=10)).new_tokens == 10

    def test_no_more_run_at_once_than_allowed(self, make_engine, ask, run_all):
        engine = make_engine(max_running=2)
        seen = []
        requests = [ask("ab", request_id=i, max_new_tokens=6) for i in range(6)]
        for _ in engine.run(requests):
            seen.append(engine.arena.used_tokens)
        assert max(seen) == 2 * 8

    def test_requests_are_drawn_only_as_there_is_room(self, make_engine, ask):
        engine = make_engine(max_running=3)
        drawn = []

        def endless():
            for i in range(10_000):
                drawn.append(i)
                yield ask("ab", request_id=i, max_new_tokens=3)

        finished = 0
        for event in engine.run(endless()):
            finished += isinstance(event, Finished)
            assert len(drawn) <= finished + 3
            if finished == 10:
                break


class TestErrors:
    def test_a_failing_video_fails_its_request_only(self, engine, ask, video, mixed, run_all):
        broken = video([1, 2, 3, 4], fail_at=3)
        requests = [*mixed(5), ask("A ", broken, "?", request_id=50)]
        *answers, error = run_all(engine, requests)
        assert isinstance(error, RuntimeError)
        assert str(error) == "the file ends here"
        assert [facts(a) for a in answers] == [facts(a) for a in run_all(engine, mixed(5))]
        assert broken.clips.closed == 1

    @pytest.mark.parametrize(
        "options",
        [{"response_format": {"type": "foo"}}, {"response_format": {"uniqueItems": True}}],
    )
    def test_a_bad_request_fails_alone(self, engine, ask, run_all, options):
        error, answer = run_all(engine, [ask("a", **options), ask("a", request_id=1)])
        assert isinstance(error, ConfigError)
        assert answer.new_tokens == 12

    def test_ids_the_model_does_not_know_are_refused(self, engine, ask):
        with pytest.raises(ConfigError, match="320"):
            answer_of(engine, ask(TextPart((5, 320))))

    def test_one_id_for_two_requests_is_refused(self, engine, ask):
        with pytest.raises(ConfigError, match="under way twice"):
            list(engine.run([ask("a"), ask("b")]))

    def test_logits_that_are_not_finite_name_the_dtype(self, tiny, make_engine, ask, run_all):
        class Overflowing:
            """The tiny model, but a prompt that begins with Z overflows."""

            def __init__(self, inner):
                self.inner, self.config, self.dtype = inner, inner.config, inner.dtype
                self.devices, self.embed = inner.devices, inner.embed

            def __call__(self, hidden, *others):
                bad = hidden[:, :1] == self.inner.embed(torch.tensor([ord("Z")]))[0, 0]
                return torch.where(bad, torch.nan, self.inner(hidden, *others))

            def logits(self, hidden):
                return self.inner.logits(hidden)

        class Model:
            device, language_model = tiny.model.device, Overflowing(tiny.model.language_model)

        engine = make_engine(model=Model())
        error, answer = run_all(engine, [ask("aZ"), ask("aY", request_id=1)])
        assert isinstance(error, CheckpointError)
        assert "float32" in error.message
        assert answer.token_ids == answer_of(make_engine(), ask("aY")).token_ids

    def test_a_step_that_breaks_fails_what_runs_and_frees_it(self, tiny, make_engine, ask, run_all):
        engine = make_engine()
        inner = tiny.model.language_model.forward
        calls = []

        def breaking(*args):
            calls.append(1)
            if len(calls) == 3:
                raise torch.OutOfMemoryError("no memory")
            return inner(*args)

        tiny.model.language_model.forward = breaking
        try:
            errors = run_all(engine, [ask("a"), ask("b", request_id=1)])
            assert [type(error) for error in errors] == [CapacityError, CapacityError]
            assert "prefill_chunk_tokens" in errors[0].hint
            assert answer_of(engine, ask("a")).new_tokens == 12
        finally:
            del tiny.model.language_model.forward

    def test_an_interrupt_is_raised_and_frees_everything(self, engine, ask, video):
        def interrupted():
            raise KeyboardInterrupt
            yield

        part = video([1])
        part = type(part)(plan=part.plan, clips=interrupted, key="x")
        with pytest.raises(KeyboardInterrupt):
            answer_of(engine, ask("a", part))
        assert engine.arena.used_tokens == 0
        assert answer_of(engine, ask("a")).new_tokens == 12

    def test_requests_that_cannot_be_drawn_end_the_call(self, engine, ask):
        def requests():
            yield ask("a")
            raise OSError("the list ends here")

        with pytest.raises(OSError, match="the list ends here"):
            list(engine.run(requests()))

    def test_a_closed_engine_answers_nothing(self, make_engine, ask):
        engine = make_engine()
        events = engine.run([ask("a")])
        next(events)
        engine.close()
        last = list(events)[-1]
        assert isinstance(last, Failed)
        with pytest.raises(ConfigError, match="closed"):
            answer_of(engine, ask("a"))


class TestCancelling:
    @pytest.mark.parametrize("num_events", [1, 2, 4, 9, 14])
    def test_leaving_early_frees_everything(self, engine, ask, video, num_events):
        part = video(range(12))
        requests = [ask("A ", part, "?", keep=True), ask("b", request_id=1, keep=True)]
        events = engine.run(requests)
        for _ in range(num_events):
            next(events)
        assert engine.arena.used_tokens > 0
        events.close()
        assert engine.arena.used_tokens == 0
        assert part.clips.closed == part.clips.opened

    def test_an_iterator_that_is_dropped_frees_everything(self, engine, ask):
        events = engine.run([ask("a", keep=True)])
        next(events)
        del events
        gc.collect()
        assert engine.arena.used_tokens == 0

    def test_an_answer_that_was_kept_but_not_taken_is_released(self, engine, ask):
        events = engine.run([ask("a", keep=True, max_new_tokens=1)])
        assert isinstance(next(events), Progress)
        events.close()
        assert engine.arena.used_tokens == 0

    def test_a_taken_answer_stays_the_callers(self, engine, ask):
        events = engine.run([ask("a", keep=True, max_new_tokens=1)])
        answer = [event for event in events if isinstance(event, Finished)][0].answer  # noqa: RUF015
        assert engine.arena.used_tokens == 2
        answer.sequence.release()

    def test_a_cancelled_request_tells_what_it_has(self, engine, ask):
        told = []
        request = ask("Hello", max_new_tokens=200, cancelled=lambda: len(told) > 6, request_id=3)
        free = answer_of(engine, ask("Hello", max_new_tokens=20)).text
        for event in engine.run([request]):
            told += [event.text] if isinstance(event, TextPiece) else []
            last = event
        assert last.answer.finish_reason == "cancelled"
        assert last.answer.text == "".join(told)
        assert free.startswith(last.answer.text)
        assert 6 < len(told) < 12

    @pytest.mark.parametrize("keep", [False, True])
    def test_a_request_can_be_cancelled_before_its_answer_begins(self, engine, ask, video, keep):
        part = video(range(50))
        request = ask("A ", part, "?", cancelled=lambda: part.clips.given > 10, keep=keep)
        answer = answer_of(engine, request)
        assert (answer.text, answer.finish_reason) == ("", "cancelled")
        assert answer.sequence is None
        assert part.clips.closed == 1
        assert part.clips.given < 16

    def test_a_choice_can_be_cancelled(self, engine, ask):
        answer = answer_of(
            engine, ask("a", response_format=["yes", "no"], cancelled=lambda: True, keep=True)
        )
        assert (answer.parsed, answer.confidence) == (None, None)
        assert answer.finish_reason == "cancelled"


class TestThreads:
    def test_many_callers_get_the_answers_of_one_at_a_time(self, make_engine, mixed, run_all):
        engine = make_engine(prefill_chunk_tokens=16, max_running=5)
        expected = [facts(answer_of(engine, request)) for request in mixed(10)]
        results = {}

        def call(name):
            results[name] = [facts(answer) for answer in run_all(engine, mixed(10))]

        threads = [threading.Thread(target=call, args=(name,)) for name in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads)
        assert [results[name] for name in range(5)] == [expected] * 5
        assert engine.arena.used_tokens == 0

    def test_tight_memory_blocks_nobody_for_ever(self, make_engine, mixed, run_all):
        engine = make_engine(max_cache_tokens=48, slab_tokens=48)
        expected = [facts(answer_of(engine, request)) for request in mixed(5)]
        results = {}

        def call(name):
            results[name] = [facts(answer) for answer in run_all(engine, mixed(5))]

        threads = [threading.Thread(target=call, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert [results.get(name) for name in range(4)] == [expected] * 4

    def test_an_idle_iterator_blocks_nobody(self, make_engine, ask, mixed, run_all):
        engine = make_engine(max_cache_tokens=64, slab_tokens=64)
        idle = engine.run([ask("x" * 20, max_new_tokens=30)])
        next(idle)
        answers = run_all(engine, mixed(5))  # these run the idle one's steps too
        assert all(isinstance(answer.text, str) for answer in answers)
        assert isinstance(list(idle)[-1], Finished)  # its events waited for it

    def test_callers_that_leave_early_disturb_nobody(self, make_engine, mixed, run_all):
        engine = make_engine(prefill_chunk_tokens=16)
        expected = [facts(answer_of(engine, request)) for request in mixed(6)]
        results, stop = {}, threading.Event()

        def leave():
            num = 0
            while not stop.is_set():
                events = engine.run(mixed(4, keep=True))
                for _ in range(num % 9 + 1):
                    event = next(events)
                    if isinstance(event, Finished) and event.answer.sequence:
                        event.answer.sequence.release()
                events.close()
                num += 1

        def call(name):
            results[name] = [facts(answer) for answer in run_all(engine, mixed(6))]

        leavers = [threading.Thread(target=leave) for _ in range(2)]
        callers = [threading.Thread(target=call, args=(name,)) for name in range(2)]
        for thread in (*leavers, *callers):
            thread.start()
        for thread in callers:
            thread.join(timeout=60)
        stop.set()
        for thread in leavers:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in (*leavers, *callers))
        assert [results.get(name) for name in range(2)] == [expected] * 2
        assert engine.arena.used_tokens == 0

    def test_sequences_are_released_by_any_thread(self, make_engine, ask, mixed, run_all):
        engine = make_engine()
        kept = [answer_of(engine, ask(f"{i}", keep=True)).sequence for i in range(20)]

        def release():
            for sequence in kept:
                time.sleep(0.002)
                sequence.release()

        thread = threading.Thread(target=release)
        thread.start()
        answers = run_all(engine, mixed(10))
        thread.join(timeout=60)
        assert len(answers) == 10
        assert engine.arena.used_tokens == 0
        engine.close()


def test_prompts_share_the_chunk_fairly(make_engine, ask):
    """A short question does not wait for a long prompt that came before it."""
    engine = make_engine(prefill_chunk_tokens=8)
    requests = [
        ask("x" * 200, max_new_tokens=2),
        ask("short", request_id=1, max_new_tokens=2),
    ]
    ends = [event.request_id for event in engine.run(requests) if isinstance(event, Finished)]
    assert ends == [1, 0]
    long = [
        event.done
        for event in engine.run(requests)
        if isinstance(event, Progress) and event.stage == "prefill" and event.request_id == 0
    ]
    assert long[:3] == [4, 11, 19]  # half of 8, then what "short" left of 8, then all
