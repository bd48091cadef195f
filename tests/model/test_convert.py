"""A conversion is the same model: there and back to the bit, checked, and whole or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llava_video.errors import CheckpointError
from llava_video.model import convert, tensor_files
from llava_video.model.convert import convert_checkpoint
from llava_video.model.model_config import read_model_config
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.model.tokenizer import Tokenizer

# Members with both layouts: golden folder → tensors of it that no layout keeps.
BOTH = {
    "llava-v1.5-tiny": ("inv_freq",),
    "llava-v1.6-tiny": ("inv_freq", "position_ids"),
    "LLaVA-NeXT-Video-tiny": ("inv_freq", "position_ids", "vision_resampler"),
}
EMBEDDING = "language_model.model.embed_tokens.weight"


def stored(folder: Path) -> dict[str, Tensor]:
    return {n: t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()}


def facts_of(folder: Path) -> dict[str, Any]:
    """Everything that is read of a configuration, save the folder's name and the raw keys."""
    config = read_model_config(folder)
    names = ("member", "template", "has_mark_ends", "dimensions", "visual", "context_tokens")
    names += ("time_instruction", "padding_side", "stored_dtype", "generation", "layout")
    return {name: getattr(config, name) for name in names}


@pytest.mark.parametrize("name", BOTH)
def test_there_and_back_is_the_same_to_the_bit(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "golden" / "family" / name
    convert_checkpoint(source, tmp_path / "hf", layout="hf", shard_bytes=200_000)
    done = convert_checkpoint(tmp_path / "hf", tmp_path / name, layout="original")
    assert done.member == read_model_config(source).member
    before, after = stored(source), stored(tmp_path / name)
    kept = {n: t for n, t in before.items() if not any(word in n for word in BOTH[name])}
    assert {n: t.dtype for n, t in kept.items()} == {n: after[n].dtype for n in kept}
    assert all(torch.equal(after[n], tensor) for n, tensor in kept.items())
    assert {n for n in after if n not in kept and "vision_tower" not in n} == set()
    assert facts_of(tmp_path / name) == facts_of(source)
    text = "Where is the dog? <s>Ä</s>"
    assert Tokenizer(tmp_path / name).encode(text) == Tokenizer(source).encode(text)
    assert "<image>" not in (tmp_path / name / "tokenizer.json").read_text()


def test_a_tower_fetched_by_name_is_taken_in_whole(shared: Path, tmp_path: Path) -> None:
    family = shared / "golden" / "family"
    done = convert_checkpoint(family / "llava-v1.5-tiny", tmp_path / "a", layout="original")
    assert any("clip-tiny-patch14-336 was taken in" in note for note in done.notes)
    tower = stored(family / "openai" / "clip-tiny-patch14-336")
    place = "model.vision_tower.vision_tower."
    taken = {n.removeprefix(place): t for n, t in stored(tmp_path / "a").items() if place in n}
    # The last layer and the last norm, which never run, are there too: other code builds them.
    assert all(torch.equal(taken[n], t) for n, t in tower.items() if n in taken)
    assert any(".post_layernorm." in n for n in taken)
    assert sum("layers.2." in n for n in taken) == sum("layers.1." in n for n in taken) == 16


def test_an_adapter_is_merged_into_what_it_is_over(shared: Path, tmp_path: Path) -> None:
    source = shared / "golden" / "family" / "llava-v1.5-tiny-lora"
    done = convert_checkpoint(source, tmp_path / "merged", layout="original")
    assert done.notes[0].startswith("the adapter was merged with")
    adapter = torch.load(source / "adapter_model.bin", weights_only=True)
    facts = json.loads((source / "adapter_config.json").read_text())
    place = "model.layers.0.self_attn.q_proj"
    down, up = (adapter[f"base_model.model.{place}.lora_{side}.weight"].float() for side in "AB")
    base = stored(source.parent / "llava-v1.5-tiny")[f"{place}.weight"]
    merged = stored(tmp_path / "merged")[f"{place}.weight"]
    expected = base + facts["lora_alpha"] / facts["r"] * (up @ down)
    assert torch.allclose(merged, expected, atol=1e-6)
    assert not torch.allclose(merged, base, atol=1e-4)


def test_a_projector_is_put_into_its_base(shared: Path, tmp_path: Path) -> None:
    family = shared / "golden" / "family"
    source = family / "llava-pretrain-tiny"
    with pytest.raises(CheckpointError, match="base="):
        convert_checkpoint(source, tmp_path / "out", layout="hf")
    assert list(tmp_path.iterdir()) == []
    convert_checkpoint(source, tmp_path / "out", layout="hf", base=family / "llava-v1.5-tiny")
    own = torch.load(source / "mm_projector.bin", weights_only=True)
    written = stored(tmp_path / "out")["multi_modal_projector.linear_2.weight"]
    assert torch.equal(written, own["model.mm_projector.2.weight"])


@pytest.mark.parametrize(
    ("name", "member"), [("llava-v1-tiny", "LLaVA"), ("llava-mini-tiny", "LLaVA-Mini")]
)
def test_members_without_a_class_are_refused(
    shared: Path, tmp_path: Path, name: str, member: str
) -> None:
    source = shared / "golden" / "family" / name
    with pytest.raises(CheckpointError, match=f"no class for {member} ") as refused:
        convert_checkpoint(source, tmp_path / "new" / "out", layout="hf")
    assert "original layout" in refused.value.hint
    assert list(tmp_path.iterdir()) == []
    # Their own layout may be written: .bin files become safetensors.
    convert_checkpoint(source, tmp_path / "out", layout="original")
    assert facts_of(tmp_path / "out") == facts_of(source)


def test_rows_that_mark_pictures_are_the_mean_of_the_others(shared: Path, tmp_path: Path) -> None:
    source = shared / "golden" / "family" / "llava-v1.5-tiny"
    done = convert_checkpoint(source, tmp_path / "hf", layout="hf")
    assert any("384 rows instead of 352: <image> is id 352" in note for note in done.notes)
    before = stored(source)["model.embed_tokens.weight"]
    after = stored(tmp_path / "hf")[EMBEDDING]
    assert after.shape == (6 * 64, 64)  # the multiple of 64 that 352 ids and one more fit into
    assert torch.equal(after[:352], before)
    mean = before.double().mean(0)
    assert torch.allclose(after[352:].double(), mean.expand(32, -1), atol=1e-6)
    assert not torch.allclose(after[352:].double(), before[-1].double(), atol=1e-3)  # no copy
    values = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (values["image_token_index"], values["text_vocab_size"]) == (352, 352)
    again = convert_checkpoint(source, tmp_path / "again", layout="hf")
    assert again.num_tensors == done.num_tensors
    one, other = ((tmp_path / name / "model.safetensors") for name in ("hf", "again"))
    assert one.read_bytes() == other.read_bytes()


def test_a_conversion_of_others_loses_the_rows_it_added(shared: Path, tmp_path: Path) -> None:
    source = shared / "golden" / "family" / "llava-v1.6-tiny"
    convert_checkpoint(source, tmp_path / "hf", layout="hf")
    path = tmp_path / "hf" / "config.json"
    values = json.loads(path.read_text())
    del values["text_vocab_size"]  # llava-hf's files do not say it
    values["pad_token_id"] = 353
    path.write_text(json.dumps(values))
    done = convert_checkpoint(tmp_path / "hf", tmp_path / "back", layout="original")
    assert any(note.startswith("32 rows") for note in done.notes)
    config = read_model_config(tmp_path / "back")
    assert config.text.vocab_size == 352
    assert config.generation.pad_id is None or config.generation.pad_id < 352


def test_a_sentencepiece_model_alone_gets_a_tokenizer_json(shared: Path, tmp_path: Path) -> None:
    family = shared / "golden" / "family"
    source = tmp_path / "llava-v1.6-tiny"
    source.mkdir()
    for path in (family / "llava-v1.6-tiny").iterdir():
        if path.name != "tokenizer.json":
            (source / path.name).symlink_to(path)
    (tmp_path / "openai").symlink_to(family / "openai")  # config.json names its tower
    convert_checkpoint(source, tmp_path / "hf", layout="hf")
    added = json.loads((tmp_path / "hf" / "tokenizer.json").read_text())["added_tokens"]
    assert {one["content"]: one["id"] for one in added}["<image>"] == 352
    text = "<image>\nWhere is the dog?"
    expected = Tokenizer(family / "llava-v1.6-tiny").encode_ids(text)
    assert Tokenizer(tmp_path / "hf").encode_ids(text) == expected


# What follows needs no golden files.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    return write_tiny_checkpoint(folder, seed=3, num_shards=3, dtype="bfloat16")


@pytest.mark.parametrize("shard_bytes", [10**9, 40_000, 1])
def test_a_tiny_model_there_and_back(tiny: Path, tmp_path: Path, shard_bytes: int) -> None:
    told: list[tuple[int, int]] = []
    done = convert_checkpoint(
        tiny,
        tmp_path / "hf",
        layout="hf",
        shard_bytes=shard_bytes,
        progress=lambda *counts: told.append(counts),
    )
    assert told == [(idx, done.num_tensors) for idx in range(1, done.num_tensors + 1)]
    assert done.num_files == len(list((tmp_path / "hf").glob("*.safetensors")))
    convert_checkpoint(tmp_path / "hf", tmp_path / "model", layout="original")
    before, after = stored(tiny), stored(tmp_path / "model")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert facts_of(tmp_path / "model") == facts_of(tiny)
    # 320 rows and 259 ids: there is room, so nothing was appended.
    assert stored(tmp_path / "hf")[EMBEDDING].shape[0] == 320
    values = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (values["image_token_index"], values["video_token_index"]) == (259, 260)


def test_another_dtype_is_written(tiny: Path, tmp_path: Path) -> None:
    done = convert_checkpoint(tiny, tmp_path / "out", layout="hf", dtype=torch.float32)
    tensors = stored(tmp_path / "out")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert done.num_bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert read_model_config(tmp_path / "out").stored_dtype == "float32"
    before = stored(tiny)["model.norm.weight"]
    assert torch.equal(tensors["language_model.model.norm.weight"], before.float())


@pytest.mark.parametrize(
    ("what", "said"), [("file", "out is a file"), ("full folder", "out exists and is not empty")]
)
def test_a_target_that_exists_is_refused_before_anything_is_read(
    tmp_path: Path, what: str, said: str
) -> None:
    target = tmp_path / "out"
    if what == "file":
        target.write_text("mine")
    else:
        (target / "inner").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=said):
        convert_checkpoint("no/such/source", target, layout="hf")


def test_what_the_disk_spoils_is_noticed_and_nothing_stays(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(folder: Path, *arguments: Any) -> dict[str, str]:
        checksums = tensor_files.write_shards(folder, *arguments)
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors["image_newline"][0] += 1
        save_file(tensors, path)
        return checksums

    monkeypatch.setattr(convert, "write_shards", spoiled)
    with pytest.raises(CheckpointError, match=r"1 tensors were .*image_newline"):
        convert_checkpoint(tiny, tmp_path / "new" / "out", layout="hf")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_that_is_stopped_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    def stop(num_done: int, _: int) -> None:
        if num_done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(tiny, tmp_path / "out", layout="hf", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_does_not_fit_together_is_refused(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in tiny.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    values = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"missing: model\.layers\.2\."):
        convert_checkpoint(source, tmp_path / "out", layout="hf")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_tied_head_stays_tied(tmp_path: Path) -> None:
    source = write_tiny_checkpoint(tmp_path / "model", tie_embeddings=True)
    convert_checkpoint(source, tmp_path / "hf", layout="hf")
    assert not any("lm_head" in name for name in stored(tmp_path / "hf"))
    assert read_model_config(tmp_path / "hf").text.tie_embeddings


def test_the_authors_code_finds_the_tower(tmp_path: Path) -> None:
    tiny = write_tiny_checkpoint(tmp_path / "tiny", member="LLaVA-1.5", layout="hf")
    convert_checkpoint(tiny, tmp_path / "out", layout="original")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["unfreeze_mm_vision_tower"] is True
