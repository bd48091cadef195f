"""Rows that arrive in pieces of any size, handed on in pieces of the wanted size, counted exactly.

Pieces are tensors whose first axis counts rows: tiles, features, or tokens. At most one wanted
piece and one arriving piece are held. Knows no stage.
"""

from collections.abc import Iterable, Iterator

import torch

from llava_video.errors import ConfigError


def rechunk(pieces: Iterable[torch.Tensor], chunk_rows: int) -> Iterator[torch.Tensor]:
    """Yield the same rows in the same order, `chunk_rows` at a time; the last piece may be shorter.

    Args:
        pieces: (n, ...) each, n >= 0, equal but for n.
        chunk_rows: rows of a yielded piece, > 0.

    Yields:
        (chunk_rows, ...), views of an arriving piece where it holds all of them.

    Raises:
        ConfigError: when `chunk_rows` is not positive.
    """
    if chunk_rows < 1:
        raise ConfigError(f"chunk_rows = {chunk_rows}.", "at least 1.")
    held: list[torch.Tensor] = []
    num_held = 0
    for arriving in pieces:
        start, num_rows = 0, arriving.shape[0]
        while start < num_rows:
            stop = min(num_rows, start + chunk_rows - num_held)
            held.append(arriving[start:stop])
            num_held += stop - start
            start = stop
            if num_held == chunk_rows:
                chunk, held, num_held = _joined(held), [], 0
                yield chunk
    if num_held:
        yield _joined(held)


def exactly(
    pieces: Iterable[torch.Tensor], num_rows: int, name: str = "rows"
) -> Iterator[torch.Tensor]:
    """Yield the pieces unchanged and see to it that their rows add up to the number planned.

    Args:
        pieces: (n, ...) each.
        num_rows: what they must add up to.
        name: what a row is, for the message.

    Raises:
        ConfigError: as soon as there are more, or at the end when there are fewer.
    """
    num_seen = 0
    for piece in pieces:
        num_seen += piece.shape[0]
        if num_seen > num_rows:
            raise ConfigError(
                f"{num_rows} {name} were planned, at least {num_seen} were made.",
                "plan again: the plan does not describe what is built from it.",
            )
        yield piece
    if num_seen < num_rows:
        raise ConfigError(
            f"{num_rows} {name} were planned, {num_seen} were made.",
            "plan again: the plan does not describe what is built from it.",
        )


def _joined(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
