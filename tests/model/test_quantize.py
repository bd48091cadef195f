"""Quantised decoders: what is replaced, what it weighs, and what it still answers."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_runs import logits_of
from seeded_models import DIMENSIONS, text_config
from weight_mutants import mutants

from llava_video.errors import BackendMissingError, ConfigError
from llava_video.model import quantize as module
from llava_video.model.checkpoint import load_model
from llava_video.model.dimensions import ModelDimensions, TextConfig, VisionConfig
from llava_video.model.layers import Linear
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.placement import weights_bytes
from llava_video.model.quantize import QuantLinear, format_of, quantise_decoder, report
from llava_video.model.spec import read_spec
from llava_video.ops import dispatch
from llava_video.ops.weight_format import StoredWeight, quantise_weight
from llava_video.planning import memory

FORMATS = ["int8", "int4"]
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LLAVA_VIDEO_7B = ModelDimensions(
    vision=VisionConfig(),
    text=TextConfig(
        hidden_size=3584,
        intermediate_size=18_944,
        num_layers=28,
        num_heads=28,
        num_kv_heads=4,
        head_dim=128,
        vocab_size=152_064,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        max_positions=32_768,
        tie_embeddings=False,
    ),
)


def on_meta(dimensions: ModelDimensions = DIMENSIONS) -> LlavaModel:
    with torch.device("meta"):
        return LlavaModel(dimensions)


def load(folder: Path, weights: str = "plain", **options: object) -> LlavaModel:
    config = read_model_config(folder)
    return load_model(
        folder, config=config, device="cpu", dtype=torch.float32, weights=weights, **options
    )


@pytest.mark.parametrize(
    ("weight_format", "decoder_gb", "all_gb"),
    [("plain", 15.23, 16.06), ("int8", 8.71, 9.54), ("int4", 5.65, 6.48)],
)
def test_bytes_of_the_7b(weight_format, decoder_gb: float, all_gb: float):
    """By hand, per layer: 233,046,016 weights of 49,664 outputs; 28 layers, 2 x 152,064 x 3584.

    int8: 28 x (233,046,016 + 2 x 49,664) + 4 x 152,064 x 3584 = 8.71 GB; int4: half a byte each
    and 4 for every 128.
    """
    model = on_meta(LLAVA_VIDEO_7B)
    quantise_decoder(model, weight_format)
    assert weights_bytes(model.language_model, torch.bfloat16) / 1e9 == pytest.approx(
        decoder_gb, abs=0.005
    )
    assert weights_bytes(model, torch.bfloat16) / 1e9 == pytest.approx(all_gb, abs=0.006)


@pytest.mark.parametrize("weight_format", ["plain", *FORMATS])
def test_the_planner_counts_the_same_bytes(tiny_folder: Path, weight_format):
    spec = read_spec(tiny_folder, dtype="bfloat16")
    model = on_meta(spec.config.dimensions)
    quantise_decoder(model, weight_format)
    planned = memory.weights_bytes(spec.geometry, weight_format)
    assert weights_bytes(model, torch.bfloat16) == planned


@pytest.mark.parametrize("weight_format", FORMATS)
def test_only_the_products_of_the_layers_are_replaced(weight_format):
    model = on_meta()
    names = {name for name, m in model.named_modules() if isinstance(m, Linear)}
    quantise_decoder(model, weight_format)
    left = {name for name, m in model.named_modules() if isinstance(m, Linear)}
    quantised = {name for name, m in model.named_modules() if isinstance(m, QuantLinear)}
    expected = {f"language_model.layers.{i}.{linear}" for i in range(2) for linear in LINEARS}
    assert quantised == expected
    assert left == names - expected
    assert format_of(model) == weight_format
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    layer = model.language_model.layers[0]
    assert layer.q_proj.bias.shape == (48,)
    assert layer.o_proj.bias is None


def test_plain_changes_nothing():
    model = on_meta()
    before = str(model)
    quantise_decoder(model, "plain")
    assert str(model) == before
    assert format_of(model) == "plain"


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="weights = 'int3'") as caught:
        quantise_decoder(on_meta(), "int3")
    assert "'int4'" in caught.value.hint
    odd = ModelDimensions(vision=VisionConfig(), text=text_config(intermediate_size=49))
    with pytest.raises(ConfigError, match="has 49 inputs") as caught:
        quantise_decoder(on_meta(odd), "int4")
    assert "int8" in caught.value.hint


def test_a_layer_takes_a_weight_and_multiplies_by_it():
    weight, bias = torch.randn(6, 64), torch.randn(6)
    layer = QuantLinear(64, 6, bias=True, weight_format="int4")
    assert layer.kernel is None
    layer.bias = torch.nn.Parameter(bias)
    layer.store(weight.bfloat16(), torch.float32)
    assert layer.kernel == "torch"
    assert dict(layer.named_parameters()).keys() == {"bias"}
    x = torch.randn(2, 3, 64)
    expected = x @ quantise_weight(weight.bfloat16(), "int4").plain(torch.float32).T + bias
    assert torch.allclose(layer(x), expected, atol=1e-5)


def dequantised(model: LlavaModel, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Change the decoder's weights of a plain model, in place."""
    for name, parameter in model.language_model.layers.named_parameters():
        if name.split(".")[1] in LINEARS and name.endswith("weight"):
            parameter.data = change(name, parameter.data)


@pytest.fixture(scope="module")
def rows(tiny_folder: Path) -> torch.Tensor:
    """Embeddings of 300 drawn tokens."""
    ids = torch.randint(0, 259, (300,), generator=torch.Generator().manual_seed(0))
    return load(tiny_folder).language_model.embed(ids)


@pytest.fixture(scope="module")
def plain_logits(tiny_folder: Path, rows: torch.Tensor) -> torch.Tensor:
    return logits_of(load(tiny_folder), rows)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_quantised_model_is_the_plain_one_with_its_rounded_weights(
    tiny_folder: Path, rows: torch.Tensor, weight_format
):
    same = load(tiny_folder)
    dequantised(same, lambda _, w: quantise_weight(w, weight_format).plain(torch.float32))
    expected = logits_of(same, rows)
    found = logits_of(load(tiny_folder, weight_format), rows)
    assert ((found - expected).norm() / expected.norm()).item() < 1e-5


def noisy_error(
    folder: Path, rows: torch.Tensor, plain_logits: torch.Tensor, weight_format
) -> float:
    """Relative error of the logits when every weight is off by up to half a step, at random."""
    generator = torch.Generator().manual_seed(5)

    def moved(_: str, weight: torch.Tensor) -> torch.Tensor:
        stored = quantise_weight(weight, weight_format)
        noise = torch.rand(weight.shape, generator=generator) - 0.5
        if weight_format == "int8":
            return weight + noise * stored.scales.float()[:, None]
        steps = stored.scales[..., 0].float().t().repeat_interleave(stored.group_inputs, dim=1)
        return weight + noise * steps

    model = load(folder)
    dequantised(model, moved)
    return relative(logits_of(model, rows), plain_logits)


def relative(logits: torch.Tensor, plain_logits: torch.Tensor) -> float:
    return ((logits - plain_logits).norm() / plain_logits.norm()).item()


@pytest.mark.parametrize("weight_format", FORMATS)
def test_answers_are_as_near_as_steps_of_this_size_allow(
    tiny_folder: Path,
    rows: torch.Tensor,
    plain_logits: torch.Tensor,
    weight_format,
    monkeypatch: pytest.MonkeyPatch,
):
    """The limit is the error of random rounding with the same steps; wrong readings exceed it."""
    limit = 1.25 * noisy_error(tiny_folder, rows, plain_logits, weight_format)
    model = load(tiny_folder, weight_format)
    assert relative(logits_of(model, rows), plain_logits) <= limit
    read = QuantLinear.stored
    for name in mutants(model.language_model.layers[0].q_proj.stored):
        wrong = property(lambda layer, name=name: mutants(read.fget(layer)).get(name))
        monkeypatch.setattr(QuantLinear, "stored", wrong)
        assert relative(logits_of(model, rows), plain_logits) > limit, name


def test_int8_chooses_the_plain_models_token_nearly_always(
    tiny_folder: Path, rows: torch.Tensor, plain_logits: torch.Tensor
):
    """Measured 93 %: the tiny model is drawn, not trained, and many of its choices are close."""
    found = logits_of(load(tiny_folder, "int8"), rows).argmax(dim=-1)
    wanted = plain_logits.argmax(dim=-1)
    assert len(set(wanted.tolist())) > 40  # not one letter over and over
    assert (found == wanted).float().mean().item() > 0.9


class _Cuda:
    """Codes that say that they are on a GPU."""

    is_cuda = True
    device = "cuda:0"


def pretend(weight_format, group: int = 128) -> StoredWeight:
    """A stored weight as `_choose_kernel` sees it, on a GPU that is not there."""

    class Pretended:
        codes = _Cuda()
        group_inputs = group

    found = Pretended()
    found.weight_format = weight_format
    return found


@pytest.mark.parametrize(
    ("weight_format", "dtype", "has_triton", "has_torchao", "kernel"),
    [
        ("int4", torch.bfloat16, True, True, "triton"),
        ("int8", torch.float16, True, False, "triton"),
        ("int4", torch.bfloat16, False, True, "torchao"),
        ("int4", torch.bfloat16, False, False, "torch"),
        ("int4", torch.float16, False, True, "torch"),
        ("int8", torch.bfloat16, False, True, "torch"),
    ],
)
def test_the_product_is_chosen_once_by_what_is_there(
    weight_format, dtype, has_triton, has_torchao, kernel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatch, "IS_TRITON_HERE", has_triton)
    monkeypatch.setattr(module, "IS_TRITON_HERE", has_triton)
    monkeypatch.setattr(module, "group_bytes", lambda _: 64)
    monkeypatch.setattr(module.backends, "version", lambda _: "0.18.0" if has_torchao else None)
    assert module._choose_kernel(pretend(weight_format), dtype, "auto") == kernel


def test_torchao_by_name_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch):
    stored = quantise_weight(torch.ones(8, 128), "int4")
    monkeypatch.setattr(module.backends, "require", lambda _: None)
    with pytest.raises(ConfigError, match=r"int4 weights in torch\.bfloat16 on cpu") as caught:
        module._choose_kernel(stored, torch.bfloat16, "torchao")
    assert "'auto'" in caught.value.hint
    assert module._choose_kernel(pretend("int4"), torch.bfloat16, "torchao") == "torchao"

    def missing(name: str) -> None:
        raise BackendMissingError(f"{name} is not installed.", "install it")

    monkeypatch.setattr(module.backends, "require", missing)
    with pytest.raises(BackendMissingError):
        module._choose_kernel(stored, torch.bfloat16, "torchao")


def test_torchaos_tensor_takes_the_place_of_ours(monkeypatch: pytest.MonkeyPatch):
    weight = torch.randn(6, 128)
    monkeypatch.setattr(module, "_choose_kernel", lambda *_: "torchao")
    monkeypatch.setattr(module, "torchao_weight", lambda stored: stored.plain(torch.float32))
    layer = QuantLinear(128, 6, bias=False, weight_format="int4", kernel="torchao")
    layer.store(weight, torch.float32)
    assert layer.kernel == "torchao"
    assert list(layer.buffers()) == []
    x = torch.randn(3, 128)
    expected = x @ quantise_weight(weight, "int4").plain(torch.float32).T
    assert torch.allclose(layer(x), expected, atol=1e-5)
    with pytest.raises(ValueError, match="torchao holds"):
        _ = layer.stored


def test_what_multiplies_is_logged(tiny_folder: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        load(tiny_folder, "int8")
    assert "int8 weights, multiplied by torch." in caplog.text
    assert "WARNING" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        report(on_meta())
    assert caplog.text == ""
