"""What goes by age, by bytes and on a full disk."""

from hypothesis import given
from hypothesis import strategies as st

from llava_video.monitor.message import StoredFile
from llava_video.monitor.retention import first_to_go, outlived
from llava_video.monitor.settings import RetentionSettings

DAY_S = 86_400.0


def kept(*sizes: int, needed: tuple[int, ...] = ()) -> list[StoredFile]:
    """Return files of these sizes, one made on each day, oldest first."""
    return [
        StoredFile(
            name=str(day), alert_id="", kind="clip", num_bytes=size, made_at_s=day * DAY_S,
            is_needed=day in needed,
        )
        for day, size in enumerate(sizes)
    ]  # fmt: skip


def names(files: list[StoredFile]) -> list[str]:
    return [one.name for one in files]


def test_what_is_too_old_goes_unless_a_message_waits_with_it() -> None:
    settings = RetentionSettings(days=2, most_bytes=1000)
    files = kept(1, 1, 1, 1, needed=(1,))
    assert names(outlived(files, 3.9 * DAY_S, settings)) == ["0"]
    assert names(outlived(files, 4 * DAY_S, settings)) == ["0", "2"]
    assert names(outlived(files, 99 * DAY_S, settings)) == ["0", "2", "3"]


def test_what_is_too_much_goes_oldest_first() -> None:
    settings = RetentionSettings(days=99, most_bytes=10)
    assert names(outlived(kept(4, 4, 4), 0, settings)) == ["0"]
    assert names(outlived(kept(4, 4, 2), 0, settings)) == []
    assert names(outlived(kept(4, 4, 4, needed=(0,)), 0, settings)) == ["1"]
    assert names(outlived(kept(11), 0, settings)) == ["0"]
    assert outlived([], 0, settings) == []


def test_a_full_disk_takes_the_oldest_that_nobody_waits_for_first() -> None:
    assert first_to_go([]) is None
    for files, first in [
        (kept(1, 1, 1), "0"),
        (kept(1, 1, 1, needed=(0, 1)), "2"),
        (kept(1, 1, 1, needed=(0, 1, 2)), "0"),
    ]:
        going = first_to_go(files)
        assert going is not None
        assert going.name == first


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=20),
    st.integers(0, 40),
    st.integers(1, 30),
)
def test_what_stays_is_within_bounds_or_needed(files: list, most_bytes: int, days: int) -> None:
    needed = tuple(i for i, (_, is_needed) in enumerate(files) if is_needed)
    all_files = kept(*[size for size, _ in files], needed=needed)
    settings = RetentionSettings(days=days, most_bytes=most_bytes)
    now_s = len(files) * DAY_S
    going = outlived(all_files, now_s, settings)
    staying = [one for one in all_files if one not in going]
    assert not any(one.is_needed for one in going)
    free = [one for one in staying if not one.is_needed]
    assert all(now_s - one.made_at_s < days * DAY_S for one in free)
    assert not free or sum(one.num_bytes for one in staying) <= most_bytes
