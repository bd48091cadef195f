import numpy as np
import pytest
from PIL import Image

from llava_video.world.bars import paint_index, read_index


def test_every_number_is_read_back() -> None:
    assert [read_index(paint_index(idx, 24, 40)) for idx in range(256)] == list(range(256))


def test_bit_i_is_bar_i_from_the_left() -> None:
    frame = paint_index(0b00000101, 4, 16)
    assert frame[0, :, 0].tolist() == [255, 255, 0, 0, 255, 255] + [0] * 10


def test_a_mirrored_picture_reads_the_bits_backwards() -> None:
    assert read_index(paint_index(0b00000001, 24, 40)[:, ::-1]) == 0b10000000


@pytest.mark.parametrize(
    ("height_px", "width_px"), [(1, 8), (3, 9), (7, 13), (101, 333), (48, 160)]
)
def test_odd_sizes(height_px: int, width_px: int) -> None:
    assert all(read_index(paint_index(i, height_px, width_px)) == i for i in (0, 1, 37, 170, 255))


def test_scaling_and_noise_do_not_hide_the_number() -> None:
    rng = np.random.default_rng(0)
    for idx in range(0, 256, 7):
        picture = Image.fromarray(paint_index(idx, 96, 160)).resize((57, 41))
        noisy = np.asarray(picture).astype(int) + rng.integers(-60, 61, (41, 57, 3))
        assert read_index(noisy.clip(0, 255).astype(np.uint8)) == idx


def test_256_looks_like_0() -> None:
    assert (paint_index(256, 8, 8) == paint_index(0, 8, 8)).all()
