"""The table of packages says the truth, agrees with pyproject.toml, and its errors name a cure."""

import importlib.metadata
import re
import sys
import tomllib
import types
from pathlib import Path

import pytest

from llava_video import backends
from llava_video.backends import BACKENDS, Backend, require, version
from llava_video.errors import BackendMissingError


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put packages of our own into the table; return the folder they are imported from."""
    for backend in (
        Backend("lv_absent", "lv-absent", "1.0", "flash", "nothing"),
        Backend("lv_base", "lv-base", "1.0", "", "nothing"),
        Backend("lv_old", "lv-old", "2.10", "", "nothing"),
        Backend("lv_broken", "lv-broken", "1.0", "", "nothing"),
        Backend("lv_twin", "lv-twin", "1.0", "", "nothing", "eva-lv-twin"),
        Backend("lv_bare", "lv-bare", "1.0", "", "nothing"),
    ):
        monkeypatch.setitem(BACKENDS, backend.module, backend)
    versions = {"lv-old": "2.9.1", "lv-broken": "1.0", "eva-lv-twin": "1.5+cpu"}
    for distribution, number in versions.items():
        folder = tmp_path / f"{distribution.replace('-', '_')}-{number}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {distribution}\nVersion: {number}\n")
    for module in ("lv_old", "lv_twin", "lv_bare"):
        (tmp_path / f"{module}.py").write_text("")
    (tmp_path / "lv_broken.py").write_text("raise OSError('libx.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("lv_old", "lv_twin", "lv_bare", "lv_broken"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def test_version_of_what_is_here_and_what_is_not(table: Path):
    assert version("torch") == importlib.metadata.version("torch")
    assert version("lv_absent") is None
    assert version("lv_twin") == "1.5+cpu"  # by the name of its stand-in
    assert version("lv_bare") == "unknown"  # a module without metadata


def test_version_imports_nothing(table: Path):
    assert version("lv_broken") == "1.0"
    assert "lv_broken" not in sys.modules


def test_require_imports(table: Path):
    assert isinstance(require("lv_twin"), types.ModuleType)
    assert require("lv_bare").__name__ == "lv_bare"


def test_a_version_is_looked_at_once_for_each_module(table: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(backends, "version", lambda name: asked.append(name) or "1.5")
    first = require("lv_twin")
    assert require("lv_twin") is first
    assert asked == ["lv_twin"]
    # Taken out, as a failed import does, or replaced, it is looked at again.
    monkeypatch.delitem(sys.modules, "lv_twin")
    assert require("lv_twin") is not first
    assert asked == ["lv_twin"] * 2
    monkeypatch.setitem(sys.modules, "lv_twin", None)
    with pytest.raises(BackendMissingError):
        require("lv_twin")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("lv_absent", "not installed", 'pip install --upgrade "llava_video[flash]"'),
        ("lv_base", "not installed", 'pip install --upgrade "lv-base"'),
        ("lv_old", "is 2.9.1, at least 2.10 is needed", 'pip install --upgrade "lv-old"'),
        ("lv_broken", "libx.so is missing", 'pip install --upgrade "lv-broken"'),
    ],
)
def test_require_says_how_to_install(table: Path, name: str, message: str, hint: str):
    with pytest.raises(BackendMissingError, match=re.escape(message)) as caught:
        require(name)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("older", "newer"), [("2.9.1", "2.10"), ("2.13.0", "2.13.1+cpu"), ("0.6.0rc1", "0.7")]
)
def test_versions_compare_as_numbers(older: str, newer: str):
    assert backends._release(older) < backends._release(newer)


def test_the_table_agrees_with_pyproject(project: Path):
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    extras = table["optional-dependencies"]
    for backend in BACKENDS.values():
        wanted = table["dependencies"] if backend.extra == "" else extras[backend.extra]
        least = {r.split(">=")[0]: re.split("[,;]", r.split(">=")[1])[0] for r in wanted}
        assert least[backend.distribution] == backend.least
