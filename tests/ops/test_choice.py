"""The environment variable is read once, and refused with what is allowed."""

import pytest

from llava_video.errors import ConfigError
from llava_video.ops.choice import ENVIRONMENT_NAME, choice


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(ENVIRONMENT_NAME, raising=False)
    choice.cache_clear()
    yield
    choice.cache_clear()


def test_nothing_asked_is_auto():
    assert choice() == "auto"


@pytest.mark.parametrize("value", ["auto", "reference", "native", "triton"])
def test_what_is_asked(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENVIRONMENT_NAME, value)
    assert choice() == value


@pytest.mark.parametrize("value", ["", "Triton", "torch"])
def test_another_value_is_refused_with_what_is_allowed(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENVIRONMENT_NAME, value)
    with pytest.raises(ConfigError, match=f"LLAVA_VIDEO_OPS = '{value}'") as caught:
        choice()
    assert caught.value.hint == "allowed: auto, reference, native, triton."


def test_the_variable_is_read_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENVIRONMENT_NAME, "reference")
    assert choice() == "reference"
    monkeypatch.setenv(ENVIRONMENT_NAME, "auto")
    assert choice() == "reference"
