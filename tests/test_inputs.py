"""What a user may hand over is opened as meant, or refused with a sentence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_video.errors import ConfigError, DecodeError, SourceError
from llava_video.inputs import (
    OpenedPicture,
    OpenedVideo,
    Picture,
    Video,
    close_all,
    only_video,
    open_visuals,
)
from llava_video.planning.settings import SamplingSettings
from llava_video.values import Segment
from llava_video.video.sandbox import DecoderPool
from llava_video.video.sandboxed_decoder import SandboxedDecoder
from llava_video.video.settings import FetchSettings, SandboxSettings

PLAIN = SamplingSettings()


def test_a_suffix_tells_a_picture_from_a_video(tiny_clip: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (9, 8, 7)).save(tmp_path / "still.PNG")
    opened = open_visuals(tmp_path / "still.PNG", PLAIN)
    assert isinstance(opened[0], OpenedPicture)
    assert (opened[0].item.height_px, opened[0].item.width_px) == (20, 30)
    video = open_visuals(tiny_clip, PLAIN)
    assert isinstance(video[0], OpenedVideo)
    close_all(video)


def test_one_video_alone_is_given_back_closed(tiny_clip: Path) -> None:
    opened = open_visuals(tiny_clip, PLAIN)
    assert only_video(opened) is opened[0]
    for others in ([], [Video(tiny_clip), Video(tiny_clip)]):
        with pytest.raises(ConfigError, match="of one video"):
            only_video(open_visuals(others, PLAIN))


def test_a_videos_own_sampling_wins_over_the_requests(tiny_clip: Path) -> None:
    base = SamplingSettings(fps=1, end_s=9.0)
    opened = open_visuals([Video(address=tiny_clip, start="0:01", fps=5)], base)
    assert isinstance(opened[0], OpenedVideo)
    sampling = opened[0].sampling
    assert (sampling.start_s, sampling.end_s, sampling.fps) == (1.0, 9.0, 5)
    close_all(opened)


def test_a_videos_own_rule_drops_how_the_requests_rule_scans() -> None:
    base = SamplingSettings(rule="dedupe", dedupe_threshold=3.0, max_frames=9)
    assert Video("a.mp4").sampled_by(base) == base
    assert Video("a.mp4", sampling="dedupe").sampled_by(base) == base
    own = Video("a.mp4", sampling="keyframe").sampled_by(base)
    assert own == SamplingSettings(rule="keyframe", max_frames=9)


def test_a_part_of_a_video_keeps_its_rule(tiny_clip: Path) -> None:
    opened = open_visuals(Video(tiny_clip, sampling="scene"), PLAIN)
    assert isinstance(opened[0], OpenedVideo)
    part = opened[0].part(Segment(0.5, 1.0))
    assert (part.sampling, part.start, part.end) == ("scene", 0.5, 1.0)
    assert opened[0].only_at([0.5]).sampling.rule == "uniform"
    close_all(opened)


def test_a_pair_of_arrays_is_one_video_and_a_tuple_of_parts_is_several(tiny_clip: Path) -> None:
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    arrays = open_visuals((frames, np.arange(3.0)), PLAIN)
    assert len(arrays) == 1
    parts = open_visuals((Picture(frames[0]), Video(address=tiny_clip)), PLAIN)
    assert len(parts) == 2
    close_all(parts)


@pytest.mark.parametrize("visuals", [["a.mp4", "b.mp4"], ["a.mp4", Video(address="b.mp4")]])
def test_a_bare_list_could_mean_two_things(visuals: list[object]) -> None:
    with pytest.raises(ConfigError, match="call batch"):
        open_visuals(visuals, PLAIN)


def test_nothing_stays_open_when_a_later_one_fails(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    close = OpenedVideo.close
    monkeypatch.setattr(OpenedVideo, "close", lambda v: (closed.append(v.name), close(v)))
    with pytest.raises(SourceError):
        open_visuals([Video(address=tiny_clip), Video(address="missing.mp4")], PLAIN)
    assert closed == [str(tiny_clip)]


def test_none_is_text_alone() -> None:
    assert open_visuals(None, PLAIN) == ()


def test_equal_content_has_one_identity_and_a_change_another(tmp_path: Path) -> None:
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    times_s = np.arange(3.0)

    def identity() -> str:
        return open_visuals((frames, times_s), PLAIN)[0].identity

    before = identity()
    assert identity() == before
    frames[1, 2, 3] = 1
    assert identity() != before


def test_a_process_of_its_own_gives_the_same_frames(tiny_clip: Path) -> None:
    found = []
    for sandbox in (False, True):
        (video,) = open_visuals(tiny_clip, PLAIN, sandbox=sandbox)
        assert isinstance(video, OpenedVideo)
        assert isinstance(video.decoder, SandboxedDecoder) == sandbox
        (clip,) = video.decoder.clips_at([0.0, 0.5, 1.0])
        found.append(clip.frames)
        video.close()
    assert np.array_equal(*found)


def test_a_pool_lends_its_workers(tiny_clip: Path) -> None:
    with DecoderPool(SandboxSettings(num_workers=1)) as pool:
        pids = set()
        for _ in range(2):
            (video,) = open_visuals(tiny_clip, PLAIN, sandbox=pool)
            assert isinstance(video, OpenedVideo)
            assert isinstance(video.decoder, SandboxedDecoder)
            pids.add(video.decoder.pid)
            video.close()
    assert len(pids) == 1


def test_limits_of_the_process_are_the_callers(tiny_clip: Path) -> None:
    limits = SandboxSettings(max_pixels=1)
    with pytest.raises(DecodeError, match=r"\(max_pixels\).*sandbox=SandboxSettings\(max_pixels=…"):
        open_visuals(tiny_clip, PLAIN, sandbox=limits)


def test_whom_a_download_may_ask_reaches_videos_and_pictures() -> None:
    address = "http://127.0.0.1:9/a.png"
    for visual in (address, Video(address), Picture(address)):
        with pytest.raises(SourceError, match="loopback address"):
            open_visuals(visual, PLAIN)
        with pytest.raises(SourceError, match="cannot be reached"):
            open_visuals(visual, PLAIN, fetch=FetchSettings(allow_private=True))
