"""What csrc/bindings.cpp offers."""

from typing import Any

import numpy.typing as npt

def instruction_sets() -> list[str]:
    """Return the names this processor can run, the fastest last."""

def decode_attention(
    queries: npt.NDArray[Any],
    keys: npt.NDArray[Any],
    values: npt.NDArray[Any],
    items: npt.NDArray[Any],
    row_items: npt.NDArray[Any],
    scale: float,
    out: npt.NDArray[Any],
    isa: str,
) -> None:
    """Write the attention of single tokens, see `ops/decode_attention.py`."""

class Tiler:
    """All that is the same for every frame of a size."""

    isa: str
    def __init__(
        self,
        frame_px: tuple[int, int],
        field_px: tuple[int, int],
        offset_px: tuple[int, int],
        colour: tuple[int, int, int],
        tile_px: int,
        dtype: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        tables: npt.NDArray[Any],
        isa: str,
    ) -> None: ...
    def add(
        self,
        across_starts: npt.NDArray[Any],
        across_counts: npt.NDArray[Any],
        across_weights: npt.NDArray[Any],
        down_starts: npt.NDArray[Any],
        down_counts: npt.NDArray[Any],
        down_weights: npt.NDArray[Any],
        is_height_first: bool,
        offset_px: tuple[int, int],
        grid: tuple[int, int],
        first_tile: int,
    ) -> None: ...
    def run(self, frames: npt.NDArray[Any], out: npt.NDArray[Any], num_threads: int) -> None: ...
    def by_formula(self, channel: int) -> bool: ...
