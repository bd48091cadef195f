"""A prompt → the rows the language model reads, pulled in pieces of any size.

Text ids become embedding rows, visuals become the model's rows, in order and only when asked for:
at most what was asked for and the rest of one vision call's rows are held. Knows no cache and no
loop.
"""

import time
from collections.abc import Generator, Iterator

import torch
from torch import Tensor

from llava_video.engine.request import TextPart, VisualPart
from llava_video.model.llava import LlavaModel

# Ids embedded at once: a long prompt's embeddings are never all held.
_TEXT_BLOCK_TOKENS = 512


class PromptRows:
    """The rows of a prompt's parts, as a queue that fills itself.

    Args:
        model: gives embeddings and visual rows.
        parts: what is left of the prompt after the part that is reused.
        tile_chunk: tiles of one vision call.

    Attributes:
        num_left: rows not taken yet.
        num_frames: frames of all visuals.
        frames_done: frames whose rows were made.
        vision_s: seconds spent on them, decoding and encoding.
    """

    def __init__(
        self, model: LlavaModel, parts: list[TextPart | VisualPart], tile_chunk: int
    ) -> None:
        self._model = model
        self._tile_chunk = tile_chunk
        self._ready: list[Tensor] = []
        visuals = [part.plan for part in parts if isinstance(part, VisualPart)]
        num_ids = sum(len(part.ids) for part in parts if isinstance(part, TextPart))
        self.num_left = num_ids + sum(plan.num_tokens for plan in visuals)
        self.num_frames = sum(plan.num_frames for plan in visuals)
        self.frames_done = 0
        self.vision_s = 0.0
        self._source = self._pieces(parts)

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
        pieces: list[Tensor] = []
        missing = num_tokens
        while missing:
            piece = self._ready.pop() if self._ready else next(self._source)
            pieces.append(piece[:missing])
            if len(piece) > missing:
                self._ready.append(piece[missing:])
            missing -= len(pieces[-1])
        self.num_left -= num_tokens
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def close(self) -> None:
        """Stop the frames and let go of the rows."""
        self._ready.clear()
        self._source.close()

    def _pieces(self, parts: list[TextPart | VisualPart]) -> Generator[Tensor]:
        for part in parts:
            if isinstance(part, TextPart):
                yield from self._text_rows(part.ids)
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
        rows = self._model.visual_rows(part.plan, clips, self._tile_chunk)
        try:
            while (piece := self._timed_next(rows)) is not None:
                found += len(piece)
                self.frames_done = min(self.frames_done + 1, self.num_frames)
                if found == planned:
                    self._timed_next(rows)  # one row more is an error, found before the answer
                yield piece
        finally:
            for source in (rows, clips):  # a decoder stops now, not when memory is collected
                getattr(source, "close", lambda: None)()

    def _timed_next(self, rows: Iterator[Tensor]) -> Tensor | None:
        before_s = time.perf_counter()
        piece = next(rows, None)
        self.vision_s += time.perf_counter() - before_s
        return piece
