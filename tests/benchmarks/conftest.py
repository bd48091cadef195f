import sys
from pathlib import Path

import pytest

# A benchmark is a script: its neighbours are modules of its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def twin_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set in the golden format made by transformers from a seeded tiny model; read only.

    Two model folders: "tiny_hf" as transformers saves it, "tiny" as we save what we read of that.
    """
    from golden_maker import make_set

    from llava_video.model.checkpoint import load_model, save_model
    from llava_video.model.model_config import read_model_config

    folder = tmp_path_factory.mktemp("sets") / "twin"
    make_set(folder)
    saved = folder / "tiny_hf"
    config = read_model_config(saved)
    model = load_model(saved, config=config, device="cpu")
    save_model(model, folder / "tiny", config=config, layout="original", tokenizer_from=saved)
    return folder
