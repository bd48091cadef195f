"""Logits of many requests → the next token of each, at once, without waiting for the device.

Row by row the same rules as `logits.TokenChooser`, which is its plain twin: repetition penalty over
generated tokens, then temperature, top-k, top-p, softmax and one draw with a uniform number that
the request's own generator gave ahead of time. What differs between requests stands in tensors, so
that one captured graph serves all of them. Knows no cache and no text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from llava_video.engine.logits import LEAST_TEMPERATURE, TokenChooser

# What a batch needs at most: the most probable token of each; draws; draws after top-k or top-p,
# which take a sort of the vocabulary.
Choosing = Literal["greedy", "sampled", "cut"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRules:
    """The settings of R requests, as columns.

    Attributes:
        penalties: (R, 1) float32, 1 for none.
        is_greedy: (R,) bool.
        temperatures: (R, 1) float32, 1 where the row is greedy.
        top_ks: (R, 1) int64, the vocabulary's size for all.
        tails: (R, 1) float32, 1 - top_p: what may be left out; negative leaves nothing out.
    """

    penalties: Tensor
    is_greedy: Tensor
    temperatures: Tensor
    top_ks: Tensor
    tails: Tensor

    def copy_(self, rules: "RowRules") -> None:
        """Overwrite the first rows, in the memory that a graph reads."""
        for field in fields(self):
            new: Tensor = getattr(rules, field.name)
            getattr(self, field.name)[: len(new)].copy_(new, non_blocking=True)

    def first(self, num_rows: int) -> "RowRules":
        """Return the first rows as views."""
        return RowRules(**{f.name: getattr(self, f.name)[:num_rows] for f in fields(self)})


def rules_of(
    choosers: Sequence[TokenChooser | None], vocab_size: int, device: torch.device
) -> RowRules:
    """Return the rules of some requests; None stands for a row whose token nobody reads."""
    greedy = [chooser is None or chooser.generation.temperature == 0.0 for chooser in choosers]
    columns: list[tuple[float, float, int, float]] = []
    for chooser, is_greedy in zip(choosers, greedy, strict=True):
        penalty = 1.0 if chooser is None else chooser.penalty
        if chooser is None or is_greedy:
            columns.append((penalty, 1.0, vocab_size, -1.0))
            continue
        asked = chooser.generation
        top_k = asked.top_k if 0 < asked.top_k < vocab_size else vocab_size
        tail = 1.0 - asked.top_p if asked.top_p < 1.0 else -1.0
        columns.append((penalty, max(asked.temperature, LEAST_TEMPERATURE), top_k, tail))
    penalties, temperatures, top_ks, tails = zip(*columns, strict=True)

    def column(values: Sequence[float], dtype: torch.dtype) -> Tensor:
        return to_device(torch.tensor(values, dtype=dtype)[:, None], device)

    return RowRules(
        penalties=column(penalties, torch.float32),
        is_greedy=to_device(torch.tensor(greedy), device),
        temperatures=column(temperatures, torch.float32),
        top_ks=column(top_ks, torch.int64),
        tails=column(tails, torch.float32),
    )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor from the CPU to a device without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def choosing_of(choosers: Sequence[TokenChooser]) -> Choosing:
    """Return what a batch of these requests needs."""
    sampled = [c.generation for c in choosers if c.generation.temperature > 0.0]
    if any(asked.top_k or asked.top_p < 1.0 for asked in sampled):
        return "cut"
    return "sampled" if sampled else "greedy"


def choose_tokens(
    logits: Tensor, seen: Tensor, rules: RowRules, uniforms: Tensor, choosing: Choosing
) -> Tensor:
    """Return the next token of each row, -1 where its logits hold NaN or infinity.

    Args:
        logits: (R, vocab) float32.
        seen: (R, vocab) bool, the ids of each answer so far.
        rules: the rows' settings.
        uniforms: (R,) float64, 0 <= u < 1; unread where a row is greedy.
        choosing: at least what the rows need.

    Returns:
        (R,) int64.
    """
    is_finite = torch.isfinite(logits).all(dim=-1)
    penalized = torch.where(logits < 0, logits * rules.penalties, logits / rules.penalties)
    logits = torch.where(seen, penalized, logits)
    tokens = logits.argmax(dim=-1)
    if choosing != "greedy":
        scaled = logits / rules.temperatures
        if choosing == "cut":
            scaled = _cut(scaled, rules)
        tokens = torch.where(rules.is_greedy, tokens, _draw(scaled.softmax(dim=-1), uniforms))
    return tokens.masked_fill(~is_finite, -1)


def _cut(scaled: Tensor, rules: RowRules) -> Tensor:
    """Put -inf where top-k and then top-p leave a token out."""
    ascending, order = torch.sort(scaled, dim=-1, stable=True)
    least = ascending.gather(1, ascending.shape[1] - rules.top_ks)  # ties with it are kept
    ascending = ascending.masked_fill(ascending < least, -torch.inf)
    dropped = ascending.softmax(dim=-1).cumsum(dim=-1) <= rules.tails
    dropped[:, -1].fill_(value=False)  # the most probable token always stays
    dropped |= ascending == -torch.inf
    return scaled.masked_fill(dropped.scatter(1, order, dropped), -torch.inf)


def _draw(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one index per row, as `logits.draw` does."""
    cumulative = probabilities.double().cumsum(dim=-1)
    wanted = uniforms[:, None] * cumulative[:, -1:]
    idxs = torch.searchsorted(cumulative, wanted, right=True)[:, 0]
    places = torch.arange(probabilities.shape[1], device=probabilities.device)
    last = (places * (probabilities > 0)).amax(dim=-1)
    return torch.minimum(idxs, last)
