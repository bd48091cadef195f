"""Weights in pieces load as the formula of their merging says, tensor by tensor."""

import shutil
from pathlib import Path

import overlay_cases as cases
import pytest
import torch
from torch import Tensor

from llava_video.errors import CheckpointError
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.names import our_names
from llava_video.model.sources import find_sources


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "base"))


def load(folder: Path, **options: object) -> LlavaModel:
    sources = find_sources(
        folder, **{k: options.pop(k) for k in ("base", "vision_tower") if k in options}
    )
    config = read_model_config(sources.config_folder)
    return load_model(sources, config=config, device="cpu", **options)


def by_our_names(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    known = our_names(read_model_config(folder).dimensions)
    return {known[name]: tensor for name, tensor in tensors.items() if name in known}


def assert_loaded(model: LlavaModel, expected: dict[str, Tensor]) -> None:
    found = dict(model.named_parameters())
    assert set(found) == set(expected)
    assert [n for n, tensor in found.items() if not torch.equal(tensor, expected[n])] == []


def test_pickled_weights_equal_the_safetensors(base: Path):
    expected = by_our_names(base, cases.stored(base))
    names = sorted(cases.stored(base))
    for idx, part in enumerate((names[::2], names[1::2]), 1):
        tensors = {name: cases.stored(base)[name] for name in part}
        torch.save(tensors, base / f"pytorch_model-{idx:05}-of-00002.bin")
    index = {n: f"pytorch_model-{1 + i % 2:05}-of-00002.bin" for i, n in enumerate(names)}
    (base / "pytorch_model.bin.index.json").write_text(str({"weight_map": index}).replace("'", '"'))
    (base / "model.safetensors").unlink()
    seen: list[tuple[int, int]] = []
    assert_loaded(load(base, progress=lambda *done: seen.append(done)), expected)
    assert seen == [(1, 2), (2, 2)]


def test_a_tower_apart_is_put_in_place(tiny_folder: Path, tmp_path: Path):
    apart = cases.write_tower_apart(tiny_folder, tmp_path / "apart")
    assert_loaded(load(apart), by_our_names(tiny_folder, cases.stored(tiny_folder)))
    moved = (tmp_path / "owner" / "tower").rename(tmp_path / "tower")
    assert_loaded(
        load(apart, vision_tower=moved), by_our_names(tiny_folder, cases.stored(tiny_folder))
    )


def test_the_tower_in_the_checkpoint_is_not_replaced_by_the_one_it_names(
    tiny_folder: Path, tmp_path: Path
):
    cases.write_tower_apart(tiny_folder, tmp_path / "apart")
    tuned = {n: t + 1 if cases.TOWER in n else t for n, t in cases.stored(tiny_folder).items()}
    folder = cases.write_model(
        tiny_folder, tmp_path / "tuned", tuned, mm_vision_tower="owner/tower"
    )
    assert_loaded(load(folder), by_our_names(folder, tuned))


def adapter_and_expected(
    base: Path, target: Path, **changed: object
) -> tuple[Path, dict[str, Tensor]]:
    """Return an adapter over two weights, with a projector beside it, and its merged weights."""
    pairs = {
        cases.Q_PROJ: cases.low_rank(4, 64, 64, 1),
        cases.DOWN_PROJ: cases.low_rank(4, 64, 128, 2),
    }
    beside = {"model.mm_projector.0.bias": torch.full((64,), 3.0)}
    folder = cases.write_adapter(base, target, pairs, beside, **changed)
    merged = cases.stored(base) | beside
    for module, (down, up) in pairs.items():
        weight = merged[f"{module}.weight"]
        merged[f"{module}.weight"] = (weight.double() + 2 * up.double() @ down.double()).float()
    return folder, merged


def test_an_adapter_is_merged_while_its_base_streams(base: Path, tmp_path: Path):
    folder, merged = adapter_and_expected(base, tmp_path / "adapter")
    found = dict(load(folder).named_parameters())
    expected = by_our_names(base, merged)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-6, rtol=1e-6)
    # A scale of r / alpha, or the pair in the wrong order, is another matrix.
    plain = by_our_names(base, cases.stored(base))
    name = "language_model.layers.0.q_proj.weight"
    difference = expected[name] - plain[name]
    assert (found[name] - (plain[name] + difference / 4)).abs().max() > 1
    assert (found[name] - (plain[name] + difference.T)).abs().max() > 1


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_merged_weight_is_what_gets_quantised(base: Path, tmp_path: Path, weights: str):
    folder, merged = adapter_and_expected(base, tmp_path / "adapter")
    whole = cases.write_model(base, tmp_path / "merged", merged)
    found = load(folder, weights=weights).state_dict()
    expected = load(whole, weights=weights).state_dict()
    assert set(found) == set(expected)
    codes = [n for n, t in expected.items() if not t.is_floating_point()]
    same = [torch.mean((found[n] == expected[n]).float()) for n in codes]
    assert codes
    assert min(same) > 0.99  # a code may fall on the other side of a rounding
    plain = load(base, weights=weights).state_dict()
    changed = [n for n in codes if "layers.0.q_proj" in n]
    assert changed
    assert all(torch.mean((plain[n] == expected[n]).float()) < 0.5 for n in changed)


def test_a_projector_goes_over_its_base(base: Path, tmp_path: Path):
    tensors = {
        name: torch.full_like(tensor, 7.0)
        for name, tensor in cases.stored(base).items()
        if name.startswith(cases.PROJECTOR)
    }
    folder = cases.write_projector(base, tmp_path / "projector", tensors)
    assert_loaded(load(folder), by_our_names(base, cases.stored(base) | tensors))


def test_a_projector_over_a_language_model_and_a_tower(tiny_folder: Path, tmp_path: Path):
    """The base has neither projector nor tower: they come from the overlay and the named folder."""
    apart = cases.write_tower_apart(tiny_folder, tmp_path / "apart")
    whole = cases.stored(tiny_folder)
    language = {
        n: t
        for n, t in whole.items()
        if n.startswith(("model.layers", "model.norm", "lm_h", "model.emb"))
    }
    llama = cases.write_model(tiny_folder, tmp_path / "llama", language)
    rest = {n: t for n, t in cases.stored(apart).items() if n not in language}
    folder = cases.write_projector(
        llama, tmp_path / "projector", rest, mm_vision_tower="owner/tower"
    )
    assert_loaded(load(folder), by_our_names(tiny_folder, whole))


def test_rows_of_marks_complete_the_vocabulary(base: Path, tmp_path: Path):
    """Two marks were added to the base's vocabulary; their rows came with the projector."""
    rows = torch.arange(128.0).reshape(2, 64)
    whole = cases.stored(base)
    num_rows = len(whole[cases.EMBEDDING])
    folder = cases.write_projector(
        base, tmp_path / "projector", {cases.EMBEDDING: rows}, vocab_size=num_rows + 2
    )
    found = dict(load(folder).named_parameters())
    embedding = found["language_model.embed_tokens.weight"]
    assert torch.equal(embedding, torch.cat([whole[cases.EMBEDDING], rows]))
    head = found["language_model.lm_head.weight"]
    assert torch.equal(head[:num_rows], whole[cases.HEAD])
    assert torch.equal(head[num_rows:], whole[cases.HEAD].mean(0).expand(2, -1))


def test_a_delta_and_its_base_make_the_target(base: Path, tmp_path: Path):
    """The target has two rows more than LLaMA, which the delta holds whole."""
    target = {n: t.half() for n, t in cases.stored(base).items()}
    for name in (cases.EMBEDDING, cases.HEAD):
        target[name] = torch.cat([target[name], torch.ones(2, 64).half()])
    language = {
        n: t
        for n, t in cases.stored(base).items()
        if n.startswith(("model.layers", "model.norm", "lm_h", "model.emb"))
    }
    llama = {n: (0.5 * t).half() for n, t in language.items()}  # half of it: exact differences
    llama[cases.NORM] = target[cases.NORM] - 2**-7  # a delta is told by its small norm
    delta = dict(target)
    for name, tensor in llama.items():
        delta[name] = target[name].clone()
        delta[name][: len(tensor)] -= tensor
    num_rows = len(target[cases.HEAD])
    folder = cases.write_model(
        base, tmp_path / "tiny-delta", delta, vocab_size=num_rows, torch_dtype="float16"
    )
    cases.write_model(base, tmp_path / "llama", llama)
    model = load(folder, base="llama", dtype=torch.float32)
    assert_loaded(model, by_our_names(folder, {n: t.float() for n, t in target.items()}))
    with pytest.raises(CheckpointError, match="differences to another model"):
        load(folder)


def test_an_adapter_for_another_member_says_so(base: Path, tmp_path: Path):
    folder, _ = adapter_and_expected(base, tmp_path / "adapter")
    torch.save(
        {"base_model.model.model.compressor.query": torch.zeros(1, 32)},
        folder / "non_lora_trainables.bin",
    )
    with pytest.raises(
        CheckpointError, match=r"1 unknown: base_model\.model\.model\.compressor"
    ) as e:
        load(folder)
    assert "those of LLaVA-Mini" in e.value.hint
    assert f"{folder} over {base}" in e.value.message
