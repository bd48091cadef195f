"""`llava-video models`: the list, and what one checkpoint is."""

import json
from pathlib import Path

from llava_video.model.known_models import known_models
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.preview import DEFAULT_MODEL


def test_every_known_checkpoint_has_a_line(run) -> None:
    outcome = run("models")
    lines = {line.split()[0]: line for line in outcome.out.split("\n\n")[0].splitlines()[1:]}
    assert set(lines) == {model.name for model in known_models()}
    # 64 frames of 14 rows of 14 tokens and a newline: 64 x 210.
    assert lines["lmms-lab/LLaVA-Video-7B-Qwen2"].split()[1:4] == ["7B", "64", "13,440"]
    # 32 frames of 196 tokens and one newline at the end.
    assert lines["lmms-lab/llava-onevision-qwen2-7b-ov"].split()[1:4] == ["7B", "32", "6,273"]
    assert " * " in lines["lmms-lab/llava-onevision-qwen2-7b-si"]
    assert f"default  {DEFAULT_MODEL}" in outcome.out


def test_numbers_stand_under_one_another(run) -> None:
    rows = run("models").out.split("\n\n")[0].splitlines()
    column = rows[0].index("tokens") + len("tokens")
    assert all(row[column - 1].isalnum() and row[column] == " " for row in rows)


def test_the_list_as_json(run) -> None:
    values = json.loads(run("models", "--json").out)
    assert [one["name"] for one in values] == [model.name for model in known_models()]


def test_a_folder_says_what_it_is(run, tiny_folder: Path) -> None:
    lines = dict(line.split("  ", 1) for line in run("models", tiny_folder).out.splitlines())
    facts = {heading: words.strip() for heading, words in lines.items()}
    assert facts["weights"].endswith("parameters in float32, the original layout")
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
    assert values["parameters"] > 100_000


def test_what_is_no_checkpoint_is_refused(refused, tmp_path: Path) -> None:
    assert "no config.json" in refused("models", tmp_path)
