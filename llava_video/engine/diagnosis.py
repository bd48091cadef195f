"""Logits that hold NaN or infinity → which layer made the first of them, in words.

The work that failed is computed once more while every layer is watched; its keys and values are
written to the same places again. Slow, and only for a request that has failed already.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from llava_video.engine.step import Work, run_step
from llava_video.errors import CheckpointError
from llava_video.model.decoder import LanguageModel
from llava_video.model.kv_cache import KvCache

# What stands before a layer that was given something not finite, where no layer stands: {last} is
# the decoder layer before.
_BEFORE = {
    "input_norm": "decoder layer {last}, the residual sum after down_proj",
    "o_proj": "decoder layer {own}, attention",
    "post_norm": "decoder layer {own}, the residual sum after o_proj",
    "down_proj": "decoder layer {own}, the gated product before down_proj",
    "norm": "the last decoder layer, the residual sum after down_proj",
}
_LAYER = re.compile(r"layers\.(\d+)\.(\w+)")


def finite_rows(logits: Tensor) -> list[bool]:
    """Say of each row (vocab,) whether it has no NaN and no infinity."""
    finite: list[bool] = torch.isfinite(logits).all(dim=-1).tolist() if len(logits) else []
    return finite


def diagnose(
    language_model: LanguageModel, cache: KvCache, work: Work, is_visual: Callable[[int], bool]
) -> CheckpointError:
    """Return the error of a work whose logits are not finite.

    Args:
        language_model: as in the step that failed.
        cache: likewise.
        work: likewise; its sequence as it was.
        is_visual: says of an index in the sequence whether its row comes from a visual.
    """
    place = _input_fault(work, is_visual) or _computed_fault(language_model, cache, work)
    name = str(language_model.dtype).removeprefix("torch.")
    if language_model.dtype == torch.float16:
        hint = 'load with dtype="bfloat16" or dtype="float32": these weights overflow in float16.'
    else:
        hint = "the weights are damaged or do not belong to this configuration: fetch them again."
    return CheckpointError(
        f"the model's logits in {name} hold NaN or infinity; the first came from {place}.", hint
    )


def _input_fault(work: Work, is_visual: Callable[[int], bool]) -> str | None:
    finite = finite_rows(work.hidden)
    if all(finite):
        return None
    if is_visual(work.sequence.next_idx + finite.index(False)):
        return "the vision tower or the projector"
    return "the token embeddings"


def _computed_fault(language_model: LanguageModel, cache: KvCache, work: Work) -> str:
    with _watching(language_model) as found:
        logits = run_step(language_model, cache, [work])
    if found:
        return found[0]
    if all(finite_rows(logits)):
        return "nowhere when computed again: the machine's memory may be at fault"
    return "the head (lm_head)"


@contextlib.contextmanager
def _watching(model: Any) -> Iterator[list[str]]:
    """Note the layers that give something not finite, in the order they run."""
    found: list[str] = []
    hooks = []
    if isinstance(model, nn.Module):
        for name, module in model.named_modules():
            if not any(True for _ in module.children()):
                hooks.append(module.register_forward_hook(_watcher(name, found)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _watcher(name: str, found: list[str]) -> Callable[..., None]:
    def watch(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if found:
            return
        if not all(_is_finite(each) for each in inputs):
            found.append(_before(name))
        elif not _is_finite(output):
            found.append(_words(name))

    return watch


def _is_finite(value: Any) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(torch.isfinite(value).all())


def _words(name: str) -> str:
    found = _LAYER.fullmatch(name)
    return f"decoder layer {found[1]}, {found[2]}" if found else f"the layer {name}"


def _before(name: str) -> str:
    found = _LAYER.fullmatch(name)
    layer_idx, kind = (int(found[1]), found[2]) if found else (0, name)
    words = _BEFORE.get(kind)
    if words is None:
        return f"what {_words(name)} was given"
    return words.format(own=layer_idx, last=layer_idx - 1)
