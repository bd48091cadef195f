import numpy as np

from llava_video.video.decode_frames import FramesReader


def test_frames_are_views() -> None:
    frames = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)
    reader = FramesReader(frames)
    given = list(reader.frames([0, 3]))
    assert [idx for idx, _ in given] == [0, 3]
    assert all(np.shares_memory(frame, frames) for _, frame in given)
    assert (given[1][1] == frames[3]).all()
    reader.close()
