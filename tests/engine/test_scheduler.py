import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.engine.request import Finished, Progress, TextPart, TextPiece, answer_of
from llava_video.errors import CapacityError
from llava_video.model.kv_cache import KvCache
from llava_video.model.step_rows import Row


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
        rows = [Row(0, len(hidden), (), cache.reserve(len(hidden)).span)]
        logits = model.language_model.logits(
            model.language_model(
                hidden, torch.arange(len(hidden)), rows, cache, [request.position_scale]
            )[-1:]
        )[0]
        for token_id in set(ids):
            logits[token_id] *= penalty if logits[token_id] < 0 else 1 / penalty
        ids.append(int(logits.argmax()))
    return ids


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

    def test_many_at_once_answer_as_one_at_a_time(self, engine, mixed, run_all, facts):
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

    def test_the_loop_guard_stops_a_loop(self, tiny, make_engine, ask, replaced):
        """A model that writes one sentence of ten different letters again and again."""
        sentence, model = b"The quick.", tiny.model.language_model
        letters = model.embed(torch.tensor(list(sentence)))

        def say_next(hidden):
            places = (hidden[:, None] == letters).all(dim=-1).nonzero()[:, 1]
            following = torch.tensor(list(sentence)).roll(-1)[places]
            return torch.nn.functional.one_hot(following, model.config.vocab_size).float()

        engine = make_engine(model=replaced(lambda hidden, *_: hidden, say_next), penalty=1.0)
        guarded = answer_of(engine, ask("T", max_new_tokens=400, loop_guard=True))
        assert (guarded.finish_reason, guarded.new_tokens) == ("loop", 64)
        assert guarded.warnings
        free = answer_of(engine, ask("T", max_new_tokens=400))
        assert (free.finish_reason, free.new_tokens) == ("length", 400)

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

    def test_others_wait_for_room_and_are_answered(self, make_engine, mixed, run_all, facts):
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


def test_a_picture_that_comes_again_is_not_encoded_again(make_engine, ask, video):
    plain, keeping = make_engine(), make_engine(kept_rows_bytes=2**24)
    for frames in ([1, 1, 2], [2, 1, 3], [1, 1, 2]):
        assert (
            answer_of(keeping, ask(video(frames))).text == answer_of(plain, ask(video(frames))).text
        )
    assert plain.kept_rows is None
    assert (keeping.kept_rows.num_made, keeping.kept_rows.num_found) == (3, 6)
    keeping.close()
    assert len(keeping.kept_rows) == 0
