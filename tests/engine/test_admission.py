import pytest

from llava_video.engine.admission import Admission
from llava_video.engine.prefixes import KeptPrefixes
from llava_video.engine.request import Failed, Finished, Progress, answer_of
from llava_video.errors import CapacityError


@pytest.fixture
def keeping(make_engine):
    """Return a maker of engines that keep prefixes in so many tokens of cache."""
    made = []

    def make(limit_tokens, kept_prefixes=1, **options):
        sizes = {"max_cache_tokens": limit_tokens, "slab_tokens": limit_tokens}
        made.append(make_engine(kept_prefixes=kept_prefixes, **sizes, **options))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def test_a_kept_prefix_gives_way_before_a_request_fails(keeping, ask, video):
    engine = keeping(40)
    answer_of(engine, ask("A ", video([1, 2, 3]), "?", max_new_tokens=4))
    assert engine.arena.used_tokens >= 20
    assert answer_of(engine, ask("x" * 30, max_new_tokens=8)).new_tokens == 8


def test_a_kept_prefix_gives_way_before_a_request_waits(keeping, ask, video):
    engine = keeping(60)
    answer_of(engine, ask("A ", video([1, 2, 3]), "?", max_new_tokens=4))
    # 24 tokens are kept; 20 and 20 more are not there.
    requests = [ask("x" * 12, request_id=i, max_new_tokens=8) for i in range(2)]
    firsts = [
        event.request_id
        for event in engine.run(requests)
        if isinstance(event, Progress) and event.stage == "generate"
    ]
    assert firsts[:2] == [0, 1]  # who waited would begin when the other has ended


def test_the_prefix_that_a_request_uses_goes_last(keeping, ask, video):
    engine = keeping(64, kept_prefixes=2)
    for idxs in ([1, 2], [3, 4]):  # 2 x 14 tokens and what was said
        answer_of(engine, ask("A ", video(idxs), "?", max_new_tokens=4))
    shown = video([1, 2])  # the older one
    answer = answer_of(engine, ask("A ", shown, "x" * 20, max_new_tokens=8))
    assert (answer.reused_tokens, shown.clips.opened) == (14, 0)


def test_its_own_prefix_goes_where_nothing_else_helps(keeping, ask, video):
    """The prefix, and words and an answer beside it, fit; the first answer's words do not."""
    engine = keeping(46)
    answer_of(engine, ask("A ", video([1, 2]), "x" * 20, max_new_tokens=8))  # 42 of 46 tokens
    held = engine.arena.used_tokens
    shown = video([1, 2])
    answer = answer_of(engine, ask("A ", shown, "y" * 20, max_new_tokens=12))
    assert held + 20 + 12 > 46
    assert (answer.reused_tokens, answer.new_tokens) == (0, 12)
    assert shown.clips.opened == 1


@pytest.mark.parametrize(("kv_format", "fits"), [("plain", False), ("int8", True), ("int4", True)])
def test_the_limit_is_in_bytes(make_engine, ask, kv_format, fits):
    token_bytes = make_engine().arena.token_bytes("plain")
    engine = make_engine(max_cache_bytes=30 * token_bytes, slab_tokens=8)
    request = ask("x" * 25, max_new_tokens=8, kv_format=kv_format)
    if fits:
        assert answer_of(engine, request).new_tokens == 8
    else:
        with pytest.raises(CapacityError, match="33 tokens of plain cache, the limit is 30"):
            answer_of(engine, request)


def test_the_smaller_of_two_limits_counts(make_engine, ask):
    token_bytes = make_engine().arena.token_bytes("plain")
    for tokens, num_bytes in ((30, 90 * token_bytes), (90, 30 * token_bytes)):
        engine = make_engine(max_cache_tokens=tokens, max_cache_bytes=num_bytes, slab_tokens=8)
        with pytest.raises(CapacityError, match="the limit is 30"):
            answer_of(engine, ask("x" * 25, max_new_tokens=8))


def test_a_request_waits_for_others_but_not_for_ever(make_job, ask):
    first, arena, _ = make_job(ask("x" * 30, max_new_tokens=10), limit_tokens=64)
    admission = Admission(arena, KeptPrefixes(0))
    assert admission.admit(first, may_wait=False)
    second, _, _ = make_job(ask("y" * 30, max_new_tokens=10), arena=arena)
    assert not admission.admit(second, may_wait=True)
    with pytest.raises(CapacityError):
        admission.admit(second, may_wait=False)
    first.abandon()
    assert admission.admit(second, may_wait=False)
    second.abandon()
    assert arena.used_tokens == 0


def test_where_answers_are_written_in_groups_a_slab_is_made_for_all_who_wait(make_job, ask):
    first, arena, _ = make_job(ask("x" * 60, max_new_tokens=10))
    others = [
        make_job(ask("y" * 90, max_new_tokens=10, kv_format=kv_format), arena=arena)[0]
        for kv_format in ("plain", "int8", "plain")
    ]
    admission = Admission(arena, KeptPrefixes(0), is_grouped=True)
    assert admission.admit(first, may_wait=False, behind=others)
    # 70 + 100 + 100 tokens, and a quarter of a slab of 64 for questions.
    assert arena.held_tokens == 70 + 100 + 100 + 16
    for job in others:
        assert admission.admit(job, may_wait=False)
    slabs = [job._sequence.writable(1).slab_idx for job in (first, *others)]
    assert [slab == slabs[0] for slab in slabs] == [True, True, False, True]
    for job in (first, *others):
        job.abandon()
    single, arena, _ = make_job(ask("x" * 60, max_new_tokens=10))
    assert Admission(arena, KeptPrefixes(0)).admit(single, may_wait=False, behind=others)
    assert arena.held_tokens == 70
    single.abandon()


@pytest.mark.parametrize("free_running", ["on", "off"])
def test_a_second_question_stands_beside_the_visual_it_is_about(
    make_engine, ask, video, free_running
):
    """In a slab of its own it could not be written with a graph."""
    engine = make_engine(free_running=free_running, slab_tokens=40, kept_prefixes=1)
    for _ in range(2):
        shown = video([1, 2, 3, 4, 5, 6])
        answer = answer_of(engine, ask("A ", shown, "?", max_new_tokens=8, keep=True))
        slabs = {span.slab_idx for span in answer.sequence.past}
        answer.sequence.release()
    assert answer.reused_tokens == 38
    assert len(slabs) == (1 if free_running == "on" else 2)
    engine.close()


class TestHeldRows:
    """Prompts of 24 tokens and an answer of 4; their rows take as much as 10 or 20 tokens."""

    @pytest.fixture
    def engine(self, make_engine, mini):
        return make_engine(model=mini, max_cache_tokens=70, slab_tokens=8)

    @pytest.fixture
    def fusing(self, engine, ask, fused):
        def make(idx, held_tokens, **options):
            held_bytes = held_tokens * engine.arena.token_bytes("plain")
            part = fused("ab", range(5), "cd", held_bytes=held_bytes, chunk_frames=1, **options)
            return ask(part, request_id=idx, max_new_tokens=4)

        return make

    @pytest.mark.parametrize(("held_tokens", "at_once"), [((10, 14), 2), ((10, 15), 1)])
    def test_the_largest_of_those_not_read_yet_fits_beside_the_cache(
        self, engine, fusing, held_tokens, at_once
    ):
        token_bytes = engine.arena.token_bytes("plain")
        most_bytes = most_tokens = 0
        for event in engine.run([fusing(i, held) for i, held in enumerate(held_tokens)]):
            arena = engine.arena
            most_bytes = max(most_bytes, arena.held_bytes + arena.aside_bytes)
            most_tokens = max(most_tokens, arena.used_tokens)
            assert not isinstance(event, Failed)
        assert most_bytes <= 70 * token_bytes
        assert most_tokens == 28 * at_once
        assert arena.aside_bytes == 0

    @pytest.mark.parametrize(("held_tokens", "fits"), [(42, True), (43, False)])
    def test_what_can_never_fit_is_refused(self, engine, fusing, held_tokens, fits):
        if fits:
            assert answer_of(engine, fusing(0, held_tokens)).new_tokens == 4
        else:
            with pytest.raises(CapacityError, match=r"28 tokens .* the limit is 27 beside"):
                answer_of(engine, fusing(0, held_tokens))
        assert engine.arena.aside_bytes == 0

    def test_one_that_cannot_be_admitted_leaves_the_next_its_room(
        self, make_engine, mini, ask, fused
    ):
        """29 tokens are kept of 100: 28 and 50 beside them do not fit, the 40 of the next do."""
        engine = make_engine(model=mini, max_cache_tokens=100, slab_tokens=8)
        kept = answer_of(engine, ask("x" * 26, max_new_tokens=4, keep=True)).sequence
        held_bytes = 50 * engine.arena.token_bytes("plain")
        part = fused("ab", range(5), "cd", held_bytes=held_bytes)
        asked = [
            ask(part, request_id=0, max_new_tokens=4),
            ask("y" * 30, request_id=1, max_new_tokens=10),
        ]
        last = {event.request_id: event for event in engine.run(asked)}
        assert isinstance(last[0], Failed)
        assert isinstance(last[0].error, CapacityError)
        assert isinstance(last[1], Finished)
        kept.release()

    def test_an_error_and_an_end_give_the_room_back(self, engine, fusing):
        with pytest.raises(RuntimeError, match="the file ends here"):
            answer_of(engine, fusing(0, 20, fail_at=3))
        assert engine.arena.aside_bytes == 0
        events = engine.run([fusing(0, 20)])
        next(events)
        assert engine.arena.aside_bytes == 20 * engine.arena.token_bytes("plain")
        events.close()
        assert engine.arena.aside_bytes == 0
