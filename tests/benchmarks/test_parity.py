"""The parity command passes where it should, and notices every kind of difference.

Against the reference's own outputs where they are at hand, and everywhere against transformers.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import parity
import pytest

GOLDEN = "golden/onevision_video"


def run(capsys, *arguments: object) -> tuple[int, str]:
    status = parity.main([str(word) for word in arguments])
    return status, capsys.readouterr().out


@pytest.fixture
def copy(twin_set: Path, tmp_path: Path) -> Path:
    """Return a copy of the set made by transformers, with one model."""
    folder = tmp_path / "copy"
    shutil.copytree(twin_set / "cases", folder / "cases")
    shutil.copytree(twin_set / "tiny", folder / "tiny")
    return folder


def change(folder: Path, case: str, **arrays: object) -> None:
    path = folder / "cases" / f"{case}.npz"
    with np.load(path) as old:
        kept = {key: old[key] for key in old.files}
    for key, new in arrays.items():
        kept[key] = new(kept[key].copy()) if callable(new) else np.asarray(new)
    np.savez(path, **kept)


def plus(amount: float):
    def changed(array: np.ndarray) -> np.ndarray:
        array[(-1,) * array.ndim] += amount
        return array

    return changed


def test_transformers_and_ours_agree_at_every_stage(twin_set: Path, capsys):
    status, printed = run(capsys, twin_set, "--json")
    report = json.loads(printed)
    assert status == 0
    assert report["passed"]
    assert report["unknown_keys"] == {}
    checks = report["checks"]
    assert {check["model"] for check in checks} == {"tiny", "tiny_hf"}
    worst: dict[str, float] = {}
    for check in checks:
        worst[check["stage"]] = max(worst.get(check["stage"], 0.0), check["error"])
    exact = ("ids", "plan", "pixels", "argmax", "greedy", "greedy at once")
    assert {stage: worst[stage] for stage in exact} == dict.fromkeys(exact, 0.0)
    for stage in ("projected", "pooled", "visual rows", "embeddings", "logits", "greedy margins"):
        assert worst[stage] <= 1e-4


@pytest.mark.parametrize("model", ["model_a", "model_a_hf", "model_a_hf_legacy"])
def test_the_reference_and_ours_agree_at_every_stage(shared: Path, capsys, model: str):
    status, printed = run(capsys, shared / GOLDEN, "--models", model, "--json")
    report = json.loads(printed)
    assert [check for check in report["checks"] if not check["passed"]] == []
    assert report["unread"] == []
    assert report["unknown_keys"] == {}
    assert status == 0
    names = {path.stem for path in (shared / GOLDEN / "cases").iterdir()}
    assert {check["case"] for check in report["checks"]} == names


@pytest.mark.parametrize(
    ("case", "changes", "stage"),
    [
        ("text_only", {"input_ids": plus(1)}, "ids"),
        ("text_only", {"seq_len": plus(1)}, "plan"),
        ("text_only", {"inputs_embeds": plus(3e-4)}, "embeddings"),
        ("text_only", {"logits_last": plus(3e-3)}, "logits"),
        ("text_only", {"logits_logsumexp": plus(-3e-3)}, "logits"),
        ("text_only", {"logits_all": plus(np.nan)}, "logits"),
        ("text_only", {"logits_argmax": plus(1)}, "argmax"),
        ("text_only", {"greedy_tokens": plus(1)}, "greedy"),
        ("text_only", {"greedy_tokens_rep_penalty": plus(1)}, "greedy at once"),
        ("text_only", {"greedy_margin_rep_penalty": plus(3e-3)}, "greedy margins"),
        ("video_one_token", {"pixel_sub": plus(2 / 255)}, "pixels"),
        ("video_one_token", {"pixel_sum": plus(1e-3)}, "pixel sums"),
        ("video_one_token", {"projected_frame0": plus(3e-4)}, "projected"),
        ("video_one_token", {"pooled": plus(3e-4)}, "pooled"),
        ("video_one_token", {"spliced": plus(3e-4)}, "visual rows"),
        ("video_one_token", {"feature_starts": plus(1)}, "plan"),
        ("video_one_token", {"frames": lambda frames: frames[::-1]}, "logits"),
        ("video_slow_fast", {"faster_token": plus(1e-2)}, "visual rows"),
        ("mixed_left", {"attention_mask_out": lambda mask: ~mask}, "embeddings"),
        ("mixed_left", {"greedy_tokens_1": plus(1)}, "greedy at once"),
    ],
)
def test_every_difference_is_noticed(copy: Path, capsys, case: str, changes: dict, stage: str):
    change(copy, case, **changes)
    status, printed = run(capsys, copy, "--cases", case)
    assert status == 1
    failed = [line for line in printed.splitlines() if line.startswith("FAIL ")]
    assert any(f" {stage} " in line for line in failed)


def test_an_argmax_may_differ_where_the_reference_is_undecided(copy: Path, capsys):
    change(copy, "text_only", logits_argmax=plus(1), logits_margin=plus(-100))
    _, printed = run(capsys, copy, "--cases", "text_only", "--json")
    stages = {c["key"]: c["passed"] for c in json.loads(printed)["checks"]}
    assert stages["logits_argmax"]
    assert not stages["logits_margin"]


@pytest.mark.parametrize(
    ("case", "overrides"),
    [
        ("video_one_token", {"mm_newline_position": "grid"}),
        ("video_one_token", {"mm_spatial_pool_mode": "average"}),
        ("image_anyres", {"image_aspect_ratio": "pad"}),
        ("text_only", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("mixed_left", {"image_aspect_ratio": "pad", "tokenizer_padding_side": "right"}),
    ],
)
def test_another_layout_fails(copy: Path, capsys, case: str, overrides: dict):
    change(copy, case, config_overrides=json.dumps(overrides))
    status, printed = run(capsys, copy, "--cases", case)
    assert status == 1
    assert "FAILED" in printed


def test_an_unknown_key_is_named_and_does_no_harm(copy: Path, capsys):
    change(copy, "text_only", mystery=[1.0])
    status, printed = run(capsys, copy, "--cases", "text_only")
    assert status == 0
    assert "not compared in text_only: mystery" in printed


def test_an_unknown_fact_or_column_is_named_and_does_no_harm(copy: Path, capsys):
    facts = {"text_only": {"weather": "fine"}, "nowhere": {"checkpoint": "tiny"}}
    (copy / "cases.json").write_text(json.dumps(facts), encoding="utf-8")
    rows = [{"total": 3, "want": 1, "indices": [1], "colour": "red"}]
    (copy / "cases" / "middle.json").write_text(json.dumps(rows), encoding="utf-8")
    status, printed = run(capsys, copy, "--cases", "text_only", "middle")
    assert status == 0
    assert "not compared in text_only: weather of cases.json" in printed
    assert "not compared in middle: colour" in printed
    status, printed = run(capsys, copy, "--cases", "nowhere")
    assert status == 1
    assert "UNREAD  tiny  nowhere: ValueError: cases.json names it, and there is no" in printed


def test_only_some_models_take_only_their_cases(twin_set: Path, copy: Path, capsys):
    shutil.copytree(twin_set / "tiny_hf", copy / "other")
    (copy / "cases.json").write_text('{"text_only": {"checkpoint": "other"}}', encoding="utf-8")
    status, printed = run(capsys, copy, "--models", "tiny", "--cases", "text_only", "images_pad")
    assert status == 0
    assert "images_pad" in printed
    assert "text_only" not in printed


def test_what_cannot_be_read_fails(copy: Path, capsys):
    cases = copy / "cases"
    (cases / "weights.json").write_text('[{"what": 1}]', encoding="utf-8")
    np.savez(cases / "empty.npz", prompt=np.array("x"))
    np.savez(cases / "no_prompt.npz", seq_len=np.int64(3))
    np.savez(cases / "bad_override.npz", prompt=np.array("x"), config_overrides='{"mm_x": 1}')
    (cases / "damaged.npz").write_bytes(b"PK no archive")
    for name in ("weights", "empty", "no_prompt", "bad_override", "damaged"):
        status, printed = run(capsys, copy, "--cases", name)
        assert status == 1
        model = "no model" if name == "weights" else "tiny"
        assert f"UNREAD  {model}  {name}:" in printed


def test_a_model_of_another_kind_fails_and_the_others_are_run(copy: Path, capsys):
    (copy / "other").mkdir()
    (copy / "other" / "config.json").write_text('{"architectures": ["Other"]}', encoding="utf-8")
    status, printed = run(capsys, copy, "--cases", "text_only")
    assert status == 1
    assert "UNREAD  other  every case: config.json describes another kind of model" in printed
    assert "pass  tiny " in printed


def test_a_case_belongs_to_the_model_it_names(twin_set: Path, copy: Path, capsys):
    shutil.copytree(twin_set / "tiny_hf", copy / "tiny_hf")
    shutil.copytree(twin_set / "tiny", copy / "none_of_it")
    change(copy, "text_only", checkpoint="tiny")
    status, printed = run(capsys, copy, "--cases", "text_only", "--json")
    assert status == 0
    # And to what was converted from that model.
    assert {check["model"] for check in json.loads(printed)["checks"]} == {"tiny", "tiny_hf"}
    change(copy, "text_only", checkpoint="somebody")
    status, printed = run(capsys, copy, "--cases", "text_only")
    assert status == 1
    assert "belongs to none of the models" in printed


def test_a_converted_folder_takes_the_layout_of_its_original(copy: Path, twin_set: Path, capsys):
    config = copy / "tiny" / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    values["mm_newline_position"] = "no_token"
    config.write_text(json.dumps(values), encoding="utf-8")
    shutil.copytree(twin_set / "tiny_hf", copy / "tiny_hf")
    with np.load(copy / "cases" / "video_one_token.npz") as arrays:
        rows = arrays["spliced"][:-1]
        kept = {"prompt": arrays["prompt"], "frames": arrays["frames"], "spliced": rows}
    np.savez(copy / "cases" / "plain.npz", **kept, modalities='["video"]')
    status, printed = run(capsys, copy, "--cases", "plain")
    assert status == 0, printed
    assert "pass  tiny_hf " in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--models", "nobody"], "no nobody; there are"), (["--cases", "nothing"], "no nothing")],
)
def test_a_name_that_is_not_there_is_refused(twin_set: Path, capsys, arguments, message):
    assert parity.main([str(twin_set), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path, capsys):
    assert parity.main([str(tmp_path / "nowhere")]) == 1
    assert "no cases/" in capsys.readouterr().err
