"""What decides a row decides the digest, and nothing else does."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llava_video.archive.settings import ArchiveSettings, plain_options
from llava_video.config import read_yaml, to_yaml
from llava_video.errors import ConfigError
from llava_video.options import settings_of
from llava_video.values import Grid


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"prompts": ("a", "b")}, "task = 'ask'"),
        ({"task": "ask", "prompts": ("a", " ")}, "ask something"),
        ({"overlap_s": 30.0}, "shorter than a window"),
        ({"shard": "4/4"}, "0/4 to 3/4"),
        ({"shard": "first"}, "I from 0"),
        ({"in_flight": 0}, "at least 1"),
        ({"task": "sing"}, "'timeline'"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        ArchiveSettings(**values)


def test_shards() -> None:
    assert ArchiveSettings().shard_of() == (0, 1)
    assert ArchiveSettings(shard="2/3").shard_of() == (2, 3)


def test_the_digest_is_of_what_decides_a_row() -> None:
    plain = ArchiveSettings(task="ask", prompts=("Who?",))
    digest = plain.task_digest({"num_frames": 4})
    same = ArchiveSettings(task="ask", prompts=("When?",), in_flight=2, attempts=9, window_s=5.0)
    assert same.task_digest({"num_frames": 4, "sandbox": False}) == digest
    assert plain.task_digest({"num_frames": 5}) != digest
    assert ArchiveSettings(prompts=("Who?",)).task_digest({"num_frames": 4}) != digest


def test_a_timeline_is_of_its_windows_too() -> None:
    digests = {
        ArchiveSettings(task="timeline", **own).task_digest({})
        for own in ({}, {"window_s": 9.0}, {"overlap_s": 1.0}, {"summary": False})
    }
    assert len(digests) == 4


def test_a_run_goes_on_with_more_workers_and_not_with_other_frames() -> None:
    facts = ArchiveSettings(in_flight=1).facts({"fps": 1.0}, {"w": 1})
    assert ArchiveSettings(in_flight=2).facts({"fps": 1.0}, {"w": 1}) == facts
    assert ArchiveSettings(shard_units=5).facts({"fps": 1.0}, {"w": 1}) != facts
    assert ArchiveSettings().facts({"fps": 2.0}, {"w": 1}) != facts
    assert ArchiveSettings().facts({"fps": 1.0}, {"w": 2}) != facts


def test_options_become_plain_words() -> None:
    given = {"grid": Grid(2, 3), "start": timedelta(seconds=2), "stop": ("a",), "sandbox": True}
    found = plain_options(given)
    assert found == {"grid": [2, 3], "start": 2.0, "stop": ["a"]}
    assert settings_of(found) == settings_of({**given, "sandbox": False})


def test_an_option_nobody_could_recognise_is_refused() -> None:
    with pytest.raises(ConfigError, match="plain values"):
        plain_options({"sampling": object()})


def test_the_published_file_is_the_defaults_and_round_trips(project: Path, tmp_path: Path) -> None:
    settings = read_yaml(ArchiveSettings, project / "configs" / "archive.yaml")
    assert settings == ArchiveSettings()
    (tmp_path / "again.yaml").write_text(to_yaml(settings), encoding="utf-8")
    assert read_yaml(ArchiveSettings, tmp_path / "again.yaml") == settings
