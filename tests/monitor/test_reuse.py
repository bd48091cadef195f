"""Reuse: every reason there is to ask again, and the one not to."""

import numpy as np
import pytest

from llava_video.monitor.gate import ChangeGate
from llava_video.monitor.reuse import Answered, contents_of, decide
from llava_video.monitor.scene_settings import ReuseSettings, WindowSettings
from llava_video.monitor.windows import RollingWindows
from llava_video.video.stream_events import StreamFrame

EARLIER = Answered(window_idx=7, contents=(3,), asked="q", at_s=100.0)


def test_an_unchanged_window_takes_the_earlier_answer() -> None:
    found = decide(EARLIER, (3,), "q", 150.0)
    assert (found.reused_from, found.reason, found.age_s) == (7, "unchanged", 50.0)


@pytest.mark.parametrize(
    ("earlier", "contents", "asked", "now_s", "more", "reason"),
    [
        (None, (3,), "q", 150.0, {}, "first"),
        (EARLIER, (4,), "q", 150.0, {}, "changed"),
        (EARLIER, (3, 4), "q", 150.0, {}, "changed"),
        (EARLIER, (3,), "other", 150.0, {}, "other questions"),
        (EARLIER, (3,), "q", 700.0, {}, "too old"),
        (EARLIER, (3,), "q", 99.0, {}, "too old"),  # a clock that was set
        (EARLIER, (3,), "q", 150.0, {"is_forced": True}, "forced"),
        (EARLIER, (3,), "q", 150.0, {"settings": ReuseSettings(is_on=False)}, "off"),
    ],
)
def test_what_makes_it_ask(earlier, contents, asked, now_s, more, reason) -> None:
    found = decide(earlier, contents, asked, now_s, **more)
    assert (found.reused_from, found.reason) == (None, reason)


def test_age_is_counted_from_the_question_not_from_the_last_reuse() -> None:
    settings = ReuseSettings(max_age_s=60.0)
    asked_at_s, earlier, num_asked = [], EARLIER, 0
    for second in range(100, 400, 4):
        found = decide(earlier, (3,), "q", float(second), settings)
        if found.reused_from is None:
            num_asked += 1
            asked_at_s.append(second)
            earlier = Answered(window_idx=second, contents=(3,), asked="q", at_s=float(second))
    assert asked_at_s == [160, 220, 280, 340]


def test_motion_is_never_reused_and_rest_is_asked_about_once() -> None:
    moving = Answered(window_idx=1, contents=(1, 2, 3), asked="q", at_s=0.0)
    assert decide(moving, (1, 2, 3), "q", 1.0).reason == "changed"
    assert decide(moving, (3,), "q", 1.0).reason == "changed"
    rest = Answered(window_idx=2, contents=(3,), asked="q", at_s=1.0)
    assert decide(rest, (3,), "q", 2.0).reused_from == 2


def test_contents() -> None:
    assert contents_of([]) == ()
    assert contents_of([5, 5, 6, 6, 5]) == (5, 6, 5)


def test_two_hours_of_a_still_camera_are_asked_about_where_they_changed() -> None:
    """A noisy picture at one a second; something of 8 x 8 px comes or goes every ten minutes."""
    rng = np.random.default_rng(0)
    scene = rng.integers(40, 200, (48, 64, 3)).astype(np.int16)
    noise = rng.integers(-2, 3, (50, *scene.shape)).astype(np.int16)
    gate, windows = ChangeGate(), RollingWindows(WindowSettings(length_s=8.0, step_s=4.0))
    earlier, asked, truth_at_answer, wrong = None, [], None, []
    contents: dict[int, int] = {}
    for second in range(7200):
        has_object = second // 600 % 2 == 1
        picture = scene + noise[second % 50]
        picture[20:28, 30:38] += np.int16(30 * has_object)
        frame = StreamFrame(
            idx=second,
            picture=np.clip(picture, 0, 255).astype(np.uint8),
            pts_s=float(second),
            wall_s=float(second),
        )
        done = windows.add(frame)
        contents[second] = gate.look(frame.picture).content
        for window in done:
            shown = contents_of(contents[f.idx] for f in window.frames)
            truth = tuple(dict.fromkeys(f.idx // 600 % 2 for f in window.frames))
            found = decide(earlier, shown, "q", window.end_s)
            if found.reused_from is None:
                asked.append(window.idx)
                earlier = Answered(
                    window_idx=window.idx, contents=shown, asked="q", at_s=window.end_s
                )
                truth_at_answer = truth
            elif truth != truth_at_answer:
                wrong.append(window.idx)
    assert wrong == []
    assert len(asked) <= 0.1 * 1800
