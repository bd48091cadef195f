"""How fast the vision tower is: section vision."""

from collections.abc import Callable
from typing import Any

import torch
from gpu_bench import Bench, Measured, Section, Target, try_peer
from gpu_models import config_of, random_model, twin_of

# One tile's tower is 641.8 GFLOP.
_FLOP_PER_FRAME = 641.8e9


def measure_vision(bench: Bench, found: Measured) -> None:
    """Encode tiles in several batch sizes; each side is judged by its best."""
    model = random_model(bench, "0.5b")  # the tower is the same in both sizes
    tile_px = config_of(bench, "0.5b").vision.image_px
    batches = (2,) if bench.is_check else (8, 16, 32, 64)

    def best(name: str, encode: Callable[[torch.Tensor], Any]) -> float:
        rates: dict[int, float] = {}
        for num_tiles in batches:
            tiles = torch.randn(
                num_tiles, 3, tile_px, tile_px, device=bench.device, dtype=bench.dtype
            )
            with torch.inference_mode():
                rates[num_tiles] = num_tiles / bench.seconds(lambda t=tiles: encode(t))
        found.details[name] = rates
        return max(rates.values())

    found.values["frames_per_s"] = best("ours", model.vision_tower)

    def theirs() -> float:
        twin = twin_of(bench, "0.5b", model)
        twin.set_attn_implementation("sdpa")
        tower = twin.model.vision_tower
        return best("hf", lambda tiles: tower(tiles).last_hidden_state)

    peer = try_peer("transformers sdpa", theirs, found.details)
    if peer:
        found.values["times_hf"] = found.values["frames_per_s"] / peer
    ceiling = bench.flop_per_s()
    found.details["flop_per_s_ceiling"] = ceiling
    found.details["share_of_ceiling"] = found.values["frames_per_s"] * _FLOP_PER_FRAME / ceiling


SECTIONS = {
    "vision": Section(
        question="how many frames a second does the vision tower encode, beside transformers?",
        targets=(
            Target(key="frames_per_s", what="tower, bf16", unit="frames/s", target=650, limit=1231),
            Target(key="times_hf", what="of transformers' rate, sdpa", unit="x", target=1.4),
        ),
        run=measure_vision,
    ),
}
