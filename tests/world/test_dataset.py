"""A written data set: what is in it, that it is decoded as drawn, and that runs go on."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from world_reader import Reader

from llava_video.config import from_mapping
from llava_video.errors import ConfigError
from llava_video.world import dataset
from llava_video.world.dataset import read_records, write_world
from llava_video.world.question import Question
from llava_video.world.render import render
from llava_video.world.scene import Scene
from llava_video.world.settings import WorldSettings

_SMALL = WorldSettings(sizes_px=((88, 88),), rates_hz=(4.0,), lengths_s=(5.0,), crfs=(18, 25))


def _decoded(path: Path) -> tuple[np.ndarray, list[float]]:
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), [
        float(frame.time) for frame in frames
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), 6, seed=1, settings=_SMALL)


def test_files_and_records(written: Path) -> None:
    assert written.name == "train.jsonl"
    made = list(read_records(written))
    assert len({record["id"] for record in made}) == len(made)
    videos = {record["video"] for record in made}
    assert videos == {f"videos/{idx:06d}.mp4" for idx in range(6)}
    assert all((written.parent / video).is_file() for video in videos)
    assert not list(written.parent.rglob(".*"))  # nothing unfinished


def test_videos_show_what_was_drawn_when_it_was(written: Path) -> None:
    for record in {r["video"]: r for r in read_records(written)}.values():
        scene = from_mapping(Scene, record["truth"])
        frames, times_s = _decoded(written.parent / record["video"])
        assert times_s == pytest.approx([scene.time_of(k) for k in range(scene.num_frames)])
        drawn = render(scene).astype(int)
        assert frames.shape == drawn.shape
        # Colour is stored at half the size, so edges differ; what a frame is like does not.
        assert np.abs(frames - drawn).mean() < 8


def test_looks_can_be_answered_from_the_compressed_file(written: Path) -> None:
    kinds = {"count", "count_now", "colour", "is_there", "place", "did_number", "is_there_now"}
    num_asked = 0
    for record in read_records(written):
        questions = [from_mapping(Question, a) for a in record["answers"] if a["kind"] in kinds]
        frames, _ = _decoded(written.parent / record["video"])
        reader = Reader(frames, 4.0, record["truth"]["shake_px"])
        for question in questions:
            num_asked += 1
            assert question.is_right(reader.answer(question.kind, question.text)), question
    assert num_asked > 15


def test_a_stopped_run_goes_on_and_ends_the_same(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(num_done: int, num_clips: int) -> None:
        if num_done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        write_world(tmp_path, 6, seed=1, settings=_SMALL, progress=stop)
    assert not (tmp_path / "train.jsonl").exists()
    (tmp_path / "videos" / "000002.mp4").write_bytes(b"half of")  # its records were not written

    seen: list[tuple[int, int]] = []
    first_bytes = (tmp_path / "videos" / "000000.mp4").stat().st_mtime_ns
    path = write_world(
        tmp_path, 6, seed=1, settings=_SMALL, progress=lambda done, all_: seen.append((done, all_))
    )
    assert seen == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert (tmp_path / "videos" / "000000.mp4").stat().st_mtime_ns == first_bytes
    assert path.read_bytes() == written.read_bytes()
    for idx in range(6):
        name = f"videos/{idx:06d}.mp4"
        assert (tmp_path / name).read_bytes() == (written.parent / name).read_bytes()

    monkeypatch.setattr(dataset, "write_clip", None)  # nothing is left to be written
    shorter = write_world(tmp_path, 2, seed=1, settings=_SMALL)
    assert {record["video"] for record in read_records(shorter)} == {
        "videos/000000.mp4",
        "videos/000001.mp4",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 2}, "seed = 1, not 2"),
        ({"split": "val"}, "split = 'train', not 'val'"),
        ({"settings": WorldSettings(noise=3)}, "sizes_px"),
    ],
)
def test_another_world_is_not_mixed_in(written: Path, changes: dict, words: str) -> None:
    arguments = {"seed": 1, "settings": _SMALL, **changes}
    with pytest.raises(ConfigError, match=words):
        write_world(written.parent, 1, **arguments)


def test_two_processes_write_the_same(written: Path, tmp_path: Path) -> None:
    path = write_world(tmp_path, 3, seed=1, settings=_SMALL, num_workers=2)
    wanted = [r for r in read_records(written) if r["video"] < "videos/000003"]
    assert list(read_records(path)) == wanted


def test_numbers_that_mean_nothing(tmp_path: Path) -> None:
    for arguments in ({"num_clips": 0}, {"num_clips": 1, "num_workers": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            write_world(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_the_folder_says_what_it_is(written: Path) -> None:
    facts = json.loads((written.parent / "world.json").read_text())
    assert (facts["split"], facts["seed"]) == ("train", 1)
    assert from_mapping(WorldSettings, facts["settings"]) == _SMALL
