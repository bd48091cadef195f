"""Random models of any size → ours and transformers' over the very same parameter tensors.

So that two implementations are compared with equal weights and one copy of them in memory. The
tensors are drawn once, put into our modules, and put again under transformers' names.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llava_video.model.export import config_values
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import ModelConfig, parse_model_config
from llava_video.model.names import file_names
from llava_video.model.tiny import draw_tensors
from llava_video.model.tower_config import SO400M

# Qwen2-0.5B with SigLIP so400m: LLaVA-OneVision 0.5B.
HALF_B: dict[str, Any] = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}
# Qwen2-7B with SigLIP so400m: LLaVA-Video-7B and LLaVA-OneVision-7B.
SEVEN_B: dict[str, Any] = {
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152_064,
    "tie_word_embeddings": False,
}
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "tie_word_embeddings": False,
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
    },
}


def onevision_config(sizes: Mapping[str, Any]) -> ModelConfig:
    """Return LLaVA-OneVision's configuration with these sizes: one newline after the clip."""
    tile_px = sizes.get("vision_config", {}).get("image_size", 384)
    sides_px = [tile_px * count for count in range(1, 7)]
    return parse_model_config(
        {
            "architectures": ["LlavaQwenForCausalLM"],
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "max_position_embeddings": 32_768,
            "bos_token_id": 256,
            "eos_token_id": 258,
            "image_aspect_ratio": "anyres_max_9",
            "image_grid_pinpoints": [[a, b] for a in sides_px for b in sides_px],
            "mm_vision_tower": SO400M,
            "mm_projector_type": "mlp2x_gelu",
            "mm_patch_merge_type": "spatial_unpad",
            "mm_newline_position": "one_token",
            "tokenizer_model_max_length": 32_768,
            "torch_dtype": "float32",
            **sizes,
        }
    )


def twins(config: ModelConfig, *, seed: int = 0, device: str = "cpu") -> tuple[LlavaModel, Any]:
    """Draw random weights; return our model and transformers', which share every tensor.

    Args:
        config: from `onevision_config`.
        seed: of the draw.
        device: where they are drawn and stay.
    """
    tensors = draw_tensors(config.dimensions, seed, torch.float32, device)
    with torch.device("meta"):
        ours = LlavaModel(config.dimensions)
    ours.load_state_dict(tensors, assign=True)
    ours.requires_grad_(False)
    shared = dict(ours.named_parameters())
    return ours.eval(), transformers_twin(config, shared)


def transformers_twin(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Any:
    """Return transformers' model over these tensors, named as ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    transformers.logging.set_verbosity_error()
    values = config_values(config, "hf", tensors)
    hf_config = transformers.LlavaOnevisionConfig.from_dict(values)
    with torch.device("meta"):
        theirs = transformers.LlavaOnevisionForConditionalGeneration(hf_config)
    names = file_names(config.dimensions, "hf_memory")
    state = {names[ours]: tensor for ours, tensor in tensors.items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False, assign=True)
    # Their tower ends with a norm whose output nothing uses; the head may be the embedding.
    lacking = [name for name in missing if "post_layernorm" not in name and "lm_head" not in name]
    if lacking or unexpected:
        raise ValueError(f"transformers names its parameters otherwise: {lacking}, {unexpected}.")
    theirs.tie_weights()
    _fill_rest(theirs)
    theirs.to(next(iter(tensors.values())).device)  # what was filled; the tensors are there
    return theirs.eval().requires_grad_(False)


def _fill_rest(model: Any) -> None:
    """Give what is still without memory its value: unused norms, and buffers made from sizes."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                setattr(module, name, nn.Parameter(torch.ones(parameter.shape)))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if not buffer.is_meta:
                continue
            if name == "position_ids":
                module.position_ids = torch.arange(buffer.shape[-1]).expand(buffer.shape)
            elif name in ("inv_freq", "original_inv_freq"):
                fresh = type(module)(module.config)
                setattr(module, name, getattr(fresh, name))
            else:
                raise ValueError(f"transformers has a buffer this benchmark does not know: {name}.")
