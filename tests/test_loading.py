"""Device and dtype are chosen once, and a wrong one is named."""

from pathlib import Path

import pytest
import torch

from llava_video.errors import ConfigError
from llava_video.loading import choose_device, choose_dtype, load_engine
from llava_video.model.spec import read_spec


def test_auto_follows_the_hardware() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto") == expected
    assert choose_dtype("auto", "cpu") == "float32"
    assert choose_dtype("auto", "cuda") == "bfloat16" if expected == "cuda" else True
    assert choose_dtype("auto", "cpu:0") == "float32"
    assert choose_dtype("float16", "cpu") == "float16"


@pytest.mark.parametrize("device", ["gpu", "cuda:97", "cuda:x", "meta", "mps"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device = '{device}'"):
        choose_device(device)


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(ConfigError, match="dtype = 'int8'"):
        choose_dtype("int8", "cpu")


def test_an_unknown_attention_is_named(tiny_folder: Path) -> None:
    spec = read_spec(tiny_folder)
    with pytest.raises(ConfigError, match="attn = 'flash2'"):
        load_engine(spec, device="cpu", dtype="float32", attn="flash2")  # type: ignore[arg-type]  # what is tested
