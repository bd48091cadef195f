"""The native part is loaded once, when asked for; without it the plain twins run."""

import importlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from llava_video.errors import BackendMissingError
from llava_video.ops import native as subject
from llava_video.ops.choice import ENVIRONMENT_NAME, choice
from llava_video.ops.native import native, native_words


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch):
    """Give the variable a value, as a process finds it when it starts."""

    def ask(value: str) -> None:
        monkeypatch.setenv(ENVIRONMENT_NAME, value)
        forget()

    yield ask
    monkeypatch.undo()
    forget()


def forget() -> None:
    choice.cache_clear()
    native.cache_clear()


def fails(error: ImportError):
    def load(_: str) -> None:
        raise error

    return load


def test_it_is_there_and_says_what_it_uses():
    module = native()
    if module is None:
        pytest.skip("built without the native part")
    names = module.instruction_sets()
    assert names[0] == "plain"
    assert native_words() == {"plain": "plain C++", "avx2": "AVX2", "avx512": "AVX-512"}[names[-1]]


def test_the_instructions_are_those_the_system_lists():
    module = native()
    if module is None or not sys.platform.startswith("linux"):
        pytest.skip("needs the native part and Linux")
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    assert ("avx2" in module.instruction_sets()) == ({"avx2", "fma", "f16c"} <= flags)
    needed = {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"}
    assert ("avx512" in module.instruction_sets()) == (needed <= flags)


def test_reference_keeps_it_off(asked):
    asked("reference")
    assert native() is None
    assert native_words() is None


def test_without_it_nothing_is_said(asked, monkeypatch: pytest.MonkeyPatch, caplog):
    asked("auto")
    monkeypatch.setattr(importlib, "import_module", fails(ModuleNotFoundError("no _native")))
    assert native() is None
    assert native_words() is None
    assert caplog.text == ""


def test_a_broken_one_is_told(asked, monkeypatch: pytest.MonkeyPatch, caplog):
    asked("auto")
    monkeypatch.setattr(importlib, "import_module", fails(ImportError("undefined symbol: f")))
    with caplog.at_level(logging.WARNING):
        assert native() is None
    assert "undefined symbol: f" in caplog.text


def test_who_insists_on_it_is_told_how_to_get_it(asked, monkeypatch: pytest.MonkeyPatch):
    asked("native")
    monkeypatch.setattr(importlib, "import_module", fails(ModuleNotFoundError("no _native")))
    with pytest.raises(BackendMissingError, match="no _native") as caught:
        native()
    assert "LLAVA_VIDEO_NATIVE=0" in caught.value.hint


def test_it_is_loaded_on_first_use_and_without_torch():
    code = (
        "import sys\n"
        "from llava_video.ops import tiles\n"
        "assert 'llava_video.ops._native' not in sys.modules\n"
        "from llava_video.ops.native import native_words\n"
        "native_words()\n"
        "assert 'torch' not in sys.modules\n"
        "print('llava_video.ops._native' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(subject.native() is not None)
