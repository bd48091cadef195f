"""The whole family: every case of its golden set, and transformers' classes on seeded models.

Against the reference's outputs where they are at hand; against transformers everywhere.
"""

import json
from pathlib import Path

import family_maker
import numpy as np
import parity
import pytest
from own_set import write_learned_set

from llava_video.model.convert import convert_checkpoint
from llava_video.model.model_config import read_model_config

GOLDEN = "golden/family"


def report_of(capsys, *arguments: object) -> tuple[int, dict]:
    status = parity.main([*map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_reference_and_ours_agree_at_every_stage(shared: Path, capsys):
    folder = shared / GOLDEN
    status, report = report_of(capsys, folder)
    assert [check for check in report["checks"] if not check["passed"]] == []
    assert report["unread"] == []
    assert report["unknown_keys"] == {}
    assert status == 0
    named = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    stored = {path.stem for path in (folder / "cases").iterdir()}
    checked = {(check["case"], check["key"]) for check in report["checks"]}
    assert {case for case, _ in checked} == stored
    assert set(named) < stored
    for case, facts in named.items():
        given = GIVEN if {"prompt", "conversations"} & set(facts) else GIVEN | TOKENS
        with np.load(folder / "cases" / f"{case}.npz") as arrays:
            keys = set(arrays.files) - given
        assert [key for key in keys if not {(case, key), (case, f"{key}_0")} & checked] == []


# What cases are made from, and what only stands beside another array.
GIVEN = frozenset(("frames", "image_0", "image_1", "logit_positions"))
TOKENS = frozenset(("input_ids", "labels"))


@pytest.mark.parametrize("kind", family_maker.KINDS)
def test_transformers_and_ours_agree(tmp_path: Path, capsys, kind: str):
    """Ten models of random shapes: three backbones, with and without grouped heads."""
    family_maker.make_family_set(tmp_path, kind, range(10))
    status, report = report_of(capsys, tmp_path)
    assert [check for check in report["checks"] if not check["passed"]] == []
    assert report["unread"] == []
    assert report["unknown_keys"] == {}
    assert status == 0
    models = {f"seed{seed}{way}" for seed in range(10) for way in family_maker.SPELLINGS}
    assert {check["model"] for check in report["checks"]} == models
    worst: dict[str, float] = {}
    for check in report["checks"]:
        worst[check["stage"]] = max(worst.get(check["stage"], 0.0), check["error"])
    exact = ("ids", "plan", "pixels", "greedy")
    assert {stage: worst[stage] for stage in exact} == dict.fromkeys(exact, 0.0)
    assert worst["logits"] <= 1e-4
    assert worst["visual rows"] <= 1e-4


@pytest.mark.parametrize("kind", family_maker.KINDS)
def test_models_of_the_set_differ_in_what_matters(kind: str):
    """Or ten seeds would be ten times the same test."""
    configs = [family_maker.Twin(kind, seed).config for seed in range(10)]
    texts = [config.text_config for config in configs]
    assert {text.model_type for text in texts} == {"llama", "mistral", "qwen2"}
    assert {text.num_attention_heads == text.num_key_value_heads for text in texts} == {True, False}
    ropes = {text.rope_parameters["rope_type"] for text in texts}
    assert ropes == {"default", "linear", "llama3"}
    assert len({config.vision_config.image_size for config in configs}) > 2


def failed_stages(report: dict) -> set[str]:
    return {check["stage"] for check in report["checks"] if not check["passed"]}


def test_another_model_fails(tmp_path: Path, capsys):
    """One matrix a hundredth larger: every shape is as it was."""
    family_maker.make_family_set(tmp_path, "llava", range(1))
    other = family_maker.Twin("llava", 0)
    other.model.model.language_model.layers[0].self_attn.q_proj.weight.data *= 1.01
    other.save(tmp_path / "seed0")
    status, report = report_of(capsys, tmp_path, "--models", "seed0")
    assert status == 1
    assert "logits" in failed_stages(report)
    assert not {"pixels", "tower", "visual rows"} & failed_stages(report)


# Seeds of "llava" with linear scaling, and with Llama 3's bands.
@pytest.mark.parametrize("seed", [3, 6])
@pytest.mark.parametrize(
    "rope", [None, {"type": "linear", "factor": 3.0}, {**family_maker.LLAMA3, "factor": 4.0}]
)
def test_other_positions_fail(tmp_path: Path, capsys, seed: int, rope: dict | None):
    family_maker.make_family_set(tmp_path, "llava", range(seed, seed + 1))
    facts = json.loads((tmp_path / "cases.json").read_text(encoding="utf-8"))
    for own in facts.values():
        own["overrides"]["rope_scaling"] = rope
    (tmp_path / "cases.json").write_text(json.dumps(facts), encoding="utf-8")
    status, report = report_of(capsys, tmp_path)
    assert status == 1
    assert failed_stages(report) >= {"logits", "greedy margins"}
    assert "visual rows" not in failed_stages(report)


def test_a_conversion_gives_what_its_original_gives(tmp_path: Path, capsys):
    """Among them the loss, which rows added to the vocabulary would change."""
    write_learned_set(tmp_path, member="LLaVA-1.5", vocab_size=259)
    convert_checkpoint(tmp_path / "own", tmp_path / "own-hf", layout="hf")
    rows = [read_model_config(tmp_path / name).text.vocab_size for name in ("own", "own-hf")]
    assert rows[0] < rows[1]
    status, report = report_of(capsys, tmp_path)
    assert [check for check in report["checks"] if not check["passed"]] == []
    assert status == 0
    models = {check["model"] for check in report["checks"] if check["stage"] == "loss"}
    assert models == {"own", "own-hf"}
