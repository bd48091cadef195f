"""Entries get their prompts and their share of the whole; what cannot be asked is refused."""

import json
from pathlib import Path

import pytest

from llava_video.archive.entries import Entries
from llava_video.archive.settings import ArchiveSettings
from llava_video.errors import ConfigError, ManifestError


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    lines = [{"video": f"{number}.mp4", "title": f"t{number}"} for number in range(5)]
    lines[2]["prompt"] = "Own?"
    path = tmp_path / "inputs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_own_prompts_win_and_marks_are_filled(manifest: str) -> None:
    settings = ArchiveSettings(task="ask", prompts=("Is it {title}?", "Why?"))
    entries = Entries([manifest], settings)
    entries.check()
    asked = [item.prompts for item in entries]
    assert asked[1] == ("Is it t1?", "Why?")
    assert asked[2] == ("Own?",)
    assert [item.number for item in entries] == [0, 1, 2, 3, 4]


def test_columns_are_called_as_told(manifest: str) -> None:
    settings = ArchiveSettings()
    (first, *_) = Entries([manifest], settings, {"name": "title"})
    assert first.name == "t0"


def test_shards_share_out_the_entries(manifest: str) -> None:
    parts = [list(Entries([manifest], ArchiveSettings(shard=f"{own}/2"))) for own in (0, 1)]
    assert [[Path(item.address).stem for item in part] for part in parts] == [
        ["0", "2", "4"],
        ["1", "3"],
    ]
    assert [item.number for item in parts[0]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        (ArchiveSettings(task="ask"), "give questions"),
        (ArchiveSettings(shard="7/8"), "the shard"),
    ],
)
def test_what_makes_no_work_is_refused(manifest: str, settings: ArchiveSettings, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        Entries([manifest], settings).check()


def test_a_caption_has_one_prompt(tmp_path: Path) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_text(json.dumps({"video": "a.mp4", "prompt": ["A?", "B?"]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="'ask' answers several"):
        Entries([str(path)], ArchiveSettings()).check()


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError):
        Entries([str(tmp_path / "none")], ArchiveSettings()).check()
