"""The made-up scene: a ball that crosses the picture, the same every time."""

import numpy as np

from llava_video.demo.scene import paint_scene


def ball_centre_px(frame: np.ndarray) -> float:
    red = (frame[..., 0] > 180) & (frame[..., 1] < 90)
    return float(np.nonzero(red)[1].mean())


def test_the_ball_crosses_from_left_to_right() -> None:
    frames = list(paint_scene(9, 90, 160))
    assert {frame.shape for frame in frames} == {(90, 160, 3)}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    centres_px = [ball_centre_px(frame) for frame in frames]
    assert centres_px == sorted(centres_px)
    assert centres_px[0] < 16
    assert centres_px[-1] > 144
    assert abs(centres_px[4] - 80) < 3  # half the time, half the way


def test_it_rolls() -> None:
    # Two places a whole number of pixels apart show the ball turned differently.
    first, second = (frame for idx, frame in enumerate(paint_scene(11, 90, 160)) if idx in (4, 5))
    assert not np.array_equal(first[:, 40:100], second[:, 56:116])


def test_the_sky_is_above_the_field() -> None:
    frame = next(iter(paint_scene(2, 90, 160)))
    assert frame[0, 80, 2] > 200  # blue
    assert frame[-1, 80].argmax() == 1  # green
