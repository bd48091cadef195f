from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from llava_video.values import Clip, FrameRef, Segment
from llava_video.video.evidence import Evidence, is_of_sameness


def _clips(frames: Sequence[object], chunk_frames: int = 3) -> Iterator[Clip]:
    """Frame i is shown at i / 2 s and has index 10 i."""
    for start in range(0, len(frames), chunk_frames):
        piece = np.stack(frames[start : start + chunk_frames])  # type: ignore[arg-type]
        order = np.arange(start, start + len(piece))
        yield Clip(piece, order / 2, order * 10)


def _lit(level: int, height_px: int = 90, width_px: int = 320) -> object:
    return np.full((height_px, width_px, 3), level, np.uint8)


def _watched(frames: Sequence[object], planned: int | None = None) -> Evidence:
    evidence = Evidence(len(frames) if planned is None else planned)
    list(evidence.watch(_clips(frames)))
    return evidence


def test_clips_pass_unchanged() -> None:
    clips = list(_clips([_lit(50), _lit(90), _lit(99), _lit(120)]))
    evidence = Evidence(4)
    passed = list(evidence.watch(iter(clips)))
    assert all(one is other for one, other in zip(clips, passed, strict=True))
    assert evidence.frames == tuple(FrameRef(10 * i, i / 2) for i in range(4))
    assert evidence.warnings() == ()


def test_clips_are_pulled_one_by_one() -> None:
    evidence = Evidence(6)
    watched = evidence.watch(_clips([_lit(i * 20) for i in range(6)]))
    assert evidence.frames == ()
    next(watched)
    assert len(evidence.frames) == 3


def test_thumbnails_are_evenly_chosen_and_bounded() -> None:
    evidence = _watched([_lit(i % 250) for i in range(200)])
    thumbnails = evidence.thumbnails
    assert thumbnails is not None
    assert thumbnails.shape == (64, 45, 160, 3)
    # Whole steps of 199 / 63 = 3.16 frames: gaps of three or four, first and last included.
    levels = thumbnails[:, 0, 0, 0].astype(int)
    assert (levels[0], levels[-1]) == (0, 199)
    assert set(np.diff(levels)) == {3, 4}
    assert evidence.thumbnail_times_s == tuple(level / 2 for level in levels)


def test_few_and_small_frames_are_all_kept_as_they_are() -> None:
    evidence = _watched([_lit(i * 50, 20, 30) for i in range(3)])
    assert evidence.thumbnails is not None
    assert evidence.thumbnails.shape == (3, 20, 30, 3)
    assert evidence.thumbnails[:, 0, 0, 0].tolist() == [0, 50, 100]


def test_nothing_seen() -> None:
    for evidence in (Evidence(4), _watched([], planned=4), Evidence(0)):
        assert evidence.thumbnails is None
        assert evidence.thumbnail_times_s == ()
        assert evidence.warnings() == ("No frame was seen: the answer rests on nothing.",)


def test_fewer_than_planned() -> None:
    evidence = _watched([_lit(50), _lit(90)], planned=5)
    assert evidence.warnings() == ("Only 2 of 5 planned frames were seen.",)


def test_black() -> None:
    noise = np.random.default_rng(0).integers(0, 12, (90, 320, 3), np.uint8)
    assert _watched([_lit(0), noise]).warnings() == ("Every frame is black.",)
    assert _watched([_lit(0)]).warnings() == ("The frame is black.",)
    star = _lit(0)
    star[40, 100] = 200  # type: ignore[index]
    assert _watched([_lit(0), star]).warnings() == ()


def test_frozen() -> None:
    picture = np.random.default_rng(0).integers(0, 250, (90, 320, 3), np.uint8)
    assert _watched([picture, picture + 2, picture]).warnings() == (
        "All 3 frames show the same picture.",
    )
    assert [is_of_sameness(one) for one in _watched([picture, picture]).warnings()] == [True]
    assert not is_of_sameness("All frames show the same picture.")
    assert _watched([picture]).warnings() == ()
    moved = picture.copy()
    moved[5, 5] ^= 64
    assert _watched([picture, picture, moved]).warnings() == ()
    # Dark levels wrap around in uint8 if they are subtracted the wrong way round.
    assert _watched([_lit(100), _lit(99)]).warnings() != ()
    assert _watched([_lit(99), _lit(104)]).warnings() == ()


def test_watching_again_starts_from_nothing() -> None:
    evidence = _watched([_lit(0), _lit(0)])
    list(evidence.watch(_clips([_lit(50), _lit(90)])))
    assert len(evidence.frames) == 2
    assert evidence.warnings() == ()
    assert evidence.thumbnails is not None
    assert len(evidence.thumbnails) == 2


@pytest.mark.parametrize(
    ("num_seen", "spans"),
    [(4, [(0.0, 9.0)]), (2, [(0.0, 1.0)]), (1, [(0.0, 0.5)]), (0, [])],
)
def test_coverage(num_seen: int, spans: list[tuple[float, float]]) -> None:
    evidence = _watched([_lit(i) for i in range(num_seen)], planned=4)
    covered = evidence.coverage([0, 10, 20, 30], [0.0, 0.5, 1.0, 1.5], 9.0)
    assert covered == tuple(Segment(*span) for span in spans)


def test_lost_frames_leave_gaps() -> None:
    evidence = _watched([_lit(i) for i in range(3)], planned=6)  # indices 0, 10, 20
    covered = evidence.coverage([0, 5, 10, 20, 25], [0.0, 1.0, 2.0, 3.0, 4.0], 5.0)
    assert covered == (Segment(0.0, 1.0), Segment(2.0, 4.0))
    assert evidence.coverage([], [], 5.0) == ()


def test_repeated_frames_are_covered_once() -> None:
    evidence = _watched([_lit(1)])
    assert evidence.coverage([0, 0, 0], [0.0, 0.0, 0.0], 2.0) == (Segment(0.0, 2.0),)


def test_recalled_frames_have_neither_pictures_nor_doubts() -> None:
    refs = (FrameRef(4, 0.5), FrameRef(9, 1.0))
    evidence = Evidence.recalled(refs)
    assert evidence.frames == refs
    assert evidence.thumbnails is None
    assert evidence.warnings() == ()


def test_a_judge_looks_at_the_thumbnails_once() -> None:
    shown: list[int] = []

    def judge(thumbnails: np.ndarray) -> str:
        shown.append(len(thumbnails))
        return "odd"

    evidence = _watched([_lit(i * 20) for i in range(5)])
    assert (evidence.verdict(judge), evidence.verdict(judge), shown) == ("odd", "odd", [5])
    assert evidence.verdict(lambda thumbnails: f"of {thumbnails.shape[2]} px") == "of 160 px"
    list(evidence.watch(_clips([_lit(9), _lit(99)])))
    assert (evidence.verdict(judge), shown) == ("odd", [5, 2])
    assert Evidence.recalled(evidence.frames).verdict(judge) == ""
    assert shown == [5, 2]
