"""How many tiles one vision call takes, and what happens when there is no memory for them.

The number is halved whenever a call finds none, down to one, and stays so for the rest of a video:
a smaller call gives the same rows. Knows no model and no tensor.
"""

import functools
import itertools
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from llava_video.errors import CapacityError, ConfigError
from llava_video.model.memory import free_words, is_out_of_memory

_LOGGER = logging.getLogger(__name__)
_Frame = TypeVar("_Frame")
_Result = TypeVar("_Result")


class VisionCalls:
    """The vision calls of one video.

    Args:
        tile_chunk: tiles of a call, at the most, >= 1.
        tiles_per_frame: tiles that make one frame.
        device: where they run; its free memory stands in the error.

    Attributes:
        tile_chunk: what it is now.

    Raises:
        ConfigError: `tile_chunk` is not positive.
    """

    def __init__(self, tile_chunk: int, tiles_per_frame: int, device: torch.device) -> None:
        if tile_chunk < 1:
            raise ConfigError(f"tile_chunk = {tile_chunk}.", "at least 1.")
        self.tile_chunk = tile_chunk
        self._tiles_per_frame = tiles_per_frame
        self._device = device

    @property
    def num_frames(self) -> int:
        """Frames that are encoded together; a frame of many tiles is one, in several calls."""
        return max(1, self.tile_chunk // self._tiles_per_frame)

    def over(
        self, frames: Iterator[_Frame], call: Callable[[list[_Frame]], _Result]
    ) -> Iterator[_Result]:
        """Yield what the call returns of as many frames at a time as it takes, in order.

        Args:
            frames: pulled as they are needed.
            call: encodes some frames, `tile_chunk` tiles at a time; made again with fewer where
                there is no memory.

        Raises:
            CapacityError: there is no memory for a call of one tile.
        """
        waiting: list[_Frame] = []
        while waiting := waiting or list(itertools.islice(frames, self.num_frames)):
            together = waiting[: self.num_frames]
            result = self.attempt(functools.partial(call, together), len(together))
            if result is None:
                continue
            yield result
            del result  # the reader's alone while the next is made
            waiting = waiting[len(together) :]

    def attempt(self, call: Callable[[], _Result], num_frames: int) -> _Result | None:
        """Return what the call returns, or None when it has to be made again, smaller.

        Args:
            call: encodes `num_frames` frames, `tile_chunk` tiles at a time.
            num_frames: frames it was given, >= 1.

        Raises:
            CapacityError: there is no memory for a call of one tile.
        """
        try:
            return call()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # What the call had made hangs on the error's frames, and must go before the next one.
            traceback.clear_frames(error.__traceback__)
            num_tiles = min(self.tile_chunk, num_frames * self._tiles_per_frame)
            if num_tiles == 1:
                raise CapacityError(*self._refusal(error)) from error
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # pieces of other sizes, which no larger one can be made of
        self.tile_chunk = num_tiles // 2
        _LOGGER.warning(
            "No memory for a vision call of %d tiles: trying %d.", num_tiles, self.tile_chunk
        )
        return None

    def _refusal(self, error: BaseException) -> tuple[str, str]:
        planned = f"frames of {self._tiles_per_frame} tile(s), one tile a call"
        found = str(error).strip().rstrip(".")
        found += f"; {free_words(self._device)}"
        return (
            f"no memory for the vision tower: planned {planned}; found: {found}.",
            "a smaller cache (fewer frames, kv_cache='int8' or 'int4'), smaller weights "
            "(quantize='int8' or 'int4'), a coarser grid, or fewer requests at once (max_running).",
        )
