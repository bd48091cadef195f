"""How many frames does the planner say fit on a 24 GB card? The tables of docs/performance.md.

Arithmetic, nothing is measured: the planner's own functions at the true sizes, with the chunks the
engine uses on a GPU. `gpu_suite.py --only capacity` is the measurement.

    python benchmarks/capacity_table.py
"""

import sys
from collections.abc import Iterator, Sequence

from harness import parser_of, report
from twin import HALF_B, SEVEN_B, onevision_config

from llava_video.engine.settings import EngineSettings
from llava_video.fitting import GPU_WORKSPACE_BYTES
from llava_video.model.model_config import geometry_of
from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import Setup, cache_bytes, token_bytes, weights_bytes
from llava_video.values import KvFormat, WeightFormat

GIB = 2**30
# What an A10 or L4 can hand out, and a 3090 or 4090 without a screen.
USABLE_GIB = (21.5, 23.2)
TOKENS_PER_FRAME = (210, 64, 16)
_PRECISIONS: tuple[tuple[str, WeightFormat, KvFormat], ...] = (
    ("7B", "plain", "plain"),
    ("7B", "plain", "int8"),
    ("7B", "plain", "int4"),
    ("7B", "int8", "int8"),
    ("7B", "int4", "plain"),
    ("7B", "int4", "int8"),
    ("7B", "int4", "int4"),
    ("0.5B", "plain", "plain"),
    ("0.5B", "plain", "int8"),
)


def geometry_named(name: str) -> Geometry:
    """Return the geometry of "7B" or "0.5B" in bfloat16."""
    sizes = SEVEN_B if name == "7B" else HALF_B
    return geometry_of(onevision_config(sizes), name, "bfloat16")


def setup_of(geometry: Geometry, weight_format: WeightFormat, usable_gib: float) -> Setup:
    """Return how a model of these weights runs on a card."""
    engine = EngineSettings()
    return Setup(
        weight_format=weight_format,
        prefill_chunk_tokens=engine.prefill_chunk_tokens,
        tile_chunk=engine.tiles_per_call("cuda", geometry.patches_per_side),
        limit_bytes=int(usable_gib * GIB),
        workspace_bytes=GPU_WORKSPACE_BYTES,
    )


def frames_of(
    name: str, weight_format: WeightFormat, kv_format: KvFormat, usable_gib: float, per_frame: int
) -> int:
    """Return how many frames fit, by the planner."""
    geometry = geometry_named(name)
    room_bytes = cache_bytes(geometry, setup_of(geometry, weight_format, usable_gib)) or 0
    return room_bytes // token_bytes(geometry, kv_format) // per_frame


def table_lines() -> Iterator[str]:
    """Yield the lines of the table, as Markdown."""
    yield "| model | weights | cache | weights, GiB | bytes a token | 210 a frame | 64 | 16 |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, weight_format, kv_format in _PRECISIONS:
        geometry = geometry_named(name)
        cells = [
            " – ".join(
                f"{frames_of(name, weight_format, kv_format, usable, per_frame):,}"
                for usable in USABLE_GIB
            )
            for per_frame in TOKENS_PER_FRAME
        ]
        weights_gib = weights_bytes(geometry, weight_format) / GIB
        words = (name, _word(weight_format), _word(kv_format), f"{weights_gib:.2f}")
        yield f"| {' | '.join(words)} | {token_bytes(geometry, kv_format):,} | " + (
            " | ".join(cells) + " |"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    asked = parser_of(__doc__).parse_args(arguments)
    lines = list(table_lines())
    print("\n".join(lines))
    report("capacity_table", {"table": lines, "check": asked.check}, append=asked.append)
    return 0


def _word(stored: WeightFormat | KvFormat) -> str:
    return "bf16" if stored == "plain" else stored


if __name__ == "__main__":
    sys.exit(main())
