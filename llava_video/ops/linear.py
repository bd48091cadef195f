"""Matrix product with a weight stored (out, in), plus bias: y = x W^T + b.

Source: the linear layer every part of the model is made of. Shapes: x (..., K), weight (N, K),
bias (N,) -> (..., N). Knows no layer.

On a CPU in float32 the product goes to oneDNN: torch sends it to MKL, which on processors other
than Intel's is slower, most of all for one row. Measured (AMD EPYC, AVX-512, 2 threads, torch 2.13,
milliseconds, MKL / oneDNN): 1458 x 1152 -> 4304: 73.4 / 66.9; 1600 x 4864 -> 896: 68.8 / 66.3;
1 x 896 -> 4864: 1.16 / 0.58; 1 x 4864 -> 896: 0.78 / 0.67; 1 x 896 -> 151,936: 37.5 / 23.0.
Narrow layers gain most, with gradients too: 2048 x 192 -> 192 runs at 202 / 382 GFLOP/s, its x's
gradient at 200 / 332, its weight's at 176 / 112, which stays with MKL. A step of training of 8
million parameters takes 306 / 250 ms.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F

# oneDNN runs a single row over a wide K on one thread, and over very many outputs slower than two
# rows: 1 x 4864 -> 896 takes 7.9 ms as one row and 0.67 ms as two equal ones.
_WIDEST_OUTPUT_OF_ONE_ROW = 65_536
# A call of oneDNN costs 14 microseconds more than one of MKL; below these sizes that is not made
# good: 16 x 256 -> 256 takes 20 in MKL and 30 in oneDNN, 1 x 512 -> 512 takes 24 in both.
_LEAST_WEIGHT = 2**18
_LEAST_PRODUCTS = 2**23


def linear_reference(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return x W^T + b by torch's own product, on any device and in any dtype.

    Args:
        x: (..., K).
        weight: (N, K).
        bias: (N,), or None for none.

    Returns:
        (..., N).
    """
    return F.linear(x, weight, bias)


def _linear_onednn(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return x W^T + b of (M, K) float32 CPU rows through oneDNN."""
    num_outputs, num_inputs = weight.shape
    is_single = x.shape[0] == 1
    doubled = is_single and (num_outputs < num_inputs or num_outputs > _WIDEST_OUTPUT_OF_ONE_ROW)
    rows = x.expand(2, num_inputs).contiguous() if doubled else x
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return y[:1] if doubled else y


class _OnednnLinear(torch.autograd.Function):
    """The product through oneDNN with gradients: that of x through oneDNN too.

    The weight's gradient stays with torch's product, which reads both factors as they lie.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _linear_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        grad = grad.contiguous()
        return (
            _linear_onednn(grad, weight.t().contiguous(), None) if of_x else None,
            grad.t() @ x if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return x W^T + b by the fastest product for the device.

    Args:
        x: (..., K).
        weight: (N, K), of x's dtype and device.
        bias: (N,), or None for none.

    Returns:
        (..., N), contiguous.
    """
    if _suits_onednn(x, weight):
        rows = x.reshape(-1, x.shape[-1])
        run = _OnednnLinear.apply if _is_learned_from(x, weight, bias) else _linear_onednn
        y: torch.Tensor = run(rows, weight, bias)
        return y.view(*x.shape[:-1], weight.shape[0])
    return linear_reference(x, weight, bias)


def _is_learned_from(*tensors: torch.Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _suits_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        # Under autocast a product that is learned from is one in 16 bits.
        and not (torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"))
        and x.is_contiguous()
        and (weight.numel() >= _LEAST_WEIGHT or x.numel() * weight.shape[0] >= _LEAST_PRODUCTS)
        and x.numel() > 0
        and x.shape[-1] == weight.shape[1]  # torch's product says best what does not fit
        and _has_onednn()
    )


@functools.cache
def _has_onednn() -> bool:
    return hasattr(torch.ops, "mkldnn") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
