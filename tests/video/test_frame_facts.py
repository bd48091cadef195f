from fractions import Fraction

import av
import pytest

from llava_video.video.frame_facts import bit_depth, colour_range, odd_pixels


def _frame(pixel_format: str, stated: int = 0) -> av.VideoFrame:
    frame = av.VideoFrame(16, 16, pixel_format)
    frame.color_range = stated
    frame.time_base = Fraction(1, 25)
    return frame


@pytest.mark.parametrize(
    ("pixel_format", "stated", "found"),
    [
        ("yuv420p", 0, None),
        ("yuv420p", 1, "limited"),
        ("yuv420p", 2, "full"),
        ("yuvj420p", 0, "full"),
        ("yuvj422p", 1, "full"),
        ("rgb24", 0, "full"),
        ("gbrp10le", 0, "full"),
        ("gray", 0, None),
    ],
)
def test_colour_range(pixel_format: str, stated: int, found: str | None) -> None:
    assert colour_range(_frame(pixel_format, stated)) == found


@pytest.mark.parametrize(
    ("pixel_format", "num_bits"),
    [("yuv420p", 8), ("yuv420p10le", 10), ("yuv444p12le", 12), ("rgb565le", 6), ("gray16le", 16)],
)
def test_bit_depth(pixel_format: str, num_bits: int) -> None:
    assert bit_depth(av.VideoFormat(pixel_format)) == num_bits


def test_what_is_odd() -> None:
    frame = _frame("yuv420p")
    assert list(odd_pixels(frame, 1)) == []
    assert list(odd_pixels(frame, 16)) == ["its colours are HDR (PQ), shown unmapped."]
    assert list(odd_pixels(frame, 18)) == ["its colours are HDR (HLG), shown unmapped."]
