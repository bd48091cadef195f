"""Pictures: the same everywhere, where the truth says, and in pieces as in one."""

import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy._core import _multiarray_umath as cpu
from scene_maker import moving, scene, thing
from world_blobs import find_blobs

from llava_video.errors import ConfigError
from llava_video.world.composer import compose
from llava_video.world.render import (
    camera_offsets,
    iter_frames,
    render,
    render_at,
    render_batch,
    sign_size,
)
from llava_video.world.scene import Sign, Wall
from llava_video.world.settings import WorldSettings
from llava_video.world.splits import SPLITS
from llava_video.world.track import Track

_DIGEST = """
import hashlib
from llava_video.world.composer import compose
from llava_video.world.render import render
from llava_video.world.splits import SPLITS
digest = hashlib.sha256()
for split in ("train", "heldout"):
    for idx in range(6):
        digest.update(render(compose(SPLITS[split], "twice", idx)).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("is_plain", [False, True], ids=["as here", "an older processor"])
def test_another_process_draws_the_same_bytes(is_plain: bool) -> None:
    digest = hashlib.sha256()
    for split in ("train", "heldout"):
        for idx in range(6):
            digest.update(render(compose(SPLITS[split], "twice", idx)).tobytes())
    environment = dict(os.environ)
    if is_plain:  # NumPy's loops without what only newer processors have
        environment["NPY_DISABLE_CPU_FEATURES"] = " ".join(cpu.__cpu_dispatch__)
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _DIGEST],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert other.stdout.strip() == digest.hexdigest()


def test_an_object_is_where_the_truth_says() -> None:
    mover, event = moving(1.0, 3.0, 0.4, radius=0.12)
    made = scene(mover, events=(event,))
    for k, frame in enumerate(render(made)):
        (blob,) = find_blobs(frame)
        state = made.state_at(made.time_of(k))[0]
        assert blob.colour == "red"
        # Pixel i lies between i and i + 1, so the middle of pixels is half a pixel less.
        assert (blob.x + 0.5, blob.y + 0.5) == pytest.approx((state.x * 100, 50.0), abs=0.75)
        assert blob.width == pytest.approx(2 * 0.9 * 12, abs=1.5)


def test_what_is_behind_the_wall_does_not_show() -> None:
    wall = Wall(0.3, 0.3, 0.7, 0.7)
    frame = render(scene(thing(), wall=wall))[0]
    assert find_blobs(frame) == []
    (half,) = find_blobs(render(scene(thing(x=0.7), wall=wall))[0])
    assert half.width == 9  # of 18 px the right half: from 0.70 to 0.79


def test_later_things_lie_on_top() -> None:
    frame = render(scene(thing(), thing(colour="blue")))[0]
    assert [blob.colour for blob in find_blobs(frame)] == ["blue"]


def test_the_sign_is_black_on_white_and_as_large_as_said() -> None:
    frame = render(scene(sign=Sign("GO", 10, 5, 2)))[0]
    rows, columns = np.nonzero((frame < 100).all(axis=2) | (frame > 200).all(axis=2))
    height_px, width_px = sign_size("GO", 2)
    assert (height_px, width_px) == (7 * 2 + 8, 11 * 2 + 8)
    assert (rows.min(), rows.max() + 1) == (5, 5 + height_px)
    assert (columns.min(), columns.max() + 1) == (10, 10 + width_px)


def test_a_shaking_camera_moves_everything_alike() -> None:
    steady = scene(thing(x=0.4), thing(colour="blue", x=0.7))
    shaken = scene(thing(x=0.4), thing(colour="blue", x=0.7), shake_px=3)
    offsets = camera_offsets(shaken)
    assert offsets.min() == -3
    assert offsets.max() == 3
    still = {blob.colour: blob for blob in find_blobs(render(steady)[0])}
    for frame, (right, down) in zip(render(shaken), offsets, strict=True):
        for blob in find_blobs(frame):
            at = still[blob.colour]
            assert (blob.x, blob.y) == (at.x - right, at.y - down)


def test_noise_is_bounded_and_fresh() -> None:
    clean, noisy = (render(scene(thing(), noise=n)).astype(int) for n in (0, 12))
    off = noisy - clean
    assert abs(off).max() in (10, 11, 12)
    assert abs(off.mean()) < 0.6
    assert (off[0] != off[1]).mean() > 0.5


@pytest.mark.parametrize("idx", range(6))
def test_pieces_are_the_whole(idx: int) -> None:
    settings = WorldSettings(lengths_s=(40.0,), rates_hz=(4.0,), shake_share=0.5)
    made = compose(settings, "pieces", idx)
    assert made.num_frames == 160  # more than one piece
    assert np.array_equal(np.stack(list(iter_frames(made))), render(made))


def test_some_frames_are_those_of_the_whole() -> None:
    settings = WorldSettings(shake_share=1.0)
    shaken = next(
        made for made in (compose(settings, "some", idx) for idx in range(20)) if made.noise
    )
    whole = render(shaken)
    idxs = [9, 2, 2, 15, 0]
    assert np.array_equal(render_at(shaken, idxs), whole[idxs])
    # Each frame has noise and an offset of its own: a wrong number would be seen.
    assert not np.array_equal(whole[9], whole[2])


def test_a_frame_alone_is_as_among_those_where_objects_have_grown() -> None:
    size = Track((0.0, 1.3, 5.9), (0.09, 0.09, 0.144))
    made = scene(thing("ring", x=Track((0.0, 7.0), (0.21, 0.83)), y=0.37, radius=size))
    whole = render(made)
    for idx in range(made.num_frames):
        assert np.array_equal(render_at(made, [idx])[0], whole[idx])


def test_a_batch_is_its_clips() -> None:
    scenes = [compose(WorldSettings(), "batch", idx) for idx in range(4)]
    out = np.zeros((4, 16, 64, 64, 3), dtype=np.uint8)
    assert render_batch(scenes, out) is out
    for made, clip in zip(scenes, out, strict=True):
        assert np.array_equal(render(made), clip)
    assert np.array_equal(render_batch(scenes), out)


def test_a_batch_is_of_one_shape() -> None:
    small, large = scene(size_px=(64, 64)), scene(size_px=(64, 96))
    with pytest.raises(ConfigError, match="shapes"):
        render_batch([small, large])
    with pytest.raises(ConfigError, match="out is"):
        render_batch([small], np.zeros((1, 16, 64, 96, 3), dtype=np.uint8))


def test_drawing_is_fast() -> None:
    scenes = [compose(WorldSettings(), "fast", idx) for idx in range(20)]
    least_s = float("inf")
    for _ in range(5):  # the machine may be busy
        begun_s = time.perf_counter()
        render_batch(scenes)
        least_s = min(least_s, time.perf_counter() - begun_s)
    assert least_s / (20 * 16) < 1e-3  # s per frame of 64 px
