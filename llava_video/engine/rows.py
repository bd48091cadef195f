"""A prompt → the rows the language model reads, pulled in pieces of any size.

Text ids become embedding rows, visuals become the model's rows, in order and only when asked for:
at most what was asked for and the rest of one vision call's rows are held. A prompt that is fused
with its visual has no row before the last frame has passed: `fuse` takes its frames in, a vision
call at a time, and its rows are held until they are taken. Knows no cache and no loop.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from llava_video.engine.request import FusedPart, Part, TextPart, VisualPart
from llava_video.model.kept_rows import KeptRows
from llava_video.model.llava import LlavaModel

# Ids embedded at once: a long prompt's embeddings are never all held.
_TEXT_BLOCK_TOKENS = 512
_Made = TypeVar("_Made")
# Stands for the visual among the ids of a fused prompt.
_VISUAL_ID = -1


class PromptRows:
    """The rows of a prompt's parts, as a queue that fills itself.

    Args:
        model: gives embeddings and visual rows.
        parts: what is left of the prompt after the part that is reused.
        tile_chunk: tiles of one vision call.
        kept: rows of earlier frames, which are not made again; None makes all.

    Attributes:
        num_left: rows not taken yet.
        num_frames: frames of all visuals.
        frames_done: frames whose rows were made, or that were fused.
        is_fusing: whether there is no row before `fuse` has taken in more frames.
        vision_s: seconds spent on them, decoding and encoding.
    """

    def __init__(
        self,
        model: LlavaModel,
        parts: Sequence[Part],
        tile_chunk: int,
        kept: KeptRows | None = None,
    ) -> None:
        self._model, self._kept = model, kept
        self._tile_chunk = tile_chunk
        self._ready: list[Tensor] = []
        visuals = [part.visual if isinstance(part, FusedPart) else part for part in parts]
        self.num_left = sum(part.num_tokens for part in parts)
        self.num_frames = sum(v.plan.num_frames for v in visuals if isinstance(v, VisualPart))
        self.frames_done = 0
        self.is_fusing = any(isinstance(part, FusedPart) for part in parts)
        self.vision_s = 0.0
        self._source = self._pieces(parts)

    def fuse(self) -> None:
        """Take in the frames of one vision call; the last one ends `is_fusing`.

        Raises:
            CapacityError: there is no memory for one tile.
            CheckpointError: the model fuses nothing.
            ConfigError, DecodeError: as `take`.
        """
        piece = next(self._source)
        if piece is not None:
            self._ready.append(piece)
            self.is_fusing = False

    def take(self, num_tokens: int) -> Tensor:
        """Return the next rows, pulling frames as needed.

        Args:
            num_tokens: 0 < num_tokens <= num_left.

        Returns:
            (num_tokens, D) on the model's device.

        Raises:
            ConfigError: a visual gives more or fewer rows than its plan says.
            DecodeError: its frames cannot be decoded.
        """
        while self.is_fusing:
            self.fuse()
        pieces: list[Tensor] = []
        missing = num_tokens
        while missing:
            piece = self._ready.pop() if self._ready else next(self._source)
            assert piece is not None  # nothing is fused any more
            pieces.append(piece[:missing].to(self._model.device))
            if len(piece) > missing:
                self._ready.append(piece[missing:])
            missing -= len(pieces[-1])
        self.num_left -= num_tokens
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def close(self) -> None:
        """Stop the frames and let go of the rows."""
        self._ready.clear()
        self._source.close()

    def _pieces(self, parts: Sequence[Part]) -> Generator[Tensor | None]:
        """Yield rows in order, and None after each vision call that made none yet."""
        for part in parts:
            if isinstance(part, TextPart):
                yield from self._text_rows(part.ids)
            elif isinstance(part, FusedPart):
                yield from self._fused_rows(part)
            else:
                yield from self._visual_rows(part)

    def _text_rows(self, ids: tuple[int, ...]) -> Iterator[Tensor]:
        for start in range(0, len(ids), _TEXT_BLOCK_TOKENS):
            block = torch.tensor(ids[start : start + _TEXT_BLOCK_TOKENS], device=self._model.device)
            yield self._model.language_model.embed(block)

    def _visual_rows(self, part: VisualPart) -> Iterator[Tensor]:
        """Yield the rows of one visual, one piece per frame; exactly the planned number."""
        clips = part.clips()
        planned, found = part.plan.num_tokens, 0
        if self._kept is None:
            rows = self._model.visual_rows(part.plan, clips, self._tile_chunk)
        else:
            rows = self._model.visual_rows(part.plan, clips, self._tile_chunk, kept=self._kept)
        try:
            while (piece := self._timed_next(rows)) is not None:
                found += len(piece)
                self.frames_done = min(self.frames_done + 1, self.num_frames)
                if found == planned:
                    self._timed_next(rows)  # one row more is an error, found before the answer
                yield piece
        finally:
            _close(rows, clips)

    def _fused_rows(self, part: FusedPart) -> Iterator[Tensor | None]:
        """Yield None while frames are taken in, then all rows."""
        plan, clips = part.visual.plan, part.visual.clips()
        prompt = self._model.fused_prompt((*part.before, _VISUAL_ID, *part.after), plan.num_frames)
        calls = self._model.fuse(prompt, plan, clips, self._tile_chunk)
        try:
            while (num_frames := self._timed_next(calls)) is not None:
                self.frames_done = num_frames
                if num_frames < plan.num_frames:
                    yield None
        finally:
            _close(calls, clips)
        yield prompt.rows()

    def _timed_next(self, rows: Iterator[_Made]) -> _Made | None:
        before_s = time.perf_counter()
        piece = next(rows, None)
        self.vision_s += time.perf_counter() - before_s
        return piece


def parts_after(parts: Sequence[Part], num_elements: int) -> list[Part]:
    """Return the parts of a prompt without its first elements, as a cache counts them."""
    left: list[Part] = []
    for part in parts:
        if isinstance(part, TextPart):
            left.append(TextPart(part.ids[num_elements:]))
            num_elements = max(0, num_elements - len(part.ids))
        else:
            if not num_elements:
                left.append(part)
            num_elements = max(0, num_elements - 1)
    return left


def _close(*sources: Iterator[Any]) -> None:
    """Close iterators: a decoder stops now, not when memory is collected."""
    for source in sources:
        getattr(source, "close", lambda: None)()
