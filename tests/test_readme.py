"""The README's Python runs, and says what it really gives.

A tiny random checkpoint with the real tile size stands in for the 7B: the visual layout, and so
every number the README shows, is the same.
"""

import re
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from llava_video.model.packaged import packaged_folder
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

ROOT = Path(__file__).parents[1]
HAS_DEMO = (packaged_folder() / "config.json").is_file()
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)


def test_the_first_python_stands_by_line_25() -> None:
    assert README[: README.index("```python")].count("\n") < 10
    assert README[: README.index("```\n", README.index("```python") + 10)].count("\n") <= 25


@pytest.mark.usefixtures("demo_checkpoint")
def test_the_python_runs_and_its_numbers_are_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model", seed=0, tile_px=384)
    write_clip(tmp_path / "clip.mp4", [paint_index(i, 96, 128) for i in range(80)])
    Image.new("RGB", (64, 48), (90, 120, 30)).save(tmp_path / "before.png")
    monkeypatch.chdir(tmp_path)
    checked = 0
    names: dict[str, object] = {}
    for block in _blocks():
        code = re.sub(r'"lmms-lab/[^"]+"', repr(str(folder)), block)
        for statement in _statements(code):
            expression, _, expected = statement.partition("# ->")
            if expected:
                found = repr(eval(expression, names))  # noqa: S307 - our own README
                # What a stand-in of random weights says is no number of the README's.
                is_stand_in = '"demo"' in expression and not HAS_DEMO
                assert is_stand_in or found == expected.strip(), statement
                checked += 1
            else:
                exec(statement, names)  # noqa: S102 - our own README
    assert checked >= 6


def test_every_extra_in_the_install_table_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = set(re.findall(r"llava_video\[(\w+)\]", README))
    assert named <= set(project["optional-dependencies"])


def test_every_file_the_readme_links_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def _statements(code: str) -> list[str]:
    """Split into statements: a line that begins at column 0 starts one."""
    return [part for part in re.split(r"\n(?=\S)", code.strip()) if part]
