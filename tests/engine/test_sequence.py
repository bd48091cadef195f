import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from marked_sequences import FORMATS, TOKEN_BYTES, filled, make_arena, name_of, read, write

from llava_video.engine.elements import VisualRun, tokens_of
from llava_video.engine.sequence import Sequence
from llava_video.errors import CapacityError, ConfigError


@pytest.fixture(params=FORMATS)
def kv_format(request):
    return request.param


VIDEO = VisualRun("video", 7)


def test_tokens_of_elements():
    assert tokens_of([5, VIDEO, 6]) == 9
    assert tokens_of([]) == 0


def test_appending_joins_what_touches(kv_format):
    arena = make_arena()
    sequence = filled(arena, [1, 2, VIDEO, 3], kv_format=kv_format, room=4)
    assert len(sequence.past) == 1
    assert (sequence.num_tokens, sequence.next_idx) == (10, 10)
    assert sequence.elements == (1, 2, VIDEO, 3)
    assert arena.used_tokens == 14
    sequence.release()
    assert arena.used_tokens == 0


def test_a_fork_shares_the_prefix_and_outlives_its_origin(kv_format):
    arena = make_arena()
    origin = filled(arena, [1, VIDEO, 2, 3], kv_format=kv_format)
    before = read(arena, origin)
    fork = origin.fork(2)
    assert arena.used_tokens == 10  # nothing was copied
    fork.reserve(2)
    write(arena, fork, [8, 9])
    assert read(arena, origin) == before
    origin.release()
    assert read(arena, fork)[:8] == before[:8]
    assert fork.elements == (1, VIDEO, 8, 9)
    assert fork.kv_format == kv_format
    fork.release()
    assert arena.used_tokens == 0


def test_common_elements_never_split_a_visual():
    arena = make_arena()
    with filled(arena, [1, VIDEO, 2, 3]) as sequence:
        assert sequence.num_shared([1, VIDEO, 2, 4]) == 3
        assert sequence.num_shared([1, VisualRun("video", 8), 2]) == 1
        assert sequence.num_shared([1, VisualRun("other", 7), 2]) == 1
        assert sequence.num_shared([2, VIDEO]) == 0
        assert sequence.num_shared([1, VIDEO, 2, 3, 4, 5]) == 4


def test_dropping_the_oldest_keeps_positions(kv_format):
    arena = make_arena()
    sequence = filled(arena, [1, 2, VIDEO, 3, 4], kv_format=kv_format, room=2)
    sequence.drop_oldest(2, num_sinks=1)  # the second id and the video
    assert [position for _, position in read(arena, sequence)] == [0, 9, 10]
    assert (sequence.num_tokens, sequence.next_idx) == (3, 11)
    write(arena, sequence, [5])
    sequence.drop_oldest(1, num_sinks=1)
    assert sequence.elements == (1, 4, 5)
    assert [position for _, position in read(arena, sequence)] == [0, 10, 11]
    assert sequence.num_shared([1, 4, 5]) == 0  # other positions than a prompt would have
    with pytest.raises(ConfigError):
        sequence.drop_oldest(1, num_sinks=2)
    with pytest.raises(ConfigError):
        sequence.drop_oldest(3, num_sinks=1)
    sequence.truncate(1)
    assert sequence.next_idx == 1  # the gap is gone with what stood behind it
    sequence.release()
    assert arena.used_tokens == 0


def test_no_room_leaves_the_sequence_as_it_was(kv_format):
    arena = make_arena(limit_bytes=32 * TOKEN_BYTES[kv_format])
    sequence = filled(arena, [1, 2, 3], kv_format=kv_format)
    with pytest.raises(CapacityError):
        sequence.reserve(30)
    assert sequence.elements == (1, 2, 3)
    sequence.release()
    assert arena.used_tokens == 0


def test_a_released_sequence_is_of_no_use():
    arena = make_arena()
    sequence = filled(arena, [1, 2])
    sequence.release()
    sequence.release()
    for use in (sequence.fork, lambda: sequence.reserve(1), lambda: sequence.truncate(1)):
        with pytest.raises(ConfigError, match="released"):
            use()


def test_room_that_was_not_written_is_given_back_for_others(kv_format):
    arena = make_arena(limit_bytes=32 * TOKEN_BYTES[kv_format])
    sequence = filled(arena, [1, VIDEO, 2], kv_format=kv_format, room=20)
    fork = sequence.fork()
    before = read(arena, fork)
    sequence.trim()
    assert arena.used_tokens == 9
    with filled(arena, list(range(20)), kv_format=kv_format):
        assert read(arena, fork) == before
        sequence.release()
        fork.release()
        assert arena.used_tokens == 20
    assert arena.used_tokens == 0


class Forest(RuleBasedStateMachine):
    """Forks, appends, cuts and releases against plain lists of (name, index)."""

    kv_format = "plain"

    def __init__(self):
        super().__init__()
        self.arena = make_arena()
        self.pairs = []

    elements = st.lists(
        st.one_of(
            st.integers(0, 50), st.builds(VisualRun, st.sampled_from("ab"), st.integers(1, 9))
        ),
        min_size=1,
        max_size=5,
    )

    @rule(elements=elements, room=st.integers(0, 6))
    def begin(self, elements, room):
        sequence = filled(self.arena, elements, room=room, kv_format=self.kv_format)
        self.pairs.append((sequence, read(self.arena, sequence), list(elements)))

    @precondition(lambda self: self.pairs)
    @rule(which=st.integers(0, 99), cut=st.integers(0, 9), elements=elements)
    def fork(self, which, cut, elements):
        sequence, marks, named = self.pairs[which % len(self.pairs)]
        cut = min(cut, len(named))
        twin = sequence.fork(cut)
        kept = marks[: tokens_of(named[:cut])]
        twin.reserve(tokens_of(elements))
        write(self.arena, twin, elements)
        added = [name_of(element) for element in elements for _ in range(tokens_of([element]))]
        marks = kept + [(name, len(kept) + i) for i, name in enumerate(added)]
        self.pairs.append((twin, marks, named[:cut] + list(elements)))

    @precondition(lambda self: self.pairs)
    @rule(which=st.integers(0, 99), cut=st.integers(0, 9))
    def truncate(self, which, cut):
        idx = which % len(self.pairs)
        sequence, marks, named = self.pairs[idx]
        sequence.truncate(cut)
        self.pairs[idx] = (sequence, marks[: tokens_of(named[:cut])], named[:cut])

    @precondition(lambda self: self.pairs)
    @rule(which=st.integers(0, 99))
    def release(self, which):
        sequence, _, _ = self.pairs.pop(which % len(self.pairs))
        sequence.release()

    @invariant()
    def every_sequence_reads_what_was_written(self):
        for sequence, marks, named in self.pairs:
            assert read(self.arena, sequence) == marks
            assert sequence.num_tokens == len(marks) == tokens_of(sequence.elements)
            assert list(sequence.elements) == named

    def teardown(self):
        for sequence, _, _ in self.pairs:
            sequence.release()
        assert self.arena.used_tokens == 0


class Int8Forest(Forest):
    """The same in int8."""

    kv_format = "int8"


class Int4Forest(Forest):
    """The same in int4."""

    kv_format = "int4"


TestForest, TestInt8Forest, TestInt4Forest = (
    forest.TestCase for forest in (Forest, Int8Forest, Int4Forest)
)
TestForest.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
for quantised in (TestInt8Forest, TestInt4Forest):
    quantised.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_room_of_another_format_is_refused():
    arena = make_arena()
    sequence = Sequence(arena, kv_format="int8")
    with pytest.raises(ValueError, match="plain tokens in a sequence of int8"):
        sequence.attach(arena.reserve(3))
