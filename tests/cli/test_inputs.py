"""What is wrong already is told before a model is loaded."""

from pathlib import Path

import pytest

from llava_video.cli.console import Console
from llava_video.cli.inputs import exit_status, is_url, refuse_early
from llava_video.errors import BudgetError, CheckpointError, ConfigError, SourceError


@pytest.mark.parametrize(
    ("num_failed", "num_inputs", "status"),
    [(0, 1, 0), (0, 5, 0), (1, 1, 1), (5, 5, 1), (1, 5, 3), (4, 5, 3)],
)
def test_exit_status(num_failed: int, num_inputs: int, status: int) -> None:
    assert exit_status(num_failed, num_inputs) == status


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("a.mp4", False),
        ("C:\\a.mp4", False),
        ("https://host/a.mp4", True),
        ("data:video/mp4;base64,AA", True),
        ("data/a.mp4", False),
    ],
)
def test_is_url(file: str, expected: bool) -> None:
    assert is_url(file) is expected


@pytest.fixture
def named(tiny_folder: Path) -> dict[str, str | None]:
    return {"model": str(tiny_folder), "revision": None}


def test_a_single_file_is_planned(tiny_clip: Path, named) -> None:
    console = Console()
    assert refuse_early(console, [str(tiny_clip)], None, named, {})
    with pytest.raises(SourceError, match=r"none\.mp4"):
        refuse_early(console, ["none.mp4"], None, named, {})
    with pytest.raises(BudgetError):
        refuse_early(console, [str(tiny_clip)], None, named, {"max_new_tokens": 10**6})
    with pytest.raises(CheckpointError):
        refuse_early(console, [str(tiny_clip)], None, {**named, "model": "./none"}, {})


def test_of_several_one_is_enough(tiny_clip: Path, named, capsys) -> None:
    assert refuse_early(Console(), ["none.mp4", str(tiny_clip)], None, named, {})
    assert capsys.readouterr().err == ""  # its turn comes
    assert not refuse_early(Console(), ["none.mp4", "nor_this.mp4"], None, named, {})
    said = capsys.readouterr().err
    assert said.count("error: ") == 2
    assert "nor_this.mp4" in said


def test_a_wrong_template_is_told_early(tiny_clip: Path, named) -> None:
    assert refuse_early(Console(), [str(tiny_clip)], None, {**named, "template": "mpt"}, {})
    with pytest.raises(ConfigError, match="template = 'mptt'"):
        refuse_early(Console(), [str(tiny_clip)], None, {**named, "template": "mptt"}, {})


def test_what_has_to_be_fetched_is_not_tried_twice(named) -> None:
    assert refuse_early(Console(), ["http://127.0.0.1:9/a.mp4"], None, named, {})


def test_memory_counts_where_the_device_is_known(tiny_clip: Path, named) -> None:
    """Of "auto" it is not known, and looking would take as long as starting PyTorch."""
    asked = {**named, "memory": "20KiB", "quantize": "auto", "dtype": "auto"}
    files = [str(tiny_clip)]
    assert refuse_early(Console(), files, None, {**asked, "device": "auto"}, {})
    with pytest.raises(BudgetError, match=r"memory = 20\.0 KiB"):
        refuse_early(Console(), files, None, {**asked, "device": "cpu"}, {})
    assert refuse_early(Console(), files, None, {**asked, "device": "cpu", "memory": "1GiB"}, {})


def test_a_look_through_the_video_is_not_made_twice(
    tiny_clip: Path, named, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule is checked, the rest is planned, and the frames are looked at once, later."""
    monkeypatch.delattr("llava_video.scanning.scan_for")
    asked = {"sampling": "scene", "scan_fps": 5.0, "num_frames": 3}
    assert refuse_early(Console(), [str(tiny_clip)], None, named, asked)
    with pytest.raises(ConfigError, match="dedupe_threshold"):
        refuse_early(Console(), [str(tiny_clip)], None, named, {**asked, "dedupe_threshold": 3.0})
