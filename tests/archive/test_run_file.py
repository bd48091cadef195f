"""A folder says what it was begun with, and every difference to what is wanted."""

from pathlib import Path

import pytest

from llava_video.archive.run_file import RUN_FILE, check_begun, check_same, read_facts, write_facts
from llava_video.errors import ConfigError, LedgerBusyError
from llava_video.lock import RunLock


def test_facts_are_read_back(tmp_path: Path) -> None:
    assert read_facts(tmp_path) is None
    write_facts(tmp_path, {"task": "ask"}, {"prompts": ["Wer fährt?"]})
    assert read_facts(tmp_path) == {"same": {"task": "ask"}, "prompts": ["Wer fährt?"]}


def test_every_difference_is_told(tmp_path: Path) -> None:
    found = {"task": "ask", "options": {"fps": 1.0}, "model": {"weights": "a"}}
    check_same(tmp_path, found, dict(found))
    wanted = {"task": "caption", "options": {}, "model": {"weights": "a"}}
    with pytest.raises(ConfigError) as caught:
        check_same(tmp_path, found, wanted)
    assert "task = 'ask', not 'caption'; options.fps = 1.0, not None." in caught.value.message


def test_a_folder_is_looked_at_without_a_model(tmp_path: Path) -> None:
    check_begun(tmp_path / "none", {"task": "ask"})
    write_facts(tmp_path, {"task": "ask", "model": {"weights": "a"}}, {})
    check_begun(tmp_path, {"task": "ask", "model": {}})
    with pytest.raises(ConfigError, match="task = 'ask', not 'caption'"):
        check_begun(tmp_path, {"task": "caption", "model": {}})
    with RunLock(tmp_path), pytest.raises(LedgerBusyError):
        check_begun(tmp_path, {"task": "ask", "model": {}})
    check_begun(tmp_path, {"task": "ask", "model": {}})


@pytest.mark.parametrize("content", ["{", "[]", '{"same": 3}'])
def test_damage_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / RUN_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="another folder"):
        read_facts(tmp_path)
