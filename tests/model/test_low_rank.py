"""An adapter beside the weights answers as one that is merged, and as PEFT's own model does."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import overlay_cases as cases
import pytest
import torch
from model_runs import greedy, logits_of
from torch import Tensor

from llava_video.errors import CheckpointError
from llava_video.model.checkpoint import load_model, save_model
from llava_video.model.layers import Linear
from llava_video.model.llava import LlavaModel
from llava_video.model.low_rank import LowRankLinear, has_change_beside
from llava_video.model.model_config import read_model_config
from llava_video.model.quantize import QuantLinear
from llava_video.model.sources import Sources, find_sources
from llava_video.model.tiny import write_tiny_checkpoint

IDS = torch.arange(40, 64)


def loaded(sources: Sources, *, is_merged: bool, **options: object) -> LlavaModel:
    sources = dataclasses.replace(sources, is_merged=is_merged)
    config = read_model_config(sources.config_folder)
    return load_model(sources, config=config, device="cpu", dtype=torch.float32, **options)


def text_logits(model: LlavaModel) -> Tensor:
    return logits_of(model, model.language_model.embed(IDS))


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Sources:
    """Return an adapter of two of the decoder's weights and one of the projector's."""
    width = read_model_config(tiny_folder).vision.hidden_size
    pairs = {
        cases.Q_PROJ: cases.low_rank(4, 64, 64, 1),
        cases.DOWN_PROJ: cases.low_rank(4, 64, 128, 2),
        "model.mm_projector.0": cases.low_rank(4, 64, width, 3),
    }
    small = {module: (down / 8, up / 8) for module, (down, up) in pairs.items()}
    return find_sources(
        tiny_folder, adapter=cases.write_adapter(tiny_folder, tmp_path / "adapter", small)
    )


@pytest.mark.parametrize("has_gradients", [False, True])
def test_the_layer_is_its_formula(has_gradients: bool):
    draw = torch.Generator().manual_seed(0)
    linear = Linear(6, 5)
    weight, bias, down, up, x = (
        torch.randn(shape, generator=draw) for shape in ((5, 6), (5,), (2, 6), (5, 2), (3, 4, 6))
    )
    linear.load_state_dict({"weight": weight, "bias": bias})
    linear.requires_grad_(False)
    layer = LowRankLinear(linear, down, up, 3.0)
    with torch.set_grad_enabled(has_gradients):
        found = layer(x)
    expected = torch.einsum("...i,oi->...o", x, weight + 3.0 * up @ down) + bias
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    # The change counts three times, and the bias stands outside of it.
    once = torch.einsum("...i,oi->...o", x, weight + up @ down) + bias
    assert (found - once).abs().max() > 0.1


def test_beside_is_merged(adapter: Sources, tiny_folder: Path):
    merged, beside = loaded(adapter, is_merged=True), loaded(adapter, is_merged=False)
    plain = load_model(tiny_folder, config=read_model_config(tiny_folder), device="cpu")
    expected = text_logits(merged)
    assert (text_logits(beside) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (text_logits(plain) - expected).abs().max() > 0.01 * expected.abs().max()
    assert torch.equal(merged.projector.linear1.weight, beside.projector.linear1.weight)
    found = [n for n, m in beside.named_modules() if isinstance(m, LowRankLinear)]
    assert found == ["language_model.layers.0.q_proj", "language_model.layers.1.down_proj"]
    assert not has_change_beside(merged)
    rows = plain.language_model.embed(IDS)  # a token at a time through the cache, too
    assert greedy(beside, rows, 8) == greedy(merged, rows, 8)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_beside_quantised_weights_the_change_keeps_its_numbers(
    adapter: Sources, tiny_folder: Path, weights: str
):
    """W' + s B A: the codes are the base's, and nothing of the change is rounded to them."""
    config = read_model_config(tiny_folder)
    beside = loaded(adapter, is_merged=False, weights=weights)
    base = load_model(tiny_folder, config=config, device="cpu", weights=weights)
    by_hand = loaded(adapter, is_merged=True)
    plain = load_model(tiny_folder, config=config, device="cpu")
    for name, module in base.named_modules():
        if isinstance(module, QuantLinear):
            merged = by_hand.get_submodule(name).weight
            merged.data += module.stored.plain(torch.float32) - plain.get_submodule(name).weight
    expected = text_logits(by_hand)
    assert (text_logits(beside) - expected).abs().max() <= 1e-5 * expected.abs().max()
    own, other = beside.state_dict(), base.state_dict()
    key = "language_model.layers.0.q_proj"
    assert torch.equal(own[f"{key}.linear.codes"], other[f"{key}.codes"])
    # Merged before it is quantised, it is another model.
    merged_first = loaded(adapter, is_merged=True, weights=weights)
    assert (text_logits(merged_first) - expected).abs().max() > 1e-3


def test_a_change_beside_the_weights_is_not_saved_as_a_checkpoint(adapter: Sources, tmp_path: Path):
    config = read_model_config(adapter.config_folder)
    with pytest.raises(CheckpointError, match="stands beside"):
        save_model(loaded(adapter, is_merged=False), tmp_path / "saved", config=config)


def test_the_recorded_adapter_beside_its_base(shared: Path):
    family = shared / "golden" / "family"
    golden = np.load(family / "cases" / "llava15_lora.npz")
    pixels = np.load(family / "cases" / "llava15_image.npz")["pixel_values"]
    sources = find_sources(family / "llava-v1.5-tiny", adapter=family / "llava-v1.5-tiny-lora")
    found = []
    for is_merged in (True, False):
        model = loaded(sources, is_merged=is_merged)
        ids = golden["input_ids"]
        (mark,) = np.flatnonzero(ids == -200)
        before, after = (
            model.language_model.embed(torch.from_numpy(part))
            for part in np.split(ids, [mark, mark + 1])[::2]
        )
        rows = torch.cat([before, model.encode(torch.from_numpy(pixels)[None])[0], after])
        found.append(logits_of(model, rows)[-16:])
        assert np.abs(found[-1].numpy() - golden["logits_last16"]).max() <= 1e-4
        assert greedy(model, rows, 16) == golden["greedy_ids"].tolist()
    assert (found[0] - found[1]).abs().max() <= 1e-5 * found[0].abs().max()


@pytest.fixture(scope="module")
def peft_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a llava-hf checkpoint, PEFT's own adapter over it, and the logits PEFT's model gives.

    It changes decoder and tower, with the scale of rank-stabilised LoRA; all of it is drawn.
    """
    peft = pytest.importorskip("peft")
    import transformers

    folder = tmp_path_factory.mktemp("peft")
    write_tiny_checkpoint(folder / "base", member="LLaVA-OneVision", layout="hf")
    kind = transformers.LlavaOnevisionForConditionalGeneration
    peer = kind.from_pretrained(folder / "base", dtype=torch.float32)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        target_modules=["q_proj", "v_proj", "down_proj", "fc1"],
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(peer, config).eval()
    wrapped.save_pretrained(folder / "adapter")
    with torch.no_grad():
        theirs = wrapped(input_ids=IDS[None]).logits[0]
        picture = torch.randn(1, 3, *[peer.config.vision_config.image_size] * 2)
        tower = wrapped.base_model.model.model.vision_tower
        features = tower(picture, output_hidden_states=True).hidden_states[-1]
    torch.save({"logits": theirs, "picture": picture, "features": features}, folder / "theirs.pt")
    return folder


@pytest.mark.parametrize("is_merged", [True, False])
def test_an_adapter_of_peft_gives_the_logits_of_peft(peft_folder: Path, is_merged: bool):
    theirs = torch.load(peft_folder / "theirs.pt")
    assert not (peft_folder / "adapter" / "config.json").exists()
    sources = find_sources(peft_folder / "base", adapter=peft_folder / "adapter")
    model = loaded(sources, is_merged=is_merged)
    ours, expected = text_logits(model), theirs["logits"][:, : model.dimensions.text.vocab_size]
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
    with torch.no_grad():
        features = model.vision_tower(theirs["picture"])
    assert (features - theirs["features"]).abs().max() <= 1e-4
    base = find_sources(peft_folder / "base")
    without = load_model(base, config=read_model_config(base.folder), device="cpu")
    assert (text_logits(without) - expected).abs().max() > 0.05 * expected.abs().max()


def test_a_rank_that_is_not_the_files_is_refused(peft_folder: Path, tmp_path: Path):
    folder = Path(shutil.copytree(peft_folder / "adapter", tmp_path / "adapter"))
    path = folder / "adapter_config.json"
    path.write_text(path.read_text().replace('"r": 4', '"r": 8'))
    with pytest.raises(CheckpointError, match="are of another size") as caught:
        loaded(find_sources(peft_folder / "base", adapter=folder), is_merged=False)
    assert "belong together" in caught.value.hint
