"""The same facts, frames and errors as in process, and one reading after the other."""

import gc
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic
from sandbox_cases import QUICK, assert_same, given_and_raised

from llava_video.errors import ConfigError, DecodeError, SourceError
from llava_video.video.decoder import open_decoder
from llava_video.video.sandbox import DecoderPool, open_sandboxed
from llava_video.video.settings import SandboxSettings
from llava_video.video.source import open_source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return synthetic.write_video(tmp_path / "a.mp4", 30)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool() as made:
        yield made


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", {}),
        ("mkv", {"codec": "libx265"}),
        ("webm", {"codec": "libvpx-vp9"}),
        ("ts", {}),
        ("avi", {"codec": "mpeg4"}),
        ("mp4", {"rotation_deg": 90, "mirrored": True}),
        ("mp4", {"height_px": 98, "width_px": 162}),
        ("mkv", {"times_s": [0.5, 0.6, 1.7, 1.8, 9.0] + [10.0 + idx for idx in range(43)]}),
    ],
)
def test_the_same_as_in_process(
    pool: DecoderPool, tmp_path: Path, suffix: str, options: dict[str, Any]
) -> None:
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 48, **options)
    assert_same(pool, path)


def test_real_files_are_the_same(pool: DecoderPool, videos: Path) -> None:
    for path in sorted(videos.iterdir()):
        if path.suffix != ".md":
            assert_same(pool, path, every=5)


def test_bytes_and_files(pool: DecoderPool, path: Path) -> None:
    assert_same(pool, path.read_bytes())
    with path.open("rb") as file:
        assert_same(pool, file)


def test_named_backends(pool: DecoderPool, path: Path) -> None:
    assert_same(pool, path, backend="pyav")
    with pytest.raises(ConfigError, match=r"'opencv'.*pyav"):
        pool.open(open_source(path), backend="opencv")  # type: ignore[arg-type]


def test_an_info_at_hand_saves_the_probe(pool: DecoderPool, path: Path) -> None:
    with pool.open(open_source(path)) as decoder:
        info = decoder.info
    with pool.open(open_source(path), info=info) as decoder:
        assert decoder.info is info
        assert synthetic.indices(decoder.clips_at([0.5])) == [15]


def test_errors_come_back_as_they_are(pool: DecoderPool) -> None:
    for content in (b"just text\n" * 50, bytes(range(256)) * 20, b"\0\0\0\x18ftypmp42" + bytes(60)):
        source = open_source(content)
        with pytest.raises(SourceError) as here:
            open_decoder(source)
        with pytest.raises(SourceError) as there:
            pool.open(source)
        assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)


def test_lost_frames_are_told_in_the_log(
    pool: DecoderPool, videos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pool.open(open_source(videos / "corrupted.mp4")) as decoder:
        clips = list(decoder.clips_at(decoder.info.pts_s.tolist()))
    assert sum(len(clip.frames) for clip in clips) == 29
    assert "21 of 50 frames cannot be decoded, the first at 2.90 s" in caplog.text


def test_our_own_errors_keep_class_and_place(path: Path) -> None:
    with (
        DecoderPool(QUICK, opener="sandbox_stubs:refuses") as pool,
        pool.open(open_source(path)) as decoder,
    ):
        given, caught, _ = given_and_raised(decoder, [0.0, 0.1, 0.5])
        assert given == [0, 3]
        assert (caught.hint, caught.pts_s) == ("stop here.", 0.5)
        assert caught.message == f"{path}: no more."  # the file is named where it was not
        # The worker lives on, and so does the decoder.
        assert synthetic.indices(decoder.clips_at([0.2])) == [6]
    with (
        DecoderPool(QUICK, opener="sandbox_stubs:misses") as pool,
        pool.open(open_source(path)) as decoder,
    ):
        assert type(given_and_raised(decoder, [0.0, 0.1, 0.5])[1]).__name__ == (
            "BackendMissingError"
        )


def test_a_decoder_that_gives_nothing_gives_nothing(path: Path) -> None:
    with (
        DecoderPool(QUICK, opener="sandbox_stubs:gives_nothing") as pool,
        pool.open(open_source(path)) as decoder,
    ):
        assert list(decoder.clips_at([0.0, 0.5])) == []


def test_a_reading_may_be_left(path: Path) -> None:
    with open_sandboxed(open_source(path)) as decoder:
        for _ in range(3):
            clips = decoder.clips_at(decoder.info.pts_s.tolist(), chunk_frames=1)
            assert synthetic.indices([next(clips)]) == [0]
            clips.close()  # type: ignore[attr-defined]
        assert synthetic.indices(decoder.clips_at([0.5])) == [15]


def test_a_new_reading_ends_the_last(path: Path) -> None:
    with open_sandboxed(open_source(path)) as decoder:
        first = decoder.clips_at([0.0, 0.5], chunk_frames=1)
        assert synthetic.indices([next(first)]) == [0]
        assert synthetic.indices(decoder.clips_at([0.1])) == [3]
        with pytest.raises(ConfigError, match="another reading of this decoder"):
            next(first)


def test_a_new_reading_does_not_tell_the_lasts_error(path: Path) -> None:
    with (
        DecoderPool(QUICK, opener="sandbox_stubs:refuses") as pool,
        pool.open(open_source(path)) as decoder,
    ):
        left = decoder.clips_at([0.0, 0.1, 0.5], chunk_frames=1)
        assert synthetic.indices([next(left)]) == [0]
        time.sleep(0.6)  # the error is on its way by then
        assert synthetic.indices(decoder.clips_at([0.2])) == [6]
    with (
        DecoderPool(QUICK, opener="sandbox_stubs:crashes") as pool,
        pool.open(open_source(path)) as decoder,
    ):
        left = decoder.clips_at([0.0, 0.1, 0.5], chunk_frames=1)
        assert synthetic.indices([next(left)]) == [0]
        time.sleep(0.6)
        with pytest.raises(DecodeError, match="crashed"):  # but the end of the worker
            list(decoder.clips_at([0.2]))


@pytest.mark.parametrize("how", ["close", "forget", "go on", "begin"])
def test_a_closed_decoder_leaves_the_next_video_alone(path: Path, how: str) -> None:
    """The worker reads another video by then."""
    with DecoderPool(SandboxSettings(num_workers=1)) as pool:
        with pool.open(open_source(path)) as closed:
            old: Any = closed.clips_at(closed.info.pts_s.tolist(), chunk_frames=1)
            assert synthetic.indices([next(old)]) == [0]
        with pool.open(open_source(path)) as decoder:
            assert decoder.pid == closed.pid  # type: ignore[attr-defined]
            clips = decoder.clips_at(decoder.info.pts_s.tolist(), chunk_frames=1)
            found = synthetic.indices([next(clips)])
            if how == "close":
                old.close()
            elif how == "forget":
                del old
                gc.collect()
            else:
                with pytest.raises(DecodeError, match=r"it was closed.*open it again"):
                    next(old if how == "go on" else closed.clips_at([0.0]))
            assert found + synthetic.indices(clips) == list(range(30))


def test_clips_are_the_consumers_own(path: Path) -> None:
    with open_sandboxed(open_source(path)) as decoder:
        clips = list(decoder.clips_at(decoder.info.pts_s.tolist(), chunk_frames=1))
    assert synthetic.indices(clips) == list(range(30))
    clips[0].frames[:] = 7  # writable, and nobody else's
    assert synthetic.indices(clips[1:]) == list(range(1, 30))


def test_closing_does_not_wait_for_a_hang(path: Path) -> None:
    with DecoderPool(SandboxSettings(), opener="sandbox_stubs:sleeps_in_c") as pool:
        decoder = pool.open(open_source(path))
        clips = decoder.clips_at([0.0, 0.1, 0.5], chunk_frames=1)
        next(clips)
        caught: list[Any] = []

        def go_on() -> None:
            try:
                list(clips)
            except DecodeError as raised:
                caught.append(raised)

        thread = threading.Thread(target=go_on)
        thread.start()
        time.sleep(0.3)
        started_s = time.monotonic()
        decoder.close()
        thread.join(5)
        assert time.monotonic() - started_s < 4
        assert len(caught) == 1
