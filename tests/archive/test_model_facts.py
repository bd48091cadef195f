"""What decides an answer is told apart; what does not is not."""

import dataclasses
import shutil
from pathlib import Path

from archive_runs import oracle

from llava_video.api import LlavaVideo, load
from llava_video.archive.model_facts import digest_of, model_facts


def test_weights_template_and_engine_decide(tiny_model: LlavaVideo) -> None:
    facts = model_facts(tiny_model)
    assert model_facts(tiny_model) == facts
    changed = oracle(tiny_model.spec)
    assert model_facts(changed) == {**facts, "engine": "OracleEngine"}
    revised = LlavaVideo(dataclasses.replace(tiny_model.spec, revision="v2"), tiny_model.engine)
    assert model_facts(revised)["weights"].endswith(" at v2")


def test_a_folder_that_was_trained_anew_is_another(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    with load(folder, device="cpu") as model:
        before = model_facts(model)
        (weights,) = model.spec.sources.weight_files()
        weights.touch()
        assert digest_of(model_facts(model)) != digest_of(before)
