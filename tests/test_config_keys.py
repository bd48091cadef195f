"""A key that stands twice in a YAML file is refused; anchors and merges stay what they are."""

from pathlib import Path

import pytest

from llava_video.config import read_values
from llava_video.errors import ConfigError


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


@pytest.mark.parametrize(
    ("content", "key", "place"),
    [
        ("name: a\ngrid: auto\nname: b\n", "name", "line 3, column 1"),
        ("inner: {pool_stride: 1, rate_hz: 2, pool_stride: 2}\n", "pool_stride", "column 37"),
        ("stop: [a]\n'stop': [b]\n", "stop", "line 2, column 1"),
        ("schema: [{a: 1, b: {c: 1, c: 1}}]\n", "c", "column 27"),
        ("x: &x {rows: 1, rows: 2}\ny: {<<: *x}\n", "rows", "line 1, column 17"),
    ],
)
def test_a_key_that_is_written_twice_is_refused(
    yaml_file: Path, content: str, key: str, place: str
):
    yaml_file.write_text(content)
    with pytest.raises(ConfigError, match=f"'{key}' is written twice, first in line 1") as caught:
        read_values(yaml_file)
    assert place in str(caught.value)


def test_a_change_with_a_key_twice_is_refused(yaml_file: Path):
    yaml_file.write_text("name: a\n")
    with pytest.raises(ConfigError, match="names no place"):
        read_values(yaml_file, ["schema={a: 1, a: 2}"])


def test_anchors_and_merges_still_work_and_an_own_key_overrides_a_merged_one(yaml_file: Path):
    yaml_file.write_text(
        "a: {deep: &a {x: 1, y: 2}}\n"
        "b: {deep: &b {<<: *a, y: 3}}\n"
        "c: {<<: *b, y: 4, z: *a}\n"
        "d: {y: 5, <<: [*a, *b]}\n"
        "e: {deep: *b}\n"
    )
    assert read_values(yaml_file) == {
        "a": {"deep": {"x": 1, "y": 2}},
        "b": {"deep": {"x": 1, "y": 3}},
        "c": {"x": 1, "y": 4, "z": {"x": 1, "y": 2}},
        "d": {"x": 1, "y": 5},
        "e": {"deep": {"x": 1, "y": 3}},
    }


def test_every_file_of_settings_is_read(project: Path):
    paths = sorted((project / "configs").rglob("*.yaml"))
    assert len(paths) > 2
    assert all(read_values(path) for path in paths)
