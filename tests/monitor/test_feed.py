"""A camera's frames become windows that know what they show, and evidence of the time before."""

import weakref

import numpy as np
import pytest
from watch_footage import HEIGHT_PX, START_S, WIDTH_PX, picture_of, settings_of

from llava_video.monitor.feed import CameraFeed, WindowJob, stacked
from llava_video.video.stream_events import Mark, StreamFrame

CAMERA = settings_of(window_s=4.0, step_s=2.0).cameras[0]


def frame(second: int, state: int = 0, noise: int = 0) -> StreamFrame:
    picture = (picture_of(state) + noise).astype(np.uint8)
    return StreamFrame(idx=second, picture=picture, pts_s=float(second), wall_s=START_S + second)


def fed(feed: CameraFeed, *events: StreamFrame | Mark) -> list[WindowJob]:
    return [job for event in events for job in feed.take(event)]


def test_windows_say_when_and_what() -> None:
    feed = CameraFeed(CAMERA)
    jobs = fed(feed, *(frame(second, second >= 5, noise=second % 2) for second in range(9)))
    assert [(job.start_s - START_S, job.at_s - START_S) for job in jobs] == [(0, 4), (2, 6), (4, 8)]
    assert [len(job.contents) for job in jobs] == [1, 2, 2]
    assert jobs[0].contents == jobs[1].contents[:1]
    # Noise below the threshold is no other picture to the model.
    assert all(picture is jobs[0].pictures[0] for picture in jobs[0].pictures)
    assert jobs[0].last.picture[0, 0, 0] == 101  # the evidence is what came
    assert [int(picture[0, 0, 0]) for picture in jobs[0].frames] == [100, 101, 100, 101]
    # A window that waits holds the feed's own frames, and those of the next window, once.
    assert all(one is other for one, other in zip(jobs[0].frames[2:], jobs[1].frames, strict=False))
    assert jobs[0].frames[-1] is jobs[0].last.picture
    assert (feed.num_frames, feed.num_new) == (9, 2)


@pytest.mark.parametrize("kind", ["lost", "stalled", "ended"])
def test_a_silent_camera_tells_what_it_has(kind) -> None:
    feed = CameraFeed(CAMERA)
    assert fed(feed, frame(0), frame(1)) == []
    (job,) = fed(feed, Mark(kind=kind, wall_s=START_S + 1))
    assert job.times_s == (0.0, 1.0)
    assert feed.finish() == []


def test_a_silence_before_the_first_frame_is_no_window() -> None:
    assert fed(CameraFeed(CAMERA), Mark(kind="lost", wall_s=START_S)) == []


def test_other_marks_end_no_window() -> None:
    feed = CameraFeed(CAMERA)
    assert fed(feed, frame(0), Mark(kind="late", wall_s=START_S), frame(1)) == []


def test_evidence_is_of_the_window_and_the_time_before_and_no_later() -> None:
    feed = CameraFeed(CAMERA, before_s=6.0)
    jobs = fed(feed, *(frame(second) for second in range(15)))
    frames, times_s = feed.evidence(jobs[-1], 5)
    assert frames.shape == (5, HEIGHT_PX, WIDTH_PX, 3)
    assert jobs[-1].end_pts_s == 14.0
    assert times_s[0] >= START_S + 4
    assert times_s[-1] == START_S + 14
    assert list(times_s) == sorted(set(times_s))
    one, (when,) = feed.evidence(jobs[-1], 1)
    assert one.shape[0] == 1
    assert when == START_S + 14


def test_evidence_that_is_gone_is_the_last_frame() -> None:
    feed = CameraFeed(CAMERA, before_s=0.0)
    jobs = fed(feed, *(frame(second) for second in range(40)))
    frames, times_s = feed.evidence(jobs[0], 5)
    assert times_s == (jobs[0].last.wall_s,)
    assert frames.shape[0] == 1


def test_evidence_is_whole_when_the_window_waited_as_long_as_it_may() -> None:
    feed = CameraFeed(CAMERA, before_s=6.0, num_waiting=4)
    jobs = fed(feed, *(frame(second) for second in range(41)))
    # Windows are 2 s apart: this one ended 10 s ago, four of waiting and one of judging.
    (job,) = (job for job in jobs if job.end_pts_s == 30.0)
    _, times_s = feed.evidence(job, 64)
    assert [when - START_S for when in times_s] == list(range(20, 31))


def test_what_found_no_room_is_held_by_nobody() -> None:
    camera = settings_of(window_s=20.0, step_s=2.0).cameras[0]
    most = 3
    feed = CameraFeed(camera, most_bytes=most * frame(0).picture.nbytes)
    seen, num_windows = list[weakref.ref[np.ndarray]](), 0
    for second in range(60):
        one = frame(second, second % 4)
        seen.append(weakref.ref(one.picture))
        num_windows += len(feed.take(one))
        # The gate compares with the last one, which is held anyway.
        assert sum(picture() is not None for picture in seen) <= most
        assert feed.held_bytes <= most * one.picture.nbytes
    assert num_windows == 20


def test_a_day_takes_no_more_memory_than_a_minute() -> None:
    feed, held = CameraFeed(CAMERA), []
    for second in range(600):
        feed.take(frame(second, second % 3))
        held.append((feed.held_bytes, len(feed._looked)))
    assert max(held[60:]) <= max(held[:60])


def test_a_changed_resolution_loses_nothing_of_the_window() -> None:
    small, large = np.full((10, 20, 3), 50, np.uint8), np.full((20, 40, 3), 90, np.uint8)
    clip = stacked([small, small, large])
    assert clip.shape == (3, 20, 40, 3)
    assert [int(one.mean()) for one in clip] == [50, 50, 90]
