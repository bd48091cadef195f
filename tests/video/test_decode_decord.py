import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic

pytest.importorskip("decord")

import decord_growth

from llava_video.errors import DecodeError
from llava_video.video.decode_decord import DecordReader
from llava_video.video.decode_pyav import PyavReader
from llava_video.video.probe import probe
from llava_video.video.source import open_source
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip


@pytest.mark.parametrize(
    ("suffix", "encoder"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")]
)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_equal_to_pyav(tmp_path: Path, suffix: str, encoder: str, as_bytes: bool) -> None:
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 60, codec=encoder)
    source = open_source(path.read_bytes() if as_bytes else path)
    info = probe(source)
    reader, idxs = DecordReader(source, info), [0, 1, 2, 20, 33, 34, 59]
    pairs = list(zip(reader.frames(idxs), PyavReader(source, info).frames(idxs), strict=True))
    assert [one[0] for one, _ in pairs] == idxs
    assert [synthetic.read_index(one[1]) for one, _ in pairs] == idxs
    assert all((one[1] == other[1]).all() for one, other in pairs)
    reader.close()


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    times_s = [2.0, 2.1, 2.5, 3.75]
    path = synthetic.write_video(tmp_path / "a.mkv", 4, times_s=times_s)
    source = open_source(path)
    assert DecordReader(source, probe(source)).pts_s() == pytest.approx(
        np.array(times_s) - 2, abs=1e-3
    )


def test_it_can_be_asked_again_and_backwards(tmp_path: Path) -> None:
    source = open_source(synthetic.write_video(tmp_path / "a.mp4", 60))
    reader = DecordReader(source, probe(source))
    for idx in (50, 3, 59, 0):
        assert [synthetic.read_index(frame) for _, frame in reader.frames([idx])] == [idx]


def test_what_decord_cannot_open(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4", 5)
    source = open_source(path)
    info = probe(source)
    path.write_bytes(b"no video any more")
    with pytest.raises(DecodeError, match=r'decord cannot open.*reader="auto"'):
        DecordReader(source, info)


def test_damage_is_an_error_with_its_time(videos: Path) -> None:
    source = open_source(videos / "corrupted.mp4")
    info = probe(source)
    reader = DecordReader(source, info)
    with pytest.raises(DecodeError, match="decord cannot decode") as caught:
        list(reader.frames(range(50)))
    # Its threads read ahead, so the error comes up to 1.5 s before the damage, never after it.
    assert caught.value.pts_s is not None
    assert caught.value.pts_s < 2.9


def test_decord_does_not_decode_on_while_nobody_reads(tmp_path: Path) -> None:
    # Left alone it would decode the whole file into its queue: 1,500 frames of 0.23 MB.
    path = tmp_path / "long.mp4"
    write_clip(path, (paint_index(idx, 240, 320) for idx in range(1500)))
    script = Path(decord_growth.__file__)
    command, grown_bytes = [sys.executable, script, path], []
    for _ in range(3):  # of a burst that the machine holds up decord decodes on meanwhile
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(run.stdout)
        assert found["seen"] == [idx % 256 for idx in range(0, 400, 10)]
        grown_bytes.append(found["growth_bytes"])
        if grown_bytes[-1] < 60e6:
            break
    assert min(grown_bytes) < 60e6
