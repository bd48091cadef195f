from fractions import Fraction

import numpy as np
import pytest

from llava_video.video.upright import Orientation, fit_size, orientation_of, shown_size, turn

_ONE = 1 << 16
# Stored a b / c d, shown by hand from the formula: stored (x, y) goes to (ax + cy, bx + dy).
_MATRICES = {
    (1, 0, 0, 1): (0, False, "abcd"),
    (0, 1, -1, 0): (90, False, "cadb"),  # x goes down, y goes left: clockwise
    (-1, 0, 0, -1): (180, False, "dcba"),
    (0, -1, 1, 0): (270, False, "bdac"),
    (-1, 0, 0, 1): (0, True, "badc"),  # x reversed
    (1, 0, 0, -1): (180, True, "cdab"),  # y reversed
    (0, 1, 1, 0): (270, True, "acbd"),  # transposed
    (0, -1, -1, 0): (90, True, "dbca"),
}


@pytest.mark.parametrize(("abcd", "expected"), _MATRICES.items())
def test_all_eight_orientations(
    abcd: tuple[int, int, int, int], expected: tuple[int, bool, str]
) -> None:
    a, b, c, d = (_ONE * value for value in abcd)
    orientation = orientation_of([a, b, 0, c, d, 0, 0, 0, 1 << 30])
    rotation_deg, mirrored, shown = expected
    assert orientation == Orientation(rotation_deg, mirrored)
    stored = np.array([[ord("a"), ord("b")], [ord("c"), ord("d")]], np.uint8)[:, :, None]
    turned = turn(stored.repeat(3, axis=2), rotation_deg, mirrored)
    assert bytes(turned[:, :, 0].ravel()).decode() == shown
    if rotation_deg % 180:  # Mutant: counter-clockwise, as PyAV counts.
        mutant = turn(stored.repeat(3, axis=2), -rotation_deg % 360, mirrored)
        assert bytes(mutant[:, :, 0].ravel()).decode() != shown


def test_the_formula_moves_points_where_turn_moves_them() -> None:
    height_px, width_px = 3, 5
    stored = np.arange(15, dtype=np.uint8).reshape(height_px, width_px, 1).repeat(3, axis=2)
    for (a, b, c, d), (rotation_deg, mirrored, _) in _MATRICES.items():
        shown = turn(stored, rotation_deg, mirrored)[:, :, 0]
        points = {
            (a * x + c * y, b * x + d * y): stored[y, x, 0]
            for y in range(height_px)
            for x in range(width_px)
        }
        left, top = min(p for p, _ in points), min(q for _, q in points)
        for (p, q), value in points.items():
            assert shown[q - top, p - left] == value


def test_a_tilt_is_told_and_left_alone() -> None:
    cos, sin = round(0.9063 * _ONE), round(0.4226 * _ONE)  # 25 degrees
    orientation = orientation_of([cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30])
    assert orientation.rotation_deg == 0
    assert orientation.tilt_deg == pytest.approx(25, abs=0.1)


def test_an_empty_matrix_is_no_turn() -> None:
    assert orientation_of([0] * 9) == Orientation()


def test_a_right_angle_with_rounding_errors() -> None:
    assert orientation_of([3, _ONE, 0, -_ONE, -2, 0, 0, 0, 1 << 30]) == Orientation(90)


def test_shown_size() -> None:
    assert shown_size(480, 720, Fraction(8, 9), 0) == (480, 640)
    assert shown_size(480, 720, Fraction(8, 9), 90) == (640, 480)
    assert shown_size(576, 720, Fraction(64, 45), 180) == (576, 1024)
    assert shown_size(10, 1, Fraction(1, 8), 0) == (10, 1)


def test_turning_copies_nothing() -> None:
    frame = np.zeros((2, 3, 3), np.uint8)
    assert np.shares_memory(turn(frame, 90), frame)


def test_fit_size_leaves_the_right_size_alone() -> None:
    frame = np.zeros((2, 3, 3), np.uint8)
    assert fit_size(frame, 2, 3) is frame


def test_fit_size_stretches_the_width() -> None:
    ramp = np.linspace(0, 250, 40).astype(np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
    wide = fit_size(ramp, 8, 80)
    assert wide.shape == (8, 80, 3)
    # Pixel centres: shown x + 0.5 = 2 (stored x + 0.5), away from the clamped ends.
    expected = np.interp((np.arange(80) + 0.5) / 2 - 0.5, np.arange(40), ramp[0, :, 0])
    assert np.abs(wide[0, 4:-4, 0] - expected[4:-4]).max() <= 1
