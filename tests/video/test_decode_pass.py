"""One run at a time, with each care: what comes out, what is doubted, what is given up."""

from pathlib import Path
from typing import Any

import pytest
import synthetic

from llava_video.video.container import open_container
from llava_video.video.decode_pass import Care, Doubt, Pass
from llava_video.video.probe import TrackInfo, probe
from llava_video.video.seek_plan import Run, plan_runs
from llava_video.video.source import Source, open_source


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return open_source(synthetic.write_video(tmp_path / "a.mp4", 60))  # a keyframe every 12


def _shown(info: TrackInfo, source: Source, care: Care, runs: Any, **options: Any) -> list[int]:
    with open_container(source) as container:
        one = Pass(container, info, care, **options)
        return [
            synthetic.read_index(frame.to_ndarray(format="rgb24"))
            for run in runs
            for _, frame in one.frames(run)
        ]


@pytest.mark.parametrize("care", list(Care))
def test_runs_of_one_container_in_order(source: Source, care: Care) -> None:
    info = probe(source)
    idxs = [0, 3, 13, 14, 30, 59]
    runs = plan_runs(info, idxs)
    if care is Care.LINEAR:
        runs = (Run(tuple(idxs), None, 0, info.num_frames),)
    assert _shown(info, source, care, runs) == idxs


def test_runs_need_not_ascend(source: Source) -> None:
    info = probe(source)
    runs = plan_runs(info, [2, 30, 59])[::-1]
    assert _shown(info, source, Care.FAST, runs) == [59, 30, 2]


def test_a_frame_that_is_not_there_is_doubted_then_given_up(source: Source) -> None:
    info = probe(source)
    # The index says that a frame stands between 30 and 31, which no packet has.
    lied = _with_a_frame_too_many(info, after=30)
    run = plan_runs(lied, [30, 31, 32])[0]
    with open_container(source) as container:
        frames = Pass(container, lied, Care.FAST).frames(run)
        assert next(frames)[0] == 30
        with pytest.raises(Doubt, match="frame 31"):
            next(frames)
    with open_container(source) as container:
        given = [idx for idx, _ in Pass(container, lied, Care.CAREFUL).frames(run)]
    assert given == [30, 32]


def _with_a_frame_too_many(info: TrackInfo, after: int) -> TrackInfo:
    import numpy as np

    pts_s = np.insert(info.pts_s, after + 1, info.pts_s[after] + info.tick_s)
    packet_idxs = np.insert(info.packet_idxs, after + 1, info.packet_idxs[after])
    keys = tuple(key + (key > after) for key in info.keyframe_idxs)
    values = {name: getattr(info, name) for name in TrackInfo.__dataclass_fields__}
    values |= {
        "pts_s": pts_s,
        "packet_idxs": packet_idxs,
        "keyframe_idxs": keys,
        "num_frames": info.num_frames + 1,
    }
    return TrackInfo(**values)


def test_a_run_nobody_wants_ends_at_the_next_packet(source: Source) -> None:
    info = probe(source)
    answers = iter([True, True, True])
    shown = _shown(
        info, source, Care.FAST, plan_runs(info, [11]), is_wanted=lambda: next(answers, False)
    )
    assert shown == []


def test_a_seek_that_fails_is_a_doubt(source: Source) -> None:
    info = probe(source)
    run = plan_runs(info, [40])[0]

    class Stuck:
        def __init__(self, container: Any) -> None:
            self._container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def seek(self, *_: object, **__: object) -> None:
            import av.error

            raise av.error.FFmpegError(1, "Operation not permitted")

    with open_container(source) as container:
        one: Any = Pass(Stuck(container), info, Care.FAST)  # type: ignore[arg-type]
        with pytest.raises(Doubt, match="seek"):
            next(one.frames(run))
