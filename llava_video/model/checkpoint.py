"""A checkpoint's folders → a model on its device, and back. Strict: every tensor is accounted for.

The model is built without memory; then each shard is mapped, its tensors are copied to their device
in the asked dtype, and the shard is let go. Main memory therefore holds at most the weights that
stay in it and one mapped shard; of an overlay, one of the base and one of its own. A weight that is
to be quantised is merged and quantised on its device as soon as it is there, so a device holds at
most one of them plain. An adapter is merged, or put beside weights that are loaded already. Knows
no prompt and no video.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from llava_video.errors import CapacityError, CheckpointError
from llava_video.model.adapters import is_beside
from llava_video.model.changes import Change, LowRank
from llava_video.model.export import (
    DEFAULT_SHARD_BYTES,
    TOKENIZER_FILES,
    write_checkpoint,
)
from llava_video.model.llava import LlavaModel
from llava_video.model.low_rank import has_change_beside, put_beside
from llava_video.model.matching import Part, match_tensors
from llava_video.model.memory import is_out_of_memory
from llava_video.model.model_config import FileFormat, ModelConfig
from llava_video.model.placement import place
from llava_video.model.quantize import (
    QuantLinear,
    WeightKernel,
    format_of,
    quantise_decoder,
    report,
)
from llava_video.model.shards import ShardReader
from llava_video.model.sources import Sources, find_sources
from llava_video.model.weights import open_weights
from llava_video.ops.attention import AttentionKind
from llava_video.values import WeightFormat


def load_model(
    folder: str | Path | Sources,
    *,
    config: ModelConfig,
    base: str | Path | None = None,
    vision_tower: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
    extra: Mapping[str, Tensor] | None = None,
    attn: AttentionKind = "sdpa",
    weights: WeightFormat = "plain",
    weight_kernel: WeightKernel = "auto",
) -> LlavaModel:
    """Load a checkpoint's weights.

    Args:
        folder: holds safetensors or `.bin` weights in any known spelling, an adapter, a projector
            or a delta; or what `find_sources` found of it.
        config: from `read_model_config`, perhaps changed by `with_overrides`.
        base: as `find_sources`.
        vision_tower: as `find_sources`.
        device: one device, or "auto": the GPUs there are, sharing the layers where one is too
            small, else the CPU.
        dtype: of the weights on the device; None for the dtype they are stored in.
        progress: called after each shard with (shards done, shards in all).
        extra: parameters by our name that the files lack, {"separator": (hidden,)}.
        attn: the language model's attention, "sdpa" or "flash".
        weights: how the decoder's linear layers are stored: "plain", "int8" or "int4", quantised
            from the numbers in the files.
        weight_kernel: what multiplies quantised weights: "auto", or "torchao" (int4 in bfloat16 on
            a GPU).

    Returns:
        The model in evaluation mode, its parameters without gradients.

    Raises:
        CheckpointError: files missing or damaged, tensors missing, unknown or of wrong shape, or
            weights to quantise that are not finite.
        CapacityError: the device has no room for the weights.
        BackendMissingError: attn="flash" or weight_kernel="torchao" without their package.
        ConfigError: another format of weights, or one that these layers or the kernel cannot have.
    """
    if not isinstance(folder, Sources):
        folder = find_sources(folder, base=base, vision_tower=vision_tower)
    given = dict(extra or {})
    source = open_weights(folder, config.dimensions)
    tensor_map = match_tensors(source, config.dimensions, given)
    dtype = dtype or _stored_dtype(config)
    with torch.device("meta"):
        model = LlavaModel(tensor_map.dimensions, attn=attn)
        quantise_decoder(model, weights, kernel=weight_kernel)
    device_of = place(model, device, dtype)
    try:
        with contextlib.closing(source.change) as change:
            merged, beside = _divided(change, weights, is_merged=folder.is_merged)
            for idx, part in enumerate(tensor_map.parts):
                _load_part(model, part, merged, device_of, dtype)
                if progress:
                    progress(idx + 1, len(tensor_map.parts))
            if isinstance(change, LowRank):
                put_beside(model, beside, change.read, change.scale)
        for name, tensor in given.items():
            _assign(model, name, tensor, device_of(name), dtype)
    except (MemoryError, RuntimeError) as cause:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(cause):
            raise
        raise CapacityError(
            f"{source.place} does not fit on {device}: {cause}.",
            "use int8 or int4 weights, a smaller checkpoint, dtype='bfloat16', or a device with "
            "more memory.",
        ) from cause
    report(model)
    return model.eval()


def save_model(
    model: LlavaModel,
    folder: str | Path,
    *,
    config: ModelConfig,
    layout: FileFormat = "original",
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    tokenizer_from: str | Path | None = None,
) -> Path:
    """Write a model as a checkpoint that this library and others load.

    Args:
        model: its parameters are written in their own dtype, bit by bit.
        folder: the target; must not exist, or be empty.
        config: of the checkpoint the model came from.
        layout: "original" (lmms-lab) or "hf" (llava-hf, transformers 4.45 and newer).
        shard_bytes: largest size of one file.
        tokenizer_from: a folder whose tokenizer files are copied along.

    Returns:
        The folder.

    Raises:
        CheckpointError: the target is not empty or cannot be written, the model's weights are
            quantised, or an adapter stands beside them; nothing is left behind.
    """
    if format_of(model) != "plain":
        raise CheckpointError(
            f"the model's decoder weights are stored as {format_of(model)}, which a checkpoint of "
            "this layout cannot hold.",
            "load it with plain weights and save that; quantising is done again at every load.",
        )
    if has_change_beside(model):
        raise CheckpointError(
            "an adapter stands beside the model's weights, which a checkpoint cannot hold.",
            "load it merged (merge_adapter=True), or use `llava-video convert`.",
        )
    tensors = dict(model.named_parameters())
    is_tied = "language_model.lm_head.weight" not in tensors
    text = replace(config.text, tie_embeddings=is_tied)
    names = replace(config, dimensions=replace(config.dimensions, text=text))
    source = Path(tokenizer_from) if tokenizer_from is not None else None
    files = {
        name: (source / name).read_bytes()
        for name in TOKENIZER_FILES
        if source is not None and (source / name).is_file()
    }
    return write_checkpoint(
        folder, tensors=tensors, config=names, layout=layout, shard_bytes=shard_bytes, files=files
    )


def _divided(change: Change, weights: WeightFormat, *, is_merged: bool) -> tuple[Change, list[str]]:
    """Return what of a change is merged, and the weights that another part stands beside."""
    if is_merged or not isinstance(change, LowRank):
        return change, []
    if change.rounded == weights:  # quantised from the files' own numbers, as in training
        change = replace(change, rounded="plain")
    beside = [ours for ours in change.pairs if is_beside(ours)]
    return change.without(beside), beside


def _load_part(
    model: nn.Module,
    part: Part,
    change: Change,
    device_of: Callable[[str], torch.device],
    dtype: torch.dtype,
) -> None:
    with ShardReader() as reader:
        for name, ours in part.ours.items():
            device = device_of(ours)
            mapped = reader.read(part.shard, name)
            changed = change.apply(ours, mapped, device)
            _assign(model, ours, changed, device, dtype, is_mapped=changed is mapped)
            del mapped, changed  # the next tensor is made beside none


def _assign(
    model: nn.Module,
    name: str,
    tensor: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    *,
    is_mapped: bool = True,
) -> None:
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    if isinstance(module, QuantLinear) and leaf == "weight":
        try:
            module.store(tensor.to(device), dtype)
        except ValueError as cause:
            raise CheckpointError(
                f"{name} cannot be quantised: {cause}",
                "check the file, or load it with plain weights.",
            ) from cause
        return
    # Never a view of the mapped file: it would change or crash with the file.
    own = tensor.to(device, dtype, copy=is_mapped)
    setattr(module, leaf, nn.Parameter(own, requires_grad=False))


def _stored_dtype(config: ModelConfig) -> torch.dtype:
    dtype = getattr(torch, config.stored_dtype, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CheckpointError(
            f"config.json has torch_dtype = {config.stored_dtype!r}.",
            "pass dtype='bfloat16' or 'float32'.",
        )
    return dtype
