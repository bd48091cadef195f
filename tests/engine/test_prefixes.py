import pytest
import torch

from llava_video.engine.arena import Arena
from llava_video.engine.elements import VisualRun
from llava_video.engine.prefixes import KeptPrefixes
from llava_video.engine.request import answer_of
from llava_video.engine.sequence import Sequence

FIRST, SECOND = VisualRun("first", 6), VisualRun("second", 4)


@pytest.fixture
def arena():
    return Arena(1, 1, 2, dtype=torch.float32, devices=[torch.device("cpu")], slab_tokens=256)


@pytest.fixture
def ended(arena):
    """Return a maker of sequences that hold these elements and some tokens of an answer."""

    def make(elements, **options):
        sequence = Sequence(arena, **options)
        num_tokens = sum(1 if isinstance(e, int) else e.num_tokens for e in elements)
        sequence.reserve(num_tokens + 3)
        sequence.append(num_tokens + 3, completes=[*elements, 90, 91, 92])
        return sequence

    return make


def keep(prefixes, sequence, elements):
    prefixes.keep(sequence, elements)
    sequence.release()


def test_a_prefix_ends_with_its_last_visual(ended):
    prefixes = KeptPrefixes(1)
    prompt = [1, FIRST, 2, SECOND, 3]
    keep(prefixes, ended(prompt), prompt)
    found = prefixes.find([1, FIRST, 2, SECOND, 7, 8], 1.0, "plain")
    assert found.elements == (1, FIRST, 2, SECOND)
    assert prefixes.find([1, FIRST, 9], 1.0, "plain") is found  # the first visual is shared


def test_nothing_is_kept_without_a_visual_or_when_nothing_may_be(ended, arena):
    prefixes = KeptPrefixes(1)
    keep(prefixes, ended([1, 2, 3]), [1, 2, 3])
    none = KeptPrefixes(0)
    keep(none, ended([1, FIRST]), [1, FIRST])
    assert (len(prefixes), len(none), arena.used_tokens) == (0, 0, 0)


@pytest.mark.parametrize(
    ("prompt", "scale", "kv_format"),
    [
        ([2, FIRST, 3], 1.0, "plain"),  # other words before it: other positions and keys
        ([1, SECOND, 3], 1.0, "plain"),
        ([1, 5], 1.0, "plain"),  # words alone are not worth a fork
        ([1, FIRST, 3], 2.0, "plain"),
        ([1, FIRST, 3], 1.0, "int8"),
    ],
)
def test_what_differs_is_not_found(ended, prompt, scale, kv_format):
    prefixes = KeptPrefixes(1)
    keep(prefixes, ended([1, FIRST, 2]), [1, FIRST, 2])
    assert prefixes.find(prompt, scale, kv_format) is None


def test_the_one_that_saves_most_is_found(ended):
    prefixes = KeptPrefixes(3)
    for prompt in ([1, FIRST, 2, SECOND], [1, FIRST, 3, FIRST], [2, FIRST]):
        keep(prefixes, ended(prompt), prompt)
    assert len(prefixes) == 3
    assert prefixes.find([1, FIRST, 3, FIRST, 4], 1.0, "plain").elements == (1, FIRST, 3, FIRST)


def test_a_longer_one_replaces_a_shorter_one_and_the_same_is_kept_once(ended, arena):
    prefixes = KeptPrefixes(2)
    for prompt in ([1, FIRST, 2], [1, FIRST, 2, SECOND, 3], [1, FIRST, 4], [1, FIRST, 2, SECOND]):
        keep(prefixes, ended(prompt), prompt)
        assert len(prefixes) == 1
    assert prefixes.find([1, FIRST], 1.0, "plain").elements == (1, FIRST, 2, SECOND)
    keep(prefixes, ended([1, FIRST], kv_format="int8"), [1, FIRST])
    assert len(prefixes) == 2
    prefixes.clear()
    assert (len(prefixes), arena.used_tokens) == (0, 0)


def test_the_oldest_goes_first_and_one_asked_about_again_is_young(ended):
    prefixes = KeptPrefixes(2)
    for first in (1, 2, 1, 3):
        keep(prefixes, ended([first, FIRST]), [first, FIRST])
    assert prefixes.find([2, FIRST], 1.0, "plain") is None
    assert prefixes.find([1, FIRST], 1.0, "plain") is not None
    spared = prefixes.find([1, FIRST], 1.0, "plain")
    assert prefixes.evict(spare=spared)
    assert prefixes.find([3, FIRST], 1.0, "plain") is None
    assert not prefixes.evict(spare=spared)
    assert prefixes.evict()
    assert not prefixes.evict()


class TestInTheEngine:
    @pytest.fixture
    def keeping(self, make_engine):
        engine = make_engine(kept_prefixes=1, prefill_chunk_tokens=7)
        yield engine
        engine.close()  # and the arena must be empty

    def test_the_encoder_runs_once_for_two_questions(self, keeping, engine, ask, video):
        first = video([3, 4, 5])
        answer_of(keeping, ask("A ", first, " what?"))
        assert first.clips.opened == 1
        for question in (" when?", " what?", " W"):
            again = video([3, 4, 5])
            answer = answer_of(keeping, ask("A ", again, question))
            fresh = answer_of(engine, ask("A ", video([3, 4, 5]), question))
            assert again.clips.opened == 0  # neither decoded nor encoded
            assert answer.reused_tokens == 2 + 18
            assert fresh.reused_tokens == 0
            assert answer.token_ids == fresh.token_ids

    def test_another_visual_takes_the_place(self, keeping, ask, video):
        for idxs in ([1, 2], [3, 4], [1, 2]):
            shown = video(idxs)
            assert answer_of(keeping, ask("A ", shown, "?")).reused_tokens == 0
            assert shown.clips.opened == 1

    @pytest.mark.parametrize("other", [{"position_scale": 2.0}, {"kv_format": "int8"}])
    def test_other_positions_and_formats_are_computed(self, keeping, ask, video, other):
        answer_of(keeping, ask("A ", video([1, 2]), "?"))
        assert answer_of(keeping, ask("A ", video([1, 2]), "?", **other)).reused_tokens == 0

    def test_what_the_request_names_wins(self, keeping, ask, video):
        named = answer_of(keeping, ask("A ", video([1, 2]), "?", keep=True))
        with named.sequence as kept:
            answer_of(keeping, ask("B ", video([1, 2]), "?"))
            shown = video([1, 2])
            again = answer_of(keeping, ask("B ", shown, "?", reuse=kept))
            assert (again.reused_tokens, shown.clips.opened) == (0, 1)

    def test_choices_leave_their_prefix_too(self, keeping, ask, video):
        answer_of(keeping, ask("A ", video([1, 2]), "?", response_format=["yes", "no"]))
        assert answer_of(keeping, ask("A ", video([1, 2]), "?")).reused_tokens == 14

    @pytest.mark.parametrize("ending", ["cancelled", "failed"])
    def test_what_does_not_end_well_leaves_nothing(self, keeping, ask, video, ending):
        told = []
        options = {"cancelled": lambda: bool(told)} if ending == "cancelled" else {}
        parts = ["A ", video([1, 2]), "?"] if ending == "cancelled" else ["A ", video([1, 2])]
        if ending == "failed":
            parts.append(video([3], fail_at=3))
        for event in keeping.run([ask(*parts, max_new_tokens=500, **options)]):
            told += [event] if getattr(event, "stage", "") == "generate" else []
        assert keeping.arena.used_tokens == 0

    def test_closing_gives_everything_back(self, keeping, ask, video):
        answer_of(keeping, ask("A ", video([1, 2]), "?"))
        assert keeping.arena.used_tokens >= 14
        keeping.close()
        assert keeping.arena.held_tokens == 0

    def test_who_asks_while_it_is_being_made_computes_it(self, keeping, ask, video, run_all):
        shown = [video([1, 2]), video([1, 2])]
        requests = [ask("A ", part, "?", request_id=idx) for idx, part in enumerate(shown)]
        first, second = run_all(keeping, requests)
        assert first.token_ids == second.token_ids
        assert [part.clips.opened for part in shown] == [1, 1]
