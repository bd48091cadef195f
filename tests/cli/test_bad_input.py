"""Whatever is wrong: status 1, what was asked, what was found, what to do; nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from synthetic import write_video

from llava_video.model.tiny import write_tiny_checkpoint

Refused = Callable[..., str]
FAST = ("--max-new-tokens", "4", "--num-frames", "4")


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as file:
        track = file.add_stream("aac", rate=16_000, layout="mono")
        for idx in range(8):
            samples = np.zeros((1, 1024), dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, idx * 1024
            file.mux(track.encode(frame))
        file.mux(track.encode(None))


def write_without_frames(path: Path) -> None:
    with av.open(str(path), "w", format="avi") as file:
        track = file.add_stream("mpeg4", rate=25)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        file.start_encoding()


def write_head_of_mp4(path: Path) -> None:
    write_video(path, 24)
    path.write_bytes(path.read_bytes()[:1500])


WRONG_FILES = {
    "missing": (lambda path: None, "cannot be opened: No such file", "check the path"),
    "folder": (Path.mkdir, "is a folder", "one by one"),
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)", "copied or recorded"),
    "text": (lambda path: path.write_text("Dear reader, " * 50), "is text, not a video", "check"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 9), "video", ""),
    "sound": (write_sound, "no video track, only audio", "pass a video"),
    "no frames": (write_without_frames, "video track without a single frame", ""),
    "truncated": (write_head_of_mp4, "without a readable index", "copy it again"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
@pytest.mark.parametrize("command", ["describe", "plan", "probe"])
def test_files_that_are_no_video(
    refused: Refused, tiny_folder: Path, tmp_path: Path, command: str, kind: str
) -> None:
    write, found, to_do = WRONG_FILES[kind]
    path = tmp_path / "clip.mp4"
    write(path)
    said = refused(command, path, *(() if command == "probe" else ("-m", tiny_folder)))
    assert found in said
    assert to_do in said
    if kind != "noise":
        assert "clip.mp4" in said


def test_a_video_cut_short_is_described_with_a_warning(run, tiny_folder, tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.mkv", 48)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    outcome = run("describe", path, "-m", tiny_folder, *FAST)
    assert outcome.status == 0
    assert "truncated at " in outcome.err


def test_one_frame_is_enough(run, tiny_folder: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mp4", 1)
    outcome = run("describe", path, "-m", tiny_folder, "--max-new-tokens", "4", "--json")
    assert outcome.status == 0
    assert len(json.loads(outcome.out)["frames"]) == 1


WRONG_KNOBS = (
    ("--start 60", "the span starts at 60 s, the video ends at 1.33 s", "before 1.33 s"),
    ("--start 1 --end 0.5", "--start 1.0 is not before --end 0.5", "--start before --end"),
    ("--start -1", "'-1' is not a time", "never negative"),
    ("--start soon", "'soon' is not a time", "MM:SS"),
    ("--end nan", "'nan' is not a time", "MM:SS"),
    ("--num-frames 0", "--num-frames 0.", "at least 1"),
    ("--num-frames 2000000000", "--num-frames 2000000000.", "at most 1000000"),
    ("--max-frames -4", "--max-frames -4.", "at least 1"),
    ("--fps 0", "--fps 0.0.", "above 0"),
    ("--fps nan", "--fps nan.", "above 0"),
    ("--fps inf", "--fps inf.", "at most 1000"),
    ("--times 1,-2", "'-2' is not a time", "never negative"),
    ("--times 1 --fps 2", "--fps 2.0 ask for different frames", "not both"),
    ("--grid 99x99", "--grid (99, 99).", "1 to 12"),
    ("--pool-stride 0", "--pool-stride 0.", "at least 1"),
    ("--pool-stride 99", "--pool-stride 99, and a tile has 4 patches", "at most 4"),
    ("--detail low --grid auto", "--grid auto is given too", "not both"),
    ("--position-scale 0.5", "--position-scale 0.5.", "at least 1"),
    ("--max-video-tokens 1", "", "--max-video-tokens"),
    ("--max-new-tokens 0", "--max-new-tokens 0.", "at least 1"),
    ("--max-new-tokens 32768", "the context holds 32,768", "--max-new-tokens "),
    ("--temperature -1", "--temperature -1.0.", "at least 0"),
    ("--top-p 2", "--top-p 2.0.", "at most 1"),
    ("--seed -1", "--seed -1.", "at least 0"),
    ("--choice a --choice a", "--choice ['a', 'a']", "different choices"),
    ("--device toaster", "--device toaster.", "'cpu'"),
    ("--device cuda:99", "--device cuda:99", "--device auto"),
)


@pytest.mark.parametrize(("options", "found", "to_do"), WRONG_KNOBS)
def test_knobs_that_cannot_be(
    refused: Refused, tiny_folder, tiny_clip, tmp_path, options: str, found: str, to_do: str
) -> None:
    arguments = ("-m", tiny_folder, "-o", tmp_path / "out", *options.split())
    said = refused("describe", tiny_clip, *arguments)
    assert found in said
    assert "hint:  " in said
    assert to_do in said.partition("hint:  ")[2]


@pytest.fixture
def broken_model(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


WRONG_MODELS = {
    "no configuration": (lambda m: (m / "config.json").unlink(), "no config.json", "hub id"),
    "no JSON": (lambda m: (m / "config.json").write_text("{"), "config.json", ""),
    "no tokenizer": (lambda m: (m / "tokenizer.json").unlink(), "has no tokenizer", "copy"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "no *.safetensors", "fetch"),
    "cut weights": (
        lambda m: (m / "model.safetensors").write_bytes(b"\x00" * 999),
        "truncated or damaged",
        "download",
    ),
    "other shapes": (lambda m: change_config(m, intermediate_size=132), "shape", ""),
    "another kind": (
        lambda m: change_config(m, architectures=["BertModel"]),
        "another kind of model",
        "`llava-video models`",
    ),
}


@pytest.mark.parametrize("kind", WRONG_MODELS)
def test_models_that_are_none(
    refused: Refused, broken_model: Path, tiny_clip: Path, tmp_path: Path, kind: str
) -> None:
    spoil, found, to_do = WRONG_MODELS[kind]
    spoil(broken_model)
    said = refused("describe", tiny_clip, "-m", broken_model, "-o", tmp_path / "out", *FAST)
    assert found in said
    assert "hint:  " in said
    assert to_do in said.partition("hint:  ")[2]


def test_a_missing_shard_is_named(refused: Refused, tiny_clip: Path, tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model", num_shards=3)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    said = refused("describe", tiny_clip, "-m", folder, *FAST)
    assert shards[1].name in said
    assert "hint:  " in said


def test_an_unknown_model_is_no_network_trouble(
    refused: Refused, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    said = refused("describe", tiny_clip, "-m", "no-such/model", *FAST)
    assert "no-such/model is not in the local cache, and offline mode is on." in said
    assert "hint:  unset HF_HUB_OFFLINE, or give a folder." in said
    assert "there is no folder './none'" in refused("plan", tiny_clip, "-m", "./none")


def test_what_cannot_be_fetched_is_refused(refused: Refused, tiny_folder: Path) -> None:
    address = ("describe", "http://127.0.0.1:9/a.mp4", "-m", tiny_folder)
    said = refused(*address, *FAST)
    assert "127.0.0.1 is a loopback address, and not fetched from." in said
    assert "hint:  download the file first" in said
    assert "--allow-private" in said
    said = refused(*address, "--allow-private", *FAST)
    assert "http://127.0.0.1:9/a.mp4 cannot be reached" in said
    assert "hint:  check the address" in said
