"""The rules of the house hold in the whole project, and each rule would notice being broken."""

from collections.abc import Iterator
from pathlib import Path

import house_rules as rules
import pytest

PROJECT = Path(__file__).resolve().parents[1]
FILES = rules.read_package(PROJECT / "llava_video")
MODULES = set(FILES)
# Files that hold protocols only: nothing in them can be run.
NO_TESTS: frozenset[str] = frozenset()


def beside_the_package(*folders: str) -> Iterator[rules.SourceFile]:
    for folder in folders:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            name = path.relative_to(PROJECT).as_posix()
            yield rules.SourceFile(name, path.read_text(encoding="utf-8"))


def faults_of(module: str, text: str, rule: str, **others: str) -> list[str]:
    """Run one rule on a text that stands for a module, beside modules of other texts."""
    file = rules.SourceFile(module, text, is_package=module.endswith("__init__"))
    files = {file.module: file} | {
        name: rules.SourceFile(name, other)
        for name, other in ((n.replace("__", "."), o) for n, o in others.items())
    }
    second = {"floor_faults": set(files), "torch_faults": set(files), "import_form_faults": files}
    arguments = [second[rule]] if rule in second else []
    return list(getattr(rules, rule)(file, *arguments))


def test_the_package_is_read():
    assert {"llava_video", "llava_video.errors", "llava_video.video"} <= MODULES
    assert FILES["llava_video.video"].is_package
    assert FILES["llava_video.errors"].parts == ["errors"]


def test_every_folder_of_code_is_a_package():
    folders = {path.parent for path in (PROJECT / "llava_video").rglob("*.py")}
    assert [str(f) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def test_imports_go_down():
    assert [fault for f in FILES.values() for fault in rules.floor_faults(f, MODULES)] == []


@pytest.mark.parametrize(
    "text",
    [
        "from llava_video.model.llava import LlavaModel",  # up
        "import llava_video.engine.step",
        "from llava_video import api",
        "def later():\n    from llava_video.api import load",  # up, lazily
        "import importlib\nimportlib.import_module('llava_video.api')",
        "from llava_video.planning.grid import choose_canvas",  # sideways
        "from llava_video.nowhere import thing",  # on no floor
    ],
)
def test_imports_up_or_sideways_are_noticed(text: str):
    assert len(faults_of("llava_video.video.probe", text, "floor_faults", llava_video__api="")) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("llava_video.video.probe", "from llava_video.video.source import Source"),
        ("llava_video.video.probe", "from llava_video.errors import SourceError"),
        ("llava_video.video.probe", "from llava_video import __version__"),
        ("llava_video.config", "from llava_video.errors import ConfigError"),
        ("llava_video.api", "from llava_video.session import Session"),
        ("llava_video.cli.main", "from llava_video.demo.run import run"),
    ],
)
def test_imports_down_or_within_are_allowed(module: str, text: str):
    assert faults_of(module, text, "floor_faults") == []


@pytest.mark.parametrize("other", ["archive", "serve"])
def test_applications_do_not_know_one_another(other: str):
    text = f"from llava_video.{other}.runner import run"
    assert len(faults_of("llava_video.monitor.loop", text, "floor_faults")) == 1


def test_a_file_on_no_floor_is_noticed():
    assert "stands on no floor" in faults_of("llava_video.utils", "", "floor_faults")[0]


def test_imports_are_absolute_and_from_the_defining_module():
    assert [fault for f in FILES.values() for fault in rules.import_form_faults(f, FILES)] == []


@pytest.mark.parametrize(
    ("text", "num_faults"),
    [
        ("from . import source", 1),
        ("from .source import Source", 1),
        ("from llava_video.video.source import Source", 0),
        ("from llava_video.video.source import LIMIT, np, try_me", 0),
        ("from llava_video.video.source import SourceError", 1),  # defined in errors.py
        ("from llava_video.video.source import hidden", 1),  # local to a function
    ],
)
def test_import_forms_are_noticed(text: str, num_faults: int):
    source = (
        "import numpy as np\nfrom llava_video.errors import SourceError\nLIMIT: int = 3\n"
        "class Source:\n    def f(self):\n        hidden = 1\n"
        "try:\n    import try_me\nexcept ImportError:\n    try_me = None\n"
    )
    others = {"llava_video__video__source": source}
    found = faults_of("llava_video.video.probe", text, "import_form_faults", **others)
    assert len(found) == num_faults


def test_low_floors_do_without_torch():
    assert [fault for f in FILES.values() for fault in rules.torch_faults(f, MODULES)] == []


@pytest.mark.parametrize(
    ("module", "num_faults"),
    [
        ("llava_video.planning.grid", 1),
        ("llava_video.values", 1),
        ("llava_video.world.bars", 1),
        ("llava_video.model.tokenizer", 1),
        ("llava_video.model.decoder", 0),
        ("llava_video.ops.pool", 0),
    ],
)
def test_torch_on_low_floors_is_noticed(module: str, num_faults: int):
    text = "def later():\n    import torch.nn.functional as F"
    assert len(faults_of(module, text, "torch_faults")) == num_faults


def test_files_and_functions_are_short():
    everything = [*FILES.values(), *beside_the_package("tests", "benchmarks")]
    assert [fault for f in everything for fault in rules.length_faults(f)] == []
    assert [f for e in beside_the_package("examples") for f in rules.length_faults(e, 60)] == []


@pytest.mark.parametrize(
    ("text", "num_faults"),
    [
        ("x = 1\n" * 400, 0),
        ("x = 1\n" * 401, 1),
        # 60 lines of body, under a signature of three lines and a docstring of three.
        ('def f(\n    a,\n):\n    """One.\n\n    Two."""\n' + "    a = 1\n" * 60, 0),
        ('def f(\n    a,\n):\n    """One.\n\n    Two."""\n' + "    a = 1\n" * 61, 1),
        ("async def f():\n" + "    a = 1\n" * 61, 1),
        ("class C:\n    def f(self):\n" + "        a = 1\n" * 61, 1),
        ("@triton.jit\ndef f():\n" + "    a = 1\n" * 61, 0),
        ("@triton.autotune(configs=[])\n@triton.jit\ndef f():\n" + "    a = 1\n" * 61, 0),
        ("@functools.cache\ndef f():\n" + "    a = 1\n" * 61, 1),
    ],
)
def test_length_is_noticed(text: str, num_faults: int):
    assert len(faults_of("llava_video.values", text, "length_faults")) == num_faults


def test_everything_public_is_documented():
    assert [fault for f in FILES.values() for fault in rules.docstring_faults(f)] == []
    scripts = list(beside_the_package("benchmarks", "examples"))
    undocumented = [f"{s.module} has no docstring" for s in scripts]
    everything = {fault for s in scripts for fault in rules.docstring_faults(s)}
    assert [fault for fault in undocumented if fault in everything] == []


@pytest.mark.parametrize(
    ("text", "num_faults"),
    [
        ("", 1),
        ('"""Docs."""\ndef _private(): pass\nclass _P:\n    def f(self): pass', 0),
        ('"""Docs."""\ndef f():\n    def inner(): pass', 1),
        ('"""Docs."""\nclass C:\n    """C."""\n    def f(self): pass', 1),
        ('"""Docs."""\nclass C:\n    """C."""\n    def __len__(self): pass', 0),
        ('"""Docs."""\n@overload\ndef f(): ...', 0),
        ('"""Docs."""\nif True:\n    def f(): pass', 1),
    ],
)
def test_missing_docstrings_are_noticed(text: str, num_faults: int):
    assert len(faults_of("llava_video.values", text, "docstring_faults")) == num_faults


def test_only_the_command_line_prints():
    assert [fault for f in FILES.values() for fault in rules.print_faults(f)] == []


def test_prints_are_noticed():
    text = "def f():\n    print('x')"
    assert len(faults_of("llava_video.video.probe", text, "print_faults")) == 1
    assert faults_of("llava_video.cli.main", text, "print_faults") == []


def test_inits_only_re_export():
    assert [fault for f in FILES.values() for fault in rules.init_faults(f)] == []


def test_inits_with_code_are_noticed():
    kept = '"""Docs."""\nfrom llava_video.video.probe import probe\n__all__ = ["probe"]\n'
    assert faults_of("llava_video.video.__init__", kept, "init_faults") == []
    assert len(faults_of("llava_video.video.__init__", kept + "x = 1", "init_faults")) == 1


def test_tests_mirror_the_package():
    mirrors = {f.module: rules.mirror_path(f) for f in FILES.values()}
    missing = {
        module
        for module, mirror in mirrors.items()
        if mirror is not None and not (PROJECT / "tests" / mirror).is_file()
    }
    assert sorted(missing - NO_TESTS) == []
    assert sorted(NO_TESTS - missing) == []  # an exception that is needed no more


@pytest.mark.parametrize(
    ("module", "mirror"),
    [
        ("llava_video.video.probe", "video/test_probe.py"),
        ("llava_video.errors", "test_errors.py"),
        ("llava_video.__main__", None),
    ],
)
def test_mirror_paths(module: str, mirror: str | None):
    assert rules.mirror_path(rules.SourceFile(module, "")) == mirror
