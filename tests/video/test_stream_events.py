"""Events are values: frozen, short in print, of one list of kinds."""

import dataclasses
from typing import get_args

import numpy as np
import pytest

from llava_video.video import stream_events
from llava_video.video.stream_events import Mark, MarkKind, StreamCounts, StreamFrame, StreamStatus


def test_a_frame_prints_without_its_pixels_and_cannot_be_changed() -> None:
    picture = np.zeros((2, 2, 3), dtype=np.uint8)
    frame = StreamFrame(idx=7, picture=picture, pts_s=1.0, wall_s=2.0)
    assert repr(frame) == "StreamFrame(idx=7, pts_s=1.0, wall_s=2.0)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.idx = 8  # type: ignore[misc]  # that is the point


def test_every_kind_of_mark_is_explained() -> None:
    for kind in get_args(MarkKind):
        assert f'"{kind}"' in (Mark.__doc__ or ""), kind


def test_a_status_begins_empty() -> None:
    status = StreamStatus(name="a", state="connecting", counts=StreamCounts())
    assert status.last_frame_wall_s is None
    assert set(dataclasses.asdict(status.counts).values()) == {0}
    assert "password" in (stream_events.__doc__ or "")
