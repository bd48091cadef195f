"""The decoder's linear layers with weights stored as int8 or int4, in place of plain ones.

Only the seven products of each decoder layer: they are 81 % of a 7B's weights and all of what a
generated token reads but the head. Tower, projector, embeddings, head, norms and biases stay as
they are. Knows no file.
"""

import logging
from typing import Final, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from llava_video import backends
from llava_video.errors import ConfigError
from llava_video.model.layers import Linear
from llava_video.model.llava import LlavaModel
from llava_video.ops.dequantise_weight import group_bytes
from llava_video.ops.dispatch import IS_TRITON_HERE, uses_triton
from llava_video.ops.quant_linear import quant_linear
from llava_video.ops.torchao_linear import suits_torchao, torchao_weight
from llava_video.ops.weight_format import (
    QuantisedFormat,
    StoredWeight,
    empty_weight,
    quantise_weight,
)
from llava_video.values import WeightFormat

_log = logging.getLogger(__name__)

WeightKernel = Literal["auto", "torchao"]
Kernel = Literal["torch", "triton", "torchao"]

_FORMATS: Final = get_args(WeightFormat)


class QuantLinear(nn.Module):
    """y = x W'^T + b with W' stored as integers; made without memory, filled by `store`.

    Args:
        in_features: channels in.
        out_features: channels out.
        bias: whether there is a b, plain.
        weight_format: how W' is stored.
        kernel: "auto" for this library's own products; "torchao" for torchao's, whose layout then
            replaces ours.

    Attributes:
        in_features: channels in.
        out_features: channels out.
        kernel: what multiplies few rows: "triton", "torchao", or "torch"; None before `store`.
    """

    codes: torch.Tensor | None
    scales: torch.Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        weight_format: QuantisedFormat,
        kernel: WeightKernel = "auto",
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight_format = weight_format
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.kernel: Kernel | None = None
        self._asked = kernel
        self._packed: torch.Tensor | None = None
        self._keep(empty_weight(out_features, in_features, weight_format))

    @property
    def stored(self) -> StoredWeight:
        """The weight as it is stored; not where torchao holds it."""
        if self.codes is None or self.scales is None:
            raise ValueError("torchao holds this weight.")
        return StoredWeight(self.codes, self.scales)

    @property
    def qweight(self) -> torch.Tensor | None:
        """The codes, by the name that PEFT knows integers by: its changes go to their device."""
        return self.codes

    def store(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        """Take a plain weight: quantise it where it is, and choose the product.

        Args:
            weight: (out_features, in_features) in any float dtype, on this layer's device; not
                kept.
            dtype: of the rows that will come.

        Raises:
            ValueError: a weight that is not finite.
            BackendMissingError: torchao was asked for, and is not there.
            ConfigError: torchao was asked for, and has no product for this weight.
        """
        stored = quantise_weight(weight, self.weight_format)
        self.kernel = _choose_kernel(stored, dtype, self._asked)
        if self.kernel == "torchao":
            self.codes = self.scales = None
            self._packed = torchao_weight(stored)
        else:
            self._keep(stored)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., out_features) of x (..., in_features)."""
        if self._packed is not None:
            return F.linear(x, self._packed, self.bias)
        return quant_linear(x, self.stored, self.bias)

    def _keep(self, stored: StoredWeight) -> None:
        self.register_buffer("codes", stored.codes)
        self.register_buffer("scales", stored.scales)


def quantise_decoder(
    model: LlavaModel, weight_format: WeightFormat, *, kernel: WeightKernel = "auto"
) -> None:
    """Put quantised layers in the place of the decoder's linear layers; their weights come later.

    Args:
        model: on the meta device; changed.
        weight_format: "plain" changes nothing.
        kernel: as `QuantLinear`'s.

    Raises:
        ConfigError: a format there is not, or int4 of a layer with an odd number of inputs.
    """
    if weight_format not in _FORMATS:
        allowed = ", ".join(map(repr, _FORMATS))
        raise ConfigError(f"weights = {weight_format!r}.", f"allowed: {allowed}.")
    if weight_format == "plain":
        return
    for layer in model.language_model.layers:
        for name, linear in list(layer.named_children()):
            if isinstance(linear, Linear):
                setattr(layer, name, _quantised(linear, weight_format, kernel))


def format_of(model: nn.Module) -> WeightFormat:
    """Return how a model's decoder weights are stored."""
    found = (m.weight_format for m in model.modules() if isinstance(m, QuantLinear))
    return next(found, "plain")


def report(model: nn.Module) -> None:
    """Log how a loaded model's quantised weights are multiplied."""
    kernels = {m.kernel for m in model.modules() if isinstance(m, QuantLinear)}
    if not kernels:
        return
    on_gpu = any(buffer.is_cuda for buffer in model.buffers())
    level = logging.WARNING if on_gpu and "torch" in kernels else logging.INFO
    names = ", ".join(sorted(filter(None, kernels)))
    why = "" if level == logging.INFO else "; Triton is not in use, so a generated token is slow"
    _log.log(level, "%s weights, multiplied by %s%s.", format_of(model), names, why)


def _quantised(linear: Linear, weight_format: QuantisedFormat, kernel: WeightKernel) -> QuantLinear:
    num_outputs, num_inputs = linear.weight.shape
    if weight_format == "int4" and num_inputs % 2:
        raise ConfigError(
            f"weights = 'int4', and a layer of the decoder has {num_inputs} inputs.",
            "int4 stores inputs in pairs; use int8.",
        )
    with linear.weight.device:
        return QuantLinear(
            num_inputs,
            num_outputs,
            bias=linear.bias is not None,
            weight_format=weight_format,
            kernel=kernel,
        )


def _choose_kernel(stored: StoredWeight, dtype: torch.dtype, asked: WeightKernel) -> Kernel:
    """Choose once: ours in Triton, torchao's where there is no Triton, else torch."""
    suits = suits_torchao(stored, dtype)
    if asked == "torchao":
        backends.require("torchao")
        if not suits:
            raise ConfigError(
                f"torchao was asked to multiply {stored.weight_format} weights in {dtype} on "
                f"{stored.codes.device}.",
                "its product is for int4, bfloat16 and a GPU; leave the choice to 'auto'.",
            )
        return "torchao"
    if uses_triton(stored.codes) and group_bytes(stored) is not None:
        return "triton"
    if suits and not IS_TRITON_HERE and backends.version("torchao") is not None:
        return "torchao"
    return "torch"
