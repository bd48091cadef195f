"""What every test may ask for, and what every test gets unasked.

Torch is imported only where a test needs it, so that the tests of the planner and of the command
line start at once.
"""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo

pytest_plugins = ["pytester"]

# Before any kernel is decorated: without a GPU, Triton's interpreter runs the kernels' own code.
# Where there is one, they are compiled, by the same tests.
if not Path("/proc/driver/nvidia/version").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

PROJECT = Path(__file__).resolve().parents[1]

# The same examples on every run: a failure of `make test` is a change of the code. No deadline:
# two workers share two cores with whatever else runs there.
hypothesis.settings.register_profile("llava_video", deadline=None, derandomize=True)
hypothesis.settings.load_profile("llava_video")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a gpu test without CUDA, or fail it where a GPU is promised."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if torch.cuda.is_available():
        return
    if os.environ.get("LLAVA_VIDEO_REQUIRE_GPU") == "1":
        pytest.fail("LLAVA_VIDEO_REQUIRE_GPU=1, but torch finds no CUDA device", pytrace=False)
    pytest.skip("needs CUDA")


@pytest.fixture(autouse=True)
def restore_random_states() -> Iterator[None]:
    """Give the next test the random states this one found."""
    torch = sys.modules.get("torch")
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # legacy
    torch_state = None if torch is None else torch.random.get_rng_state()
    yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)  # noqa: NPY002  # the global state is what is restored
    if torch is not None and torch_state is not None:
        torch.random.set_rng_state(torch_state)


@pytest.fixture(scope="session")
def project() -> Path:
    """Return the folder that holds pyproject.toml."""
    return PROJECT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of golden outputs and real videos beside the project, or skip."""
    folder = PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the golden outputs and real videos (../shared) are not here")
    return folder.resolve()  # paths in messages are whole ones


@pytest.fixture(scope="session")
def videos(shared: Path) -> Path:
    """Return the folder of real video files, or skip."""
    folder = shared / "videos"
    if not folder.is_dir():
        pytest.skip("the real videos (../shared/videos) are not here")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of a tiny, randomly initialised model; read only."""
    from llava_video.model.tiny import write_tiny_checkpoint

    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> "Iterator[LlavaVideo]":
    """Return the tiny model, loaded; shared, so leave it as it was."""
    from llava_video.api import load

    with load(tiny_folder) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def mini_model(tiny_folder: Path) -> "Iterator[LlavaVideo]":
    """Return the tiny model with a fusion of random weights, as LLaVA-Mini's: 2 x 2 tokens a frame.

    Shared, so leave it as it was.
    """
    import dataclasses

    from seeded_models import filled

    from llava_video.api import LlavaVideo, load
    from llava_video.engine.scheduler import Scheduler
    from llava_video.engine.settings import EngineSettings
    from llava_video.model.checkpoint import load_model
    from llava_video.model.dimensions import FusionConfig
    from llava_video.model.llava import LlavaModel
    from llava_video.model.model_config import read_model_config

    config = read_model_config(tiny_folder)
    plain = load_model(tiny_folder, config=config, device="cpu")
    dimensions = dataclasses.replace(config.dimensions, fusion=FusionConfig(side=2, num_layers=2))
    model = LlavaModel(dimensions).eval()
    filled(model.fusion)
    model.load_state_dict(plain.state_dict(), strict=False)
    with load(tiny_folder) as loaded:
        spec = loaded.spec
    geometry = dataclasses.replace(
        spec.geometry, compressed_side=2, fusion_layers=2, time_instruction=False
    )
    engine = Scheduler(
        model,
        spec.tokenizer,
        eos_ids=(),
        repetition_penalty=config.generation.repetition_penalty,
        settings=EngineSettings(kept_prefixes=2),
    )
    with LlavaVideo(dataclasses.replace(spec, geometry=geometry), engine) as mini:
        yield mini


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of 40 frames, 96 x 128 px, 30 a second, each showing its index; read only."""
    from llava_video.world.bars import paint_index
    from llava_video.world.clip import write_clip

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, [paint_index(idx, 96, 128) for idx in range(40)])
    return path


@pytest.fixture(scope="session")
def demo_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the demo model's folder; where the checkout has none, a stand-in takes its place.

    Whatever loads "demo" meanwhile gets the same one; read only.
    """
    from demo_stand_in import write_stand_in

    from llava_video.model import packaged

    folder = packaged.packaged_folder()
    with pytest.MonkeyPatch.context() as patch:
        if not (folder / "config.json").is_file():
            folder = write_stand_in(tmp_path_factory.mktemp("stand_in") / "checkpoint")
            patch.setattr(packaged, "packaged_folder", lambda: folder)
        yield folder
