from llava_video.engine.request import TextPart, answer_of
from llava_video.errors import ConfigError


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
            assert engine.arena.used_tokens == 26 + 11  # and nothing beside it

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
