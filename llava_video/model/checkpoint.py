"""A checkpoint folder → a model on its device, and back. Strict: every tensor is accounted for.

The model is built without memory; then each shard is mapped, its tensors are copied to their device
in the asked dtype, and the shard is let go. Main memory therefore holds at most the weights that
stay in it and one mapped shard. A weight that is to be quantised is quantised on its device as soon
as it is there, so a device holds at most one of them plain. Knows no prompt and no video.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from llava_video.errors import CapacityError, CheckpointError
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.export import (
    DEFAULT_SHARD_BYTES,
    TOKENIZER_FILES,
    write_checkpoint,
)
from llava_video.model.llava import LlavaModel
from llava_video.model.memory import is_out_of_memory
from llava_video.model.model_config import FileFormat, ModelConfig
from llava_video.model.names import (
    is_head,
    is_ignored,
    likeliest_names,
    our_names,
    parameter_shapes,
)
from llava_video.model.placement import place
from llava_video.model.quantize import (
    QuantLinear,
    WeightKernel,
    format_of,
    quantise_decoder,
    report,
)
from llava_video.model.shards import Shard, find_shards, shortened
from llava_video.ops.attention import AttentionKind
from llava_video.values import WeightFormat

_log = logging.getLogger(__name__)

_FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class TensorMap:
    """Which tensor of which shard becomes which parameter.

    Attributes:
        dimensions: the model's sizes; the head is tied when the files hold none.
        ours: the file's name → our name, without the tensors that are ignored.
    """

    dimensions: ModelDimensions
    ours: dict[str, str]


def load_model(
    folder: str | Path,
    *,
    config: ModelConfig,
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
        folder: holds one safetensors file, or an index and its shards, in any known spelling.
        config: from `read_model_config`, perhaps changed by `with_overrides`.
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
    shards = find_shards(folder)
    given = dict(extra or {})
    tensor_map = match_tensors(shards, config.dimensions, given)
    dtype = dtype or _stored_dtype(config)
    with torch.device("meta"):
        model = LlavaModel(tensor_map.dimensions, attn=attn)
        quantise_decoder(model, weights, kernel=weight_kernel)
    device_of = place(model, device, dtype)
    try:
        for idx, shard in enumerate(shards):
            _load_shard(model, shard, tensor_map.ours, device_of, dtype)
            if progress:
                progress(idx + 1, len(shards))
        for name, tensor in given.items():
            _assign(model, name, tensor, device_of(name), dtype)
    except (MemoryError, RuntimeError) as cause:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(cause):
            raise
        raise CapacityError(
            f"{folder} does not fit on {device}: {cause}.",
            "use int8 or int4 weights, a smaller checkpoint, dtype='bfloat16', or a device with "
            "more memory.",
        ) from cause
    report(model)
    return model.eval()


def match_tensors(
    shards: Sequence[Shard], dimensions: ModelDimensions, given: Mapping[str, Tensor] | None = None
) -> TensorMap:
    """Find the parameter of every tensor, before anything is allocated.

    Args:
        shards: what the files hold.
        dimensions: what the configuration says.
        given: parameters that do not come from the files.

    Raises:
        CheckpointError: naming the first few tensors that are missing, unknown, doubled or of a
            wrong shape or dtype.
    """
    given = given or {}
    shapes = {name: shape for shard in shards for name, shape in shard.shapes.items()}
    if not dimensions.text.tie_embeddings and not any(is_head(name) for name in shapes):
        _log.warning("the weights hold no head: the embedding matrix takes its place")
        dimensions = replace(dimensions, text=replace(dimensions.text, tie_embeddings=True))
    expected, known = parameter_shapes(dimensions), our_names(dimensions)
    used = {name: known[name] for name in shapes if name in known and known[name] not in given}
    if dimensions.text.tie_embeddings:
        used = {name: ours for name, ours in used.items() if not is_head(name)}
    lacking = set(expected) - set(used.values()) - set(given)
    spelled = likeliest_names(dimensions, shapes)
    complaints = [
        ("unknown", [n for n in shapes if n not in known and not is_ignored(n, dimensions)]),
        ("missing", [spelled[ours] for ours in expected if ours in lacking]),
        ("doubled", _doubled(used, shards)),
        ("of a wrong shape", _wrong_shapes(used, shapes, expected)),
        ("not floating point", _wrong_dtypes(used, shards)),
    ]
    found = [f"{len(names)} {what}: {shortened(names)}" for what, names in complaints if names]
    if found:
        folder = shards[0].path.parent
        raise CheckpointError(
            f"the weights in {folder} do not fit its config.json. Tensors "
            + "; ".join(found)
            + ".",
            "check that config.json belongs to these weights and that the download is complete.",
        )
    return TensorMap(dimensions=dimensions, ours=used)


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
        CheckpointError: the target is not empty or cannot be written, or the model's weights are
            quantised; nothing is left behind.
    """
    if format_of(model) != "plain":
        raise CheckpointError(
            f"the model's decoder weights are stored as {format_of(model)}, which a checkpoint of "
            "this layout cannot hold.",
            "load it with plain weights and save that; quantising is done again at every load.",
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


def _load_shard(
    model: nn.Module,
    shard: Shard,
    ours: Mapping[str, str],
    device_of: Callable[[str], torch.device],
    dtype: torch.dtype,
) -> None:
    with safe_open(shard.path, framework="pt") as tensors:
        for name in shard.shapes:
            if name in ours:
                mapped = tensors.get_tensor(name)
                _assign(model, ours[name], mapped, device_of(ours[name]), dtype)


def _assign(
    model: nn.Module, name: str, tensor: Tensor, device: torch.device, dtype: torch.dtype
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
    # Always a copy: a view of the mapped file would change or crash with the file.
    copied = tensor.to(device, dtype, copy=True)
    setattr(module, leaf, nn.Parameter(copied, requires_grad=False))


def _stored_dtype(config: ModelConfig) -> torch.dtype:
    dtype = getattr(torch, config.stored_dtype, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CheckpointError(
            f"config.json has torch_dtype = {config.stored_dtype!r}.",
            "pass dtype='bfloat16' or 'float32'.",
        )
    return dtype


def _doubled(used: Mapping[str, str], shards: Sequence[Shard]) -> list[str]:
    counts = Counter(used[name] for shard in shards for name in shard.shapes if name in used)
    return [name for name, ours in used.items() if counts[ours] > 1]


def _wrong_shapes(
    used: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
) -> list[str]:
    return [
        f"{name} is {list(shapes[name])}, config.json means {list(expected[ours])}"
        for name, ours in used.items()
        if shapes[name] != expected[ours]
    ]


def _wrong_dtypes(used: Mapping[str, str], shards: Sequence[Shard]) -> list[str]:
    return [
        f"{name} ({dtype})"
        for shard in shards
        for name, dtype in shard.dtypes.items()
        if name in used and dtype not in _FLOAT_DTYPES
    ]
