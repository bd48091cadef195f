"""A model and the devices there are → the device of every parameter, layer by layer.

One device takes everything when it has room; several GPUs share the layers through `accelerate`.
What runs as one is never split: a layer, the vision tower, the projector, the fusion.
Nothing is placed on a disk or, beside GPUs, in main memory: that would be too slow to be an answer.
Knows no file.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from llava_video.backends import require
from llava_video.errors import CapacityError

Placement = Callable[[str], torch.device]

# Of one GPU, what weights may take: the rest is for the cache and activations.
ROOM_FOR_WEIGHTS = 0.8

# Classes that run on one device, beside every layer's.
_WHOLE = ("Fusion", "Projector", "VisionTower")


def place(model: nn.Module, device: str | torch.device, dtype: torch.dtype) -> Placement:
    """Return the device of each parameter, by its name.

    Args:
        model: on the meta device.
        device: one device, or "auto": the GPUs there are, else the CPU.
        dtype: the dtype the weights will have that are not quantised.

    Raises:
        CapacityError: the weights do not fit on the GPUs.
    """
    if device != "auto":
        one = torch.device(device)
        return lambda _: one
    num_gpus = torch.cuda.device_count()
    if num_gpus == 0:
        return lambda _: torch.device("cpu")
    free_bytes = {idx: torch.cuda.mem_get_info(idx)[0] for idx in range(num_gpus)}
    fits_one = weights_bytes(model, dtype) <= ROOM_FOR_WEIGHTS * free_bytes[0]
    if num_gpus == 1 or fits_one:
        return lambda _: torch.device("cuda", 0)
    return spread(model, free_bytes, dtype)


def spread(model: nn.Module, free_bytes: Mapping[int, int], dtype: torch.dtype) -> Placement:
    """Share a model's layers among several GPUs, as evenly as they allow, in order.

    Args:
        model: on the meta device.
        free_bytes: GPU index → bytes free on it.
        dtype: the dtype the weights will have that are not quantised.

    Raises:
        CapacityError: the weights do not fit.
    """
    accelerate = require("accelerate")
    layers = {
        type(layer).__name__
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        for layer in module
    }
    whole = sorted({*_WHOLE, *layers})
    balanced = accelerate.utils.get_balanced_memory(
        model, max_memory=dict(free_bytes), no_split_module_classes=whole, dtype=dtype
    )
    found: Mapping[str, int | str] = accelerate.infer_auto_device_map(
        model, max_memory=balanced, no_split_module_classes=whole, dtype=dtype
    )
    if any(isinstance(where, str) for where in found.values()):
        need_bytes, have_bytes = weights_bytes(model, dtype), sum(free_bytes.values())
        raise CapacityError(
            f"the weights take {need_bytes / 2**30:.1f} GiB, {len(free_bytes)} GPUs have "
            f"{have_bytes / 2**30:.1f} GiB free.",
            "use int8 or int4 weights, a smaller checkpoint or more GPUs, or device='cpu'.",
        )
    devices = {name: torch.device("cuda", int(where)) for name, where in found.items()}
    return lambda name: _nearest(name, devices)


def weights_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """Return the bytes of all parameters in a dtype, and of quantised weights as they are."""
    plain_bytes = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    return plain_bytes + sum(buffer.numel() * buffer.itemsize for buffer in model.buffers())


def _nearest(name: str, devices: Mapping[str, torch.device]) -> torch.device:
    """Return the device of the module a parameter is in: the longest prefix that was placed."""
    while name not in devices:
        name = name.rpartition(".")[0]
    return devices[name]
