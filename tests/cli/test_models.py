"""`llava-video models`: the list, and what one checkpoint is."""

import json
import re
import shutil
from pathlib import Path

import pytest

from llava_video.model.known_models import known_models
from llava_video.model.members import MEMBERS
from llava_video.model.spec import read_spec
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.preview import DEFAULT_MODEL


def test_every_known_checkpoint_has_a_line(run) -> None:
    out = run("models").out
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert {model.name for model in known_models()} <= set(lines)

    def row(name: str) -> list[str]:
        return re.sub(r" [*+]", "", lines[name]).split()[1:]

    # 64 frames of 14 rows of 14 tokens and a newline; 32 of 196 (one newline ends the clip).
    assert row("lmms-lab/LLaVA-Video-7B-Qwen2")[:4] == ["7B", "32,768", "64", "210"]
    assert row("lmms-lab/llava-onevision-qwen2-7b-ov")[:4] == ["7B", "32,768", "32", "196"]
    assert row("liuhaotian/llava-v1.5-7b")[:4] == ["7B", "4,096", "8", "576"]  # 24 x 24
    assert row("lmms-lab/LLaVA-NeXT-Video-7B")[:4] == ["7B", "4,096", "32", "144"]  # 12 x 12
    # One frame a second of ten minutes, one token each.
    assert row("ICTNLP/llava-mini-llama-3.1-8b")[:4] == ["8B", "131,072", "600", "1"]
    # Weights: 7.06 B numbers of two bytes (family table: 14.1 GB in fp16 with the tower).
    assert row("liuhaotian/llava-v1.5-7b")[4] == "13.1"
    assert " * " in lines["liuhaotian/llava-v1.5-7b"]
    assert " * + " in lines["liuhaotian/llava-v1.5-7b-lora"]
    assert f"default  {DEFAULT_MODEL}" in out


def test_the_members_are_headings(run) -> None:
    blocks = run("models").out.split("\n\n")[1:-1]
    assert [block.partition(":")[0] for block in blocks] == list(MEMBERS)
    for block, name in zip(blocks, MEMBERS, strict=True):
        own = {line.split()[0] for line in block.splitlines()[1:]}
        assert own == {model.name for model in known_models() if model.family == name}


def test_numbers_stand_under_one_another(run) -> None:
    rows = [row for row in run("models").out.splitlines() if row.count("  ") > 5]
    for heading in ("tokens", "int4", "video"):
        column = rows[0].index(heading) + len(heading)
        assert all(row[column - 1].isalnum() and row[column] == " " for row in rows)


def test_the_list_as_json(run) -> None:
    values = json.loads(run("models", "--json").out)
    assert [one["name"] for one in values] == [model.name for model in known_models()]


def facts_of(run, *arguments: str | Path) -> dict[str, str]:
    lines = run("models", *arguments).out.splitlines()
    return {line[:9].strip(): line[9:].strip() for line in lines}


def test_a_folder_says_what_it_is(run, tiny_folder: Path) -> None:
    facts = facts_of(run, tiny_folder)
    assert facts["member"].startswith("LLaVA-Video: ")
    assert facts["because"] == "config.json says so (llava_video_member)"
    assert facts["holds"] == "a whole checkpoint, in the authors' layout"
    assert "parameters in float32; " in facts["weights"]
    assert facts["template"] == "qwen_1_5"
    assert facts["tower"] == "in the checkpoint"
    assert facts["again"] == "a second question begins with the cache of the first"
    # 64 frames of 2 rows of 2 tokens and a newline: 64 x 6.
    assert facts["example"].startswith("10 minutes become 64 frames, 384 visual tokens and ")
    assert facts["vision"] == "siglip, 2 layers of 32 channels, tiles of 56 px, 4 x 4 patches"
    assert facts["language"] == "2 layers of 64 channels, 32,768 tokens of context"
    assert "told the times" in facts["video"]


def test_the_layout_of_transformers_is_told(run, tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(
        tmp_path / "hf", layout="hf", newline_position="one_token", time_instruction=False
    )
    said = run("models", folder).out
    assert "the layout of transformers" in said
    assert "one newline after the last frame; not told the times" in said


def test_a_known_name_is_recognised(run, tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "LLaVA-Video-7B-Qwen2")
    assert "known as  lmms-lab/LLaVA-Video-7B-Qwen2, 7B" in run("models", folder).out


def test_one_as_json(run, tiny_folder: Path) -> None:
    values = json.loads(run("models", tiny_folder, "--json").out)
    assert values["layout"] == "original"
    assert values["geometry"]["max_frames"] == 64
    assert values["known"] is None
    assert (values["member"], values["kind"], values["base"]) == ("LLaVA-Video", "whole", None)
    assert values["weights_bytes"]["bf16"] == 2 * values["parameters"]
    assert values["weights_bytes"]["int4"] < values["weights_bytes"]["int8"]
    assert (values["video"]["frames"], values["video"]["tokens"]) == (64, 384)
    assert values["reusable_prefix"] is True
    assert values["parameters"] > 100_000


def test_every_member_of_the_golden_set_is_told(run, shared: Path) -> None:
    family = shared / "golden" / "family"
    tower = family / "openai" / "clip-tiny-patch14-336"
    expected = {
        "llava-v1-tiny": ("LLaVA", "linear projector", "clip-tiny-patch14;"),
        "llava-v1.5-tiny": (
            "LLaVA-1.5",
            "padded pictures",
            f"from {tower}; the checkpoint holds none",
        ),
        "llava-v1.5-tiny-lora": ("LLaVA-1.5", "padded pictures", f"from {tower}"),
        "llava-v1.6-tiny": ("LLaVA-NeXT", "anyres pictures", "in the checkpoint"),
        "LLaVA-NeXT-Video-tiny": ("LLaVA-NeXT-Video", "spatial_pool", "in the checkpoint"),
        "llava-mini-tiny": ("LLaVA-Mini", "compressor_size = 1", "in the checkpoint"),
    }
    for name, (member, why, place) in expected.items():
        facts = facts_of(run, family / name)
        assert facts["member"].startswith(f"{member}: ")
        assert why in facts["because"]
        assert place in facts["tower"]
    assert "a LoRA adapter over" in facts_of(run, family / "llava-v1.5-tiny-lora")["holds"]
    mini = facts_of(run, family / "llava-mini-tiny")
    assert "looks at every frame again" in mini["again"]
    assert mini["video"] == "frames, 1 a second, of 1 x 1 tokens, fused with the prompt"
    base = ("--base", family / "llava-v1.5-tiny")
    projector = facts_of(run, family / "llava-pretrain-tiny", *base)
    assert projector["holds"].startswith("a projector alone over ")
    assert projector["template"] == "plain"


def test_a_part_without_its_base_says_what_is_missing(refused, shared: Path) -> None:
    said = refused("models", shared / "golden" / "family" / "llava-pretrain-tiny")
    assert "--base" in said


def test_another_kind_of_model_says_why_not(refused, tmp_path: Path) -> None:
    values = {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert "another kind of model" in refused("models", tmp_path)


def test_weights_that_are_not_here_are_not_asked(run, tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny_folder / name).read_bytes())
    assert "its weights are not here to tell" in facts_of(run, tmp_path)["tower"]


def test_what_is_no_checkpoint_is_refused(refused, tmp_path: Path) -> None:
    assert "no config.json" in refused("models", tmp_path)


def test_weights_of_another_member_say_why_not(refused, tmp_path: Path) -> None:
    """Mini's tensors under the configuration of 1.5: their headers are enough to tell."""
    mixed = write_tiny_checkpoint(tmp_path / "mixed", member="LLaVA-1.5")
    mini = write_tiny_checkpoint(tmp_path / "mini", member="LLaVA-Mini")
    (mixed / "model.safetensors").write_bytes((mini / "model.safetensors").read_bytes())
    assert "the tensors are those of LLaVA-Mini" in refused("models", mixed)


def test_a_known_id_is_told_without_its_files(run, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told = run("models", "liuhaotian/llava-v1.5-7b")
    assert told.status == 1
    assert "llava-v1.5-7b is LLaVA-1.5, 7B, of 4,096 tokens of context" in told.out
    assert "is not in the local cache" in told.err
    facts = json.loads(run("models", "liuhaotian/llava-v1.5-7b", "--json").out)
    assert (facts["family"], facts["template"]) == ("LLaVA-1.5", "vicuna_v1")


@pytest.mark.usefixtures("demo_checkpoint")
def test_what_its_makers_say_of_it_is_shown(run) -> None:
    out = run("models", "demo").out
    assert out.startswith("model     demo\n")
    assert out.rstrip().endswith(str(read_spec("demo").card).rstrip())
    assert json.loads(run("models", "demo", "--json").out)["card"]["world"] == "small"


def test_what_is_wrong_with_a_card_is_no_option(refused, tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "card.json").write_text('{"card": 1, "name": "x", "seed": true}')
    said = refused("plan", tmp_path / "no-clip.mp4", "-m", folder)
    assert "is no card: seed = True." in said
