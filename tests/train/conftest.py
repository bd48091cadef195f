"""A small data set of the family's format: pictures, a video, and what can be wrong with one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava_video.model.spec import ModelSpec, read_spec
from llava_video.train.new_model import world_texts, write_new_model
from llava_video.train.settings import NewModel


def said(*texts: str) -> list[dict[str, str]]:
    speakers = ("human", "gpt")
    return [{"from": speakers[idx % 2], "value": text} for idx, text in enumerate(texts)]


def entry(*texts: str, **media: Any) -> dict[str, Any]:
    return {"id": texts[-1] if texts else "", **media, "conversations": said(*texts)}


@pytest.fixture(scope="session")
def tiny_spec(tiny_folder: Path) -> ModelSpec:
    """Return the facts of the tiny LLaVA-Video."""
    return read_spec(tiny_folder)


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> Path:
    """Return a folder with a picture, another, a video, and a file that is none of them."""
    folder = tmp_path_factory.mktemp("media")
    for idx, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(idx).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "clip.mp4").write_bytes(tiny_clip.read_bytes())
    (folder / "noise.mp4").write_bytes(b"no video at all" * 9)
    return folder


@pytest.fixture(scope="session")
def good_entries() -> list[dict[str, Any]]:
    """Return six entries that can be learned from: two of text, two pictures, two of the video."""
    return [
        entry("What is two?", "A number."),
        entry("And three?", "Another number.", "Sure?", "Yes."),
        entry("<image>\nWhat is this?", "Noise.", image="a.png"),
        entry("<image> or <image>?", "Both.", image=["a.png", "b.png"]),
        entry("<video>\nWhich one?", "The first.", video="clip.mp4"),
        entry("<image>\nAnd now?", "The last.", "Then?", "None.", video="clip.mp4"),
    ]


@pytest.fixture(scope="session")
def data_file(media: Path, good_entries: list[dict[str, Any]]) -> Path:
    """Return a file of the good entries beside their media."""
    path = media / "data.json"
    path.write_text(json.dumps(good_entries), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def new_model() -> NewModel:
    """Return the sizes of a model that trains in no time; its tiles have 4 x 4 patches."""
    return NewModel(
        tile_px=56,
        patch_px=14,
        vision_hidden_size=32,
        vision_intermediate_size=64,
        vision_num_layers=2,
        vision_num_heads=4,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        vocab_size=480,
        clips=20,
    )


@pytest.fixture(scope="session")
def new_folder(tmp_path_factory: pytest.TempPathFactory, new_model: NewModel) -> Path:
    """Return a checkpoint of these sizes that has learned nothing; read only."""
    texts = world_texts(new_model.clips)
    return write_new_model(tmp_path_factory.mktemp("new") / "model", new_model, texts)
