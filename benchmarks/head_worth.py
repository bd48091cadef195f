"""Which heads of a decoder look at what a question names, and which would be missed least?

Clips of the small world with their questions, as in training. Of every head the share of its
attention that goes to where a named thing shows, from the last word of the name and, where the
question names no other, from where the answer begins; and from an object's row of the video to
where the object was before (geometric means). Of all heads that share their keys, what the
answers' loss rises by without them. Heads to be told where to look (`dense.pointers`) are best
those that cost little. Compute bound. Good: for a trained model, heads with shares near 1.

    python benchmarks/head_worth.py [--model demo] [--clips 48] [--seed 11] [--append] [--check]
"""

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from harness import parser_of, report

from llava_video.model.checkpoint import load_model
from llava_video.model.decoder import DecoderLayer
from llava_video.model.spec import read_spec
from llava_video.train.examples import ExampleMaker
from llava_video.train.forward import Batch, TrainingModel, pack
from llava_video.train.pointer import Role
from llava_video.train.pointing import PointingKeys
from llava_video.train.settings import DataSettings
from llava_video.train.small_world import WorldExamples
from llava_video.train.world_settings import DenseSettings, WorldSource

_BATCH = 8
_HEAD = ((0, 0),)  # which one is no matter here
_DENSE = DenseSettings(pointers=1, name_heads=_HEAD, trail_heads=_HEAD)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--seed", type=int, default=11, help="of the clips")
    asked = parser.parse_args(arguments)
    num_clips = 2 if asked.check else asked.clips
    net, batches = _read(asked.model, num_clips, asked.seed)
    looks, loss, costs = _looks(net, batches), _loss(net, batches), _costs(net, batches)
    print("layer, head   from a name   from an answer   along a trail")
    for one in looks:
        shares = "  ".join(f"{one[role]:12.3f}" for role in ("name", "answer", "trail"))
        print(f"{one['layer']:5d}, {one['head']}  {shares}")
    print(f"answers' loss {loss:.4f}; it rises without heads that share their keys by")
    for one in costs:
        print(f"{one['layer']:5d}, {one['heads']}  {one['loss'] - loss:8.4f}")
    row = {"model": asked.model, "clips": num_clips, "seed": asked.seed, "check": asked.check}
    row |= {"loss": loss, "looks": looks, "costs": costs}
    report("head_worth", row, append=asked.append)
    return 0


def _read(model: str, num_clips: int, seed: int) -> tuple[TrainingModel, list[Batch]]:
    """Load a model, and draw clips and what is asked of them."""
    spec = read_spec(model, dtype="float32")
    loaded = load_model(spec.sources, config=spec.config, device="cpu", dtype=torch.float32)
    world = WorldSource(seed=seed, questions=14, captions=1)
    data = DataSettings(world=world, fps=2, max_frames=24, share_visuals=True)
    given = (ExampleMaker(spec, data), world, data, spec.config.vision)
    examples = WorldExamples(*given, dense=_DENSE, tiles_here=True)
    batches = [
        pack([examples[number].example for number in numbers])
        for numbers in _cut(num_clips, _BATCH)
    ]
    return TrainingModel(loaded), batches


@torch.no_grad()
def _loss(net: TrainingModel, batches: Sequence[Batch]) -> float:
    """Return the answers' mean loss, of batches alike."""
    names = ("ids", "labels", "tiles", "plans", "shares")
    losses = [net(**{name: batch[name] for name in names})["loss"] for batch in batches]
    return torch.stack(losses).mean().item()


@torch.no_grad()
def _looks(net: TrainingModel, batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """Return the share of every head's attention, from names and answers and along trails."""
    text = net.model.dimensions.text
    heads = [*itertools.product(range(text.num_layers), range(text.num_heads))]
    found: dict[tuple[int, Role], list[torch.Tensor]] = defaultdict(list)
    for batch in batches:
        rows = net.spliced(batch["ids"], net.visuals(batch["plans"], batch["tiles"]))
        every: dict[Role, Any] = {"name": heads, "answer": heads, "trail": heads}
        # Of two things each can have half at most.
        single = [[one for one in own if len(one.shown) == 1] for own in batch["pointers"]]
        keys = PointingKeys(net.keys(batch["shares"]), single, every)
        net.hidden_rows(rows, keys)
        for (layer, role, _), losses in keys.losses.items():
            found[layer, role].append(losses)
    shares = {key: torch.cat(own, dim=1).mean(dim=1).neg().exp() for key, own in found.items()}
    return [
        {
            "layer": layer,
            "head": head,
            "name": shares[layer, "name"][head].item(),
            "answer": shares[layer, "answer"][head].item(),
            "trail": shares[layer, "trail"][head].item(),
        }
        for layer, head in heads
    ]


def _costs(net: TrainingModel, batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """Return the answers' loss without all heads that share their keys."""
    text = net.model.dimensions.text
    found: list[dict[str, Any]] = []
    for layer in range(text.num_layers):
        for heads in _cut(text.num_heads, text.num_heads // text.num_kv_heads):
            with _without(net.model.language_model.layers[layer], heads):
                loss = _loss(net, batches)
            found.append({"layer": layer, "heads": list(heads), "loss": loss})
    return found


def _cut(num: int, size: int) -> list[range]:
    """Cut the first numbers into parts of a size, the last perhaps shorter."""
    return [range(start, min(start + size, num)) for start in range(0, num, size)]


@contextmanager
def _without(layer: Any, heads: Sequence[int]) -> Iterator[None]:
    """Let what some heads say be nothing."""
    one: DecoderLayer = layer

    def silent(_: torch.nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        out = given[0].unflatten(-1, (-1, one.head_dim)).clone()
        out[..., list(heads), :] = 0
        return (out.flatten(-2),)

    hook = one.o_proj.register_forward_pre_hook(silent)
    try:
        yield
    finally:
        hook.remove()


if __name__ == "__main__":
    sys.exit(main())
