"""The language model against transformers' Qwen2, Llama and Mistral of the same seeded weights."""

import re
import warnings
from dataclasses import replace

import pytest
import torch
from seeded_models import TEXT, model_of, new_cache, relative_error, run_chunked, text_config

from llava_video.model.dimensions import TextConfig
from llava_video.model.step_rows import Row
from llava_video.ops.frequency_bands import FrequencyBands

BANDS = FrequencyBands(factor=8.0, low_factor=1.0, high_factor=4.0, positions=64)
# Llama, Mistral and Yi have no biases, Qwen1.5 and Qwen2 have; there is no other difference.
LLAMA = text_config(qkv_bias=False, num_heads=4)
FAMILIES = {
    "qwen2": TEXT,
    "qwen2, ungrouped": text_config(num_kv_heads=6),
    "qwen2, one kv head": text_config(num_kv_heads=1),
    "qwen2, tied": text_config(tie_embeddings=True),
    "qwen2, factor 4": text_config(rope_scale=4.0),
    "llama": LLAMA,
    "llama, ungrouped": replace(LLAMA, num_kv_heads=4, rms_norm_eps=1e-5),
    "llama, wide heads": replace(LLAMA, head_dim=12),
    "llama, factor 2": replace(LLAMA, rope_scale=2.0),
    "llama, factor 2.5": replace(LLAMA, rope_scale=2.5, num_kv_heads=4),
    "llama 3.1": replace(LLAMA, rope_bands=BANDS, rope_theta=500.0),
    "llama 3.1, ungrouped and tied": replace(
        LLAMA, rope_bands=BANDS, rope_theta=500.0, num_kv_heads=4, tie_embeddings=True
    ),
    "mistral": text_config(qkv_bias=False, rope_theta=1e6, num_kv_heads=3),
    "mistral, ungrouped": text_config(qkv_bias=False, num_kv_heads=6),
}
THEIRS = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}


def rope_parameters(config: TextConfig) -> dict[str, object]:
    """Say the rotation as transformers does."""
    if config.rope_bands is not None:
        changed: dict[str, object] = {
            "rope_type": "llama3",
            "factor": config.rope_bands.factor,
            "low_freq_factor": config.rope_bands.low_factor,
            "high_freq_factor": config.rope_bands.high_factor,
            "original_max_position_embeddings": config.rope_bands.positions,
        }
    elif config.rope_scale != 1.0:
        changed = {"rope_type": "linear", "factor": config.rope_scale}
    else:
        changed = {"rope_type": "default"}
    return {"rope_theta": config.rope_theta} | changed


def transformers_model(config: TextConfig, family: str = "qwen2"):
    """Build transformers' model with the weights of `model_of(config)`, by name."""
    options = {"sliding_window": None} if family == "mistral" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        config_of = getattr(transformers, f"{THEIRS[family]}Config")
        theirs = getattr(transformers, f"{THEIRS[family]}ForCausalLM")(
            config_of(
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                num_key_value_heads=config.num_kv_heads,
                head_dim=config.head_dim,
                vocab_size=config.vocab_size,
                rms_norm_eps=config.rms_norm_eps,
                rope_parameters=rope_parameters(config),
                max_position_embeddings=config.max_positions,
                tie_word_embeddings=config.tie_embeddings,
                **options,
            )
        ).eval()
    ours = model_of(config).state_dict()
    left = set(ours)
    for name, parameter in theirs.named_parameters():
        short = our_name(name)
        parameter.data.copy_(ours[short])
        left.remove(short)
    assert left == set()
    return theirs


def our_name(name: str) -> str:
    for their_part, our_part in NAMES.items():
        name = name.replace(their_part, our_part)
    return name


NAMES = {
    "model.": "",
    "self_attn.": "",
    "mlp.": "",
    "input_layernorm": "input_norm",
    "post_attention_layernorm": "post_norm",
}


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_equals_transformers(name: str):
    """By both rotations, and not by another base."""
    config, family = FAMILIES[name], re.split(r"\W", name)[0]
    model, ids = model_of(config), torch.arange(40) * 7 % config.vocab_size
    expected = transformers_model(config, family)(input_ids=ids[None]).logits[0]
    logits = model.logits(run_chunked(model, model.embed(ids), [40]))
    assert logits.dtype is torch.float32
    assert (logits - expected).abs().max().item() <= 1e-4
    assert expected.abs().max() > 1.0  # the limit means something
    mutants = [replace(config, rope_theta=config.rope_theta * 2)]
    if config.rope_bands is not None:
        mutants.append(replace(config, rope_bands=None))
        mutants.append(replace(config, rope_bands=None, rope_scale=8.0))
    for mutant in map(model_of, mutants):
        wrong = mutant.logits(run_chunked(mutant, mutant.embed(ids), [40]))
        assert (wrong - expected).abs().max().item() > 1e-2
    model.rope = "compat"
    compat = model.logits(run_chunked(model, model.embed(ids), [25, 15]))
    assert (compat - expected).abs().max().item() <= 1e-4


@torch.inference_mode()
def test_far_positions_equal_transformers_in_compat_mode_alone():
    """At 3,000,000 the reference's float32 angles are off by tenths; compat has the same ones."""
    config, first = FAMILIES["qwen2, factor 4"], 3_000_000
    model, ids, idxs = model_of(config), torch.arange(12), torch.arange(first, first + 12)
    expected = transformers_model(config)(input_ids=ids[None], position_ids=idxs[None]).logits[0]

    def error(mode: str) -> float:
        model.rope, cache = mode, new_cache(model)
        row = Row(0, 12, (), cache.reserve(12).span)
        return relative_error(model.logits(model(model.embed(ids), idxs, [row], cache)), expected)

    assert error("compat") <= 1e-5
    assert error("exact") > 1e-3
