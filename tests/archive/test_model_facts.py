"""What decides an answer is told apart; what does not is not."""

import dataclasses
import shutil
from pathlib import Path

from archive_runs import oracle

from llava_video.api import LlavaVideo, load
from llava_video.archive.model_facts import digest_of, model_facts
from llava_video.remote.facts import ServerFacts


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


def test_of_a_server_counts_what_it_says_of_itself(tiny_model: LlavaVideo) -> None:
    server = ServerFacts(base_url="http://host/v1", model="m", version="1.0")
    served = dataclasses.replace(tiny_model.spec, name="m", server=server)
    facts = model_facts(oracle(served))
    assert (facts["engine"], facts["server"]) == ("openai", server.to_mapping())
    for change in ({"version": "1.1"}, {"base_url": "http://other/v1"}, {"frames": {"a": 1}}):
        other = dataclasses.replace(served, server=dataclasses.replace(server, **change))
        assert digest_of(model_facts(oracle(other))) != digest_of(facts)
